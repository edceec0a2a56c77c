"""The network between a host and its source fails in every way; from outside, on both kinds of source."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.faults import Rig, rig, through
from tests.support.hosts import until
from tests.support.servers import Server, fresh_database

KINDS = ["postgresql", *(pytest.param(kind, marks=pytest.mark.prove) for kind in ("mariadb", "mysql"))]


@pytest.fixture(scope="module", params=KINDS, name="net")
def _net(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    server: Server = request.getfixturevalue(
        {"postgresql": "postgres_server", "mariadb": "mariadb_server", "mysql": "mysql_server"}[request.param]
    )
    with (
        fresh_database("postgresql" if request.param == "postgresql" else "mysql", server) as database,
        rig(tmp_path_factory.mktemp("net"), database) as made,
    ):
        yield made


def test_a_source_that_refuses(net: Rig) -> None:
    with net.suffering(net.proxy.heal, says="connection"):
        net.proxy.refuse()


@pytest.mark.prove
def test_a_network_that_swallows_everything(net: Rig) -> None:
    with net.suffering(net.proxy.heal, says="answer"):
        net.proxy.begin(black_hole=True)


def test_connections_that_are_cut(net: Rig) -> None:
    """Idle ones are replaced without a word; a read that is cut fails, and the next one goes on."""
    with net.suffering(net.proxy.heal, says="connection") as name:
        net.write(name, rows=20000, width=8)
        net.proxy.begin(cut_at=30000)


@pytest.mark.prove
def test_a_network_that_falls_silent_in_a_read(net: Rig) -> None:
    """What was committed stays; the watchdog ends the run, and the next one goes on from there."""
    name = net.table(rows=40000, width=4)
    net.proxy.begin(bytes_per_second=4_000_000)
    net.replicate(name)
    until(lambda: (net.host.status(name)["progress"] or {}).get("rows", 0) > 500, what="the read")
    net.proxy.begin(black_hole=True)
    error = str(until(lambda: net.failure(name), what="the watchdog"))
    assert "nothing came from the source for" in error or "answer" in error
    net.steady_goes_on()
    net.proxy.heal()
    net.recovers(name)


@pytest.mark.prove
def test_a_slow_network_is_not_a_failure(net: Rig) -> None:
    """Bytes that trickle are bytes: however long a read takes, it is not silent."""
    name = net.table(rows=2000, width=4)
    net.proxy.begin(bytes_per_second=80_000)
    began = time.monotonic()
    net.replicate(name, isActive=False)
    assert net.host.sync(name)["status"] == "success"
    assert time.monotonic() - began > 2, "it was not slow"
    net.proxy.begin(delay_seconds=0.1)
    net.write(name)
    assert net.host.sync(name)["status"] == "success"
    net.proxy.heal()
    assert net.equal(name)


def test_one_byte_at_which_it_is_cut(net: Rig) -> None:
    cut_anywhere(net, seed=1, times=6)


@pytest.mark.prove
@pytest.mark.parametrize("seed", range(2, 12))
def test_any_byte_at_which_it_is_cut(net: Rig, seed: int) -> None:
    cut_anywhere(net, seed=seed, times=40)


def cut_anywhere(net: Rig, *, seed: int, times: int) -> None:
    """Nothing is half applied: after each cut the replica is the source's beginning, and at the end it is all."""
    choose = random.Random(seed)
    name = net.table(rows=4000, width=2)
    net.replicate(name, isActive=False)
    cuts = net.proxy.cuts
    for _ in range(times):
        # Evenly over the magnitudes: in the greeting, in a catalogue's answer, in the rows.
        net.proxy.begin(cut_at=int(10 ** choose.uniform(0, 5.5)))
        net.host.request("POST", f"/data-replication/sync/{name}")
        if choose.random() < 0.3:
            net.write(name, rows=50)
        if choose.random() < 0.2:
            net.host.request("POST", f"/data-replication/reset/{name}", wait="false")
    net.proxy.heal()
    assert net.proxy.cuts > cuts
    until(lambda: not net.host.status(name)["is_running"], what="the end of the last run")
    assert net.host.sync(name)["status"] == "success"
    assert net.equal(name)
    net.host.result("DELETE", f"/data-replication/configure/{name}")


def test_a_broken_frame_is_an_error(net: Rig) -> None:
    """Without TLS: an invalid message ends the run, and nothing of it is kept."""

    def broken(at: int, data: bytes) -> bytes:
        return bytes(byte ^ 0xFF for byte in data) if at < 200_000 else data

    with net.suffering(net.proxy.heal, says="") as name:
        net.proxy.begin(corrupt=broken)
        assert "unexpected" not in str(until(lambda: net.failure(name), what="a failed run"))


def test_a_changed_payload_byte_is_found_by_verify(net: Rig) -> None:
    """Without TLS the change goes unnoticed on the way; the comparison finds and repairs it."""
    name = net.table(rows=50)
    value = net.database.fetch(f"SELECT note FROM {name} WHERE id = 7")[0][0].encode()
    net.proxy.begin(corrupt=lambda at, data: data.replace(value, b"X" + value[1:]))
    # MySQL has TLS by itself.
    clear = {"ssl-mode": "DISABLED"} if net.database.dialect == "mysql" else {}
    net.replicate(name, isActive=False, config=through(net.database, net.proxy, **clear))
    assert net.host.sync(name)["status"] == "success"
    net.proxy.heal()
    assert not net.equal(name)
    found = net.host.result("POST", f"/data-replication/verify/{name}", {"repair": True})
    assert (found["missing"], found["extra"], found["different"]) == (0, 0, 1)
    assert net.equal(name)


def test_a_name_that_is_gone_from_the_dns(net: Rig) -> None:
    config = dict(through(net.database, net.proxy))
    gone = config["connectionString"].replace("@127.0.0.1:", "@no-such-host.invalid:")
    name = net.table()
    net.replicate(name, config={**config, "connectionString": gone})
    error = str(until(lambda: net.failure(name), what="a failed run"))
    assert "no-such-host.invalid" in error or "Name or service not known" in error
    net.steady_goes_on()


def test_a_source_that_hangs_holds_up_no_other(tmp_path: Path, postgres_server: Server) -> None:
    """Ten replications of a source that swallows everything, and a healthy one whose ticks stay on time."""
    with fresh_database("postgresql", postgres_server) as database, rig(tmp_path, database) as net:
        table = net.table()
        net.proxy.begin(black_hole=True)
        # The others wait as long for a connection as the default has it.
        config = {**database.source_config, "host": net.proxy.host, "port": net.proxy.port}
        for number in range(10):
            net.replicate(f"stuck{number}", config=config, table=table)
        until(lambda: any(net.host.status(f"stuck{n}")["is_running"] for n in range(10)), what="the stuck ones")
        for _ in range(4):
            net.steady_goes_on(seconds=3)
        states = {net.host.status(f"stuck{number}")["state"] for number in range(10)}
        assert "waiting" in states, states

"""`allowed_source_hosts` binds the dialects of other plugins too, which say where they connect to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.hosts import CONFIG, HostProcess
from tests.support.odd_dialect import answering, answering_right, configure, odd_host

ALLOWED = 'allowed_source_hosts = ["localhost", "127.0.0.0/8", "/srv/files/*"]\n'
REFUSED = {
    "a host": ("('db.example.com',)", "db.example.com"),
    "one of several": ("('localhost', '192.0.2.7')", "192.0.2.7"),
    "a metadata service": ("['169.254.169.254']", "169.254.169.254"),
    "a path": ("('/etc/files/a.csv',)", "the path /etc/files/a.csv is not in allowed_source_hosts; add it there"),
    "a path that leaves its folder": ("('/srv/files/../x',)", "the path /srv/files/../x is not in"),
    "no host": ("()", "the dialect odd of plugin odd names no host, so allowed_source_hosts cannot be applied to it"),
    "a number": (
        "(7,)",
        "of plugin odd broke a rule, naming its hosts: received int, and str is needed",
    ),
    "one text": ("'localhost'", "naming its hosts: received str, and several values are needed"),
}


@pytest.fixture(scope="module", name="host")
def _host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    config = CONFIG.replace("[plugins.data_replication]\n", f"[plugins.data_replication]\n{ALLOWED}")
    assert ALLOWED in config
    with odd_host(tmp_path_factory.mktemp("hosts"), config) as host:
        yield host


@pytest.fixture(autouse=True)
def _right(host: HostProcess) -> Iterator[None]:
    yield
    answering_right(host)


@pytest.mark.parametrize("case", REFUSED)
def test_a_source_outside_the_list_is_not_opened(host: HostProcess, case: str) -> None:
    """The dialect of another plugin connected wherever it wanted."""
    name = f"refused{list(REFUSED).index(case)}"
    hosts, why = REFUSED[case]
    configure(host, name)
    opened = host.directory / f"opened_{name}"
    opening = f"def opening(settings):\n    open({str(opened)!r}, 'w').close()\n    return Source()"
    answering(host, f"hosts = {hosts}\n{opening}")
    answer = host.request("POST", f"/data-replication/sync/{name}")
    assert answer.status_code == 502, answer.text
    assert why in answer.json()["error"]
    assert not opened.exists()
    answering(host, f"hosts = ('localhost', '127.0.0.1', '/srv/files/a.csv')\n{opening}")
    assert host.sync(name)["status"] == "success"
    assert opened.exists()


def test_a_source_that_moves_away_is_not_read(host: HostProcess) -> None:
    """Where it is, is asked before each run, also of a source that is open."""
    configure(host, "moving")
    answering(host, "hosts = ('localhost',)")
    host.sync("moving")
    answering(host, "hosts = ('db.example.com',)\nbatches = [Batch(rows=[('9', 'z')], bytes=2, last=True)]")
    answer = host.request("POST", "/data-replication/sync/moving")
    assert (answer.status_code, "db.example.com" in answer.json()["error"]) == (502, True)
    assert host.query("SELECT * FROM moving") == [["1", "a"], ["2", "b"]]

"""Durable subscribers: each event at least once and in order, also after SIGKILL and while the subscriber was off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from starbase_data_replication import ReplicationEvent
from starbase_data_replication.plugin import plugin as data_replication
from starbase_data_replication.storage import event_log
from starbase_data_replication.storage.event_log import SubscriberKey
from tests.support.hosts import CONFIG, HostProcess, running, until
from tests.support.plugin_hosts import host_with

# Writes each event to a file. While the file `hold` exists, it takes none; while `fail` exists, it fails.
LEDGER = """
import asyncio, contextlib, json, pathlib
from starbase_host import hookimpl

HERE = pathlib.Path(__file__).parent

def plugin(options):
    return Ledger()

class Ledger:
    async def take(self, event):
        with (HERE / "taken.jsonl").open("a") as file:
            file.write(json.dumps(event.as_dict()) + "\\n")
        if (HERE / "hold").exists():
            await asyncio.Event().wait()
        if (HERE / "fail").exists():
            (HERE / "fail").unlink()
            raise ValueError("a bug")

    @hookimpl
    @contextlib.asynccontextmanager
    async def plugin_lifespan(self, host):
        replication = host.plugin("data_replication")
        replication.on_event(self.take, ["sync", "replication_configured", "run_interrupted"], durable="ledger")
        yield
"""
# Before data_replication: it subscribes before the tables exist.
ON = CONFIG.replace("[plugins.data_replication]", '[plugins.ledger]\nmodule = "ledger"\n\n[plugins.data_replication]')
UNREACHABLE = {"dialect": "mysql", "host": "127.0.0.1", "port": 1, "user": "u", "database": "d"}


def taken(directory: Path) -> list[dict[str, Any]]:
    path = directory / "taken.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def fail_to_sync(host: HostProcess) -> str:
    """Sync from a server that does not exist; returns the id of the run, which is recorded as failed."""
    assert host.request("POST", "/data-replication/sync/t").status_code == 502
    return str(host.logs("t")[0]["run_id"])


def runs(directory: Path) -> list[str]:
    return [event["run_id"] for event in taken(directory) if event["type"] == "sync"]


def test_each_event_comes_at_least_once_and_in_order(tmp_path: Path) -> None:
    (tmp_path / "ledger.py").write_text(LEDGER)
    with running(tmp_path, ON) as host:
        host.configure(name="t", sourceConfig=UNREACHABLE, sourceTable="t", targetTable="t", isActive=False)
        first = fail_to_sync(host)
        until(lambda: runs(tmp_path) == [first], what="the first event")
        assert [event["type"] for event in taken(tmp_path)] == ["replication_configured", "sync"]

        (tmp_path / "hold").touch()
        second, third = fail_to_sync(host), fail_to_sync(host)
        until(lambda: runs(tmp_path) == [first, second], what="the event that the subscriber is taking")
        host.kill()
        (tmp_path / "hold").unlink()
        host.start()
        until(lambda: runs(tmp_path)[-1] == third, what="what the crash has left")
        assert runs(tmp_path) == [first, second, second, third]
        copies = [event for event in taken(tmp_path) if event["run_id"] == second]
        assert copies[0] == copies[1], "the same event, with the same id"

        # Killed right after the answer, when the event may not be sent yet.
        for _ in range(3):
            last = fail_to_sync(host)
            host.kill()
            host.start()
            until(lambda last=last: last in runs(tmp_path), what="the event of before the crash")  # type: ignore[misc]

        (tmp_path / "fail").touch()
        failed, after = fail_to_sync(host), fail_to_sync(host)
        until(lambda: after in runs(tmp_path), what="the event after the one that failed")
        assert runs(tmp_path)[-3:] == [failed, failed, after]


def test_events_wait_for_a_subscriber_that_is_off(tmp_path: Path) -> None:
    (tmp_path / "ledger.py").write_text(LEDGER)
    with running(tmp_path, ON) as host:
        host.configure(name="t", sourceConfig=UNREACHABLE, sourceTable="t", targetTable="t", isActive=False)
        until(lambda: len(taken(tmp_path)) == 1)
    with running(tmp_path, CONFIG) as host:
        missed = [fail_to_sync(host), fail_to_sync(host)]
    with running(tmp_path, ON):
        until(lambda: runs(tmp_path) == missed, what="the events of while it was off")


def event(number: int) -> ReplicationEvent:
    return ReplicationEvent(type="sync", occurred_at="2030-01-01T00:00:00.000Z", id=str(number))


@pytest.mark.anyio
async def test_what_is_kept_for_a_subscriber_that_stays_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "MAX_EVENTS", 5)
    key = SubscriberKey("ledger", "ledger")
    async with host_with(tmp_path, {"data_replication": data_replication({})}) as host:

        def work(connection: Any) -> None:
            def ids() -> list[str]:
                return [each.id for _, each in event_log.next_events(connection, key)[0]]

            event_log.store(connection, event(0), now=0)
            event_log.register(connection, key, ["sync"], now=0)
            assert ids() == [], "of before it was known"
            for number in range(1, 8):
                event_log.store(connection, event(number), now=number)
            assert ids() == ["3", "4", "5", "6", "7"], "the newest events are kept"
            assert event_log.next_events(connection, key)[1], "it has missed some"
            event_log.advance(connection, key, event_log.next_events(connection, key)[0][1][0])
            assert event_log.prune(connection, before=-1, at_most=10) == 2, "what all have taken"
            assert not event_log.next_events(connection, key)[1]
            event_log.prune(connection, before=7, at_most=10)
            assert ids() == [], "it was forgotten"
            event_log.store(connection, event(9), now=9)
            assert connection.execute("SELECT count(*) FROM tmp_replication_events").get == 0, "nobody wants it"

        await host.core.database.write(work)


@pytest.mark.anyio
async def test_what_on_event_refuses(tmp_path: Path) -> None:
    replication = data_replication({})
    async with host_with(tmp_path, {"data_replication": replication}):
        end = replication.on_event(print, durable="ledger")
        with pytest.raises(Exception, match="a durable subscriber ledger already"):
            replication.on_event(print, durable="ledger")
        end()
        replication.on_event(print, durable="ledger")
        with pytest.raises(ValueError, match="did you mean sync"):
            replication.on_event(print, ["snyc"])
        with pytest.raises(ValueError, match="run_progress: not stored"):
            replication.on_event(print, ["sync", "run_progress"], durable="other")
        with pytest.raises(ValueError, match="1 to 63"):
            replication.on_event(print, durable="")

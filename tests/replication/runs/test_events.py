"""The events that plugins get: their types, their fields, and that no subscriber can change what another one gets."""

from __future__ import annotations

import itertools
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.hosts import CONFIG, HostProcess, running, until
from tests.support.servers import TestDatabase

# Writes every event to a file, by the hook and by a callback that asks for all types; the first one spoils its own.
RECORDER = """
import contextlib, json, pathlib
from starbase_data_replication import EVENT_TYPES
from starbase_host import hookimpl

def plugin(options):
    return Recorder(options["file"], options.get("spoils", False))

class Recorder:
    def __init__(self, name, spoils):
        self.path = pathlib.Path(__file__).with_name(name)
        self.spoils = spoils

    def write(self, how, event):
        with self.path.open("a") as file:
            file.write(json.dumps([how, event.as_dict()]) + "\\n")
        if self.spoils:
            object.__setattr__(event, "config_name", "spoilt")
            if event.details is not None:
                event.details.clear()

    @hookimpl(optionalhook=True)
    def replication_event(self, event):
        self.write("hook", event)

    @hookimpl
    @contextlib.asynccontextmanager
    async def plugin_lifespan(self, host):
        host.plugin("data_replication").on_event(lambda event: self.write("callback", event), types=EVENT_TYPES)
        yield
"""
PLUGINS = """
[plugins.spoiler]
module = "recorder"
file = "spoiler.jsonl"
spoils = true

[plugins.witness]
module = "recorder"
file = "events.jsonl"
"""


def events(directory: Path, how: str = "callback", name: str = "events.jsonl") -> list[dict[str, Any]]:
    lines = (directory / name).read_text().splitlines(keepends=True) if (directory / name).exists() else []
    found = [json.loads(line) for line in lines if line.endswith("\n")]
    return [event for by, event in found if by == how]


def types(directory: Path, how: str = "callback") -> list[str]:
    return [event["type"] for event in events(directory, how)]


@pytest.fixture(name="host")
def _host(tmp_path: Path) -> Any:
    (tmp_path / "recorder.py").write_text(RECORDER)
    with running(tmp_path, CONFIG + PLUGINS) as host:
        yield host


def configure(host: HostProcess, database: TestDatabase, **more: Any) -> None:
    body = {"name": "t", "sourceConfig": database.source_config, "sourceTable": "t", "targetTable": "copy"}
    host.configure(**{**body, "isActive": False, "lookbackSeconds": 0, "trackingColumn": "id", **more})


def last(host: HostProcess, type: str) -> dict[str, Any]:
    found = until(lambda: [each for each in events(host.directory) if each["type"] == type], what=f"a {type} event")
    return found[-1]


def test_an_event_has_what_the_record_has(host: HostProcess, postgres_database: TestDatabase) -> None:
    postgres_database.execute("CREATE TABLE t (id int PRIMARY KEY, note text)")
    postgres_database.execute("INSERT INTO t SELECT n, 'note' FROM generate_series(1, 3) n")
    configure(host, postgres_database)
    run = host.sync("t")
    event = last(host, "sync")
    assert event["target_table"] == "copy"
    shared = set(event) & set(run)
    assert shared >= {"kind", "started_at", "rows_read", "bytes_read", "warnings", "error_message", "run_id"}
    assert {name: event[name] for name in shared} == {name: run[name] for name in shared}
    started = last(host, "run_started")
    assert (started["run_id"], started["kind"], started["status"]) == (run["run_id"], "manual", "running")
    assert types(host.directory).index("run_started") < types(host.directory).index("sync")
    configured = last(host, "replication_configured")
    assert (configured["config_name"], configured["details"]) == ("t", {"created": True})
    assert configured["run_id"] is configured["status"] is configured["kind"] is None
    configure(host, postgres_database)
    until(lambda: last(host, "replication_configured")["details"] == {"created": False})
    host.result("DELETE", "/data-replication/configure/t")
    assert last(host, "replication_deleted")["target_table"] == "copy"
    assert types(host.directory).count("host_ready") == types(host.directory, "hook").count("host_ready") == 1


def test_no_subscriber_changes_what_another_one_gets(host: HostProcess, postgres_database: TestDatabase) -> None:
    postgres_database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    configure(host, postgres_database)
    host.sync("t")
    host.result("POST", "/data-replication/verify/t")
    until(lambda: "verify" in types(host.directory) and "verify" in types(host.directory, "hook"))
    for how in ("hook", "callback"):
        (verified,) = (each for each in events(host.directory, how) if each["type"] == "verify")
        (spoilt,) = (each for each in events(host.directory, how, "spoiler.jsonl") if each["type"] == "verify")
        assert verified == spoilt
        assert verified["config_name"] == "t"
        assert verified["details"]["missing"] == 0


def test_runs_that_are_slow_skipped_and_interrupted(host: HostProcess, postgres_database: TestDatabase) -> None:
    postgres_database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    postgres_database.execute("INSERT INTO t SELECT generate_series(1, 100000)")
    configure(host, postgres_database, isActive=True, maxRowsPerSecond=1000, syncIntervalMinutes=0.02)
    skipped = last(host, "run_skipped")
    assert (skipped["status"], skipped["kind"], skipped["target_table"]) == ("skipped", "scheduled", "copy")
    until(lambda: types(host.directory).count("run_progress") >= 2, what="two events of progress")
    host.result("POST", "/data-replication/stop/t")
    interrupted = last(host, "run_interrupted")
    assert interrupted["status"] == "interrupted"
    assert "stopped" in interrupted["error_message"]
    progress = [each for each in events(host.directory) if each["type"] == "run_progress"]
    assert all(each["status"] == "running" and each["run_id"] == interrupted["run_id"] for each in progress)
    assert [each["rows_read"] for each in progress] == sorted({each["rows_read"] for each in progress})
    moments = [datetime.fromisoformat(each["occurred_at"]) for each in progress]
    gaps = [(later - former).total_seconds() for former, later in itertools.pairwise(moments)]
    assert all(gap >= 0.99 for gap in gaps), gaps
    assert "run_progress" not in types(host.directory, "hook"), "a hook cannot say that it wants no progress"


def test_a_run_that_the_end_of_the_host_interrupts(host: HostProcess, postgres_database: TestDatabase) -> None:
    postgres_database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    postgres_database.execute("INSERT INTO t SELECT generate_series(1, 100000)")
    configure(host, postgres_database, maxRowsPerSecond=1000)
    run_id = host.result("POST", "/data-replication/sync/t", wait="false")["run_id"]
    last(host, "run_started")
    host.kill()
    host.start()
    event = last(host, "run_interrupted")
    assert (event["run_id"], event["kind"]) == (run_id, "manual")
    assert "the host ended during the run" in event["error_message"]

"""A dialect declares its features; what it lacks is refused where a user asks for it, with the field and the fix."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.hosts import CONFIG, HostProcess, running

# Dialects of a table of two rows, one for each line of the file beside it: a name, and what it declares, in Python.
OFFERED = """
import contextlib, pathlib
from starbase_data_replication import *
from starbase_host import hookimpl

def plugin(options):
    return Plugin()

class Plugin:
    @hookimpl(optionalhook=True)
    def replication_dialects(self):
        lines = pathlib.Path(__file__).with_name("offered").read_text().splitlines()
        return {name: Dialect(eval(declared)) for name, _, declared in (line.partition(" ") for line in lines)}

class Dialect:
    def __init__(self, declared):
        if declared is not None:
            self.features = declared

    def check(self, settings, source_table):
        return {}

    def identity(self, settings, source_table):
        return ("one", source_table)

    def secret_parts(self, settings):
        return settings

    def hosts(self, settings):
        return ()

    def table_name(self, settings, source_table):
        return TableName(schema=None, name=source_table)

    def open(self, settings, *, max_connections):
        return Source()

class Source:
    async def describe(self, table, tracking_column):
        columns = [Column(name=name, source_type="text", nullable=False, cast=Cast()) for name in ("id", "v")]
        return TableSchema(table=table, columns=tuple(columns), key=("id",), tracking_column="id")

    async def check_filter_and_key(self, schema, *, key):
        pass

    async def count_nulls(self, schema, *, at_most):
        return 0

    async def read_high_watermark(self, schema, options, *, noted_at):
        return HighWatermark()

    async def still_open(self, noted):
        return noted

    def snapshot(self):
        return contextlib.nullcontext(self)

    @contextlib.asynccontextmanager
    async def read(self, plan):
        async def batches():
            yield Batch(rows=[("1", "a"), ("2", "b")], bytes=4, last=True)

        yield batches()

    def comparing(self, schema, columns, options):
        raise NotImplementedError

    async def close(self):
        pass
"""
WRONG = {
    "silent None": "declares no features; set features = frozenset({…}), of these: where, left_filter, keys, snapshot, "
    "compare, resume",
    "text 'where'": "declares no features; set features = frozenset({…})",
    "number 7": "declares no features; set features = frozenset({…})",
    "unknown {'filter'}": "declares the feature filter, which does not exist; known: where, left_filter, keys, ",
    "odd [7]": "declares the feature 7, which does not exist",
    "left {'left_filter', 'keys'}": "declares the feature left_filter without where, which it needs; declare both",
    "compares ['compare']": "declares the feature compare without keys, which it needs; declare both",
    "resumes ['resume']": "declares the feature resume without keys, which it needs; declare both",
}
RIGHT = (
    "bare frozenset()",
    "names ['where', 'keys']",
    "members frozenset(Feature)",
    "filters {'where'}",
)
PLUGIN = '\n[plugins.files]\nmodule = "offered"\n'


def write(directory: Path, *offered: str) -> None:
    (directory / "offered.py").write_text(OFFERED)
    (directory / "offered").write_text("\n".join(offered))


@pytest.fixture(scope="module", name="host")
def _host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    directory = tmp_path_factory.mktemp("features")
    write(directory, *WRONG, *RIGHT)
    with running(directory, CONFIG + PLUGIN) as host:
        yield host
        assert host.stop() == 0


def body(dialect: str, name: str, **more: Any) -> dict[str, Any]:
    source = {"dialect": dialect, "of": name}
    return {"name": name, "sourceConfig": source, "sourceTable": name, "targetTable": name, "isActive": False, **more}


@pytest.mark.parametrize("declared", WRONG, ids=lambda line: line.partition(" ")[0])
def test_a_dialect_whose_features_are_wrong_is_left_out(host: HostProcess, declared: str) -> None:
    name = declared.partition(" ")[0]
    assert f"plugin files: the dialect {name} {WRONG[declared]}" in host.log
    answer = host.request("POST", "/data-replication/configure", body(name, "none"))
    assert (answer.status_code, "sourceConfig.dialect is not a dialect" in answer.text) == (400, True)


@pytest.mark.parametrize("declared", RIGHT, ids=lambda line: line.partition(" ")[0])
def test_a_dialect_with_any_features_copies_a_table(host: HostProcess, declared: str) -> None:
    name = declared.partition(" ")[0]
    host.configure(**body(name, f"table_{name}"))
    assert host.sync(f"table_{name}")["status"] == "success"
    assert host.query(f"SELECT * FROM table_{name}") == [["1", "a"], ["2", "b"]]


LACKING: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "where": ("bare", {"where": "true"}, "where", "filter rows (it lacks the feature where); leave it out"),
    "left_filter": ("filters", {"where": "true"}, "left_filter", "set mode to full, which loads the table whole"),
    "group": ("bare", {"group": "g"}, "snapshot", "read tables as of one moment"),
    "deletes": ("bare", {"deletes": "reconcile"}, "compare", "set mode to full, which follows deletes"),
    "mark": ("bare", {"deletes": {"mark": "gone_at"}}, "compare", "set mode to full, which follows deletes"),
    "verifyIntervalMinutes": ("bare", {"verifyIntervalMinutes": 5}, "compare", "compare rows"),
    "nullTracking": ("bare", {"nullTracking": "ignore"}, "keys", "set it to read or error, or set mode to full"),
}


@pytest.mark.parametrize("case", LACKING)
def test_what_a_dialect_lacks_is_refused_when_it_is_configured(host: HostProcess, case: str) -> None:
    dialect, fields, feature, why = LACKING[case]
    answer = host.request("POST", "/data-replication/configure", body(dialect, "lacking", **fields))
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error.startswith(f"{next(iter(fields))} cannot be used: the dialect {dialect} of plugin files cannot ")
    assert f"(it lacks the feature {feature})" in error
    assert why in error
    host.configure(**body("members", f"has_{case}", **{**fields, **({"group": None} if case == "group" else {})}))


def test_a_filter_without_left_filter_takes_mode_full(host: HostProcess) -> None:
    host.configure(**body("filters", "whole", where="true", mode="full"))


@pytest.mark.parametrize("verb", ["verify", "reconcile"])
def test_what_cannot_be_compared_is_not_verified(host: HostProcess, verb: str) -> None:
    """The source has the method; what counts is what the dialect declares."""
    host.configure(**body("bare", f"compared_{verb}"))
    host.sync(f"compared_{verb}")
    answer = host.request("POST", f"/data-replication/{verb}/compared_{verb}")
    assert answer.status_code == 400, answer.text
    if verb == "verify":
        why = "the dialect bare of plugin files offers no comparison (it lacks the feature compare)"
        assert why in answer.json()["error"]


def test_the_status_says_what_a_replica_without_snapshots_is_worth(host: HostProcess) -> None:
    host.configure(**body("bare", "moments"))
    host.configure(**body("members", "moment"))
    for name in ("moments", "moment"):
        host.sync(name)
    (warning,) = host.status("moments")["warnings"]
    assert "the dialect bare of plugin files reads without a snapshot (it lacks the feature snapshot)" in warning
    assert "track a column that rises with every change" in warning
    assert host.status("moment")["warnings"] == []


def test_a_feature_that_a_dialect_has_lost_fails_the_run(tmp_path: Path) -> None:
    write(tmp_path, "one frozenset(Feature)")
    with running(tmp_path, CONFIG + PLUGIN) as host:
        host.configure(**body("one", "t", where="true"))
        host.sync("t")
    write(tmp_path, "one frozenset()")
    with running(tmp_path, CONFIG + PLUGIN) as host:
        answer = host.request("POST", "/data-replication/sync/t")
        assert answer.status_code == 400, answer.text
        assert "where cannot be used: the dialect one of plugin files cannot filter rows" in answer.json()["error"]
        assert host.query("SELECT * FROM t") == [["1", "a"], ["2", "b"]]

"""The files of a plugin with a new dialect, as `starbase replication new-dialect NAME` writes them.

Their tests pass as they are. Must not know the host's own template.
"""

MODULE = '''"""Adds the dialect $name: each file TABLE.jsonl of a directory is a table, and each line an object."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from starbase_data_replication import (
    NO_AFFINITY,
    Cast,
    Column,
    Dialect,
    Row,
    SourceUnavailable,
    SyncError,
    TableMissing,
    TableName,
    TableSchema,
    hooks,
)
from starbase_data_replication.dialect_kit import BaseDialect, BlockingConnection, RowPlan, Value
from starbase_host import hookimpl

KEY = "id"


def plugin(options: Mapping[str, Any]) -> $title:
    """Make the plugin; the entry point names this function."""
    return $title()


class $title(hooks.ReplicationDialects):
    requires = {"starbase_host": "$api", "data_replication": "1.0"}

    @hookimpl(optionalhook=True)
    def replication_dialects(self) -> Mapping[str, Dialect]:
        return {"$name": ${title}Dialect()}


class ${title}Connection(BlockingConnection):
    """Replace the methods by those of your driver. Its constructor would connect."""

    # One process at a time writes to a file, and appends. A database with several writers must leave this out.
    commits_in_order = True

    def explain(self, error: Exception) -> SyncError | None:
        if isinstance(error, OSError):
            return SourceUnavailable(f"a file cannot be read: {error.strerror}; look at sourceConfig.directory")
        return None

    def describe(self, table: TableName, tracking_column: str) -> TableSchema:
        if not self.path(table).exists():
            raise TableMissing(f"the file {table}.jsonl does not exist; check sourceTable")
        names = list(dict.fromkeys(name for row in self.objects(table) for name in row)) or [KEY]
        columns = tuple(
            Column(name=name, source_type="json", nullable=name != KEY, cast=Cast(declared=NO_AFFINITY))
            for name in names
        )
        return TableSchema(table=table, columns=columns, key=(KEY,), tracking_column=tracking_column)

    def rows(self, plan: RowPlan) -> Iterator[Row]:
        names = [column.name for column in plan.schema.columns]
        for row in self.objects(plan.schema.table):
            value = row.get(plan.schema.tracking_column)
            above = plan.nulls if value is None else plan.floor is None or value > plan.floor
            if above:
                yield tuple(row.get(name) for name in names)

    def high_watermark(self, schema: TableSchema) -> Value | None:
        values = (row.get(schema.tracking_column) for row in self.objects(schema.table))
        return max((value for value in values if value is not None), default=None)

    def path(self, table: TableName) -> Path:
        return Path(self.settings["directory"]) / f"{table.name}.jsonl"

    def objects(self, table: TableName) -> Iterator[dict[str, Any]]:
        with self.path(table).open(encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)


class ${title}Dialect(BaseDialect):
    connection = ${title}Connection
    address = ("directory",)

    def schema(self) -> Mapping[str, Any]:
        """What a sourceConfig has besides its dialect."""
        directory = {"type": "string", "minLength": 1, "description": "the directory of the files"}
        return {"type": "object", "properties": {"directory": directory}, "required": ["directory"]}
'''
TEST = '''"""Tests of the dialect $name: run `pytest` in this directory."""

import json

pytest_plugins = ["starbase_host.testing"]

PLUGINS = {"data_replication": {}, "$name": {"module": "$name"}}


def write(directory, *rows):
    (directory / "people.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))


def body(directory):
    source = {"dialect": "$name", "directory": str(directory)}
    table = {"name": "people", "sourceTable": "people", "targetTable": "people", "trackingColumn": "changed"}
    return {**table, "sourceConfig": source, "isActive": False}


def test_it_replicates(start_host, tmp_path):
    ada, bea = {"id": 1, "name": "Ada", "changed": 1}, {"id": 2, "name": "Bea", "changed": 2}
    write(tmp_path, ada, bea)
    host = start_host(PLUGINS)
    host.post("/data-replication/configure", body(tmp_path))
    host.post("/data-replication/sync/people")
    assert host.query("SELECT id, name FROM people ORDER BY id") == [[1, "Ada"], [2, "Bea"]]
    write(tmp_path, ada, {**bea, "name": "Béa", "changed": 3}, {"id": 3, "name": "Cleo", "changed": 4})
    host.post("/data-replication/sync/people")
    assert host.query("SELECT id, name FROM people ORDER BY id") == [[1, "Ada"], [2, "Béa"], [3, "Cleo"]]
    assert host.post("/data-replication/verify/people")["run"]["status"] == "success"
    assert host.failures() == []


def test_its_errors(start_host, tmp_path):
    host = start_host(PLUGINS)
    wrong = {**body(tmp_path), "sourceConfig": {"dialect": "$name", "folder": "x"}}
    answer = host.request("POST", "/data-replication/configure", wrong)
    assert answer.status_code == 400
    assert "sourceConfig.directory" in answer.json()["error"]
    host.post("/data-replication/configure", body(tmp_path))
    answer = host.request("POST", "/data-replication/sync/people")
    assert answer.status_code == 502
    assert "the file people.jsonl does not exist" in answer.json()["error"]
'''
CONFIG = """\
# To try the dialect: `starbase serve` in this directory.

[plugins.data_replication]

[plugins.$name]
module = "$name"
"""

NEW_DIALECT = {"$name.py": MODULE, "test_$name.py": TEST, "plugin.toml": CONFIG}

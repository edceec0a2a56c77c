"""Whole schemas for the tests: loaded into a source, then each of its tables replicated and verified."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.hosts import HostProcess
from tests.support.servers import TestDatabase


def load(database: TestDatabase, name: str) -> None:
    """Run the statements of NAME.sql."""
    database.execute(Path(__file__).with_name(f"{name}.sql").read_text(encoding="utf-8"))


def mirror_all(host: HostProcess, database: TestDatabase, tables: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Replicate tables, each by its tracking column, and verify them: table to its run."""
    runs = {}
    for table, tracking in tables.items():
        body = {"name": table, "sourceConfig": database.source_config, "sourceTable": table, "targetTable": table}
        host.configure(**body, trackingColumn=tracking, isActive=False)
        runs[table] = host.sync(table)
        found = host.result("POST", f"/data-replication/verify/{table}")
        assert (found["missing"], found["extra"], found["different"]) == (0, 0, 0), table
        assert found["rows_compared"] == database.fetch(f"SELECT count(*) FROM {table}")[0][0], table
    return runs

"""A first load, or a reset, that was interrupted: the run that finishes it leaves nothing stale."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.support.hosts import running, until
from tests.support.servers import TestDatabase

AT = {"postgresql": "timestamptz NOT NULL DEFAULT now()", "mysql": "timestamp(6) NOT NULL DEFAULT now(6)"}
NOW = {"postgresql": "now()", "mysql": "now(6)"}
ROWS = 3000


@pytest.mark.elsewhere_in_prove
@pytest.mark.parametrize("what", ["first load", "reset"])
def test_the_run_that_finishes_a_load_follows_once_more(
    source_database: TestDatabase, tmp_path: Path, what: str
) -> None:
    database = source_database
    database.execute(f"CREATE TABLE t (id int PRIMARY KEY, v int NOT NULL, at {AT[database.dialect]})")
    begun = datetime(2024, 1, 1)
    rows = ", ".join(f"({number}, 0, '{begun + timedelta(minutes=number)}')" for number in range(ROWS))
    database.execute(f"INSERT INTO t VALUES {rows}")
    body = {"sourceConfig": database.source_config, "sourceTable": "t", "targetTable": "t", "trackingColumn": "at"}
    with running(tmp_path) as host:
        host.configure(name="t", isActive=False, **body)
        if what == "reset":
            host.sync("t")
        host.configure(name="t", maxRowsPerSecond=400)
        host.result("POST", f"/data-replication/{'reset' if what == 'reset' else 'sync'}/t", wait="false")
        table = "t" if what == "first load" else host.query("SELECT 'tmp_replication_shadow_' || id FROM "
                                                            "tmp_replication_configs")[0][0]  # fmt: skip
        exists = "SELECT count(*) FROM sqlite_master WHERE name = ?"
        until(lambda: host.query(exists, table) == [[1]] and host.query(f'SELECT count(*) FROM "{table}"') > [[100]],
              what="the first rows")  # fmt: skip
        host.result("POST", "/data-replication/stop/t")
        assert host.logs("t")[0]["status"] == "interrupted"
        database.execute(f"UPDATE t SET v = 1, at = {NOW[database.dialect]} WHERE id < 50")
        host.configure(name="t", maxRowsPerSecond=None)
        run = host.sync("t")
        assert run["status"] == "success"
        assert run["rows_read"] < ROWS, "the load went on, it did not start over and read all twice"
        assert host.query("SELECT count(*), sum(v) FROM t") == [[ROWS, 50]]

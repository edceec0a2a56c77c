"""A row that takes seconds to take apart: it is done in a thread, and what comes of it is right."""

from __future__ import annotations

from pathlib import Path

from tests.support.hosts import running
from tests.support.servers import TestDatabase

COLUMNS = 100


def test_long_rows_among_short_ones(postgres_database: TestDatabase, tmp_path: Path) -> None:
    columns = ", ".join(f"c{number} numeric" for number in range(COLUMNS))
    names = ", ".join(f"c{number}" for number in range(COLUMNS))
    long, short = (", ".join([value] * COLUMNS) for value in ("1e131071", "0.5"))
    postgres_database.execute(f"CREATE TABLE t (id int PRIMARY KEY, {columns})")
    for identity, values in enumerate((short, long, short, long, short)):
        postgres_database.execute(f"INSERT INTO t (id, {names}) VALUES ({identity}, {values})")
    with running(tmp_path) as host:
        host.configure(
            name="t", isActive=False, sourceTable="t", targetTable="t", trackingColumn="id",
            sourceConfig=postgres_database.source_config,
        )  # fmt: skip
        host.sync("t")
        lengths = host.query("SELECT length(c0), length(c99) FROM t ORDER BY id")
        assert lengths == [[3, 3], [131_072, 131_072]] * 2 + [[3, 3]]
        verified = host.result("POST", "/data-replication/verify/t")
        assert [verified[kind] for kind in ("missing", "extra", "different")] == [0, 0, 0]

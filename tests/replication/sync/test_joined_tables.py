"""A table that leaves those below a source and comes back: rows that were written meanwhile lie below the floor."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from starbase_data_replication.sync.schema_changes import moved
from tests.support.hosts import HostProcess, running
from tests.support.servers import TestDatabase

pytestmark = pytest.mark.xdist_group("joined_tables")
_names = itertools.count(1)

PARTITIONED = """
    CREATE TABLE t (id int PRIMARY KEY) PARTITION BY RANGE (id);
    CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (1) TO (100) PARTITION BY RANGE (id);
    CREATE TABLE leaf PARTITION OF t1 FOR VALUES FROM (1) TO (50);
    CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (100) TO (200);
    INSERT INTO t VALUES (1), (2), (150)
"""
INHERITED = """
    CREATE TABLE t (id int PRIMARY KEY);
    CREATE TABLE child (PRIMARY KEY (id)) INHERITS (t);
    INSERT INTO child VALUES (1), (2), (150)
"""
# What is made; how a table leaves, where rows are written, and how it comes back.
AWAY = {
    "a partition": (PARTITIONED, "ALTER TABLE t1 DETACH PARTITION leaf", "leaf",
                    "ALTER TABLE t1 ATTACH PARTITION leaf FOR VALUES FROM (1) TO (50)"),
    "the partition above": (PARTITIONED, "ALTER TABLE t DETACH PARTITION t1", "leaf",
                            "ALTER TABLE t ATTACH PARTITION t1 FOR VALUES FROM (1) TO (100)"),
    "a partition, concurrently": (PARTITIONED, "ALTER TABLE t1 DETACH PARTITION leaf CONCURRENTLY", "leaf",
                                  "ALTER TABLE t1 ATTACH PARTITION leaf FOR VALUES FROM (1) TO (50)"),
    "a child": (INHERITED, "ALTER TABLE child NO INHERIT t", "child", "ALTER TABLE child INHERIT t"),
}  # fmt: skip


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    with running(Path(tmp_path_factory.mktemp("joined"))) as host:
        yield host


@pytest.mark.parametrize("what", AWAY)
def test_rows_written_while_a_table_was_away_arrive(
    host: HostProcess, postgres_database: TestDatabase, what: str
) -> None:
    """Between two syncs: neither of them sees the table missing."""
    database, name = postgres_database, f"t{next(_names)}"
    make, leave, table, come_back = AWAY[what]
    database.execute(make)
    host.configure(
        name=name, sourceConfig=database.source_config, sourceTable="t", targetTable=name, trackingColumn="id",
        keyColumns=["id"], isActive=False, settleSeconds=0, lookbackSeconds=0,
    )  # fmt: skip
    for _ in range(3):
        host.sync(name)
    # What a sync of no change reads: the floor's own row at most.
    assert host.sync(name)["rows_read"] <= 1
    database.execute(leave)
    database.execute(f"INSERT INTO {table} VALUES (3)")
    database.execute(come_back)
    assert host.sync(name)["status"] == "success"
    assert host.query(f"SELECT id FROM {name} ORDER BY id") == [[1], [2], [3], [150]]
    assert any("joined" in warning for warning in host.status(name)["warnings"])
    assert host.sync(name)["rows_read"] <= 1


def test_what_older_versions_stored_is_the_same_table() -> None:
    """They stored no sign of how a table has joined; an upgrade must not load everything again."""
    assert moved({"1": "a", "2": "b"}, {"1": "a", "2@7": "b"}) == ((), ())
    assert moved({"1": "a", "2": "b"}, {"1": "a", "2@7@8": "c"}) == (("2@7@8",), ())
    assert moved({"1": "a", "2@7": "b"}, {"1": "a", "2@8": "b"}) == ((), ("2@8",))
    assert moved({"1": "a", "2@7": "b"}, {"1": "a", "2@7": "b", "3@9": "c"}) == ((), ("3@9",))

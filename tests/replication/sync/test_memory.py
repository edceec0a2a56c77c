"""What a first load takes of memory, in a host as a user runs it, with any table content."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.hosts import running
from tests.support.memory import MEBIBYTE, watched
from tests.support.servers import TestDatabase, sequence

SPARE = 60 * MEBIBYTE

NARROW, WIDE = 20_000, 300
FILL = {
    "postgresql": (
        "CREATE TABLE t (id int PRIMARY KEY, body text);"
        f"INSERT INTO t SELECT n, 'x' FROM generate_series(1, {NARROW}) n;"
        f"INSERT INTO t SELECT {NARROW} + n, repeat('xyz_', {MEBIBYTE // 4}) FROM generate_series(1, {WIDE}) n"
    ),
    "mysql": (
        "CREATE TABLE t (id int PRIMARY KEY, body longtext);"
        f"INSERT INTO t SELECT seq, 'x' FROM {sequence(NARROW)};"
        f"INSERT INTO t SELECT {NARROW} + seq, repeat('xyz_', {MEBIBYTE // 4}) FROM {sequence(WIDE)}"
    ),
}


@pytest.mark.prove
def test_wide_rows_after_narrow_ones_take_no_more_than_a_few_of_them(
    source_database: TestDatabase, tmp_path: Path
) -> None:
    source_database.execute(FILL[source_database.dialect])
    with running(tmp_path) as host:
        body = {"sourceConfig": source_database.source_config, "sourceTable": "t", "targetTable": "t"}
        host.configure(name="t", isActive=False, **body)
        with watched(host.pid) as seen:
            assert host.sync("t")["rows_read"] == NARROW + WIDE
        assert seen[1] - seen[0] < SPARE + 4 * MEBIBYTE

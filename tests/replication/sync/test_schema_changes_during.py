"""The source table changes its shape while a sync is under way: between the look at it and the read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from starbase_data_replication.model.options import Replication
from starbase_data_replication.model.runs import Progress
from starbase_data_replication.sources.features import RegisteredDialect
from starbase_data_replication.sources.mysql.dialect import MysqlDialect
from starbase_data_replication.sources.postgresql.dialect import PostgresqlDialect
from starbase_data_replication.sources.protocols import Dialect
from starbase_data_replication.sync.identity import identity_of
from starbase_data_replication.sync.sync import Sync, SyncResult
from starbase_host import Clock, Database
from tests.support.servers import TestDatabase
from tests.support.stored import under_way

DIALECTS: dict[str, Dialect] = {"postgresql": PostgresqlDialect(), "mysql": MysqlDialect()}


def synced(
    directory: Path, database: TestDatabase, between: Callable[[], None]
) -> tuple[SyncResult, list[tuple[Any, ...]]]:
    """Three syncs of `t`; `between` runs after the second one has looked at the table. The second, and the rows."""
    dialect = DIALECTS[database.dialect]
    replication = Replication(
        name="t", source_config=database.source_config, source_table="t", target_table="t", tracking_column="id"
    )

    async def main() -> tuple[SyncResult, list[tuple[Any, ...]]]:
        internal = Database(directory / "replica.db")
        internal.open()
        source: Any = dialect.open(database.source_config, max_connections=2)
        try:
            await internal.migrate("data_replication", "starbase_data_replication.storage.migrations")
            stored = await internal.write(partial(under_way, replication=replication))

            async def sync() -> SyncResult:
                return await Sync(
                    stored=stored, source=source, table=dialect.table_name(database.source_config, "t"),
                    identity=identity_of(["t"], replication), database=internal, clock=Clock(),
                    progress=Progress(started_at=0.0), dialect=RegisteredDialect(label="the dialect"),
                ).run()  # fmt: skip

            await sync()
            describe = source.describe
            changed: list[bool] = []

            async def describe_and_change(*arguments: Any) -> Any:
                schema = await describe(*arguments)
                if not changed:
                    changed.append(True)
                    await asyncio.to_thread(between)
                return schema

            source.describe = describe_and_change
            second = await sync()
            await sync()
            rows = await internal.read(lambda connection: connection.execute("SELECT * FROM t ORDER BY 1").fetchall())
            return second, rows
        finally:
            await source.close()
            internal.close()

    return asyncio.run(main())


@pytest.mark.parametrize("change", ["ALTER TABLE t DROP COLUMN n", "ALTER TABLE t RENAME COLUMN n TO m"])
@pytest.mark.elsewhere_in_prove
def test_a_column_that_is_gone_by_the_time_of_the_read(
    source_database: TestDatabase, tmp_path: Path, change: str
) -> None:
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY, n int)")
    source_database.execute("INSERT INTO t VALUES (1, 1)")

    def between() -> None:
        source_database.execute(change)
        source_database.execute("INSERT INTO t (id) VALUES (2)")

    second, rows = synced(tmp_path, source_database, between)
    assert [row[0] for row in rows] == [1, 2]
    assert any("column n (" in warning and "was dropped" in warning for warning in second.warnings)


@pytest.mark.elsewhere_in_prove
def test_a_type_that_is_another_by_the_time_of_the_read(source_database: TestDatabase, tmp_path: Path) -> None:
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY, n int)")
    source_database.execute("INSERT INTO t VALUES (1, 1)")
    change = {
        "postgresql": "ALTER TABLE t ALTER COLUMN n TYPE text USING '00' || n",
        "mysql": "ALTER TABLE t MODIFY n varchar(9)",
    }[source_database.dialect]

    def between() -> None:
        source_database.execute(change)
        source_database.execute("UPDATE t SET n = '007'")
        source_database.execute("INSERT INTO t VALUES (2, '08')")

    # However the sync that met it ended, the next one loads the table again.
    _, rows = synced(tmp_path, source_database, between)
    assert rows == [(1, "007"), (2, "08")]

"""The source table changes its shape between two syncs: what the replica, the log and the events say of it.

Each case is a test on both databases. The oracle is a second replication that loads the changed table afresh.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.support.hosts import CONFIG, LISTENER, HostProcess, events_of, until
from tests.support.servers import TestDatabase

CREATE = {
    "postgresql": "CREATE TABLE t (id int PRIMARY KEY, name varchar(20), n int, at timestamptz)",
    "mysql": "CREATE TABLE t (id int PRIMARY KEY, name varchar(20), n int, at timestamp(6) NULL)",
}
FILL = "INSERT INTO t (id, name, n, at) VALUES (1, '007', 7, '2024-01-01'), (2, '8', 8, '2024-01-02')"
ADD_ROW = "INSERT INTO t (id, name, at) VALUES (3, 'new', '2024-01-03')"


@pytest.fixture(scope="module", name="host")
def _host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    directory = tmp_path_factory.mktemp("drift")
    (directory / "listener.py").write_text(LISTENER)
    with HostProcess(directory, f'{CONFIG}\n[plugins.listener]\nmodule = "listener"\n') as host:
        yield host


class Mirror(NamedTuple):
    """One table of a fresh database, and its replication `name` into the table of the same name."""

    host: HostProcess
    database: TestDatabase
    name: str

    def alter(self, **sql: str) -> None:
        """Run the statement of this dialect: `both`, or `postgresql` and `mysql`."""
        self.database.execute(sql.get("both") or sql[self.database.dialect])

    def configure(self, **more: Any) -> None:
        body = {"name": self.name, "sourceConfig": self.database.source_config, "sourceTable": "t"}
        options = {"isActive": False, "trackingColumn": "at", "settleSeconds": 0, "lookbackSeconds": 0}
        self.host.configure(**{**body, "targetTable": self.name, **options, **more})

    def sync(self) -> dict[str, Any]:
        return self.host.sync(self.name)

    def fails(self) -> str:
        """The error of a sync that must fail; the replica stays as it is."""
        before = self.rows()
        answer = self.host.request("POST", f"/data-replication/sync/{self.name}")
        assert answer.status_code == 502, answer.text
        assert self.rows() == before
        return str(answer.json()["error"])

    def rows(self, columns: str = "*") -> list[list[Any]]:
        return self.host.query(f'SELECT {columns} FROM "{self.name}" ORDER BY 1')

    def changes(self) -> list[dict[str, Any]]:
        """The events of type schema_change."""
        events = events_of(self.host.directory)
        return [each for each in events if each["type"] == "schema_change" and each["config_name"] == self.name]

    def reports(self, *words: str) -> None:
        """The change is in the log, and in one event."""
        (event,) = until(self.changes, what="the event")
        logged = self.host.logs(self.name)[0]
        said = [event["details"]["changes"], [logged["error_message"], *logged["warnings"]]]
        for place in said:
            assert all(word in json.dumps(place, ensure_ascii=False) for word in words), place

    def is_as_if_loaded_afresh(self) -> None:
        """The replica holds what a new one does, in the columns that the source has; and verify agrees."""
        fresh = Mirror(self.host, self.database, f"{self.name}_fresh")
        fresh.configure()
        fresh.sync()
        named = self.host.query("SELECT name, type FROM pragma_table_xinfo(?)", fresh.name)
        mine = self.host.query("SELECT name, type FROM pragma_table_xinfo(?)", self.name)
        assert [column for column in named if column not in mine] == []
        columns = ", ".join(f'"{name}", typeof("{name}")' for name, _ in named)
        assert self.rows(columns) == fresh.rows(columns)
        verified = self.host.result("POST", f"/data-replication/verify/{self.name}")
        assert [verified[kind] for kind in ("missing", "extra", "different")] == [0, 0, 0]


@pytest.fixture(name="mirror")
def _mirror(host: HostProcess, source_database: TestDatabase) -> Mirror:
    mirror = Mirror(host, source_database, f"t_{source_database.name}")
    source_database.execute(CREATE[source_database.dialect])
    source_database.execute(FILL)
    mirror.configure()
    mirror.sync()
    return mirror


def test_a_column_that_is_added_is_filled_from_then_on(mirror: Mirror) -> None:
    mirror.alter(both="ALTER TABLE t ADD COLUMN note varchar(10) DEFAULT 'old'")
    mirror.alter(both=ADD_ROW)
    mirror.sync()
    assert mirror.rows("id, note") == [[1, None], [2, None], [3, "old"]]
    mirror.reports("column note (", "was added")
    assert "onSchemaChange to backfill" in json.dumps(mirror.host.status(mirror.name)["warnings"])
    mirror.sync()
    assert len(mirror.changes()) == 1
    verified = mirror.host.result("POST", f"/data-replication/verify/{mirror.name}", {"repair": True})
    assert verified["different"] == 2
    mirror.is_as_if_loaded_afresh()


def test_a_column_that_is_added_is_backfilled(mirror: Mirror) -> None:
    mirror.configure(onSchemaChange="backfill")
    mirror.alter(both="ALTER TABLE t ADD COLUMN note varchar(10) DEFAULT 'old'")
    mirror.sync()
    mirror.reports("column note (", "was added")
    assert mirror.rows("id, note") == [[1, "old"], [2, "old"]]
    mirror.is_as_if_loaded_afresh()


@pytest.mark.elsewhere_in_prove
@pytest.mark.parametrize(
    "change", ["ALTER TABLE t ADD COLUMN note int", "ALTER TABLE t DROP COLUMN n", "ALTER TABLE t RENAME COLUMN n TO m"]
)
def test_a_change_may_be_an_error(mirror: Mirror, change: str) -> None:
    mirror.configure(onSchemaChange="error")
    mirror.alter(both=change)
    assert "onSchemaChange is error: reset the replication" in mirror.fails()
    mirror.fails()
    mirror.reports("column")
    assert mirror.host.status(mirror.name)["consecutive_failures"] == 2
    mirror.host.result("POST", f"/data-replication/reset/{mirror.name}")
    mirror.sync()
    mirror.is_as_if_loaded_afresh()


def test_a_column_that_is_dropped_keeps_its_values(mirror: Mirror) -> None:
    """Those of rows that change afterwards too: only rows that come in later have none."""
    mirror.alter(both="ALTER TABLE t DROP COLUMN n")
    mirror.alter(both="UPDATE t SET name = 'changed', at = '2024-02-01' WHERE id = 2")
    mirror.alter(both=ADD_ROW)
    mirror.sync()
    assert mirror.rows("id, name, n") == [[1, "007", 7], [2, "changed", 8], [3, "new", None]]
    mirror.reports("column n (", "was dropped")
    mirror.alter(both="UPDATE t SET name = 'again', at = '2024-02-02' WHERE id = 1")
    mirror.sync()
    assert mirror.rows("id, name, n") == [[1, "again", 7], [2, "changed", 8], [3, "new", None]]
    mirror.is_as_if_loaded_afresh()


@pytest.mark.parametrize("change", ["DROP COLUMN n", "RENAME COLUMN n TO m"])
def test_rows_that_are_read_again_after_a_column_was_dropped_have_not_changed(mirror: Mirror, change: str) -> None:
    """Right after a load of ids, every sync reads the whole table until the lookback has passed."""
    mirror.configure(trackingColumn="id", lookbackSeconds=3600)
    mirror.sync()
    mirror.alter(both=f"ALTER TABLE t {change}")
    run = mirror.sync()
    assert run["rows_read"] == 2
    assert mirror.rows("id, n") == [[1, 7], [2, 8]]
    if "DROP" in change:
        assert run["records_processed"] == 0
    else:
        assert mirror.rows("id, m") == [[1, 7], [2, 8]]
    assert mirror.sync()["records_processed"] == 0


@pytest.mark.elsewhere_in_prove
def test_a_column_that_comes_back_with_another_type(mirror: Mirror) -> None:
    mirror.alter(both="ALTER TABLE t DROP COLUMN n")
    mirror.sync()
    mirror.alter(both="ALTER TABLE t ADD COLUMN n varchar(10) DEFAULT '01'")
    mirror.sync()
    assert mirror.rows("id, n") == [[1, "01"], [2, "01"]]
    mirror.is_as_if_loaded_afresh()


def test_a_column_that_is_renamed_is_one_dropped_and_one_added(mirror: Mirror) -> None:
    mirror.alter(both="ALTER TABLE t RENAME COLUMN name TO title")
    mirror.alter(both="UPDATE t SET at = '2024-02-01' WHERE id = 2")
    mirror.sync()
    assert mirror.rows("id, name, title") == [[1, "007", None], [2, "8", "8"]]
    mirror.reports("column name (", "was dropped", "column title (", "was added")


RETYPED = [
    # column, its new type by dialect, whether rows that were copied before must be read again
    ("n", "bigint", "bigint", False),
    ("n", "varchar(10)", "varchar(10)", True),
    ("n", "numeric(10,2)", "decimal(10,2)", True),
    ("n", "float8", "double", True),
    ("name", "varchar(40)", "varchar(40)", False),
    ("name", "text", "text", None),
    ("name", "varchar(3) USING left(name, 2)", "varchar(3)", True),
    ("n", "smallint USING n + 1", "smallint", True),
    ("name", "int USING name::int", "int", True),
    ("name", "char(9)", "char(9)", True),
    ("name", "bytea USING name::bytea", "varbinary(20)", True),
    ("at", "timestamp", "datetime(6)", True),
    ("at", "timestamptz(0)", "timestamp", None),
    ("at", "date", "date", True),
    ("id", "varchar(10)", "varchar(10)", True),
]


@pytest.mark.elsewhere_in_prove
@pytest.mark.parametrize(("column", "postgresql", "mysql", "reads"), RETYPED)
def test_a_type_that_changes(mirror: Mirror, column: str, postgresql: str, mysql: str, reads: bool | None) -> None:
    mirror.alter(
        postgresql=f"ALTER TABLE t ALTER COLUMN {column} TYPE {postgresql}",
        mysql=f"ALTER TABLE t MODIFY COLUMN {column} {mysql}{' NOT NULL' if column == 'id' else ' NULL'}",
    )
    run = mirror.sync()
    mirror.reports(f"column {column} was ")
    if reads is not None:
        assert (run["rows_read"] == 2) is reads
    mirror.alter(both="INSERT INTO t (id, name, at) VALUES ('3', '33', '2024-01-03')")
    mirror.sync()
    mirror.is_as_if_loaded_afresh()


def test_a_character_set_that_changes(host: HostProcess, either_mysql: TestDatabase) -> None:
    """As texts are repaired that were stored under the wrong one: the bytes stay, and mean another text."""
    mirror = _made(host, either_mysql)
    mirror.alter(mysql="ALTER TABLE t MODIFY COLUMN name varchar(20) CHARACTER SET latin1")
    mirror.alter(mysql="UPDATE t SET name = _latin1 X'C3A9'")
    mirror.sync()
    assert mirror.rows("name") == [["Ã©"], ["Ã©"]]
    for charset, text in (("utf8mb4", "é"), ("latin2", "ĂŠ")):
        mirror.alter(mysql="ALTER TABLE t MODIFY COLUMN name varbinary(20)")
        mirror.alter(mysql=f"ALTER TABLE t MODIFY COLUMN name varchar(20) CHARACTER SET {charset}")
        mirror.sync()
        assert mirror.rows("name") == [[text], [text]]
        mirror.is_as_if_loaded_afresh()


def test_a_key_that_changes_is_an_error_until_reset(mirror: Mirror) -> None:
    mirror.alter(
        postgresql="ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id, name)",
        mysql="ALTER TABLE t MODIFY name varchar(20) NOT NULL, DROP PRIMARY KEY, ADD PRIMARY KEY (id, name)",
    )
    assert (
        f"its key was (id), and is (id, name); reset the replication (POST /data-replication/reset/{mirror.name}"
        in (mirror.fails())
    )
    mirror.fails()
    mirror.reports("its key was (id), and is (id, name)")
    mirror.host.result("POST", f"/data-replication/reset/{mirror.name}")
    mirror.alter(both="INSERT INTO t (id, name, at) VALUES (1, 'other', '2024-01-03')")
    mirror.sync()
    mirror.is_as_if_loaded_afresh()


def test_a_key_that_is_dropped_is_an_error_until_columns_are_named(mirror: Mirror) -> None:
    mirror.alter(postgresql="ALTER TABLE t DROP CONSTRAINT t_pkey", mysql="ALTER TABLE t DROP PRIMARY KEY")
    assert "its key was (id), and is none" in mirror.fails()
    assert "keyColumns" in mirror.fails()
    mirror.configure(keyColumns=["id"])
    mirror.sync()
    mirror.alter(both=ADD_ROW)
    assert mirror.sync()["rows_read"] == 1
    assert mirror.rows("id") == [[1], [2], [3]]


def test_a_table_that_is_dropped_or_renamed_leaves_its_replica(mirror: Mirror) -> None:
    mirror.configure(isActive=True, deletes="reconcile")
    until(lambda: len(mirror.host.logs(mirror.name)) == 2, what="the sync's end")
    mirror.alter(both="ALTER TABLE t RENAME TO moved")
    assert "has no table or view" in mirror.fails()
    mirror.fails()
    mirror.reports("has no table or view")
    assert mirror.host.status(mirror.name)["state"] == "degraded"
    # What comes back under the name may be another table: it is loaded whole.
    mirror.alter(both=CREATE[mirror.database.dialect])
    mirror.alter(both="INSERT INTO t (id, name, at) VALUES (1, 'other', '2023-01-01')")
    mirror.sync()
    assert mirror.host.status(mirror.name)["state"] == "idle"
    mirror.is_as_if_loaded_afresh()


@pytest.mark.parametrize(
    "change",
    ["ALTER TABLE t ADD COLUMN m int", "ALTER TABLE t RENAME COLUMN n TO m"],
)
def test_a_verification_of_a_table_that_has_changed_asks_for_a_sync(mirror: Mirror, change: str) -> None:
    mirror.alter(both=change)
    answer = mirror.host.request("POST", f"/data-replication/verify/{mirror.name}")
    assert answer.status_code == 502
    assert "has changed since the last sync; sync first" in answer.text
    mirror.sync()
    assert mirror.host.request("POST", f"/data-replication/verify/{mirror.name}").status_code == 200


def test_a_column_whose_name_changes_in_case_alone(mirror: Mirror) -> None:
    mirror.alter(
        postgresql='ALTER TABLE t RENAME COLUMN name TO "Name"', mysql="ALTER TABLE t RENAME COLUMN name TO `Name`"
    )
    for n, when in enumerate(("2024-03-01", "2024-03-02")):
        quoted = '"Name"' if mirror.database.dialect == "postgresql" else "`Name`"
        mirror.alter(both=f"UPDATE t SET {quoted} = 'new {n}', at = '{when}' WHERE id = 1")
        mirror.sync()
        assert mirror.rows("id, name") == [[1, f"new {n}"], [2, "8"]]
    mirror.is_as_if_loaded_afresh()


@pytest.mark.parametrize("copied", [True, False])
def test_a_tracking_column_that_changes_its_type(mirror: Mirror, copied: bool) -> None:
    mirror.configure(trackingColumn="n", excludeColumns=[] if copied else ["n"])
    mirror.sync()
    mirror.alter(
        postgresql="ALTER TABLE t ALTER COLUMN n TYPE text", mysql="ALTER TABLE t MODIFY COLUMN n varchar(10) NULL"
    )
    mirror.alter(both="INSERT INTO t (id, n) VALUES (3, '10')")
    mirror.sync()
    assert mirror.rows("id") == [[1], [2], [3]]
    mirror.reports("the tracking column was")


def test_a_tracking_column_that_changes_its_collation(host: HostProcess, postgres_database: TestDatabase) -> None:
    mirror = _made(host, postgres_database)
    mirror.alter(both="ALTER TABLE t ADD COLUMN k text COLLATE \"C\"; UPDATE t SET k = 'Z'")
    mirror.configure(trackingColumn="k")
    mirror.sync()
    mirror.alter(both='ALTER TABLE t ALTER COLUMN k TYPE text COLLATE "und-x-icu"')
    mirror.alter(both="INSERT INTO t (id, k) VALUES (3, 'a')")
    mirror.sync()
    assert mirror.rows("id") == [[1], [2], [3]]


def test_columns_that_exchange_their_names(host: HostProcess, postgres_database: TestDatabase) -> None:
    mirror = _made(host, postgres_database)
    mirror.alter(both="ALTER TABLE t ADD COLUMN m int DEFAULT 5")
    mirror.sync()
    mirror.alter(
        both="ALTER TABLE t RENAME n TO x; ALTER TABLE t RENAME m TO n; ALTER TABLE t RENAME x TO m; "
        "ALTER TABLE t DROP COLUMN name; ALTER TABLE t ADD COLUMN name varchar(20) DEFAULT 'another'"
    )
    mirror.sync()
    assert mirror.rows("id, name, n, m") == [[1, "another", 5, 7], [2, "another", 5, 8]]


def test_a_column_that_says_what_is_deleted_is_dropped(mirror: Mirror) -> None:
    mirror.configure(deletes={"sourceColumn": "n"})
    mirror.sync()
    mirror.alter(both="ALTER TABLE t DROP COLUMN n")
    assert "deletes.sourceColumn: " in mirror.fails()
    answer = mirror.host.request("POST", f"/data-replication/verify/{mirror.name}")
    assert (answer.status_code, "deletes.sourceColumn: " in answer.text) == (502, True)


def test_a_column_that_is_left_out_is_dropped(mirror: Mirror) -> None:
    mirror.configure(excludeColumns=["n"])
    mirror.sync()
    mirror.alter(both="ALTER TABLE t DROP COLUMN n")
    mirror.sync()
    mirror.sync()
    assert mirror.rows("id, name") == [[1, "007"], [2, "8"]]


def test_an_empty_replica_takes_another_shape(mirror: Mirror) -> None:
    mirror.alter(both="DELETE FROM t")
    mirror.host.result("POST", f"/data-replication/reset/{mirror.name}")
    mirror.alter(
        postgresql="ALTER TABLE t ALTER COLUMN n TYPE text", mysql="ALTER TABLE t MODIFY COLUMN n varchar(10) NULL"
    )
    mirror.sync()
    mirror.alter(both="INSERT INTO t (id, n, at) VALUES (1, '007', '2024-03-01')")
    mirror.sync()
    assert mirror.rows("id, n") == [[1, "007"]]
    mirror.configure(rename={"id": "n", "n": "id"})
    mirror.sync()
    assert mirror.rows("n, id") == [[1, "007"]]


def test_another_table_takes_the_place(host: HostProcess, postgres_database: TestDatabase) -> None:
    mirror = _made(host, postgres_database)
    mirror.configure(deletes="reconcile")
    mirror.alter(both="CREATE TABLE u (LIKE t INCLUDING ALL)")
    mirror.alter(both="INSERT INTO u (id, name, at) VALUES (1, 'other', '2023-01-01')")
    mirror.alter(both="ALTER TABLE t RENAME TO old; ALTER TABLE u RENAME TO t")
    mirror.sync()
    mirror.reports("another table has taken its name")
    mirror.is_as_if_loaded_afresh()


def test_a_partitioned_table_takes_the_place(host: HostProcess, postgres_database: TestDatabase) -> None:
    mirror = _made(host, postgres_database)
    mirror.configure(deletes="reconcile")
    mirror.alter(
        both="ALTER TABLE t RENAME TO old; ALTER TABLE old RENAME CONSTRAINT t_pkey TO old_pkey; "
        "CREATE TABLE t (LIKE old INCLUDING ALL) PARTITION BY RANGE (id); "
        "CREATE TABLE low PARTITION OF t FOR VALUES FROM (0) TO (2); CREATE TABLE high PARTITION OF t DEFAULT; "
        "INSERT INTO t SELECT * FROM old WHERE id = 2"
    )
    mirror.sync()
    mirror.reports("it was a table, and is a partitioned table")
    mirror.is_as_if_loaded_afresh()


def test_a_view_takes_the_place(mirror: Mirror) -> None:
    mirror.alter(both="ALTER TABLE t RENAME TO base")
    mirror.alter(both="CREATE VIEW t AS SELECT * FROM base WHERE id < 10")
    assert "it was a table, and is a view" in mirror.fails()
    mirror.reports("it was a table, and is a view")
    mirror.configure(keyColumns=["id"])
    mirror.sync()
    mirror.alter(both="INSERT INTO base (id, name, at) VALUES (3, 'new', '2024-01-03')")
    mirror.sync()
    assert mirror.rows("id, name") == [[1, "007"], [2, "8"], [3, "new"]]


def _made(host: HostProcess, database: TestDatabase) -> Mirror:
    mirror = Mirror(host, database, f"t_{database.name}")
    database.execute(CREATE[database.dialect])
    database.execute(FILL)
    mirror.configure()
    mirror.sync()
    return mirror

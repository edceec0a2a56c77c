"""Rows that the source no longer has, and `deletes` keeps: they survive every load that no user asked for.

A hundred rows are copied, sixty are deleted at the source, and then something makes the replica load again.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import httpx
import pytest

from tests.support.fault_plugins import CRASHER
from tests.support.hosts import CONFIG, HostProcess, running
from tests.support.servers import TestDatabase

CREATE = {
    "postgresql": "CREATE TABLE {name} (id int PRIMARY KEY, name varchar(20), n int, at timestamptz)",
    "mysql": "CREATE TABLE {name} (id int PRIMARY KEY, name varchar(20), n int, at timestamp(6) NULL)",
}
FILL = "INSERT INTO {name} (id, name, n, at) VALUES " + ", ".join(
    f"({n}, 'row {n}', {n}, '2024-01-01')" for n in range(1, 101)
)
UPPER = """
from starbase_host import hookimpl

def plugin(options):
    return Upper()

class Upper:
    @hookimpl(optionalhook=True)
    def transform_batch(self, replication, columns):
        return {name: [value and value.upper() for value in values] for name, values in columns.items()}
"""


@pytest.fixture(scope="module", name="host")
def _host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    directory = tmp_path_factory.mktemp("kept")
    (directory / "upper.py").write_text(UPPER)
    with HostProcess(directory, f'{CONFIG}\n[plugins.upper]\nmodule = "upper"\n') as host:
        yield host


class Mirror(NamedTuple):
    """One table of a fresh database, and its replication `name` into the table of the same name."""

    host: HostProcess
    database: TestDatabase
    name: str

    def execute(self, sql: str, **others: str) -> None:
        """Run statements of both dialects, or of the one that has its own."""
        for each in others.get(self.database.dialect, sql).split("; "):
            self.database.execute(each)

    def configure(self, **more: Any) -> None:
        body = {"name": self.name, "sourceConfig": self.database.source_config, "sourceTable": "t"}
        options = {"isActive": False, "trackingColumn": "at", "settleSeconds": 0, "lookbackSeconds": 0}
        self.host.configure(**{**body, "targetTable": self.name, **options, **more})

    def sync(self) -> dict[str, Any]:
        return self.host.sync(self.name)

    def reset(self) -> dict[str, Any]:
        run: dict[str, Any] = self.host.result("POST", f"/data-replication/reset/{self.name}")["run"]
        return run

    def fails(self) -> str:
        before = self.rows("*")
        answer = self.host.request("POST", f"/data-replication/sync/{self.name}")
        assert answer.status_code == 502, answer.text
        assert self.rows("*") == before
        return str(answer.json()["error"])

    def rows(self, columns: str) -> list[list[Any]]:
        return self.host.query(f'SELECT {columns} FROM "{self.name}" ORDER BY 1')

    def size(self) -> int:
        return int(self.rows("count(*)")[0][0])


@pytest.fixture(name="mirror")
def _mirror(host: HostProcess, source_database: TestDatabase) -> Mirror:
    return _made(host, source_database)


def _made(host: HostProcess, database: TestDatabase, **options: Any) -> Mirror:
    """With rows 1 to 40 still at the source."""
    mirror = Mirror(host, database, f"t_{database.name}")
    mirror.execute(CREATE[database.dialect].format(name="t"))
    mirror.execute(FILL.format(name="t"))
    mirror.configure(**options)
    mirror.sync()
    mirror.execute("DELETE FROM t WHERE id > 40")
    return mirror


def said(run: dict[str, Any], *words: str) -> bool:
    return any(all(word in warning for word in words) for warning in run["warnings"])


TOUCH = "UPDATE t SET name = 'new' WHERE id = 1"
ALTERED = {
    "another type": ("ALTER TABLE t ALTER COLUMN n TYPE text", "ALTER TABLE t MODIFY COLUMN n varchar(10) NULL"),
    "a shorter varchar": (
        "ALTER TABLE t ALTER COLUMN name TYPE varchar(10)",
        "ALTER TABLE t MODIFY COLUMN name varchar(10) NULL",
    ),
}
CONFIGURED: dict[str, dict[str, Any]] = {
    "excludeColumns": {"excludeColumns": ["n"]},
    "columns": {"columns": ["id", "name", "at"]},
    "where": {"where": "n < 1000"},
    "rename": {"rename": {"name": "n", "n": "name"}},
    "trackingColumn": {"trackingColumn": "id"},
}


CAUSES = [*ALTERED, *CONFIGURED, "a new column", "a rebuilt table", "away for one sync"]
# Those that hang on the kind of source; the others, on all but one, are proofs.
EVERYWHERE = {"another type", "a rebuilt table"}


@pytest.mark.parametrize(
    "how", [each if each in EVERYWHERE else pytest.param(each, marks=pytest.mark.elsewhere_in_prove) for each in CAUSES]
)
def test_kept_rows_survive_a_load_that_no_user_asked_for(mirror: Mirror, how: str) -> None:
    if how in ALTERED:
        postgresql, mysql = ALTERED[how]
        mirror.execute("", postgresql=postgresql, mysql=mysql)
    elif how in CONFIGURED:
        mirror.configure(**CONFIGURED[how])
    elif how == "a new column":
        mirror.configure(onSchemaChange="backfill")
        mirror.execute("ALTER TABLE t ADD COLUMN note int DEFAULT 5")
    elif how == "a rebuilt table":
        mirror.execute("CREATE TABLE u AS SELECT * FROM t; ALTER TABLE u ADD PRIMARY KEY (id); DROP TABLE t")
        if mirror.database.dialect == "mysql":
            # It does not tell that another table has taken a name, unless a sync has found none.
            mirror.fails()
        mirror.execute("ALTER TABLE u RENAME TO t")
    else:
        mirror.execute("ALTER TABLE t RENAME TO u")
        assert "no table or view" in mirror.fails()
        mirror.fails()
        mirror.execute("ALTER TABLE u RENAME TO t")
    mirror.execute(TOUCH)
    run = mirror.sync()
    assert mirror.size() == 100
    name = "n" if how == "rename" else "name"
    assert mirror.rows(f"id, {name}")[0] == [1, "new"]
    assert mirror.rows(f"id, {name}")[-1] == [100, "row 100"]
    assert said(run, "60 rows", "kept", "a reset removes them")
    if how == "excludeColumns":
        assert "n" not in [
            column for (column,) in mirror.host.query(f"SELECT name FROM pragma_table_info('{mirror.name}')")
        ]
    # Later syncs go on from there, and say nothing of it.
    mirror.execute("UPDATE t SET name = 'newer', at = '2024-02-01' WHERE id = 1")
    if how != "trackingColumn":
        assert not said(mirror.sync(), "60 rows")
        assert mirror.rows(f"id, {name}")[0] == [1, "newer"]
    assert mirror.size() == 100


@pytest.mark.elsewhere_in_prove
@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"keyColumns": ["n"]}, "its key is different"),
        ({"transforms": {"upper": ["name"]}}, "other plugins change the values of name (transforms)"),
    ],
)
def test_a_load_that_cannot_keep_rows_waits_for_the_users_word(mirror: Mirror, how: dict[str, Any], why: str) -> None:
    mirror.configure(**how)
    for _ in range(2):
        error = mirror.fails()
        assert all(word in error for word in ("60 rows", why, "reset the replication")), error
    # Undone, it is as it was; and the load that has waited keeps the rows after all.
    mirror.configure(keyColumns=None, transforms={})
    assert said(mirror.sync(), "60 rows", "kept")
    assert mirror.size() == 100
    mirror.configure(**how)
    mirror.fails()
    assert said(mirror.reset(), "removed")
    assert mirror.size() == 40


@pytest.mark.elsewhere_in_prove
def test_a_replica_whose_rows_cannot_be_walked_says_that(mirror: Mirror) -> None:
    """Its columns have all the names of SQLite's row number: its key is as it was, and is not what is wrong."""
    mirror.configure(rename={"id": "rowid", "name": "_rowid_", "n": "oid"})
    mirror.sync()
    mirror.configure(rename={"id": "rowid", "name": "_rowid_", "n": "oid"}, excludeColumns=["n"])
    error = mirror.fails()
    assert "rowid, _rowid_, oid" in error
    assert "key" not in error
    assert said(mirror.reset(), "removed", "rowid, _rowid_, oid")


@pytest.mark.elsewhere_in_prove
def test_a_load_that_could_not_keep_rows_goes_on_where_there_are_none(mirror: Mirror) -> None:
    mirror.reset()
    mirror.configure(keyColumns=["n"])
    mirror.sync()
    mirror.configure(transforms={"upper": ["name"]})
    mirror.sync()
    assert mirror.rows("n, name")[0] == [1, "ROW 1"]
    assert mirror.size() == 40


def test_a_key_of_another_form(mirror: Mirror) -> None:
    mirror.execute(
        "",
        postgresql="ALTER TABLE t ALTER COLUMN id TYPE varchar(9)",
        mysql="ALTER TABLE t MODIFY COLUMN id varchar(9) NOT NULL",
    )
    error = mirror.fails()
    assert all(word in error for word in ("60 rows", "key's column id", "another form")), error
    assert said(mirror.reset(), "60 rows", "removed")
    assert mirror.rows("count(*), typeof(id)") == [[40, "text"]]


def test_a_reset_says_what_it_lets_go(mirror: Mirror) -> None:
    assert said(mirror.reset(), "60 rows", "removed")
    assert mirror.size() == 40
    assert not said(mirror.reset(), "removed")


@pytest.mark.elsewhere_in_prove
def test_another_source_keeps_nothing_and_says_so(mirror: Mirror) -> None:
    mirror.execute(CREATE[mirror.database.dialect].format(name="u"))
    mirror.execute("INSERT INTO u (id, name, at) VALUES (1, 'other', '2024-01-01')")
    mirror.configure(sourceTable="u")
    assert said(mirror.sync(), "99 rows", "removed")
    assert mirror.rows("id, name") == [[1, "other"]]


@pytest.mark.elsewhere_in_prove
@pytest.mark.parametrize("kind", ["numeric(9,2)", "bigint", "varchar(20)", "timestamp"])
def test_keys_of_any_kind_are_asked_for(host: HostProcess, source_database: TestDatabase, kind: str) -> None:
    """Four rows have left the filter; the last one is gone, and kept."""
    mirror = Mirror(host, source_database, f"t_{source_database.name}")
    key = {"timestamp": "'2024-01-0{n} 01:02:03'", "numeric(9,2)": "{n}.50"}.get(kind, "{n}")
    mirror.execute(f"CREATE TABLE t (id {kind} NOT NULL PRIMARY KEY, n int, at int)")
    for n in range(1, 10):
        mirror.execute(f"INSERT INTO t VALUES ({key.format(n=n)}, {n}, {n})")
    mirror.configure(where="n < 100")
    mirror.sync()
    mirror.execute("DELETE FROM t WHERE n = 9; UPDATE t SET n = n + 100 WHERE n < 5")
    mirror.configure(excludeColumns=["at"])
    assert said(mirror.sync(), "1 row", "kept")
    assert mirror.rows("n") == [[5], [6], [7], [8], [9]]


@pytest.mark.parametrize("changed", [True, False])
def test_rows_that_have_left_the_filter_are_not_kept(mirror: Mirror, changed: bool) -> None:
    """They were not deleted: the source has them, and says so when it is asked by their keys."""
    mirror.configure(where="n <= 100")
    mirror.sync()
    if changed:
        mirror.configure(where="n <= 30")
    else:
        mirror.execute("UPDATE t SET n = n + 100 WHERE n > 30")
        mirror.execute("ALTER TABLE t ADD COLUMN note int")
        mirror.configure(where="n <= 100", onSchemaChange="backfill")
    run = mirror.sync()
    # Ten rows have left the filter; the sixty that are deleted are there.
    assert mirror.size() == 90
    assert mirror.rows("id")[30] == [41]
    assert said(run, "60 rows", "kept")
    assert said(run, "whether they match the new where is unknown") is changed


def test_marked_rows_are_kept_with_their_marks(mirror: Mirror) -> None:
    mirror.configure(deletes={"mark": "gone_at"}, deletesMaxShare=1)
    mirror.sync()
    mirror.host.query(f"UPDATE {mirror.name} SET gone_at = '2024-05-05' WHERE id BETWEEN 41 AND 50")
    mirror.configure(rename={"name": "title"})
    run = mirror.sync()
    assert said(run, "60 rows", "kept", "when they were deleted is unknown")
    assert mirror.rows("count(*), count(gone_at)") == [[100, 60]]
    assert mirror.rows("id, title, gone_at")[40] == [41, "row 41", "2024-05-05"]
    assert str(mirror.rows("id, gone_at")[99][1]) > "2024-05-05"
    # A row that comes back has no mark any more.
    mirror.execute("INSERT INTO t (id, name, n, at) VALUES (100, 'back', 1, '2024-03-01')")
    mirror.sync()
    assert mirror.rows("id, title, gone_at")[99] == [100, "back", None]


@pytest.mark.elsewhere_in_prove
@pytest.mark.parametrize("options", [{"deletes": "reconcile"}, {"mode": "full"}])
def test_what_follows_deletes_keeps_nothing(mirror: Mirror, options: dict[str, Any]) -> None:
    mirror.configure(**options, rename={"name": "title"})
    run = mirror.sync()
    assert mirror.size() == 40
    assert said(run, "60 rows", "removed")
    mirror.execute("DELETE FROM t WHERE id > 30")
    assert not said(mirror.sync(), "removed")


@pytest.mark.elsewhere_in_prove
def test_rows_without_a_tracking_value_that_are_ignored_are_not_gone(mirror: Mirror) -> None:
    mirror.configure(nullTracking="ignore")
    mirror.sync()
    mirror.execute("UPDATE t SET at = NULL WHERE id <= 10")
    mirror.configure(rename={"name": "title"})
    assert said(mirror.sync(), "60 rows", "kept")
    assert mirror.rows("id")[0] == [11]
    assert mirror.size() == 90


@pytest.mark.elsewhere_in_prove
def test_columns_that_the_source_does_not_have_keep_their_values(mirror: Mirror) -> None:
    """Dropped columns, and those that a user added, in a load that no user asked for."""
    mirror.execute("ALTER TABLE t DROP COLUMN n")
    mirror.sync()
    mirror.host.query(f"ALTER TABLE {mirror.name} ADD COLUMN mine TEXT")
    mirror.host.query(f"UPDATE {mirror.name} SET mine = 'my ' || id WHERE id <> 7")
    mirror.execute(
        "", postgresql="ALTER TABLE t ALTER name TYPE varchar(9)", mysql="ALTER TABLE t MODIFY name varchar(9)"
    )
    mirror.sync()
    rows = mirror.rows("id, n, mine")
    assert (rows[0], rows[6], rows[99]) == ([1, 1, "my 1"], [7, 7, None], [100, 100, "my 100"])


@pytest.mark.elsewhere_in_prove
def test_a_group_keeps_rows_too(mirror: Mirror) -> None:
    mirror.configure(group=mirror.name)
    mirror.sync()
    mirror.configure(rename={"name": "title"})
    assert said(mirror.sync(), "60 rows", "kept")
    assert mirror.rows("id, title")[99] == [100, "row 100"]
    assert mirror.size() == 100


def test_a_new_version_that_stores_another_form_keeps_rows(postgres_database: TestDatabase, tmp_path: Path) -> None:
    with running(tmp_path) as host:
        mirror = _made(host, postgres_database)
    with contextlib.closing(apsw.Connection(str(host.database))) as connection:
        ((position,),) = connection.execute("SELECT position FROM tmp_replication_positions").fetchall()
        stored = json.loads(str(position))
        stored["fingerprint"]["columns"]["n"][1] += " as before"
        connection.execute("UPDATE tmp_replication_positions SET position = ?", (json.dumps(stored),))
    with running(tmp_path) as host:
        mirror = mirror._replace(host=host)
        assert said(mirror.sync(), "60 rows", "kept", "this version stores values in another form")
        assert mirror.size() == 100


def test_a_host_that_ends_before_the_swap_keeps_rows_and_their_count(
    postgres_database: TestDatabase, tmp_path: Path
) -> None:
    (tmp_path / "crasher.py").write_text(CRASHER)
    crasher = '\n[plugins.crasher]\nmodule = "crasher"\npoint = "before a swap"\nnth = 1\n'
    with HostProcess(tmp_path, CONFIG + crasher) as host:
        mirror = _made(host, postgres_database)
        mirror.configure(rename={"name": "title"})
        with pytest.raises(httpx.TransportError):
            mirror.sync()
        host.kill()
        host.start()
        assert said(mirror.sync(), "60 rows", "kept")
        assert mirror.rows("id, title")[99] == [100, "row 100"]
        assert mirror.size() == 100

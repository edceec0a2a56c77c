"""The source's tracking values go back below what was read: TRUNCATE, a restore, a failover that lost its tail.

New rows may then lie where no sync looks any more. What only looks like it, deleted rows at the end, costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.support.hosts import CONFIG, HostProcess
from tests.support.servers import TestDatabase

CREATE = {
    "postgresql": "CREATE TABLE t (id bigserial PRIMARY KEY, name varchar(20), at timestamptz)",
    "mysql": "CREATE TABLE t (id bigint AUTO_INCREMENT PRIMARY KEY, name varchar(20), at timestamp(6) NULL)",
}
RESTART = {
    "postgresql": "ALTER SEQUENCE t_id_seq RESTART WITH {n}",
    "mysql": "ALTER TABLE t AUTO_INCREMENT = {n}",
}
ROWS = 200
WENT_BACK = "went back"


@pytest.fixture(scope="module", name="host")
def _host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    with HostProcess(tmp_path_factory.mktemp("rewind"), CONFIG) as host:
        yield host


class Mirror(NamedTuple):
    """Two hundred rows, copied, with a floor at the last of them."""

    host: HostProcess
    database: TestDatabase
    name: str

    def execute(self, sql: str) -> None:
        for each in sql.split("; "):
            self.database.execute(each)

    def insert(self, word: str, count: int, day: int = 1) -> None:
        at = f"'2024-01-{day:02} 00:00:00'"
        self.execute("INSERT INTO t (name, at) VALUES " + ", ".join(f"('{word} {n}', {at})" for n in range(count)))

    def restart(self, number: int) -> None:
        self.execute(RESTART[self.database.dialect].format(n=number))

    def truncate(self) -> None:
        self.execute("TRUNCATE t" + (" RESTART IDENTITY" if self.database.dialect == "postgresql" else ""))

    def configure(self, **more: Any) -> None:
        body = {"name": self.name, "sourceConfig": self.database.source_config, "sourceTable": "t"}
        options = {"isActive": False, "trackingColumn": "id", "settleSeconds": 0, "lookbackSeconds": 0}
        self.host.configure(**{**body, "targetTable": self.name, **options, **more})

    def sync(self) -> dict[str, Any]:
        return self.host.sync(self.name)

    def fails(self) -> str:
        answer = self.host.request("POST", f"/data-replication/sync/{self.name}")
        assert answer.status_code == 502, answer.text
        return str(answer.json()["error"])

    def rows(self, columns: str = "id, name") -> list[list[Any]]:
        return self.host.query(f"SELECT {columns} FROM {self.name} ORDER BY 1")

    def verified(self) -> list[int]:
        found = self.host.result("POST", f"/data-replication/verify/{self.name}")
        return [found[kind] for kind in ("missing", "extra", "different")]


@pytest.fixture(name="mirror")
def _mirror(host: HostProcess, source_database: TestDatabase) -> Mirror:
    return _made(host, source_database)


def _made(host: HostProcess, database: TestDatabase, **options: Any) -> Mirror:
    mirror = Mirror(host, database, f"t_{database.name}")
    mirror.execute(CREATE[database.dialect])
    mirror.insert("old", ROWS)
    mirror.configure(**options)
    mirror.sync()
    assert mirror.host.status(mirror.name)["watermark"] is not None
    return mirror


def said(run: dict[str, Any], *words: str) -> bool:
    return any(all(word in warning for word in words) for warning in run["warnings"])


@pytest.mark.parametrize("deletes", ["ignore", "reconcile"])
def test_a_truncated_table_whose_ids_begin_again(mirror: Mirror, deletes: str) -> None:
    mirror.configure(deletes=deletes)
    mirror.truncate()
    mirror.insert("new", 50)
    run = mirror.sync()
    assert said(run, WENT_BACK, "loaded again")
    assert mirror.rows()[:50] == [[n + 1, f"new {n}"] for n in range(50)]
    # What the source no longer has is kept, as deletes says, and counted; or gone.
    assert len(mirror.rows()) == (ROWS if deletes == "ignore" else 50)
    assert said(run, f"{ROWS - 50} rows", "kept") is (deletes == "ignore")
    mirror.insert("newer", 20)
    assert not said(mirror.sync(), WENT_BACK)
    assert mirror.rows()[69] == [70, "newer 19"]
    assert mirror.verified() == [0, ROWS - 70 if deletes == "ignore" else 0, 0]


@pytest.mark.elsewhere_in_prove
def test_a_table_that_was_seen_empty_is_read_from_the_start(mirror: Mirror) -> None:
    """Filled again beyond what was read, before the next look."""
    mirror.truncate()
    mirror.sync()
    mirror.insert("new", ROWS + 50)
    mirror.sync()
    assert mirror.rows() == [[n + 1, f"new {n}"] for n in range(ROWS + 50)]


def test_ids_that_begin_again_and_rise_past_the_floor(mirror: Mirror) -> None:
    """The floor lags behind by the lookback: what was noted last is what counts."""
    mirror.configure(lookbackSeconds=3600)
    mirror.insert("more", 100)
    mirror.sync()
    mirror.execute(f"DELETE FROM t WHERE id > {ROWS + 90}")
    run = mirror.sync()
    assert (run["rows_read"], run["warnings"]) == (90, [])
    mirror.truncate()
    mirror.insert("new", ROWS + 50)
    run = mirror.sync()
    assert said(run, WENT_BACK, "loaded again")
    assert mirror.rows()[: ROWS + 50] == [[n + 1, f"new {n}"] for n in range(ROWS + 50)]


@pytest.mark.parametrize("emptied", [True, False], ids=["emptied", "rewritten"])
def test_a_table_that_is_emptied_and_filled_beyond_what_was_read(
    host: HostProcess, source_database: TestDatabase, emptied: bool
) -> None:
    """By the next look its ids stand higher than ever. Another file tells, as after a rewrite; MariaDB shows none."""
    mirror = _made(host, source_database)
    if emptied:
        mirror.truncate()
    else:
        mirror.execute("VACUUM FULL t" if source_database.dialect == "postgresql" else "OPTIMIZE TABLE t")
    mirror.insert("new", ROWS + 50)
    run = mirror.sync()
    if not emptied:
        assert (run["rows_read"], run["warnings"]) == (ROWS + 50, [])
    elif source_database.is_mariadb:
        assert (run["rows_read"], mirror.verified()) == (50, [0, 0, ROWS])
    else:
        assert said(run, WENT_BACK, "loaded again")
        assert mirror.rows() == [[n + 1, f"new {n}"] for n in range(ROWS + 50)]


def test_the_file_of_a_table_is_found_for_any_name(host: HostProcess, mysql_database: TestDatabase) -> None:
    """The dictionary has the name as it is, and not as the file has it; another's that differs in case is not it."""
    name = "o d-d#É'%"
    for each in (name, name.lower()):
        mysql_database.execute(f"CREATE TABLE `{each}` (id int PRIMARY KEY, v int); INSERT INTO `{each}` VALUES (1, 1)")
    mirror = Mirror(host, mysql_database, f"t_{mysql_database.name}")
    mirror.configure(sourceTable=f"`{name}`")
    mirror.sync()
    mysql_database.execute(f"TRUNCATE `{name.lower()}`")
    assert not said(mirror.sync(), WENT_BACK)
    mysql_database.execute(f"TRUNCATE `{name}`; INSERT INTO `{name}` VALUES (1, 2)")
    assert said(mirror.sync(), WENT_BACK)
    assert mirror.rows("v") == [[2]]


def test_a_table_that_is_filled_again_with_some_rows_as_they_were(
    host: HostProcess, postgres_database: TestDatabase
) -> None:
    """Five equal rows at its beginning prove nothing of those behind them."""
    mirror = _made(host, postgres_database)
    mirror.truncate()
    mirror.insert("old", 5)
    mirror.insert("new", ROWS)
    assert said(mirror.sync(), WENT_BACK, "loaded again")
    assert mirror.rows() == [[n + 1, f"old {n}" if n < 5 else f"new {n - 5}"] for n in range(ROWS + 5)]


def test_rows_that_change_while_a_table_is_rewritten(host: HostProcess, postgres_database: TestDatabase) -> None:
    """By a time, what has changed since lies above the floor, and is read anyway."""
    mirror = _made(host, postgres_database, trackingColumn="at")
    mirror.execute("UPDATE t SET name = 'changed', at = '2024-01-02' WHERE id <= 3; DELETE FROM t WHERE id = 4")
    mirror.execute("ALTER TABLE t ADD COLUMN more int NOT NULL DEFAULT 5; VACUUM FULL t")
    run = mirror.sync()
    assert run["rows_read"] == 3
    assert not said(run, WENT_BACK)
    assert mirror.rows()[2] == [3, "changed"]
    run = mirror.sync()
    assert (run["rows_read"], run["warnings"]) == (0, [])


def test_a_failover_that_has_lost_the_last_rows(mirror: Mirror) -> None:
    """The last rows are lost, and others come in under their ids: before the next sync, or after it."""
    mirror.execute(f"DELETE FROM t WHERE id > {ROWS - 20}")
    mirror.restart(ROWS - 19)
    mirror.insert("other", 5)
    run = mirror.sync()
    assert said(run, WENT_BACK, "15 rows", "kept")
    assert mirror.rows()[ROWS - 21 : ROWS - 19] == [[ROWS - 20, f"old {ROWS - 21}"], [ROWS - 19, "other 0"]]
    mirror.execute(f"DELETE FROM t WHERE id > {ROWS - 20}")
    mirror.restart(ROWS - 19)
    # Nothing has taken their place: there is nothing to load, but the ids may come again.
    run = mirror.sync()
    assert (said(run, WENT_BACK), run["rows_read"]) == (False, 0)
    mirror.insert("third", 30)
    mirror.sync()
    assert mirror.rows()[ROWS - 20 :] == [[ROWS - 19 + n, f"third {n}"] for n in range(30)]


def test_deleted_rows_at_the_end_cost_nothing(mirror: Mirror) -> None:
    for n in range(3):
        mirror.execute(f"DELETE FROM t WHERE id > {ROWS - n - 1}")
        # Rows have changed without their ids, as they do: no sync sees that, and it means nothing here.
        mirror.execute(f"UPDATE t SET name = 'changed' WHERE id = {ROWS - n - 1}")
        run = mirror.sync()
        assert (run["rows_read"], run["warnings"], len(mirror.rows())) == (0, [], ROWS)
    mirror.insert("new", 1)
    assert mirror.sync()["rows_read"] == 1
    assert mirror.rows()[-1] == [ROWS + 1, "new 0"]


@pytest.mark.elsewhere_in_prove
def test_a_rewind_may_wait_for_the_users_word(mirror: Mirror) -> None:
    mirror.configure(onSourceRewind="error")
    mirror.truncate()
    mirror.insert("new", 50)
    before = mirror.rows()
    for count in (ROWS + 50, 1):
        error = mirror.fails()
        assert all(word in error for word in (WENT_BACK, "onSourceRewind", "reset")), error
        # That the ids have risen past what was read does not make it good.
        mirror.insert("more", count)
    assert mirror.rows() == before
    mirror.configure(onSourceRewind="reload", deletes="reconcile")
    assert said(mirror.sync(), WENT_BACK, "loaded again")
    assert mirror.verified() == [0, 0, 0]


def test_a_restored_table_whose_times_went_back(host: HostProcess, source_database: TestDatabase) -> None:
    mirror = _made(host, source_database, trackingColumn="at")
    mirror.execute("UPDATE t SET name = 'after the copy', at = '2024-01-02' WHERE id <= 10")
    mirror.sync()
    assert mirror.rows()[0] == [1, "after the copy"]
    # As a restore of the day before leaves it.
    mirror.execute("UPDATE t SET name = 'before', at = '2024-01-01' WHERE id <= 10")
    run = mirror.sync()
    assert said(run, WENT_BACK, "loaded again")
    assert mirror.rows()[0] == [1, "before"]
    # The newest row is deleted, and others have changed without their time: nothing went back.
    mirror.execute("UPDATE t SET at = '2024-01-03' WHERE id = 5")
    mirror.sync()
    mirror.execute("DELETE FROM t WHERE id = 5; UPDATE t SET name = 'silently' WHERE id = 6")
    run = mirror.sync()
    assert not said(run, WENT_BACK)
    assert mirror.rows()[5] == [6, "before"]


def _updated_at(host: HostProcess, database: TestDatabase, newer: int) -> Mirror:
    """Followed by a time: ten rows that changed after a backup was made, and newer ones that came in after those."""
    mirror = _made(host, database, trackingColumn="at")
    mirror.execute("UPDATE t SET name = 'after the backup', at = '2024-01-02' WHERE id BETWEEN 91 AND 100")
    mirror.insert("newer", newer, day=3)
    mirror.sync()
    assert mirror.rows()[90] == [91, "after the backup"]
    return mirror


def _restore(mirror: Mirror) -> None:
    """As a restore leaves it: the rows of the backup, as they were before those that the replica has of them."""
    mirror.execute(f"DELETE FROM t WHERE id > {ROWS}")
    mirror.execute("UPDATE t SET name = 'in the backup', at = '2023-12-01' WHERE id BETWEEN 91 AND 100")


@pytest.mark.parametrize("newer", [150, 650])
def test_a_restore_behind_many_newer_rows(host: HostProcess, source_database: TestDatabase, newer: int) -> None:
    """The replica's newest rows are all gone. What tells are those behind them."""
    mirror = _updated_at(host, source_database, newer)
    _restore(mirror)
    run = mirror.sync()
    assert said(run, WENT_BACK, "loaded again")
    assert mirror.rows()[90] == [91, "in the backup"]
    assert mirror.verified() == [0, newer, 0]


def test_a_restore_behind_many_newer_rows_to_which_others_were_added(
    host: HostProcess, postgres_database: TestDatabase
) -> None:
    """The highest value has risen, so that only another file, or another server, tells of it."""
    mirror = _updated_at(host, postgres_database, 150)
    _restore(mirror)
    mirror.insert("since", 1, day=4)
    mirror.execute("VACUUM FULL t")
    run = mirror.sync()
    assert said(run, WENT_BACK, "loaded again")
    assert mirror.rows()[90] == [91, "in the backup"]


@pytest.mark.parametrize("tracking", ["id", "at"])
@pytest.mark.elsewhere_in_prove
def test_many_rows_at_the_end_that_were_deleted(
    host: HostProcess, source_database: TestDatabase, tracking: str
) -> None:
    mirror = _made(host, source_database, trackingColumn=tracking)
    mirror.insert("newer", 150, day=3)
    mirror.sync()
    for last in (ROWS, ROWS - 1):
        mirror.execute(f"DELETE FROM t WHERE id > {last}")
        run = mirror.sync()
        assert (run["rows_read"], run["warnings"], len(mirror.rows())) == (0, [], ROWS + 150)
    mirror.insert("new", 1, day=4)
    assert mirror.sync()["rows_read"] == 1


@pytest.mark.elsewhere_in_prove
def test_more_rows_at_the_end_that_were_deleted_than_are_passed_over(
    host: HostProcess, source_database: TestDatabase
) -> None:
    mirror = _updated_at(host, source_database, 10_100)
    _restore(mirror)
    run = mirror.sync()
    assert said(run, "the 10000 newest", "verify")
    assert not said(run, WENT_BACK)


def test_a_refill_that_differs_in_the_case_of_texts_alone(host: HostProcess, source_database: TestDatabase) -> None:
    """Neither a collation of the source's nor one of the replica's may take the one for the other."""
    folded = {} if source_database.dialect == "postgresql" else {"name": "nocase"}
    mirror = _made(host, source_database, collations=folded)
    mirror.truncate()
    mirror.insert("OLD", ROWS - 1)
    run = mirror.sync()
    assert said(run, WENT_BACK, "loaded again")
    assert mirror.rows()[0] == [1, "OLD 0"]


def test_a_counter_that_the_role_may_not_read_is_not_trusted(
    host: HostProcess, postgres_database: TestDatabase
) -> None:
    """What tells deleted rows from ids that begin again may be hidden: then the table is loaded, and it is said why."""
    mirror = _made(host, postgres_database)
    mirror.execute("CREATE ROLE reader_of_t LOGIN PASSWORD 'x y'; GRANT SELECT ON t TO reader_of_t")
    try:
        config = {**postgres_database.source_config, "user": "reader_of_t", "password": "x y"}
        mirror.configure(sourceConfig=config)
        mirror.execute(f"DELETE FROM t WHERE id = {ROWS}")
        run = mirror.sync()
        assert (run["rows_read"], run["warnings"]) == (0, [])
        mirror.execute(f"DELETE FROM t WHERE id = {ROWS - 1}; UPDATE t SET name = 'changed' WHERE id = {ROWS - 2}")
        assert said(mirror.sync(), WENT_BACK, "GRANT SELECT ON SEQUENCE")
        mirror.execute("GRANT SELECT ON SEQUENCE t_id_seq TO reader_of_t")
        mirror.execute(f"DELETE FROM t WHERE id = {ROWS - 2}; UPDATE t SET name = 'changed' WHERE id = {ROWS - 3}")
        assert not said(mirror.sync(), WENT_BACK)
    finally:
        mirror.execute("DROP OWNED BY reader_of_t; DROP ROLE reader_of_t")


def test_a_column_that_is_added_makes_no_row_another(mirror: Mirror) -> None:
    """It changes the table's file or its CREATE_TIME, and what old rows have in it was never read."""
    default = "clock_timestamp()" if mirror.database.dialect == "postgresql" else "(now(6))"
    mirror.execute(f"ALTER TABLE t ADD COLUMN more timestamp(6) NOT NULL DEFAULT {default}")
    run = mirror.sync()
    assert (run["rows_read"], said(run, WENT_BACK)) == (0, False)

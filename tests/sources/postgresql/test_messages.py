"""Several transactions of one message: the later ones have a new id, and the time at which the message began."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starbase_data_replication.model import OpenTransactions
from starbase_data_replication.sources.postgresql.transactions import (
    HIDDEN_UNITS,
    UNIT_SECONDS,
    open_transactions,
    still_open,
)
from tests.support.hosts import running, until
from tests.support.servers import TestDatabase

SCRIPT = """
    BEGIN; SELECT pg_advisory_lock(1); COMMIT; BEGIN; SELECT pg_advisory_lock(2); INSERT INTO t VALUES (100); COMMIT
"""
PROCEDURE = """
    CREATE PROCEDURE p() LANGUAGE plpgsql AS $$BEGIN
        PERFORM pg_advisory_lock(1); COMMIT; PERFORM pg_advisory_lock(2); INSERT INTO t VALUES (100); COMMIT;
    END$$
"""


@pytest.mark.parametrize("message", [SCRIPT, "CALL p()"])
@pytest.mark.parametrize("shown", [True, False])
def test_a_message_counts_until_it_has_ended(
    either_postgres: TestDatabase, tmp_path: Path, message: str, shown: bool
) -> None:
    """Whether or not this role sees what the sessions of another are doing."""
    database = either_postgres
    role = f"reader_{database.name[-8:]}"
    database.execute("CREATE TABLE t (id int PRIMARY KEY, at timestamptz DEFAULT statement_timestamp())")
    database.execute(PROCEDURE)
    database.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'a password'; GRANT SELECT ON t TO {role}")
    config = database.source_config if shown else {**database.source_config, "user": role, "password": "a password"}

    def waits_for(number: int) -> None:
        sql = (
            "SELECT 1 FROM pg_locks l JOIN pg_database d ON d.oid = l.database AND d.datname = current_database() "
            f"WHERE l.locktype = 'advisory' AND l.objid = {number} AND l.classid = 0 AND NOT l.granted"
        )
        until(lambda: database.fetch(sql), what="the wait of the message")

    try:
        with running(tmp_path) as host, database.connect() as writer, database.connect() as gate:
            host.configure(
                name="t", sourceConfig=config, sourceTable="t", targetTable="t", trackingColumn="at",
                isActive=False, lookbackSeconds=0, closeWaitSeconds=0, settleSeconds=0,
            )  # fmt: skip
            database.execute("INSERT INTO t VALUES (0, now() - interval '1 hour')")
            host.sync("t")
            gate.execute("SELECT pg_advisory_lock(1), pg_advisory_lock(2)")
            thread = threading.Thread(target=writer.execute, args=(message,))
            thread.start()
            waits_for(1)
            database.execute("INSERT INTO t VALUES (1)")
            host.sync("t")
            gate.execute("SELECT pg_advisory_unlock(1)")
            waits_for(2)
            for number in (2, 3):
                database.execute(f"INSERT INTO t VALUES ({number})")
                host.sync("t")
            gate.execute("SELECT pg_advisory_unlock(2)")
            thread.join()
            host.sync("t")
            assert host.query("SELECT id FROM t ORDER BY id") == [[0], [1], [2], [3], [100]]
            assert host.status("t")["protection"].startswith("transactions")
            # The session is there still, and in another transaction; its message has ended.
            host.sync("t")
            assert host.sync("t")["rows_read"] == 0
            writer.execute("BEGIN; SELECT 1")
            database.execute("INSERT INTO t VALUES (4)")
            host.sync("t")
            writer.execute("COMMIT")
            writer.execute("SELECT 1")
            host.sync("t")
            writer.execute("BEGIN; SELECT 1")
            assert host.sync("t")["rows_read"] == 0
    finally:
        database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def known(*tokens: str, epoch: str = "1") -> OpenTransactions:
    return OpenTransactions(known=True, tokens=frozenset(tokens), epoch=epoch)


@pytest.mark.parametrize(
    ("noted", "now", "still"),
    [
        # As a position keeps it that was stored before tokens named their session.
        ({"v:3/1"}, {"v:3/1#77"}, {"v:3/1"}),
        ({"v:3/1#77", "m:50#77"}, {"v:3/2#77", "m:50#77"}, {"m:50#77"}),
        ({"v:3/1#77", "m:50#77"}, {"v:3/2#77", "m:51#77"}, set()),
        ({"v:3/1#77", "m:50#77"}, {"v:3/2#78", "m:50#78"}, set()),
        # Between two transactions of its message.
        ({"m:50#77"}, {"m:50#77"}, {"m:50#77"}),
        # A role that sees less than at the noting, or more.
        ({"m:50#77"}, {"v:3/2#77", "h:9#77"}, {"h:9#77"}),
        ({"h:9#77"}, {"v:3/2#77", "m:50#77"}, {"m:50#77"}),
        ({"h:9#77"}, {"v:3/2#77", f"m:{10 * UNIT_SECONDS * 1_000_000}#77"}, set()),
        # Seen inside a transaction, and without one.
        ({"v:3/1#77", "h:9#77"}, {"v:3/2#77", "h:10#77"}, {"h:9#77"}),
        ({"v:3/1#77", "h:9#77"}, {"v:4/2#78", "h:9#78"}, set()),
    ],
)
def test_a_session_that_may_be_the_same_counts_as_the_same(noted: set[str], now: set[str], still: set[str]) -> None:
    assert still_open(known(*noted), known(*now)).tokens == still
    assert still_open(known(*noted), known(*now, epoch="2")).ended


@pytest.mark.anyio
@pytest.mark.parametrize("token", ["m:x#77", "m:50", "h:#77", "v:3#77", "x:3/1#77", "m:" + "9" * 30 + "#77"])
async def test_an_id_that_is_not_postgresqls_is_not_recorded(token: str) -> None:
    class Server:
        async def fetch_known(self, sql: str) -> list[dict[str, object]]:
            return [
                {"standby": False, "lists": True, "virtual": "3/1#7", "sessions": token, "prepared": "", "epoch": "1"}
            ]

    async def begin_again(connection: object) -> None:
        raise AssertionError

    with pytest.raises(ValueError, match="PostgreSQL"):
        await open_transactions(Server(), begin_again)


@given(st.lists(st.integers(1, 3), max_size=30))
def test_a_hidden_session_that_is_always_busy_holds_a_floor_for_a_while_only(steps: list[int]) -> None:
    found, at = known("v:3/1#77", "h:0#77"), 0
    for number, step in enumerate(steps, start=2):
        at += step
        found = still_open(found, known(f"v:3/{number}#77", f"h:{at}#77"))
        assert found.ended == (at > HIDDEN_UNITS)
        assert found.sessions == (0 if found.ended else 1)


class Listing:
    """A connection to a server that lists very many sessions."""

    def __init__(self, count: int) -> None:
        self.count = count

    async def fetch_known(self, _: str) -> list[dict[str, object]]:
        sessions = " ".join(f"m:1#{number}" for number in range(self.count))
        return [{"standby": False, "lists": True, "virtual": "", "prepared": "", "sessions": sessions, "epoch": "e"}]


@pytest.mark.anyio
@pytest.mark.parametrize(("count", "known"), [(10_000, True), (200_000, False)])
async def test_a_list_that_no_server_has_is_not_taken_apart(count: int, known: bool) -> None:
    found = await open_transactions(Listing(count), begin_again=unasked)
    assert found.known is known
    assert len(found.tokens) == (count if known else 0)
    assert known or "more transactions than it can have" in found.reason


async def unasked(_: object) -> None:
    raise AssertionError

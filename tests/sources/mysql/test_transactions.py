"""The open transactions of a MySQL or MariaDB server, and which value may therefore become the floor."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pymysql
import pytest

from starbase_data_replication.errors import SourceUnavailable
from starbase_data_replication.model import Candidate, OpenTransactions
from starbase_data_replication.model.options import Options
from starbase_data_replication.sources.mysql import transactions
from starbase_data_replication.sources.mysql.connection import Connection
from starbase_data_replication.sources.mysql.source import MysqlSource
from starbase_data_replication.sources.mysql.transactions import Transaction, TransactionList
from starbase_data_replication.sources.protocols import ReadPlan
from tests.support.mysql_sources import (
    ENDLESS,
    described,
    eventually,
    in_background,
    opened,
    rows_of,
    running,
    wait_until,
    with_source,
)
from tests.support.servers import TestDatabase, ThrowawayMySQL, fresh_database
from tests.support.sessions import Session

ITEMS = (
    "CREATE TABLE items (id bigint AUTO_INCREMENT PRIMARY KEY, at datetime(6), INDEX (at)) ENGINE=InnoDB;"
    "INSERT INTO items (at) VALUES (now(6) - INTERVAL 1 HOUR)"
)


@pytest.fixture
def items(either_mysql: TestDatabase) -> TestDatabase:
    either_mysql.execute(ITEMS)
    return either_mysql


async def noted(source: MysqlSource, database: TestDatabase, table: str = "items") -> Candidate:
    found = await source.read_high_watermark(await described(source, database, table), Options(), noted_at=1000.0)
    assert found.candidate is not None
    return found.candidate


async def now(source: MysqlSource, earlier: OpenTransactions) -> OpenTransactions:
    (later,) = await source.still_open([earlier])
    return later


def note(database: TestDatabase) -> OpenTransactions:
    return with_source(database, lambda source: noted(source, database)).open_transactions


def follow(database: TestDatabase, earlier: OpenTransactions) -> OpenTransactions:
    return with_source(database, lambda source: now(source, earlier))


def test_an_idle_server_has_no_open_transactions(items: TestDatabase) -> None:
    idle = items.connect()
    idle.execute("BEGIN")
    found = note(items)
    assert (found.known, found.ended, found.reason) == (True, True, "innodb_trx and processlist")


def test_an_open_transaction_is_listed_until_it_ends_and_later_ones_are_not(items: TestDatabase) -> None:
    writer = items.connect()
    for end in ("COMMIT", "ROLLBACK"):
        writer.execute("BEGIN; INSERT INTO items (at) VALUES (now(6))")
        earlier = note(items)
        assert len(earlier.tokens) == 1
        assert follow(items, earlier) == earlier
        writer.execute(f"{end}; BEGIN; INSERT INTO items (at) VALUES (now(6))")
        assert follow(items, earlier).ended
        writer.execute("COMMIT")


def test_a_transaction_that_has_only_read_so_far_is_open_and_stays_the_same_when_it_writes(
    items: TestDatabase,
) -> None:
    writer = items.connect()
    writer.execute("BEGIN; SELECT * FROM items")
    earlier = note(items)
    assert len(earlier.tokens) == 1
    writer.execute("INSERT INTO items (at) VALUES (now(6))")
    later = follow(items, earlier)
    assert len(later.tokens) == 1
    assert later.tokens != earlier.tokens
    writer.execute("COMMIT")
    assert follow(items, later).ended
    assert follow(items, earlier).ended


def test_transactions_that_cannot_write_are_not_listed(items: TestDatabase) -> None:
    reader = items.connect()
    reader.execute("START TRANSACTION READ ONLY; SELECT * FROM items")
    # Long enough that the other source's statement still runs.
    items.execute(f"CREATE VIEW many AS SELECT a.seq AS id FROM {ENDLESS}")

    async def while_reading(source: MysqlSource) -> OpenTransactions:
        async with opened(items) as other, other.read(ReadPlan(schema=await described(other, items, "many"))):
            assert running(items, "`many`")
            return (await noted(source, items)).open_transactions

    assert with_source(items, while_reading).ended


def test_a_statement_that_waits_for_a_table_is_open_until_its_transaction_ends(items: TestDatabase) -> None:
    holder, writer = items.connect(), items.connect()
    holder.execute("CREATE TABLE locked (id int PRIMARY KEY); LOCK TABLES locked WRITE")
    # Should the test fail, the statement ends all the same.
    writer.execute("SET lock_wait_timeout = 20; BEGIN")
    with in_background(writer, "INSERT INTO locked SELECT 1 /* waits */"):
        wait_until(lambda: running(items, "waits"))
        earlier = note(items)
        assert {token[:2] for token in earlier.tokens} == {"s:"}
        assert follow(items, earlier) == earlier
        holder.execute("UNLOCK TABLES")
    # The statement has ended, but not its transaction.
    moved = follow(items, earlier)
    assert {token[:2] for token in moved.tokens} == {"t:"}
    writer.execute("COMMIT; BEGIN; INSERT INTO locked VALUES (2)")
    assert follow(items, moved).ended


def test_a_statement_that_computes_before_it_writes_is_open(items: TestDatabase) -> None:
    writer = items.connect()
    with in_background(writer, "INSERT INTO items (at) SELECT now(6) FROM (SELECT sleep(1)) AS slow") as ended:
        wait_until(lambda: running(items, "slow"))
        earlier = note(items)
        assert not ended.done()
        assert {token[:2] for token in earlier.tokens} == {"s:"}
    assert follow(items, earlier).ended


# Statements inside of others, that wait for a lock each.
INSIDE = """
    CREATE FUNCTION takes_long() RETURNS int NO SQL
        BEGIN DO GET_LOCK('{name}1', 60); DO GET_LOCK('{name}2', 60); DO RELEASE_ALL_LOCKS(); RETURN 1; END;
    CREATE TABLE slowed (id int PRIMARY KEY, at datetime(6));
    CREATE TRIGGER slows BEFORE INSERT ON slowed FOR EACH ROW
        BEGIN DO GET_LOCK('{name}1', 60); DO GET_LOCK('{name}2', 60); DO RELEASE_ALL_LOCKS(); END
"""


@pytest.mark.parametrize(
    "statement",
    ["INSERT INTO items (id, at) VALUES (100 + takes_long(), now(6))", "INSERT INTO slowed VALUES (10, now(6))"],
)
def test_a_statement_stays_open_while_statements_inside_it_begin_and_end(items: TestDatabase, statement: str) -> None:
    """MariaDB gives each of those a number, and a time to begin at."""
    with contextlib.suppress(pymysql.err.OperationalError):
        # Without it, a MySQL with a binary log refuses a function that does not declare what it reads.
        items.execute("SET GLOBAL log_bin_trust_function_creators = 1")
    items.execute(INSIDE.format(name=items.name))
    writer, holder = items.connect(), items.connect()
    ((thread,),) = writer.fetch("SELECT CONNECTION_ID()")
    first, second = (f"'{items.name}{number}'" for number in (1, 2))
    holder.fetch(f"SELECT GET_LOCK({first}, 0), GET_LOCK({second}, 0)")
    waits = f"SELECT 1 FROM information_schema.processlist WHERE id = {thread} AND state = 'User lock'"
    with in_background(writer, statement):
        try:
            wait_until(lambda: bool(holder.fetch(waits)))
            earlier = note(items)
            assert {token.split(":")[1] for token in earlier.tokens} == {str(thread)}
            holder.fetch(f"SELECT RELEASE_LOCK({first})")
            wait_until(lambda: holder.fetch(f"SELECT IS_USED_LOCK({first})") == [(thread,)])
            wait_until(lambda: bool(holder.fetch(waits)))
            later = follow(items, earlier)
            assert {token.split(":")[1] for token in later.tokens} == {str(thread)}
        finally:
            holder.close()
    assert follow(items, later).ended


@pytest.mark.mariadb_only
def test_a_session_that_only_reads_does_not_hold_the_floor(items: TestDatabase) -> None:
    reader, watcher = items.connect(), items.connect()
    busy = "SELECT 1 FROM information_schema.processlist WHERE info LIKE '%SELECT sleep(0.3%' AND id <> CONNECTION_ID()"

    async def work(source: MysqlSource) -> None:
        await noted(source, items)
        for text in ("SELECT sleep(0.3)", "/* app */ (SELECT sleep(0.3))"):
            with in_background(reader, "; ".join([text] * 8)) as ended:
                await eventually(lambda: asyncio.to_thread(lambda: bool(watcher.fetch(busy))))
                earlier = (await noted(source, items)).open_transactions
                assert len(earlier.tokens) == 1
                while not earlier.ended:
                    earlier = await now(source, earlier)
                assert not ended.done()

    with_source(items, work)


def test_a_prepared_transaction_stays_open_after_its_session_has_ended(items: TestDatabase) -> None:
    writer = items.connect()
    writer.execute("XA BEGIN 'one'; INSERT INTO items (at) VALUES (now(6))")
    earlier = note(items)
    writer.execute("XA END 'one'; XA PREPARE 'one'")
    assert not follow(items, earlier).ended
    writer.close()
    detached = follow_until(items, earlier, lambda found: {token[:2] for token in found.tokens} == {"x:"})
    assert follow(items, detached) == detached
    items.execute("XA COMMIT 'one'")
    assert follow(items, detached).ended
    assert follow(items, earlier).ended


def follow_until(
    database: TestDatabase, earlier: OpenTransactions, holds: Callable[[OpenTransactions], bool]
) -> OpenTransactions:
    async def work(source: MysqlSource) -> OpenTransactions:
        found: list[OpenTransactions] = []

        async def ask() -> bool:
            found.append(await now(source, earlier))
            return holds(found[-1])

        await eventually(ask)
        return found[-1]

    return with_source(database, work)


def test_after_a_restart_only_prepared_transactions_are_open(items: TestDatabase) -> None:
    preparing, writer = items.connect(), items.connect()
    writer.execute("BEGIN; INSERT INTO items (at) VALUES (now(6))")
    preparing.execute("XA BEGIN 'two'; INSERT INTO items (at) VALUES (now(6))")
    earlier = note(items)
    assert len(earlier.tokens) == 2
    preparing.execute("XA END 'two'; XA PREPARE 'two'")
    items.server.stop()
    items.server.start()
    later = follow_until(items, earlier, lambda found: len(found.tokens) == 1)
    assert {token[:2] for token in later.tokens} == {"x:"}
    items.execute("XA ROLLBACK 'two'")
    assert follow(items, later).ended


@pytest.fixture(params=["ON", "OFF"])
def mysql_with(request: pytest.FixtureRequest) -> Iterator[tuple[str, TestDatabase]]:
    """A MySQL of today whose performance_schema is on, or off."""
    with ThrowawayMySQL(f"--performance-schema={request.param}") as server, fresh_database("mysql", server) as database:
        database.execute(ITEMS)
        yield request.param, database


def test_a_list_of_sessions_that_is_empty_says_nothing(
    mysql_with: tuple[str, TestDatabase], monkeypatch: pytest.MonkeyPatch
) -> None:
    performance_schema, database = mysql_with
    writer = database.connect()
    writer.execute("BEGIN; INSERT INTO items (at) VALUES (now(6))")
    # The list that every server of today has does not depend on it.
    assert note(database).tokens
    # If a later version removes it, its successor works, or the list lacks even our own transaction.
    monkeypatch.setattr(transactions, "SESSIONS", "information_schema.no_longer_there")
    found = note(database)
    assert (found.known, bool(found.tokens)) == ((True, True) if performance_schema == "ON" else (False, False))
    assert performance_schema == "ON" or found.reason == transactions.NOT_LISTED
    # With an answer that tells, a statement that runs is seen there too.
    with in_background(writer, "INSERT INTO items (at) SELECT now(6) FROM (SELECT sleep(1)) AS slow"):
        wait_until(lambda: running(database, "slow"))
        assert note(database).known == (performance_schema == "ON")


def test_without_process_the_list_is_unknown_and_the_reason_names_the_grant(items: TestDatabase) -> None:
    user = f"reader_{items.name}"
    items.execute(f"CREATE USER {user} IDENTIFIED BY 'secret'; GRANT SELECT ON {items.name}.* TO {user}")
    writer = items.connect()
    writer.execute("BEGIN; INSERT INTO items (at) VALUES (now(6))")
    try:
        poor = {"user": user, "password": "secret"}
        found = with_source(items, lambda source: noted(source, items), **poor)
        assert (found.open_transactions.known, found.open_transactions.tokens) == (False, frozenset())
        assert "GRANT PROCESS" in found.open_transactions.reason
        listed = note(items)
        assert listed.known
        assert not with_source(items, lambda source: now(source, listed), **poor).known
        # Without a known list, the longer lookback applies.
        assert found.lookback_value is None
    finally:
        items.execute(f"DROP USER {user}")


def test_many_ask_at_once_and_each_sees_the_server_as_it_is(items: TestDatabase) -> None:
    writer = items.connect()

    async def work(source: MysqlSource) -> list[set[str]]:
        async def one(number: int) -> set[str]:
            await asyncio.sleep(number * 0.01)
            return writers((await noted(source, items)).open_transactions)

        before = await asyncio.gather(*(one(number) for number in range(4)))
        thread = begun(writer)
        after = await asyncio.gather(*(one(number) for number in range(4)))
        writer.execute("COMMIT")
        last = await asyncio.gather(*(one(number) for number in range(4)))
        assert after == [{thread}] * 4
        return [*before, *last]

    assert with_source(items, work) == [set()] * 8


class Looks:
    """The looks that are really taken, in their order: counted, and held up once they have seen what they see."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.before: dict[int, Callable[[Connection], None]] = {}
        self.hold: dict[int, asyncio.Event] = {}
        self.seen: dict[int, asyncio.Event] = {}
        self._real = transactions._list_once
        monkeypatch.setattr(transactions, "_list_once", self._list_once)

    async def _list_once(self, connection: Connection) -> TransactionList:
        self.count += 1
        number = self.count
        if number in self.before:
            self.before[number](connection)
        found = await self._real(connection)
        if number in self.hold:
            self.seen[number].set()
            await self.hold[number].wait()
        return found


def writers(found: OpenTransactions) -> set[str]:
    """The threads of the transactions in it."""
    return {token.split(":")[1] for token in found.tokens if token.startswith("t:")}


def begun(session: Session) -> str:
    """Begin a transaction that writes; its thread."""
    session.execute("BEGIN; INSERT INTO items (at) VALUES (now(6))")
    return str(session.fetch("SELECT CONNECTION_ID()")[0][0])


async def asking(source: MysqlSource, database: TestDatabase) -> asyncio.Task[Candidate]:
    """Somebody who has noted a value, and waits for a look that others have to begin before it can."""
    task = asyncio.create_task(noted(source, database))
    pauses = transactions._pauses[asyncio.get_running_loop()]

    async def waits() -> bool:
        return any(pause.coming for pause in pauses.values())

    await eventually(waits)
    return task


@pytest.mark.anyio
async def test_waiting_callers_share_one_transaction_list(items: TestDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(items, max_connections=20) as source:
        schema = await described(source, items, "items")

        async def ask() -> None:
            found = (await source.read_high_watermark(schema, Options(), noted_at=1000.0)).candidate
            assert found is not None
            assert found.open_transactions.known

        await asyncio.gather(*(ask() for _ in range(20)))
        looks = Looks(monkeypatch)
        began = time.monotonic()
        await asyncio.gather(*(ask() for _ in range(20)))
        pauses = (time.monotonic() - began) / transactions.PAUSE_SECONDS
    assert looks.count <= 3
    assert pauses < 10


def test_a_transaction_list_that_has_begun_is_not_shared_with_later_callers(
    items: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction that begins after the first list is in the list of each caller that notes its value later."""
    early, late = items.connect(), items.connect()

    async def work(source: MysqlSource) -> list[set[str]]:
        looks = Looks(monkeypatch)
        looks.hold[1], looks.seen[1] = asyncio.Event(), asyncio.Event()
        first = asyncio.create_task(noted(source, items))
        await looks.seen[1].wait()
        one = begun(early)
        second = await asking(source, items)
        two = begun(late)
        third = asyncio.create_task(noted(source, items))
        looks.hold[1].set()
        found = [writers((await task).open_transactions) for task in (first, second, third)]
        assert found[0] == set()
        assert one in found[1]
        assert {one, two} <= found[2]
        return found

    with_source(items, work)


@pytest.mark.anyio
async def test_no_shared_list_misses_a_transaction_that_began_before_the_value_was_noted(
    items: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing but the sharing is left to keep them apart.
    monkeypatch.setattr(transactions, "PAUSE_SECONDS", 0.11)
    looks = Looks(monkeypatch)
    sessions = [items.connect() for _ in range(8)]
    async with opened(items, max_connections=8) as source:

        async def one(number: int, session: Session) -> None:
            for turn in range(4):
                await asyncio.sleep((number * 7 + turn * 5) % 11 * 0.01)
                thread = await asyncio.to_thread(begun, session)
                earlier = (await noted(source, items)).open_transactions
                assert thread in writers(earlier)
                assert thread in writers(await now(source, earlier))
                await asyncio.to_thread(session.execute, "COMMIT")
                assert thread not in writers(await now(source, earlier))

        await asyncio.gather(*(one(number, session) for number, session in enumerate(sessions)))
    # 96 were asked for.
    assert looks.count < 64


@pytest.mark.parametrize("how", ["cancelled", "broken"])
def test_a_caller_whose_shared_list_failed_reads_the_list_itself(
    items: TestDatabase, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    writer = items.connect()
    thread = begun(writer)

    async def work(source: MysqlSource) -> None:
        await noted(source, items)
        monkeypatch.setattr(transactions, "PAUSE_SECONDS", 0.5)
        looks = Looks(monkeypatch)
        await noted(source, items)
        looks.before[2] = (lambda connection: connection.close()) if how == "broken" else (lambda _: None)
        first = await asking(source, items)
        others = [asyncio.create_task(noted(source, items)) for _ in range(2)]
        if how == "cancelled":
            await asyncio.sleep(0)
            first.cancel()
        found = await asyncio.gather(first, *others, return_exceptions=True)
        assert isinstance(found[0], asyncio.CancelledError if how == "cancelled" else SourceUnavailable)
        for each in found[1:]:
            assert isinstance(each, Candidate)
            assert writers(each.open_transactions) == {thread}

    with_source(items, work)


@pytest.mark.anyio
async def test_users_with_and_without_the_privilege_do_not_share_a_list(items: TestDatabase) -> None:
    user = f"poor_{items.name}"
    items.execute(f"CREATE USER {user} IDENTIFIED BY 'secret'; GRANT SELECT ON {items.name}.* TO {user}")
    try:
        async with opened(items) as rich, opened(items, user=user, password="secret") as poor:
            for _ in range(2):
                asked = [noted(source, items) for source in (rich, poor, poor, rich)]
                found = [candidate.open_transactions.known for candidate in await asyncio.gather(*asked)]
                assert found == [True, False, False, True]
    finally:
        items.execute(f"DROP USER {user}")


def test_another_client_that_reads_the_list_all_the_time_makes_it_unknown(
    items: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "TRIES", 2)
    monkeypatch.setattr(transactions, "PAUSE_SECONDS", 0.0)
    watcher, writer = items.connect(), items.connect()
    writer.execute("BEGIN; INSERT INTO items (at) VALUES (now(6))")
    earlier = note(items)

    async def work(source: MysqlSource) -> tuple[OpenTransactions, OpenTransactions]:
        stop = False

        def watch() -> None:
            deadline = time.monotonic() + 30
            while not stop and time.monotonic() < deadline:
                watcher.fetch("SELECT trx_id FROM information_schema.innodb_trx")

        watching = asyncio.get_running_loop().run_in_executor(None, watch)
        try:
            writer.execute("COMMIT")
            candidate = await noted(source, items)
            return candidate.open_transactions, await now(source, earlier)
        finally:
            stop = True
            await watching

    unknown, kept = with_source(items, work)
    for found in (unknown, kept):
        assert (found.known, found.transient, "out of date" in found.reason) == (False, True, True)
    assert kept.tokens == earlier.tokens
    monkeypatch.undo()
    assert follow(items, earlier).ended


def test_what_was_committed_before_the_snapshot_opens_is_read(items: TestDatabase) -> None:
    """The purpose of the list: once no noted transaction is open, a new snapshot holds all that they wrote."""
    writer = items.connect()

    async def work(source: MysqlSource) -> list[int]:
        schema = await described(source, items, "items")
        loop = asyncio.get_running_loop()
        counts = []
        for _ in range(8):
            writer.execute("BEGIN; INSERT INTO items (at) VALUES (now(6))")
            earlier = (await noted(source, items)).open_transactions
            committing = loop.run_in_executor(None, writer.execute, "COMMIT")
            while not earlier.ended:
                earlier = await now(source, earlier)
            counts.append(len(await rows_of(source, ReadPlan(schema=schema))))
            await committing
        return counts

    assert with_source(items, work) == list(range(2, 10))


WRITER = Transaction("7", "", "2024-01-01 00:00:00")
SEEN = TransactionList(server="a", started="1", statements={"8": "@100"}, transactions=(WRITER,))


@pytest.mark.parametrize(
    ("later", "tokens"),
    [
        (SEEN, {"t:7::2024-01-01 00:00:00", "s:8:@100"}),
        (TransactionList(server="a", started="1", statements={"8": "@101"}), {"s:8:@100"}),
        (TransactionList(server="a", started="1", statements={"8": "@102"}), set()),
        (
            TransactionList(server="a", started="1", transactions=(WRITER._replace(id="5"),)),
            {"t:7:5:2024-01-01 00:00:00"},
        ),
        (TransactionList(server="a", started="1", transactions=(WRITER._replace(started="later"),)), set()),
        (
            TransactionList(server="a", started="1", transactions=(WRITER._replace(thread="8"),)),
            {"t:8::2024-01-01 00:00:00"},
        ),
        (TransactionList(server="a", started="1", without_session=frozenset({"x:9"})), {"x:9"}),
        (TransactionList(server="a", started="2", statements={"8": "@100"}, transactions=(WRITER,)), set()),
    ],
)
def test_who_is_the_same_where_statements_have_no_number(later: TransactionList, tokens: set[str]) -> None:
    found = transactions.still_open(SEEN.open_transactions, later)
    assert found.known
    assert set(found.tokens) == tokens


NUMBERED = TransactionList(server="a", started="1", at=1000, statements={"8": "20"})


@pytest.mark.parametrize(
    ("later", "tokens"),
    [
        # It is back from a function, in one, or has been in one for as long as may be.
        ([TransactionList(at=1001, statements={"8": "18"})], {"s:8:20"}),
        ([TransactionList(at=1001, statements={"8": "25"})], {"s:8:20+1001"}),
        (
            [TransactionList(at=1001, statements={"8": "25"}), TransactionList(at=1301, statements={"8": "99"})],
            {"s:8:20+1001"},
        ),
        ([TransactionList(at=1001, statements={"8": "25"}), TransactionList(at=1302, statements={"8": "99"})], set()),
        (
            [TransactionList(at=1001, statements={"8": "25"}), TransactionList(at=1302, statements={"8": "19"})],
            {"s:8:20"},
        ),
        (
            [TransactionList(at=1001, statements={"8": "25"}), TransactionList(at=900, statements={"8": "99"})],
            {"s:8:20+900"},
        ),
        # A SELECT is new if its number is; else it is the one that was noted.
        ([TransactionList(at=1001, statements={"8": "25"}, reading=frozenset({"8"}))], set()),
        ([TransactionList(at=1001, statements={"8": "20"}, reading=frozenset({"8"}))], {"s:8:20"}),
        # Idle, or in a transaction.
        ([TransactionList(at=1001, statements={"8": "25"}), TransactionList(at=1002)], set()),
        (
            [
                TransactionList(at=1001, statements={"8": "25"}),
                TransactionList(transactions=(Transaction("8", "5", "x"),)),
            ],
            {"t:8:5:x"},
        ),
    ],
)
def test_who_is_the_same_where_statements_have_a_number(later: list[TransactionList], tokens: set[str]) -> None:
    found = NUMBERED.open_transactions
    for each in later:
        found = transactions.still_open(found, replace(each, server="a", started="1"))
    assert found.known
    assert set(found.tokens) == tokens


def test_a_transaction_keeps_the_id_that_it_was_given() -> None:
    earlier = TransactionList(server="a", started="1", transactions=(WRITER._replace(id="5"),))
    for later in ("6", ""):
        look = TransactionList(server="a", started="1", transactions=(WRITER._replace(id=later),))
        assert transactions.still_open(earlier.open_transactions, look).ended


def test_after_a_transient_failure_noted_transactions_are_unknown() -> None:
    found = transactions.still_open(SEEN.open_transactions, TransactionList(unknown="stale", transient=True))
    assert (found.known, found.transient, found.tokens) == (False, True, SEEN.open_transactions.tokens)


def test_another_server_knows_nothing_of_those_who_were_noted() -> None:
    found = transactions.still_open(SEEN.open_transactions, TransactionList(server="b", started="1"))
    assert (found.known, found.reason) == (False, transactions.OTHER_SERVER)


def calls(count: int) -> int:
    """How many functions are called to find these transactions again."""
    begun = tuple(Transaction(str(number % 7), str(number), "x") for number in range(count))
    later = TransactionList(server="a", started="1", transactions=begun)
    called = 0

    def profile(frame: object, event: str, argument: object) -> None:
        nonlocal called
        called += event in ("call", "c_call")

    noted = later.open_transactions
    sys.setprofile(profile)
    try:
        found = transactions.still_open(noted, later)
    finally:
        sys.setprofile(None)
    assert found == noted
    return called


def test_looking_for_transactions_again_takes_time_in_proportion_to_them() -> None:
    assert calls(400) < 3 * calls(200)

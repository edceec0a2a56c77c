"""Runs a user's SQL under a role, with the plugins' hooks before and after.

Statements that SQLite reports as read-only run on read-only connections. Each role has its own pool of them, so that a
long read blocks neither writes nor the other role. All other statements run on the writer thread, in one transaction.
Owns the limits on time, memory and the answer. The sandbox decides what a role may do; statement.py runs a single
statement. Must not know HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import functools
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import apsw

from starbase_host import temporary
from starbase_host.clock import Clock
from starbase_host.database import Database, ReaderPool
from starbase_host.errors import InvalidRequest, QueryTimeout, StarbaseError, TooLarge, Unavailable
from starbase_host.memory import Memory
from starbase_host.read_rules import ReadDecision, ReadRules, Undecided
from starbase_host.routes import Caller
from starbase_host.sandbox import Guard, NotReadOnly
from starbase_host.sandbox_rules import MIB, Role
from starbase_host.statement import bind, execute, prepare, translate_error
from starbase_host.wire import Body, Budget, JsonSink, Origins, Quota, RowSink, Sink, write_rows

# The limit of one answer, as JSON.
ANSWER_BYTES = 64 * MIB
# After max_seconds, the time to interrupt the reads that run and to checkpoint.
GATE_MARGIN_SECONDS = 5.0
TEMP_BYTES: Mapping[Role, int] = {"client": 256 * MIB, "admin": 4096 * MIB}
TOO_MUCH_TEMPORARY = (
    "the query needs more than {:,.3g} MiB of temporary space, the limit of role {}; sort, group or join fewer rows or "
    "columns, or create an index for it"
)
WATCH_SECONDS = 0.02
# How long a thread may run Python while another one waits to. With Python's default of 5 ms, the event loop could wait
# for eight threads of long queries, 40 ms in all.
SWITCH_SECONDS, BUSY_SWITCH_SECONDS = sys.getswitchinterval(), 0.0005
# The limit of all answers to one role that are being made or wait to be sent.
QUOTA_BYTES: Mapping[Role, int] = {"admin": 512 * MIB, "client": 64 * MIB}


@dataclass(frozen=True, kw_only=True)
class Query:
    """A statement that a caller asks to run; `before_query` sees it and may replace it.

    sql: exactly one statement.
    params: a list for `?`, an object for `:name`, `@name` and `$name`; JSON values, and {"$base64": "…"} for a BLOB.
    role: the role that it runs under. A client only reads, and does not see tables named tmp_… or sqlite_….
    raw: True for columns and rows (/query/raw), False for one object for each row (/query).
    caller: who asks; None for a statement of the host.
    id: 32 hex digits, unique for each statement; the same in `before_query` and `after_query`.
    """

    sql: str
    params: Sequence[Any] | Mapping[str, Any] | None = None
    role: Role
    raw: bool = False
    caller: Caller | None = None
    id: str = field(default_factory=lambda: uuid.uuid4().hex, compare=False)


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of a statement; `after_query` sees it and may replace it.

    columns: the names of the columns, with duplicates; empty for a statement that does not return rows.
    rows: their values are None, int, float, str, and bytes for a BLOB or for text that is not UTF-8.
    rows_read: how many rows it returned.
    rows_written: how many rows it and its triggers inserted, changed and deleted.
    origins: for each column, the table and the column that its values come from; None for an expression, and for a
        column that `authorize_read` has replaced by NULL.
    duration_ms: how long the statement ran, in milliseconds.
    """

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    rows_read: int
    rows_written: int
    origins: Origins = ()
    duration_ms: float = 0.0


ANSWERS = "answers that wait to be read; try again, or ask for less"


class QueryHooks(Protocol):
    """The query hooks of all plugins. If one raises, the query is refused."""

    async def before_query(self, query: Query) -> Query: ...

    async def after_query(self, query: Query, result: Result) -> Result: ...

    async def authorize_read(self, role: Role, table: str, column: str) -> ReadDecision: ...

    def implementers(self, hook: str) -> Sequence[str]: ...


class QueryRunner:
    """Runs queries until `close`.

    max_rows: how many rows a statement may return.
    max_bytes: how long an answer may be as JSON; all statements of a transaction together.
    max_seconds: how long a statement or transaction may run, without the time that it waits for a thread.
    temp_bytes: how many bytes a request of each role may have in temporary files at a time.
    readers: how many reads of one role run at a time.
    """

    def __init__(
        self,
        database: Database,
        plugins: QueryHooks,
        *,
        max_rows: int,
        max_seconds: float,
        max_bytes: int = ANSWER_BYTES,
        temp_bytes: Mapping[Role, int] = TEMP_BYTES,
        readers: int = 8,
        clock: Clock,
    ) -> None:
        self._database = database
        self._plugins = plugins
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds
        self._temp_bytes = temp_bytes
        self._clock = clock
        self._guards: dict[apsw.Connection, Guard] = {}
        # By then, the reads that run have been interrupted.
        gate = partial(database.gated_read, max_seconds + GATE_MARGIN_SECONDS)
        self._quotas = {role: Quota(limit, ANSWERS) for role, limit in QUOTA_BYTES.items()}
        self._exclusive_lock = threading.Lock()
        self._encoding_lock = threading.Lock()
        self._memory = Memory()
        self._pools: dict[Role, ReaderPool] = {
            "admin": ReaderPool(database.path, readers, "query-admin", partial(self._prepare, "admin"), gate),
            "client": ReaderPool(database.path, readers, "query-client", partial(self._prepare, "client"), gate),
        }
        self._active: set[_ActiveQuery] = set()
        self._watch: asyncio.Task[None] | None = None
        self._memory_watch: threading.Thread | None = None
        # Set while queries are active, and at the end.
        self._has_active = threading.Event()
        self._closed = False
        self._stopping = False

    @functools.cached_property
    def read_rules(self) -> ReadRules | None:
        """What the plugins decide about columns; None if no plugin does. The plugins are loaded after this is made."""
        return ReadRules(self._plugins.authorize_read) if self._plugins.implementers("authorize_read") else None

    async def run(self, query: Query) -> Result:
        """Run one statement. Raises StarbaseError."""
        query = await self._plugins.before_query(query)
        (result,) = await self._results([query], self._execute_one)
        return result

    async def run_transaction(self, queries: Sequence[Query]) -> list[Result]:
        """Run all statements in one transaction, or none.

        Raises StarbaseError, which names the statement that failed, counted from 0.
        """
        return await self._results(await self._apply_before_query(queries), self._execute_all)

    async def answer(self, query: Query) -> Body:
        """Run one statement, and encode its answer. Raises StarbaseError."""
        query = await self._plugins.before_query(query)
        return await self._answer([query], self._execute_one)

    async def answer_transaction(self, queries: Sequence[Query]) -> Body:
        """Do the same as `run_transaction`, and encode the answer: a list of the statements' answers."""
        return await self._answer(await self._apply_before_query(queries), self._execute_all)

    def interrupt(self) -> None:
        """Interrupt the current queries and refuse new ones: the host is stopping."""
        self._stopping = True
        self._database.stop_gate()
        for each in tuple(self._active):
            each.interrupt(Interruption.STOPPING)

    def close(self) -> None:
        """Interrupt, then close the readers. Blocks: call it in a thread, or when the event loop is idle."""
        self.interrupt()
        for pool in self._pools.values():
            pool.close()
        self._closed = True
        self._has_active.set()
        if self._memory_watch is not None:
            self._memory_watch.join()
        self._guards.clear()

    async def end_watch(self) -> None:
        """End the task that watches the queries. Call it after `close`, on the loop that the queries ran on.

        A task that sleeps when its loop ends is reported as destroyed.
        """
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])

    async def _apply_before_query(self, queries: Sequence[Query]) -> list[Query]:
        if not queries:
            raise InvalidRequest(fields={"transaction": "has no statements"})
        return [await self._plugins.before_query(query) for query in queries]

    async def _results(self, queries: list[Query], work: _Execute) -> list[Result]:
        budget = self._budget(queries)
        kept = [RowSink(budget) for _ in queries]
        await self._run(zip(queries, kept, strict=True), work, budget)
        return [
            await self._plugins.after_query(
                query,
                Result(
                    columns=each.columns,
                    rows=each.rows,
                    rows_read=each.read,
                    rows_written=each.written,
                    origins=each.origins or (),
                    duration_ms=each.seconds * 1000,
                ),
            )
            for query, each in zip(queries, kept, strict=True)
        ]

    async def _answer(self, queries: list[Query], work: _Execute) -> Body:
        if self._plugins.implementers("after_query"):
            results = await self._results(queries, work)
            return await asyncio.to_thread(self._encode, queries, results, transaction=work == self._execute_all)
        budget = self._budget(queries)
        texts = [JsonSink(budget, raw=query.raw, lock=self._encoding_lock) for query in queries]
        await self._run(zip(queries, texts, strict=True), work, budget)
        return Body(texts, budget, transaction=work == self._execute_all)

    def _encode(self, queries: list[Query], results: list[Result], *, transaction: bool) -> Body:
        budget = self._budget(queries)
        texts = [JsonSink(budget, raw=query.raw, lock=self._encoding_lock) for query in queries]
        for text, result in zip(texts, results, strict=True):
            text.begin(result.columns)
            write_rows(iter(result.rows), text, len(result.rows))
            text.finish(result.columns, result.rows_read, result.rows_written)
        return Body(texts, budget, transaction=transaction)

    def _budget(self, queries: list[Query]) -> Budget:
        return Budget(bytes=self._max_bytes, quota=self._quotas[_role_of(queries)])

    async def _run(self, pairs: Iterable[_Statement], work: _Execute, budget: Budget) -> None:
        statements = list(pairs)
        if self._stopping:
            raise Unavailable(Interruption.STOPPING.value)
        role = _role_of([query for query, _ in statements])
        active = _ActiveQuery(role, self._max_seconds)
        self._active.add(active)
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._watch_active())
        if self._memory_watch is None:
            self._memory_watch = threading.Thread(target=self._watch_memory, name="query-memory", daemon=True)
            self._memory_watch.start()
        self._has_active.set()
        try:
            while True:
                try:
                    with contextlib.suppress(NotReadOnly):
                        await self._pools[role].run(lambda reader: self._read(reader, active, statements, work))
                        return
                    if await self._database.write(lambda writer: self._write(writer, active, statements, work)):
                        for guard in tuple(self._guards.values()):
                            guard.forget()
                    return
                except Undecided as undecided:
                    # Each time, at least one column is decided.
                    assert self.read_rules is not None
                    await self.read_rules.decide(role, undecided.columns)
        except StarbaseError:
            budget.close()
            raise
        except apsw.Error as error:
            # Only the host's BEGIN and COMMIT raise this here.
            raise translate_error(error, None) from error
        except asyncio.CancelledError:
            active.interrupt(Interruption.CALLER_LEFT)
            raise
        finally:
            if not active.running:
                self._active.discard(active)

    def _prepare(self, role: Role, connection: apsw.Connection) -> None:
        guard = Guard(connection, role, exclusive_lock=self._exclusive_lock, read_rules=self.read_rules)
        guard.protect(self._database.private_tables)
        guard.install()
        self._guards[connection] = guard

    def _read(
        self, reader: apsw.Connection, active: _ActiveQuery, statements: list[_Statement], work: _Execute
    ) -> None:
        guard = self._guards[reader]
        guard.protect(self._database.private_tables)
        try:
            self._run_timed(active, guard, statements, work)
        finally:
            # Only now, when nothing can interrupt it.
            if reader.in_transaction:
                guard.run_trusted("ROLLBACK")

    def _write(
        self, writer: apsw.Connection, active: _ActiveQuery, statements: list[_Statement], work: _Execute
    ) -> bool:
        """Return whether a statement may have changed the schema."""
        guard = Guard(writer, "admin", writer=True, read_rules=self.read_rules)
        guard.protect(self._database.private_tables)
        with guard.borrow():
            self._run_timed(active, guard, statements, work)
        return guard.has_created

    def _run_timed(self, active: _ActiveQuery, guard: Guard, statements: list[_Statement], work: _Execute) -> None:
        active.begin(guard.connection, self._clock.monotonic())
        try:
            with temporary.limit_space(self._temp_bytes[guard.role]) as space:
                work(guard, statements)
        except (StarbaseError, apsw.InterruptError) as error:
            if space.refused:
                raise TooLarge(TOO_MUCH_TEMPORARY.format(space.limit / MIB, guard.role)) from error
            if isinstance(error, StarbaseError) and active.interruption is None:
                raise
            raise active.error() from error
        finally:
            active.end()

    def _execute_one(self, guard: Guard, statements: list[_Statement]) -> None:
        for query, sink in statements:
            self._execute(guard, query, sink)

    def _execute(self, guard: Guard, query: Query, sink: Sink) -> None:
        started = self._clock.monotonic()
        execute(guard, query.sql, bind(query.params), sink, self._max_rows)
        sink.seconds = self._clock.monotonic() - started

    def _execute_all(self, guard: Guard, statements: list[_Statement]) -> None:
        """Run all statements: on a reader in one snapshot if they only read, else on the writer, in its transaction."""
        if not guard.writer:
            guard.run_trusted("BEGIN")
            if guard.role == "admin":
                _for_each(statements, lambda query, _: prepare(guard, query.sql, bind(query.params)))
        _for_each(statements, partial(self._execute, guard))

    async def _watch_active(self) -> None:
        """Interrupt the queries that are over their time, repeatedly: an interrupt just before a step is lost.

        A progress handler would wait for Python's interpreter lock at each of its calls.
        """
        try:
            await self._watch_each()
        finally:
            sys.setswitchinterval(SWITCH_SECONDS)

    async def _watch_each(self) -> None:
        while self._active:
            await self._clock.sleep(min(WATCH_SECONDS, max(0.005, self._max_seconds / 20)))
            now = self._clock.monotonic()
            soon = any(
                each.running and now > each.deadline - self._max_seconds + WATCH_SECONDS for each in self._active
            )
            sys.setswitchinterval(BUSY_SWITCH_SECONDS if soon else SWITCH_SECONDS)
            for active in tuple(self._active):
                active.check(now)
                if active.interruption is not None and not active.running:
                    self._active.discard(active)

    def _watch_memory(self) -> None:
        """Free memory in a thread: the event loop can have to wait, and memory grows by a GiB in a second."""
        pause = threading.Event()
        while self._has_active.wait() and not self._closed:
            self._has_active.clear()
            freed = False
            while self._active and not self._closed:
                pause.wait(WATCH_SECONDS)
                freed = self._free_memory() or freed
                if freed and not any(each.interruption is Interruption.OUT_OF_MEMORY for each in tuple(self._active)):
                    self._memory.release()
                    freed = False
            if freed:
                self._memory.release()

    def _free_memory(self) -> bool:
        """While SQLite uses too much memory, interrupt the longest query, one of a client if there is one.

        At twice that, interrupt all queries of clients. Return whether one was interrupted.
        """
        excess = self._memory.excess()
        if excess <= 1:
            return False
        running = [each for each in tuple(self._active) if each.running and each.interruption is None]
        running.sort(key=lambda each: (each.role != "client", each.deadline))
        clients = [each for each in running if each.role == "client"] if excess > 2 else []
        for each in clients or running[:1]:
            each.interrupt(Interruption.OUT_OF_MEMORY)
        return bool(running)


class Interruption(enum.Enum):
    """Why a query was interrupted; the value is the message of its error, with the limit of time for `{:g}`."""

    STOPPING = "the host is stopping"
    CALLER_LEFT = "the caller no longer waits for the answer"
    TIMED_OUT = "the query ran longer than {:g} seconds and was stopped"
    OUT_OF_MEMORY = (
        "the current queries need too much memory together, and this one has run the longest; collect fewer values "
        "into one (json_group_array, json_group_object), or ask for less at a time"
    )


_ERRORS: Mapping[Interruption, type[StarbaseError]] = {
    Interruption.TIMED_OUT: QueryTimeout,
    Interruption.OUT_OF_MEMORY: TooLarge,
}
_Statement = tuple[Query, Sink]
_Execute = Callable[[Guard, list[_Statement]], None]


class _ActiveQuery:
    """One request. It can be interrupted only while it has a connection; an earlier reason ends it when it begins."""

    def __init__(self, role: Role, max_seconds: float) -> None:
        self.role: Role = role
        self.interruption: Interruption | None = None
        self.deadline = 0.0
        self._max_seconds = max_seconds
        self._connection: apsw.Connection | None = None
        self._lock = threading.Lock()

    @property
    def running(self) -> bool:
        return self._connection is not None

    def begin(self, connection: apsw.Connection, now: float) -> None:
        with self._lock:
            if self.interruption is not None:
                raise self.error()
            self._connection, self.deadline = connection, now + self._max_seconds

    def end(self) -> None:
        with self._lock:
            self._connection = None

    def interrupt(self, reason: Interruption) -> None:
        """Interrupt the query if it runs. The first reason stays."""
        with self._lock:
            self.interruption = self.interruption or reason
            if self._connection is not None:
                self._connection.interrupt()

    def check(self, now: float) -> None:
        """Interrupt the query when it is over its time, or again when the last interrupt was lost."""
        if self.interruption is not None:
            self.interrupt(self.interruption)
        elif self.running and now >= self.deadline:
            self.interrupt(Interruption.TIMED_OUT)

    def error(self) -> StarbaseError:
        """Return the error for the reason of the interruption. Without one, only the end of the host interrupts."""
        reason = self.interruption or Interruption.STOPPING
        return _ERRORS.get(reason, Unavailable)(reason.value.format(self._max_seconds))


def _role_of(queries: list[Query]) -> Role:
    return "client" if any(query.role == "client" for query in queries) else "admin"


def _for_each(statements: list[_Statement], run: Callable[[Query, Sink], None]) -> None:
    """Run each statement; name it in its error."""
    for index, (query, sink) in enumerate(statements):
        try:
            run(query, sink)
        except StarbaseError as error:
            place = f"transaction[{index}]"
            if isinstance(error, InvalidRequest):
                error.fields = {f"{place}.{field}": reason for field, reason in error.fields.items()}
            error.args = (f"{place}: {error}",)
            raise

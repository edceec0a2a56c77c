"""Runs a user's SQL under a role, with the plugins' hooks before and after.

What SQLite says is read-only runs on a pool of read-only connections, one pool for each role, so that a long read
blocks neither a write nor, beyond its own pool, anybody else. The rest runs on the writer thread in one transaction.
Owns the limits of time and of the answer, and the forms on the wire. What a role may do is the sandbox's business,
one statement is statement.py's. Must not know HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import apsw

from starbase_host import temporary
from starbase_host.clock import Clock
from starbase_host.database import Database, ReaderPool
from starbase_host.errors import InvalidRequest, QueryTimeout, StarbaseError, TooLarge, Unavailable
from starbase_host.memory import Memory
from starbase_host.sandbox import Guard, NotReadOnly
from starbase_host.sandbox_rules import MIB, Role
from starbase_host.statement import bind, execute, explain, prepare
from starbase_host.wire import Body, Budget, Held, Kept, Sink, Text, pour

STOPPING = "the host is stopping"
OUT_OF_MEMORY = (
    "the queries that run now need too much memory together, and this one has run the longest; collect fewer values in "
    "one (json_group_array, json_group_object), or ask for less at a time"
)
# Of one answer, as JSON.
ANSWER_BYTES = 64 * MIB
# To end what is over its time, and to write the journal back.
TURN_SECONDS = 5.0
TEMP_BYTES: Mapping[Role, int] = {"client": 256 * MIB, "admin": 4096 * MIB}
TOO_MUCH_TEMPORARY = (
    "the query needs more than {:,.3g} MiB of temporary space, the limit of role {}; sort, group or join fewer rows or "
    "columns, or have an index made for it"
)
# Of all answers to a role that are being made or wait to be read.
WATCH_SECONDS = 0.02
# How long a thread that runs Python may go on while another waits for its turn. While queries take long, their threads
# would take turns of Python's own 5 ms, eight before the event loop's next.
SWITCH_SECONDS, BUSY_SWITCH_SECONDS = sys.getswitchinterval(), 0.0005
HELD_BYTES: Mapping[Role, int] = {"admin": 512 * MIB, "client": 64 * MIB}


@dataclass(frozen=True, kw_only=True)
class Query:
    """One statement that somebody asked to run; what `before_query` sees and may replace.

    sql: exactly one statement.
    params: a list for `?`, an object for `:name`, `@name` and `$name`, in JSON's values; {"$base64": "…"} is a BLOB.
    role: under which it runs. A client only reads, and sees no table whose name begins with tmp_ or sqlite_.
    raw: whether the caller asked for columns and rows apart (/query/raw) instead of one object for each row.
    """

    sql: str
    params: Sequence[Any] | Mapping[str, Any] | None = None
    role: Role
    raw: bool = False


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a statement answered; what `after_query` sees and may replace.

    columns: the names, repeated where the statement repeats them. Empty for what answers nothing.
    rows: None, int, float, str, and bytes for a BLOB and for text that is not UTF-8.
    rows_read: how many rows it answered. rows_written: how many it inserted, changed and deleted, triggers included.
    """

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    rows_read: int
    rows_written: int


ANSWERS = "answers that wait to be read; try again, or ask for less"


class QueryHooks(Protocol):
    """The plugins, as far as queries go: both chains, already checked. Whatever they raise refuses the query."""

    async def before_query(self, query: Query) -> Query: ...

    async def after_query(self, query: Query, result: Result) -> Result: ...

    def implementers(self, hook: str) -> Sequence[str]: ...


class QueryRunner:
    """Runs queries until `close`.

    max_rows, max_bytes: of an answer; the bytes of a transaction's answers are counted together.
    max_seconds: a statement or transaction may run, not counting the time it waits for a thread.
    temp_bytes: what each request may have in temporary files at a time.
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
        # Those that run are ended by then.
        turn = partial(database.gated_read, max_seconds + TURN_SECONDS)
        self._held = {role: Held(limit, ANSWERS) for role, limit in HELD_BYTES.items()}
        self._alone = threading.Lock()
        self._encoding = threading.Lock()
        self._memory = Memory()
        self._pools: dict[Role, ReaderPool] = {
            "admin": ReaderPool(database.path, readers, "query-admin", partial(self._prepare, "admin"), turn),
            "client": ReaderPool(database.path, readers, "query-client", partial(self._prepare, "client"), turn),
        }
        self._jobs: set[_Job] = set()
        self._watch: asyncio.Task[None] | None = None
        self._stopping = False

    async def run(self, query: Query) -> Result:
        """Run one statement. Raises StarbaseError."""
        query = await self._plugins.before_query(query)
        (result,) = await self._results([query], self._single)
        return result

    async def run_transaction(self, queries: Sequence[Query]) -> list[Result]:
        """Run all or nothing, in one snapshot. The error of a statement says which one, counting from 0."""
        return await self._results(await self._before(queries), self._several)

    async def answer(self, query: Query) -> Body:
        """Run one statement, and make its answer's JSON. Raises StarbaseError."""
        query = await self._plugins.before_query(query)
        return await self._answer([query], self._single)

    async def answer_transaction(self, queries: Sequence[Query]) -> Body:
        """Run as `run_transaction` does, and make the answer's JSON: a list of what each statement answers."""
        return await self._answer(await self._before(queries), self._several)

    def interrupt(self) -> None:
        """Stop every statement that runs, and refuse those to come: the host is stopping."""
        self._stopping = True
        self._database.stop_gate()
        for job in tuple(self._jobs):
            job.stop(Unavailable(STOPPING))

    def close(self) -> None:
        """Interrupt, then close the readers. Blocks: call it from a thread, or when the loop has nothing left."""
        self.interrupt()
        for pool in self._pools.values():
            pool.close()
        self._guards.clear()

    async def _before(self, queries: Sequence[Query]) -> list[Query]:
        if not queries:
            raise InvalidRequest(fields={"transaction": "holds no statement"})
        return [await self._plugins.before_query(query) for query in queries]

    async def _results(self, queries: list[Query], work: _Work) -> list[Result]:
        budget = self._budget(queries)
        kept = [Kept(budget) for _ in queries]
        await self._run(zip(queries, kept, strict=True), work, budget)
        return [
            await self._plugins.after_query(
                query, Result(columns=each.columns, rows=each.rows, rows_read=each.read, rows_written=each.written)
            )
            for query, each in zip(queries, kept, strict=True)
        ]

    async def _answer(self, queries: list[Query], work: _Work) -> Body:
        if self._plugins.implementers("after_query"):
            results = await self._results(queries, work)
            return await asyncio.to_thread(self._written, queries, results, several=work == self._several)
        budget = self._budget(queries)
        texts = [Text(budget, raw=query.raw, turn=self._encoding) for query in queries]
        await self._run(zip(queries, texts, strict=True), work, budget)
        return Body(texts, budget, several=work == self._several)

    def _written(self, queries: list[Query], results: list[Result], *, several: bool) -> Body:
        budget = self._budget(queries)
        texts = [Text(budget, raw=query.raw, turn=self._encoding) for query in queries]
        for text, result in zip(texts, results, strict=True):
            text.begin(result.columns)
            pour(iter(result.rows), text, len(result.rows))
            text.finish(result.columns, result.rows_read, result.rows_written)
        return Body(texts, budget, several=several)

    def _budget(self, queries: list[Query]) -> Budget:
        return Budget(bytes=self._max_bytes, held=self._held[_role_of(queries)])

    async def _run(self, pairs: Iterable[_Asked], work: _Work, budget: Budget) -> None:
        asked = list(pairs)
        if self._stopping:
            raise Unavailable(STOPPING)
        role = _role_of([query for query, _ in asked])
        job = _Job(role)
        self._jobs.add(job)
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._watch_jobs())
        try:
            with contextlib.suppress(NotReadOnly):
                await self._pools[role].run(lambda reader: self._read(reader, job, asked, work))
                return
            await self._database.write(lambda writer: self._write(writer, job, asked, work))
        except StarbaseError:
            budget.close()
            raise
        except apsw.Error as error:
            # What is left here is the host's own BEGIN and COMMIT.
            raise explain(error, None) from error
        except asyncio.CancelledError:
            job.stop(Unavailable("nobody waits for the answer"))
            raise
        finally:
            if not job.running:
                self._jobs.discard(job)

    def _prepare(self, role: Role, connection: apsw.Connection) -> None:
        guard = Guard(connection, role, turn=self._alone)
        guard.protect(self._database.private_tables)
        guard.install()
        self._guards[connection] = guard

    def _read(self, reader: apsw.Connection, job: _Job, asked: list[_Asked], work: _Work) -> None:
        guard = self._guards[reader]
        guard.protect(self._database.private_tables)
        try:
            self._timed(job, guard, asked, work)
        finally:
            # Only now, when nobody interrupts any more.
            if reader.in_transaction:
                guard.trusted("ROLLBACK")

    def _write(self, writer: apsw.Connection, job: _Job, asked: list[_Asked], work: _Work) -> None:
        guard = Guard(writer, "admin", writer=True)
        guard.protect(self._database.private_tables)
        with guard.borrowed():
            self._timed(job, guard, asked, work)

    def _timed(self, job: _Job, guard: Guard, asked: list[_Asked], work: _Work) -> None:
        job.begin(guard.connection, self._clock.monotonic() + self._max_seconds)
        try:
            with temporary.within(self._temp_bytes[guard.role]) as space:
                work(guard, asked)
        except (StarbaseError, apsw.InterruptError) as error:
            if space.refused:
                raise TooLarge(TOO_MUCH_TEMPORARY.format(space.limit / MIB, guard.role)) from error
            if isinstance(error, StarbaseError) and job.error is None:
                raise
            raise (job.error or Unavailable(STOPPING)) from error
        finally:
            job.end()

    def _single(self, guard: Guard, asked: list[_Asked]) -> None:
        for query, sink in asked:
            execute(guard, query.sql, bind(query.params), sink, self._max_rows)

    def _several(self, guard: Guard, asked: list[_Asked]) -> None:
        """On a reader in one snapshot, when all only read. On the writer, whose transaction is already open."""
        if not guard.writer:
            guard.trusted("BEGIN")
            if guard.role == "admin":
                _each(asked, lambda query, _: prepare(guard, query.sql, bind(query.params)))
        _each(asked, lambda query, sink: execute(guard, query.sql, bind(query.params), sink, self._max_rows))

    async def _watch_jobs(self) -> None:
        """Interrupt what is over its time; again and again, since an interrupt just before a step is lost.

        A progress handler would wait for Python's lock at each of its calls while others run.
        """
        try:
            await self._watch_each()
        finally:
            sys.setswitchinterval(SWITCH_SECONDS)

    async def _watch_each(self) -> None:
        while self._jobs:
            await self._clock.sleep(min(WATCH_SECONDS, max(0.005, self._max_seconds / 20)))
            now = self._clock.monotonic()
            self._relieve()
            soon = any(job.running and now > job.deadline - self._max_seconds + WATCH_SECONDS for job in self._jobs)
            sys.setswitchinterval(BUSY_SWITCH_SECONDS if soon else SWITCH_SECONDS)
            for job in tuple(self._jobs):
                job.check(now, self._max_seconds)
                if job.error is not None and not job.running:
                    self._jobs.discard(job)

    def _relieve(self) -> None:
        """Stop the query that has run the longest, a client's if there is one, while all take too much memory."""
        if not self._memory.is_too_much():
            return
        running = [job for job in self._jobs if job.running and job.error is None]
        if running:
            longest = min(running, key=lambda job: (job.role != "client", job.deadline))
            longest.stop(TooLarge(OUT_OF_MEMORY))


_Asked = tuple[Query, Sink]
_Work = Callable[[Guard, list[_Asked]], None]


class _Job:
    """One request while it has a connection: what may be interrupted, and only then."""

    def __init__(self, role: Role) -> None:
        self.role: Role = role
        self.error: StarbaseError | None = None
        self.deadline = 0.0
        self._connection: apsw.Connection | None = None
        self._lock = threading.Lock()

    @property
    def running(self) -> bool:
        return self._connection is not None

    def begin(self, connection: apsw.Connection, deadline: float) -> None:
        with self._lock:
            if self.error is not None:
                raise self.error
            self._connection, self.deadline = connection, deadline

    def end(self) -> None:
        with self._lock:
            self._connection = None

    def stop(self, error: StarbaseError) -> None:
        with self._lock:
            self.error = self.error or error
            if self._connection is not None:
                self._connection.interrupt()

    def check(self, now: float, seconds: float) -> None:
        if self.error is not None:
            self.stop(self.error)
        elif self.running and now >= self.deadline:
            self.stop(QueryTimeout(f"the query ran longer than {seconds:g} seconds and was stopped"))


def _role_of(queries: list[Query]) -> Role:
    return "client" if any(query.role == "client" for query in queries) else "admin"


def _each(asked: list[_Asked], work: Callable[[Query, Sink], None]) -> None:
    """Do it for each; the error of one says which."""
    for index, (query, sink) in enumerate(asked):
        try:
            work(query, sink)
        except StarbaseError as error:
            place = f"transaction[{index}]"
            if isinstance(error, InvalidRequest):
                error.fields = {f"{place}.{field}": reason for field, reason in error.fields.items()}
            error.args = (f"{place}: {error}",)
            raise

"""Runs a user's SQL under a role, with the plugins' hooks before and after.

What SQLite says is read-only runs on a pool of read-only connections, one pool for each role, so that a long read
blocks neither a write nor, beyond its own pool, anybody else. The rest runs on the writer thread in one transaction.
Owns the limits of time and of the answer, and the forms on the wire. What a role may do is the sandbox's business,
one statement is statement.py's. Must not know HTTP.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import apsw

from starbase_host import temporary
from starbase_host.clock import Clock
from starbase_host.database import Database, ReaderPool
from starbase_host.errors import InvalidRequest, QueryTimeout, StarbaseError, TooLarge, Unavailable
from starbase_host.sandbox import Guard, NotReadOnly
from starbase_host.sandbox_rules import MIB, Role
from starbase_host.statement import Budget, bind, execute, explain, prepare

T = TypeVar("T")

STOPPING = "the host is stopping"
ANSWER_BYTES = 64 * MIB
# To end what is over its time, and to write the journal back.
TURN_SECONDS = 5.0
TEMP_BYTES: Mapping[Role, int] = {"client": 256 * MIB, "admin": 4096 * MIB}
TOO_MUCH_TEMPORARY = (
    "the query needs more than {:,.3g} MiB of temporary space, the limit of role {}; sort, group or join fewer rows or "
    "columns, or have an index made for it"
)


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


class QueryHooks(Protocol):
    """The plugins, as far as queries go: both chains, already checked. Whatever they raise refuses the query."""

    async def before_query(self, query: Query) -> Query: ...

    async def after_query(self, query: Query, result: Result) -> Result: ...


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
        turn = partial(database.turn, max_seconds + TURN_SECONDS)
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
        (result,) = await self._run([query], self._single)
        return await self._plugins.after_query(query, result)

    async def run_transaction(self, queries: Sequence[Query]) -> list[Result]:
        """Run all or nothing, in one snapshot. The error of a statement says which one, counting from 0."""
        if not queries:
            raise InvalidRequest(fields={"transaction": "holds no statement"})
        queries = [await self._plugins.before_query(query) for query in queries]
        results = await self._run(queries, self._several)
        return [await self._plugins.after_query(*pair) for pair in zip(queries, results, strict=True)]

    def interrupt(self) -> None:
        """Stop every statement that runs, and refuse those to come: the host is stopping."""
        self._stopping = True
        self._database.end_turns()
        for job in tuple(self._jobs):
            job.stop(Unavailable(STOPPING))

    def close(self) -> None:
        """Interrupt, then close the readers. Blocks: call it from a thread, or when the loop has nothing left."""
        self.interrupt()
        for pool in self._pools.values():
            pool.close()
        self._guards.clear()

    async def _run(self, queries: list[Query], work: _Work) -> list[Result]:
        if self._stopping:
            raise Unavailable(STOPPING)
        role: Role = "client" if any(query.role == "client" for query in queries) else "admin"
        job = _Job()
        self._jobs.add(job)
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._watch_jobs())
        try:
            with contextlib.suppress(NotReadOnly):
                return await self._pools[role].run(lambda reader: self._read(reader, job, queries, work))
            return await self._database.write(lambda writer: self._write(writer, job, queries, work))
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
        guard = Guard(connection, role)
        guard.protect(self._database.private_tables)
        guard.install()
        self._guards[connection] = guard

    def _read(self, reader: apsw.Connection, job: _Job, queries: list[Query], work: _Work) -> list[Result]:
        guard = self._guards[reader]
        guard.protect(self._database.private_tables)
        try:
            return self._timed(job, guard, queries, work)
        finally:
            # Only now, when nobody interrupts any more.
            if reader.in_transaction:
                guard.trusted("ROLLBACK")

    def _write(self, writer: apsw.Connection, job: _Job, queries: list[Query], work: _Work) -> list[Result]:
        guard = Guard(writer, "admin", writer=True)
        guard.protect(self._database.private_tables)
        with guard.borrowed():
            return self._timed(job, guard, queries, work)

    def _timed(self, job: _Job, guard: Guard, queries: list[Query], work: _Work) -> list[Result]:
        job.begin(guard.connection, self._clock.monotonic() + self._max_seconds)
        try:
            with temporary.within(self._temp_bytes[guard.role]) as space:
                return work(guard, queries)
        except (StarbaseError, apsw.InterruptError) as error:
            if space.refused:
                raise TooLarge(TOO_MUCH_TEMPORARY.format(space.limit / MIB, guard.role)) from error
            if isinstance(error, StarbaseError) and job.error is None:
                raise
            raise (job.error or Unavailable(STOPPING)) from error
        finally:
            job.end()

    def _single(self, guard: Guard, queries: list[Query]) -> list[Result]:
        budget = Budget(rows=self._max_rows, bytes=self._max_bytes)
        return [_result(guard, query, budget) for query in queries]

    def _several(self, guard: Guard, queries: list[Query]) -> list[Result]:
        """On a reader in one snapshot, when all only read. On the writer, whose transaction is already open."""
        budget = Budget(rows=self._max_rows, bytes=self._max_bytes)
        if not guard.writer:
            guard.trusted("BEGIN")
            if guard.role == "admin":
                _each(queries, lambda query: prepare(guard, query.sql, bind(query.params)))
        return _each(queries, lambda query: _result(guard, query, budget))

    async def _watch_jobs(self) -> None:
        """Interrupt what is over its time; again and again, since an interrupt just before a step is lost.

        A progress handler would wait for Python's lock at each of its calls while others run.
        """
        while self._jobs:
            await self._clock.sleep(min(0.25, max(0.005, self._max_seconds / 20)))
            now = self._clock.monotonic()
            for job in tuple(self._jobs):
                job.check(now, self._max_seconds)
                if job.error is not None and not job.running:
                    self._jobs.discard(job)


_Work = Callable[[Guard, list[Query]], list[Result]]


class _Job:
    """One request while it has a connection: what may be interrupted, and only then."""

    def __init__(self) -> None:
        self.error: StarbaseError | None = None
        self._connection: apsw.Connection | None = None
        self._deadline = 0.0
        self._lock = threading.Lock()

    @property
    def running(self) -> bool:
        return self._connection is not None

    def begin(self, connection: apsw.Connection, deadline: float) -> None:
        with self._lock:
            if self.error is not None:
                raise self.error
            self._connection, self._deadline = connection, deadline

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
        elif self.running and now >= self._deadline:
            self.stop(QueryTimeout(f"the query ran longer than {seconds:g} seconds and was stopped"))


def _result(guard: Guard, query: Query, budget: Budget) -> Result:
    answer = execute(guard, query.sql, bind(query.params), budget)
    return Result(columns=answer.columns, rows=answer.rows, rows_read=len(answer.rows), rows_written=answer.written)


def _each(queries: list[Query], work: Callable[[Query], T]) -> list[T]:
    """Do it for each; the error of one says which."""
    done = []
    for index, query in enumerate(queries):
        try:
            done.append(work(query))
        except StarbaseError as error:
            place = f"transaction[{index}]"
            if isinstance(error, InvalidRequest):
                error.fields = {f"{place}.{field}": reason for field, reason in error.fields.items()}
            error.args = (f"{place}: {error}",)
            raise
    return done


def to_json_rows(result: Result) -> list[dict[str, Any]]:
    """The rows of /query: an object for each; of two columns with one name the last stays."""
    return [dict(zip(result.columns, _wire(row), strict=False)) for row in result.rows]


def to_raw(result: Result) -> dict[str, Any]:
    """The answer of /query/raw."""
    return {
        "columns": list(result.columns),
        "rows": [list(_wire(row)) for row in result.rows],
        "meta": {"rows_read": result.rows_read, "rows_written": result.rows_written},
    }


def _wire(row: Sequence[Any]) -> Sequence[Any]:
    return row if {float, bytes}.isdisjoint(map(type, row)) else [_wire_value(value) for value in row]


def _wire_value(value: Any) -> Any:
    if type(value) is bytes:
        return {"$base64": base64.b64encode(value).decode("ascii")}
    if type(value) is float and value - value != 0:
        return None if value != value else "Infinity" if value > 0 else "-Infinity"
    return value

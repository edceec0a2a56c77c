"""A source of another plugin, as the host uses it: what it answers is judged in its thread, and its errors are plain.

Must not know the rules, which are in `judge`. Its coroutines run on the event loop; the runner isolates those.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, NoReturn, TypeVar

from starbase_data_replication.errors import DialectFailed, SchemaMismatch, plain_error
from starbase_data_replication.model import (
    Batch,
    Column,
    HighWatermark,
    OpenTransaction,
    OpenTransactions,
    Options,
    TableName,
    TableSchema,
)
from starbase_data_replication.sources import judge
from starbase_data_replication.sources.features import Feature, RegisteredDialect
from starbase_data_replication.sources.protocols import (
    MAX_SHOWN,
    Comparable,
    Comparing,
    Inspectable,
    Inspector,
    Key,
    NoTrackingColumn,
    Part,
    Reader,
    ReadPlan,
    Sharing,
    Snapshots,
    Source,
    Summary,
)
from starbase_host import StarbaseError, Worker, has_plain_text, kind_of

T = TypeVar("T")
METHODS = ("describe", "check_filter_and_key", "count_nulls", "read_high_watermark", "read", "still_open", "close")
# Optional methods that answer a question, and how the answer is copied.
QUESTIONS: dict[str, Callable[[Any, str], Any]] = {
    "counter_passed": judge.if_any(judge.FLAG),
    "hides_columns": judge.FLAG,
    "holds_below": judge.if_any(judge.FLAG),
    "located": judge.texts,
    "ping": judge.nothing,
    "transaction_details": judge.many(lambda found: list(found)[:MAX_SHOWN], judge.plain(OpenTransaction)),
}
# What a comparison may say of itself besides its methods.
FACTS = ("order", "forms", "digests", "digest", "encoded")


async def called(worker: Worker, seconds: float, whose: str, function: Callable[[], T]) -> T:
    """Call a function of foreign code in its thread. Raises plain errors, and DialectFailed for any that is not ours.

    whose: what messages call the dialect.
    """
    try:
        answer, error = await worker.call(_outcome, (function,), seconds)
    except TimeoutError:
        raise DialectFailed(f"{whose} has not answered within {seconds:g} s") from None
    if error is None:
        result: T = answer
        return result
    if isinstance(error, StarbaseError) and has_plain_text(error):
        raise plain_error(error, whose)
    kind = kind_of(error)
    # Also for a result of the wrong type. The caller cannot fix it, but learns whose fault it is.
    why = f"failed ({kind}); the host's log has the details" if isinstance(error, Exception) else f"raised {kind}"
    failed = DialectFailed(f"{whose} {why}")
    # In place of a cause: whoever logs this error would make the text of the plugin's.
    # In another thread: a text that hangs must not end the dialect's.
    describing = Worker("details")
    try:
        failed.add_note((await describing.describe(error)).details)
    finally:
        describing.close()
    raise failed from None


def _outcome(function: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """What a function returns or raises, so that its TimeoutError is not taken for the time limit's."""
    try:
        return function(), None
    except BaseException as error:
        return None, error


class Asking:
    """Calls of one foreign source.

    dialect: what is known of its dialect.
    make_worker: makes the thread in which its answers are judged.
    seconds: how long it may take to judge one answer.
    on_failure: called with the message of a failure that is the plugin's.
    keys: the key of each table that it has described.
    """

    def __init__(
        self,
        dialect: RegisteredDialect,
        make_worker: Callable[[], Worker],
        seconds: float,
        on_failure: Callable[[str], None],
    ) -> None:
        self.dialect = dialect
        self.keys: dict[TableName, tuple[str, ...]] = {}
        self._make_worker, self._seconds = make_worker, seconds
        self._worker = make_worker()
        self._on_failure = on_failure

    async def judged(self, look: Callable[[], T]) -> T:
        """Look at an answer in the source's thread. Raises DialectFailed if that takes too long."""
        try:
            return await called(self._worker, self._seconds, self.dialect.label, look)
        except DialectFailed as error:
            self._on_failure(str(error))
            # The answer may still hold its thread, for good.
            self._worker.close()
            self._worker = self._make_worker()
            raise

    async def ask(self, call: Callable[[], Awaitable[Any]], copy: Callable[[Any, str], T], doing: str) -> T:
        """Await an answer, and copy it. Raises BrokenRule, and plain errors."""
        try:
            answer = await call()
        except Exception as error:
            await self.fail(error)
        return await self.judged(partial(copy, answer, doing))

    async def fail(self, error: Exception) -> NoReturn:
        """Raise an error of the source so that no code of its class runs any more."""
        if isinstance(error, NoTrackingColumn):
            raise await self.judged(partial(_untracked, error))
        plain = plain_error(error, self.dialect.label)
        if plain is error:
            raise error
        raise plain from error

    @contextlib.asynccontextmanager
    async def opened(self, open_it: Callable[[], AbstractAsyncContextManager[T]]) -> AsyncIterator[T]:
        """A context of the source. An error of the host inside it comes out of it, whatever the context does."""
        inner: BaseException | None = None
        try:
            async with open_it() as found:
                try:
                    yield found
                except BaseException as error:
                    inner = error
                    raise
        except Exception as error:
            if error is inner:
                raise
            await self.fail(error)
        if inner is not None:
            raise inner

    async def each(self, stream: AsyncIterator[Any], copy: Callable[[Any], T]) -> AsyncIterator[T]:
        """Each item of a stream of the source, copied."""
        while True:
            try:
                item = await anext(stream)
            except StopAsyncIteration:
                return
            except Exception as error:
                await self.fail(error)
            yield await self.judged(partial(copy, item))
            # Not held while the next one comes.
            del item

    def close(self) -> None:
        self._worker.close()


def _untracked(error: NoTrackingColumn) -> NoTrackingColumn:
    doing = "describing a table without its tracking column"
    return NoTrackingColumn(judge.schema(error.schema, doing), judge.TEXT(error.name, doing))


class JudgedReader:
    """A foreign reader."""

    def __init__(self, reader: Reader, asking: Asking) -> None:
        self._reader, self._asking = reader, asking

    @contextlib.asynccontextmanager
    async def read(self, plan: ReadPlan) -> AsyncIterator[AsyncIterator[Batch]]:
        self._check_plan(plan)
        unique = self._asking.keys.get(plan.schema.table) == plan.schema.key
        copy = partial(judge.batch, plan=plan, features=self._asking.dialect.features, unique=unique)
        async with self._asking.opened(partial(self._reader.read, plan)) as batches:
            yield self._asking.each(batches, copy)

    def _check_plan(self, plan: ReadPlan) -> None:
        """Raise SchemaMismatch for a plan that the dialect does not know: it would read other rows."""
        needed = {
            Feature.WHERE: plan.schema.where is not None,
            Feature.LEFT_FILTER: plan.left_filter,
            Feature.KEYS: plan.keys is not None,
            Feature.RESUME: plan.in_key_order or plan.after_key is not None,
        }
        for feature, used in needed.items():
            if used and feature not in self._asking.dialect.features:
                raise SchemaMismatch(
                    f"{plan.schema.table} cannot be read so: {self._asking.dialect.label} lacks the feature {feature}; "
                    "reset the replication, which loads the table again"
                )


class JudgedInspector:
    """A foreign inspector, with the optional methods that it has."""

    def __init__(self, inspector: Inspector, asking: Asking) -> None:
        self._inspector, self._asking = inspector, asking
        # As attributes of the object: optional protocols are looked for by them.
        for name, copy in QUESTIONS.items():
            if (method := getattr(inspector, name, None)) is not None:
                setattr(self, name, partial(self._question, method, copy, name))
        if isinstance(inspector, Sharing):
            self.counts_shared = bool(inspector.counts_shared)

    async def _question(
        self, method: Callable[..., Awaitable[Any]], copy: Callable[[Any, str], Any], name: str, *asked: Any
    ) -> Any:
        return await self._asking.ask(partial(method, *asked), copy, f"answering {name}")

    async def describe(self, table: TableName, tracking_column: str) -> TableSchema:
        describe = partial(self._inspector.describe, table, tracking_column)
        schema = await self._asking.ask(describe, judge.schema, f"describing {table}")
        self._asking.keys[schema.table] = schema.key
        return schema

    async def check_filter_and_key(self, schema: TableSchema, *, key: bool) -> None:
        check = partial(self._inspector.check_filter_and_key, schema, key=key)
        await self._asking.ask(check, judge.nothing, f"checking {schema.table}")

    async def count_nulls(self, schema: TableSchema, *, at_most: int | None) -> int:
        counting = partial(self._inspector.count_nulls, schema, at_most=at_most)
        return await self._asking.ask(counting, judge.count, f"counting rows of {schema.table}")

    async def read_high_watermark(
        self, schema: TableSchema, options: Options, *, noted_at: float, **more: Any
    ) -> HighWatermark:
        reading = partial(self._inspector.read_high_watermark, schema, options, noted_at=noted_at, **more)
        return await self._asking.ask(reading, judge.watermark, f"reading the watermark of {schema.table}")


class JudgedSource(JudgedInspector, JudgedReader):
    """A foreign source, with the optional methods that it has and whose features its dialect declares."""

    def __init__(self, source: Source, asking: Asking) -> None:
        JudgedReader.__init__(self, source, asking)
        JudgedInspector.__init__(self, source, asking)
        self._source = source
        if isinstance(source, Inspectable):
            self.inspect = self._inspect
        if Feature.SNAPSHOT in asking.dialect.features:
            self.snapshot = self._snapshot
        if Feature.COMPARE in asking.dialect.features:
            self.comparing = self._comparing

    async def still_open(self, noted: Sequence[OpenTransactions]) -> list[OpenTransactions]:
        copy = judge.many(list, judge.plain(OpenTransactions))
        found: list[OpenTransactions] = await self._asking.ask(
            partial(self._source.still_open, noted), copy, "asking for open transactions"
        )
        return found

    async def close(self) -> None:
        try:
            await self._source.close()
        finally:
            self._asking.close()

    @contextlib.asynccontextmanager
    async def _inspect(self, table: TableName) -> AsyncIterator[Inspector]:
        assert isinstance(self._source, Inspectable)
        async with self._asking.opened(partial(self._source.inspect, table)) as inspector:
            yield JudgedInspector(inspector, self._asking)

    @contextlib.asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[Reader]:
        assert isinstance(self._source, Snapshots)
        async with self._asking.opened(self._source.snapshot) as reader:
            yield JudgedReader(reader, self._asking)

    @contextlib.asynccontextmanager
    async def _comparing(
        self, schema: TableSchema, columns: Sequence[Column], options: Options
    ) -> AsyncIterator[Comparing]:
        assert isinstance(self._source, Comparable)
        async with self._asking.opened(partial(self._source.comparing, schema, columns, options)) as remote:
            yield JudgedComparing(remote, self._asking, f"comparing {schema.table}")


class JudgedComparing:
    """A foreign comparison."""

    order: tuple[str, ...]
    forms: Mapping[str, Callable[[float], str]]
    digests: frozenset[str]

    def __init__(self, remote: Comparing, asking: Asking, doing: str) -> None:
        self._remote, self._asking, self._doing = remote, asking, doing
        for name in FACTS:
            if hasattr(remote, name):
                setattr(self, name, getattr(remote, name))

    async def summarise(self, parts: Sequence[Part]) -> list[dict[int, Summary]]:
        return await self._asking.ask(partial(self._remote.summarise, parts), judge.summaries, self._doing)

    def hashes(self, part: Part) -> AsyncIterator[list[tuple[Key, int]]]:
        return self._asking.each(self._remote.hashes(part), partial(judge.hashes, doing=self._doing))


def judged_source(source: Any, asking: Asking) -> Source:
    """The source that a foreign dialect has opened, as the host uses it. Raises DialectFailed if it lacks a method."""
    needed = [*METHODS]
    needed += ["snapshot"] if Feature.SNAPSHOT in asking.dialect.features else []
    needed += ["comparing"] if Feature.COMPARE in asking.dialect.features else []
    if missing := [name for name in needed if not callable(getattr(source, name, None))]:
        raise DialectFailed(
            f"{asking.dialect.label} opened a source without the method {missing[0]}, which its features, or the "
            "protocol Source, ask for; update the plugin, or tell its author"
        )
    return JudgedSource(source, asking)

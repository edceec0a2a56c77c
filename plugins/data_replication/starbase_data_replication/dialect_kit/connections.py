"""What an author writes: one connection to a source, with coroutines or with a driver that blocks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, ClassVar

from starbase_data_replication.dialect_kit.batching import size_of
from starbase_data_replication.dialect_kit.positions import Value
from starbase_data_replication.dialect_kit.row_plan import RowPlan
from starbase_data_replication.errors import SyncError
from starbase_data_replication.model import OpenTransactions, Row, TableName, TableSchema

# Rows that a connection hands over at once, and the bytes of their values at which fewer are.
CHUNK_ROWS = 500
CHUNK_BYTES = 1 << 20

NOT_SHOWN = OpenTransactions(known=False, reason="this kind of source does not show which transactions are open")
IN_ORDER = OpenTransactions(known=True, reason="the source has one writer, so that rows are committed in order")


class _Common:
    """What both kinds of connection have.

    Attributes:
        commits_in_order: whether a source with one writer at a time commits every row after all that were committed
            before, and with a higher tracking value. Then no open transaction can hold a lower one, and
            `open_transactions` answers IN_ORDER. False, the default, answers NOT_SHOWN: only the lookback protects.
            Do not set it for a source with several writers: rows that commit late would be missed.
        settings: the sourceConfig, resolved, with the defaults of the dialect's schema.
    """

    commits_in_order: ClassVar[bool] = False

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings

    def explain(self, error: Exception) -> SyncError | None:
        """The error to raise for one of the driver's; None for the kit's, which names only its class.

        The message must hold neither a secret nor a row's value, which a driver's own text may.

        A BlockingConnection's constructor may not have finished: then the object has no attributes, not even
        `settings`. Go by the error alone.
        """
        return None


class AsyncConnection(_Common, ABC):
    """One connection of a driver with coroutines. One task at a time uses it."""

    async def connect(self) -> None:
        """Connect. Called once, before all else."""

    async def disconnect(self) -> None:
        """Close the connection. Called once, also after a failure."""

    async def begin(self) -> None:
        """Open a snapshot that all `rows` see until `end`. What is committed after this returns must not be seen."""

    async def end(self) -> None:
        """Close the snapshot."""

    @abstractmethod
    async def describe(self, table: TableName, tracking_column: str) -> TableSchema:
        """Look a table up. Raises TableMissing. The kit finds out whether the tracking column exists."""

    @abstractmethod
    def rows(self, plan: RowPlan) -> AsyncGenerator[Row, None]:
        """The rows of a plan, one after the other: an async generator. Values are those of the driver; casts come
        after."""

    async def chunks(self, plan: RowPlan) -> AsyncGenerator[Sequence[Row], None]:
        """The same rows, some at a time. Replace it where the driver hands over many at once."""
        held: list[Row] = []
        size = 0
        async with aclosing(self.rows(plan)) as rows:
            async for row in rows:
                held.append(row)
                size += size_of(row)
                if len(held) >= CHUNK_ROWS or size >= CHUNK_BYTES:
                    yield held
                    held, size = [], 0
        if held:
            yield held

    @abstractmethod
    async def high_watermark(self, schema: TableSchema) -> Value | None:
        """The highest tracking value that is committed, as `rows` gives it, whatever `schema.where` is; or None."""

    async def open_transactions(self) -> OpenTransactions:
        """The transactions that have written, or may write, and have not ended. Asked after `high_watermark`."""
        return IN_ORDER if self.commits_in_order else NOT_SHOWN

    async def clock(self) -> float | None:
        """The source's clock in seconds since 1970; None for the host's."""
        return None


class BlockingConnection(_Common, ABC):
    """One connection of a driver that blocks. All methods but `interrupt` run in a thread of the connection's own.

    The constructor connects.
    """

    def close(self) -> None:
        """Close the connection. Called once."""

    def interrupt(self) -> None:
        """Make the call that is running return soon. Called from another thread when a run is cancelled.

        Without it, a cancelled call is waited for at most five seconds; then its thread is given up.
        """

    def begin(self) -> None:
        """As AsyncConnection's, like all that follow."""

    def end(self) -> None:
        """Close the snapshot."""

    @abstractmethod
    def describe(self, table: TableName, tracking_column: str) -> TableSchema:
        """Look a table up. Raises TableMissing. The kit finds out whether the tracking column exists."""

    @abstractmethod
    def rows(self, plan: RowPlan) -> Iterable[Row]:
        """The rows of a plan, one after the other, as a generator or the driver's cursor."""

    @abstractmethod
    def high_watermark(self, schema: TableSchema) -> Value | None:
        """The highest tracking value that is committed, as `rows` gives it, whatever `schema.where` is; or None."""

    def open_transactions(self) -> OpenTransactions:
        """The transactions that have written, or may write, and have not ended. Asked after `high_watermark`."""
        return IN_ORDER if self.commits_in_order else NOT_SHOWN

    def clock(self) -> float | None:
        """The source's clock in seconds since 1970; None for the host's."""
        return None

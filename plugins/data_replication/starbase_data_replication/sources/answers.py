"""The bounds of what a source answers, whichever dialect asked it: beyond them, an answer is refused by name.

A server in the middle, or a dialect of another plugin, can answer anything. Must not know a dialect or the target.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

from starbase_data_replication.errors import WHERE_TO_LOOK, OddAnswer
from starbase_data_replication.model import Batch
from starbase_data_replication.sources.protocols import Part, ReadPlan, Summary

# SQLite's largest integer, and more rows than any table has.
LARGEST = 2**63 - 1


def checked_summaries(
    answer: Sequence[Mapping[int, Summary]], parts: Sequence[Part], doing: str
) -> Sequence[Mapping[int, Summary]]:
    """The answer of `Comparing.summarise`. Raises OddAnswer if it is not about these parts, or counts what none has."""
    if len(answer) != len(parts):
        raise OddAnswer(f"{doing}: received sums of {len(answer)} parts of {len(parts)}; {WHERE_TO_LOOK}")
    for part, summaries in zip(parts, answer, strict=True):
        for bucket, (rows, checksum) in summaries.items():
            if type(bucket) is not int or not 0 <= bucket < part.buckets:
                raise OddAnswer(f"{doing}: received a sum of rows that were not asked for; {WHERE_TO_LOOK}")
            if type(rows) is not int or type(checksum) is not int or not 0 <= rows <= LARGEST or checksum < 0:
                raise OddAnswer(f"{doing}: received a count of rows that no table has; {WHERE_TO_LOOK}")
    return answer


async def checked_batches(batches: AsyncIterator[Batch], plan: ReadPlan) -> AsyncIterator[Batch]:
    """The batches of `Reader.read`. Raises OddAnswer for a size that is no number of bytes."""
    doing = f"reading {plan.schema.table}"
    async for batch in batches:
        if type(batch.bytes) is not int or not 0 <= batch.bytes <= LARGEST:
            raise OddAnswer(f"{doing}: received a batch whose size is no number of bytes; {WHERE_TO_LOOK}")
        yield batch
        # Not held while the next one comes.
        del batch

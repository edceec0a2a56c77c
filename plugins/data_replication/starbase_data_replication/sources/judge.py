"""The rules for what the dialect of another plugin hands over: each answer is copied into plain values, or refused.

Pure functions that run in the dialect's thread: an answer is an object of its plugin, whose methods may do anything.
The bounds that hold for every dialect are in `answers`. Must not know how a source is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from itertools import chain, islice
from operator import ne
from typing import Any, TypeVar

from starbase_data_replication.errors import BrokenRule
from starbase_data_replication.model import (
    Batch,
    Candidate,
    Cast,
    Column,
    HighWatermark,
    OpenTransactions,
    Rows,
    TableName,
    TableSchema,
    UnrepresentableValues,
)
from starbase_data_replication.sources.features import Feature
from starbase_data_replication.sources.protocols import ReadPlan, Summary
from starbase_host import kind_of

T = TypeVar("T")

# What SQLite stores. A class that is derived from one of these is not: its methods are the plugin's.
STORED = frozenset({int, float, str, bytes, bool, type(None)})
# Of the values of a column, how many are looked at for a conversion that was not applied.
CONVERTED_SAMPLE = 100
LOWEST, HIGHEST = -(2**63), 2**63 - 1


def one_of(*kinds: type) -> Callable[[Any, str], Any]:
    """A copy of a value whose class is exactly one of these."""
    names = " or ".join("None" if kind is type(None) else kind.__name__ for kind in kinds)

    def copied(value: Any, doing: str) -> Any:
        if type(value) not in kinds:
            raise BrokenRule(doing, f"received {kind_of(value)}, and {names} is needed")
        return value

    return copied


def many(make: Callable[[Any], Any], inner: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    """A copy of a collection. make: its class."""

    def copied(value: Any, doing: str) -> Any:
        if isinstance(value, str):
            raise BrokenRule(doing, "received str, and several values are needed")
        return make(inner(each, doing) for each in value)

    return copied


def texts(value: Any, doing: str) -> dict[str, str]:
    """A copy of a mapping of texts to texts."""
    return {TEXT(name, doing): TEXT(text, doing) for name, text in dict(value).items()}


def plain(kind: type[T]) -> Callable[[Any, str], T]:
    """A copy of a value of the model, with everything in it. Raises BrokenRule that names the field of a wrong type."""

    def copied(value: Any, doing: str) -> T:
        if not isinstance(value, kind):
            raise BrokenRule(doing, f"received {kind_of(value)}, and {kind.__name__} is needed")
        found = {}
        for field in fields(kind):  # type: ignore[arg-type]
            try:
                found[field.name] = COPIES[str(field.type)](getattr(value, field.name), doing)
            except BrokenRule as error:
                raise BrokenRule(doing, f"{kind.__name__}.{field.name}: {error.rule}") from None
        return kind(**found)

    return copied


def if_any(inner: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    """A copy of a value that may be None."""
    return lambda value, doing: None if value is None else inner(value, doing)


def function(value: Any, doing: str) -> Any:
    if not callable(value):
        raise BrokenRule(doing, f"received {kind_of(value)}, and a function is needed")
    return value


def nothing(value: Any, doing: str) -> None:
    """An answer that nobody reads."""


TEXT = one_of(str)
FLAG = one_of(bool)
NUMBER = one_of(int, float)
COUNT = one_of(int)
# By the annotation of a field of the model.
COPIES: Mapping[str, Callable[[Any, str], Any]] = {
    "str": TEXT,
    "str | None": if_any(TEXT),
    "bool": FLAG,
    "int": COUNT,
    "int | None": if_any(COUNT),
    "float": NUMBER,
    "float | None": if_any(NUMBER),
    "tuple[str, ...]": many(tuple, TEXT),
    "frozenset[str]": many(frozenset, TEXT),
    "Mapping[str, str]": texts,
    "type | None": if_any(function),
    "Callable[[Any], Any] | None": if_any(function),
    # What a dialect keeps for itself.
    "Any": lambda value, doing: value,
    "Cast": plain(Cast),
    "TableName": plain(TableName),
    "tuple[Column, ...]": many(tuple, plain(Column)),
    "OpenTransactions": plain(OpenTransactions),
    "Candidate | None": if_any(plain(Candidate)),
}


def schema(value: Any, doing: str) -> TableSchema:
    """What `describe` answers: a table with a tracking column and a key that it has."""
    found = plain(TableSchema)(value, doing)
    names = {column.name for column in (*found.columns, *found.left_out)}
    for name in (*found.key, *found.parent_key, found.tracking_column):
        if name not in names:
            raise BrokenRule(doing, f"the key or the tracking column is {name}, which is not among the columns")
    if len(set(found.key)) < len(found.key):
        raise BrokenRule(doing, "the key names a column twice")
    return found


def watermark(value: Any, doing: str) -> HighWatermark:
    """What `read_high_watermark` answers: counts are not negative."""
    found = plain(HighWatermark)(value, doing)
    if found.ahead < 0 or found.shared < 0:
        raise BrokenRule(doing, "received a count of rows that is negative")
    return found


def count(value: Any, doing: str) -> int:
    """A number of rows."""
    found: int = COUNT(value, doing)
    if not 0 <= found <= HIGHEST:
        raise BrokenRule(doing, "received an impossible count of rows")
    return found


def checked_hosts(value: Any) -> list[str]:
    """What a dialect's `hosts` answers."""
    found: list[str] = many(list, TEXT)(value, "naming its hosts")
    return found


def summaries(value: Any, doing: str) -> list[dict[int, Summary]]:
    """What `summarise` answers; `checked_summaries` checks the numbers."""
    return [{bucket: Summary(*each) for bucket, each in dict(part).items()} for part in value]


def hashes(value: Any, doing: str) -> list[tuple[tuple[Any, ...], int]]:
    """Some of the rows that `hashes` streams."""
    found = [(tuple(key), hashed) for key, hashed in value]
    if any(type(each) not in STORED for key, hashed in found for each in (*key, hashed)):
        raise BrokenRule(doing, "received a key or a hash that is no plain value")
    return found


def batch(value: Any, *, plan: ReadPlan, features: frozenset[Feature], unique: bool) -> Batch:
    """A batch as one list of plain values. Raises BrokenRule for rows that the plan did not ask for.

    unique: whether the key is the dialect's own, and not a user's `keyColumns`.
    """
    doing = f"reading {plan.schema.table}"
    if not isinstance(value, Batch):
        raise BrokenRule(doing, f"received {kind_of(value)}, and Batch is needed")
    names = [column.name for column in plan.schema.columns]
    rows = _rows(value.rows, plan, len(names) + plan.left_filter, doing)
    _check_values(rows, [*names, "left_filter"], doing)
    _check_plan(rows, plan, names, unique, doing)
    _check_converted(rows, plan, doing)
    last_key = if_any(many(tuple, TEXT))(value.last_key, doing)
    if last_key is not None and not (plan.in_key_order and Feature.RESUME in features):
        raise BrokenRule(doing, "received a last_key, which only a read in key order of a dialect with resume has")
    return Batch(
        rows=rows,
        bytes=value.bytes,
        last_key=last_key,
        last=FLAG(value.last, doing),
        unrepresentable={
            UnrepresentableValues(TEXT(each.column, doing), TEXT(each.policy, doing)): count(number, doing)
            for each, number in islice(dict(value.unrepresentable).items(), len(names))
        },
    )


def _rows(found: Sequence[Any], plan: ReadPlan, width: int, doing: str) -> Rows:
    """Rows as one list: each has so many values, and there are no more than a batch may have."""
    if isinstance(found, Rows):
        if found.width != width or len(found.values) % width:
            raise BrokenRule(doing, f"received a row that does not have {width} values")
        rows = Rows(list(found.values), width)
    else:
        taken = [tuple(row) for row in islice(found, plan.batch_rows + 1)]
        if any(len(row) != width for row in taken):
            raise BrokenRule(doing, f"received a row that does not have {width} values")
        rows = Rows(list(chain.from_iterable(taken)), width)
    if len(rows) > plan.batch_rows:
        raise BrokenRule(doing, f"received a batch of more than {plan.batch_rows:,} rows, which are the most")
    return rows


def _check_values(rows: Rows, names: Sequence[str], doing: str) -> None:
    """Each value is one that SQLite stores as it is."""
    for at in range(rows.width):
        values = rows.column(at)
        kinds = set(map(type, values))
        if kinds - STORED:
            kind = kind_of(next(value for value in values if type(value) not in STORED))
            raise BrokenRule(doing, f"{names[at]}: received {kind}, which SQLite does not store")
        numbers = (
            values if kinds == {int} else [value for value in values if type(value) is int] if int in kinds else []
        )
        if numbers and not LOWEST <= min(numbers) <= max(numbers) <= HIGHEST:
            raise BrokenRule(doing, f"{names[at]}: received a number of more than 64 bits; give its digits as text")
        if float in kinds and any(map(ne, values, values)):
            raise BrokenRule(doing, f"{names[at]}: received NaN, which SQLite takes for NULL; use float_or_text")


def _check_plan(rows: Rows, plan: ReadPlan, names: Sequence[str], unique: bool, doing: str) -> None:
    """Each row has a key, and no key comes twice; rows have a tracking value, and show whether they left the filter."""
    if plan.left_filter and not set(rows.column(rows.width - 1)) <= {0, 1, "0", "1"}:
        raise BrokenRule(doing, "received a row whose last value, whether it is in the filter, is not 0 or 1")
    tracking = plan.schema.tracking_column
    if not plan.nulls and tracking in names and None in rows.column(names.index(tracking)):
        raise BrokenRule(doing, "received a row without a tracking value, which was not asked for")
    if not plan.schema.key or not set(plan.schema.key) <= set(names):
        return
    columns = [rows.column(names.index(name)) for name in plan.schema.key]
    if any(None in values for values in columns):
        raise BrokenRule(doing, f"received a row without a key ({', '.join(plan.schema.key)})")
    # By the source's collation, several of the keys that are asked for may be of one row.
    if unique and plan.keys is None and len(set(zip(*columns, strict=True))) < len(rows):
        raise BrokenRule(doing, f"received two rows with the same key ({', '.join(plan.schema.key)})")


def _check_converted(rows: Rows, plan: ReadPlan, doing: str) -> None:
    """Each cast's `convert` has been applied: it leaves a value that it has made as it is, or raises."""
    for at, column in enumerate(plan.schema.columns):
        if column.cast.convert is None:
            continue
        for value in islice((each for each in rows.column(at) if each is not None), CONVERTED_SAMPLE):
            try:
                again = column.cast.convert(value)
            except Exception:
                continue
            if type(again) is not type(value) or again != value:
                raise BrokenRule(
                    doing, f"{column.name}: the convert of its cast was not applied, or changes what it has made"
                )

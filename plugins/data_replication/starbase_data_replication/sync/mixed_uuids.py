"""Random uuids among rising ones, in the rows that a sync reads.

The highest value, which each sync notes, is almost surely a random one if there are any: only one of some 160 random
uuids is lower than those that begin with today's time. This finds these few, in rows that are read anyway. It is cheap
enough for each row of a first load: only values of another version are checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from starbase_data_replication.model import Row, Rows, TableSchema
from starbase_data_replication.sync import tracking_values

# The place of a uuid's version among its hex digits.
VERSION = 12
RISING, OTHERS = "67", "12345"
# Values of another version to check in a batch: if there are random ones, nearly each of them is one.
MOST = 100


@dataclass(frozen=True, kw_only=True)
class MixedUuids:
    """Finds uuids of a version that does not rise, in a column whose highest value is of a version that does.

    Attributes:
        index: the tracking column's place in a row.
        kind: as Column.rises.
        place: the place of the version in a value as it is read.
    """

    index: int
    kind: str
    place: int

    @classmethod
    def of(cls, schema: TableSchema, highest: str | None) -> MixedUuids | None:
        """None if the highest value, in the source's text form, is not a uuid of a version that rises."""
        column = schema.tracking
        if column.rises not in tracking_values.LOOKED_AT or highest is None:
            return None
        version = tracking_values.uuid_version(column.rises, highest)
        if version is None or version not in RISING:
            return None
        if column.rises == "bytes":
            place = VERSION // 2
        else:
            place = VERSION + highest[: VERSION + 3].count("-") + highest.startswith("{")
        return cls(index=schema.columns.index(column), kind=column.rises, place=place)

    def find(self, rows: Sequence[Row], *, now: float) -> str | None:
        """The uuids among the rows that do not rise, in words; None if there are none. now: seconds since 1970."""
        if not rows:
            return None
        values = Rows.of(rows, len(rows[0])).column(self.index)
        for value in self._suspected(values)[:MOST]:
            text = tracking_values.BYTES_MARK + value.hex() if isinstance(value, bytes) else value
            version = tracking_values.uuid_version(self.kind, text)
            if version is not None and version in OTHERS and not tracking_values.rises(self.kind, text, now=now):
                return tracking_values.of_version(version)
        return None

    def _suspected(self, values: list[Any]) -> list[Any]:
        """The values with another version in its place. Shorter values are left out."""
        try:
            versions = set(map(itemgetter(self.place), values))
        except (IndexError, TypeError):
            values = [value for value in values if isinstance(value, str | bytes) and len(value) > self.place]
            versions = {value[self.place] for value in values}
        others = {each for each in versions if (f"{each:02x}"[0] if isinstance(each, int) else each) in OTHERS}
        return [value for value in values if value[self.place] in others] if others else []

"""What a position is about, as one text: the source's table, the replica, and what is copied of the one into the other.

The text is stored: what an older version has written must be read here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starbase_data_replication.config import FIELDS
from starbase_data_replication.model import Replication
from starbase_data_replication.sync import tracking_values


@dataclass(frozen=True, kw_only=True)
class Identity:
    """source: what its dialect says. selection: the options that say what is copied, by their attributes."""

    source: tuple[str, ...]
    target: str
    tracking: str
    selection: Mapping[str, Any] = field(default_factory=dict)


def identity_of(source: Sequence[str], replication: Replication) -> str:
    """The text for this replication, whose dialect names the source so."""
    selection = [replication.options.selection] if replication.options.selection else []
    # To name the column that is taken anyway changes nothing.
    tracking = replication.tracking_column or tracking_values.DEFAULT
    return json.dumps([*source, replication.target_table, tracking, *selection])


def read(text: str) -> Identity:
    """What `identity_of` has written."""
    parts = json.loads(text)
    selection = parts.pop() if isinstance(parts[-1], dict) else {}
    tracking, target = parts.pop(), parts.pop()
    return Identity(source=tuple(parts), target=target, tracking=tracking, selection=selection)


def changed_fields(before: Identity, now: Identity) -> list[str]:
    """The fields of `configure` that tell two of one source apart, by their names in JSON."""
    names = {each.attribute: each.json for each in FIELDS}
    changed = ["tracking_column"] if before.tracking != now.tracking else []
    chosen = before.selection.keys() | now.selection.keys()
    changed += sorted(name for name in chosen if before.selection.get(name) != now.selection.get(name))
    return [names[each] for each in changed]

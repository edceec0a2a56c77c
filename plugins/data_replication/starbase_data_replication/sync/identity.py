"""What a position belongs to, as one text: the source's table, the replica, and the selection that is copied.

The text is stored: what an older version has written must be read here, too.
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
    """What a position belongs to.

    Attributes:
        source: what makes a table of a source that table, as its dialect says.
        target: the target's name.
        tracking: the tracking column's name.
        selection: the options that say what is copied, by their attributes.
    """

    source: tuple[str, ...]
    target: str
    tracking: str
    selection: Mapping[str, Any] = field(default_factory=dict)


def identity_of(source: Sequence[str], replication: Replication) -> str:
    """The text for this replication. source: what its dialect says makes a table that table."""
    selection = [replication.options.selection] if replication.options.selection else []
    # Naming the default column changes nothing.
    tracking = replication.tracking_column or tracking_values.DEFAULT
    return json.dumps([*source, replication.target_table, tracking, *selection])


def parse_identity(text: str) -> Identity:
    """Parse the text of `identity_of`."""
    parts = json.loads(text)
    selection = parts.pop() if isinstance(parts[-1], dict) else {}
    tracking, target = parts.pop(), parts.pop()
    return Identity(source=tuple(parts), target=target, tracking=tracking, selection=selection)


def changed_fields(before: Identity, now: Identity) -> list[str]:
    """The fields of `configure` that differ between two identities of one source, by their names in JSON."""
    names = {each.attribute: each.json for each in FIELDS}
    changed = ["tracking_column"] if before.tracking != now.tracking else []
    chosen = before.selection.keys() | now.selection.keys()
    changed += sorted(name for name in chosen if before.selection.get(name) != now.selection.get(name))
    return [names[each] for each in changed]

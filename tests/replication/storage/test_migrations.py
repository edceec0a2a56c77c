"""A position that an earlier version has stored is read by this one: nothing is loaded again for an upgrade."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import apsw
import pytest

from starbase_data_replication.model import (
    Candidate,
    Former,
    OpenTransactions,
    Phase,
    Position,
    SchemaFingerprint,
)
from starbase_data_replication.model.options import Replication
from starbase_data_replication.storage import store
from tests.support.stored import under_way

MIGRATIONS = sorted(
    (entry.name, entry.read_text(encoding="utf-8"))
    for entry in files("starbase_data_replication.storage.migrations").iterdir()
    if entry.name.endswith(".sql")
)
RENAMED = "007_position_names.sql"
SHAPE = {"columns": {"id": ["bigint", "a number", "id", ""]}, "key": ["id"]}
FINGERPRINT = SchemaFingerprint(columns={"id": ("bigint", "a number", "id", "")}, key=("id",))


def candidate(value: str, since: float | None) -> dict[str, Any]:
    alive = {"known": True, "tokens": ["v:1/2", "v:3/4"], "reason": "", "epoch": "e", "passing": False}
    return {
        "value": value, "noted_at": 5.0, "alive": alive, "lookback_value": None, "protected": True,
        "untold_since": since,
    }  # fmt: skip


OLD: dict[str, Any] = {
    "identity": "i", "phase": "follow", "floor": "7", "candidates": [candidate("8", None), candidate("9", 6.5)],
    "load_key": None, "loading_since": None, "into_shadow": False, "shape": SHAPE, "dropped": ["gone"], "told": True,
    "untold_since": 4.0, "files": {"t": "1"}, "server": "s", "reload": None,
    "former": {"identity": "f", "shape": SHAPE, "why": "a reason", "noted": True, "kept": 3},
}  # fmt: skip


def new(value: str, since: float | None) -> Candidate:
    tokens = frozenset({"v:1/2", "v:3/4"})
    return Candidate(
        value=value,
        noted_at=5.0,
        open_transactions=OpenTransactions(known=True, tokens=tokens, epoch="e"),
        unknown_since=since,
    )


NEW = Position(
    identity="i",
    phase=Phase.FOLLOW,
    floor="7",
    candidates=(new("8", None), new("9", 6.5)),
    fingerprint=FINGERPRINT,
    dropped=("gone",),
    shows_transactions=True,
    unknown_since=4.0,
    files={"t": "1"},
    server="s",
    former=Former(identity="f", fingerprint=FINGERPRINT, why="a reason", noted=True, kept=3),
)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (OLD, NEW),
        ({"identity": "i", "phase": "load", "floor": None, "candidates": [], "load_key": ["1"]},
         Position(identity="i", load_key=("1",))),
        ({"identity": "i", "phase": "load", "candidates": [], "load_key": None, "shape": None, "told": None,
          "untold_since": None, "former": None}, Position(identity="i")),
    ],
    ids=["all", "few", "nulls"],
)  # fmt: skip
def test_a_position_of_before_is_read(old: dict[str, Any], new: Position) -> None:
    connection = apsw.Connection(":memory:")
    before = [sql for name, sql in MIGRATIONS if name < RENAMED]
    for sql in before:
        connection.execute(sql)
    replication = Replication(
        name="r",
        source_config={"dialect": "postgresql"},
        source_table="t",
        target_table="t",
        sync_interval_minutes=5,
        tracking_column="id",
    )
    stored = under_way(connection, replication)
    connection.execute("INSERT INTO tmp_replication_positions VALUES (?, ?)", (stored.id, json.dumps(old)))
    for _, sql in MIGRATIONS[len(before) :]:
        connection.execute(sql)
    assert store.load_position(connection, stored) == new
    store.save_position(connection, stored, new)
    assert store.load_position(connection, stored) == new

"""The events that durable subscribers are still to get, and how far each subscriber has come.

Functions of an APSW connection: an event is stored in the transaction of what it reports, and only if a subscriber that
is known wants its type. Must not know how events are delivered.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass

import apsw

from starbase_data_replication.model import ReplicationEvent

# The newest events that are kept, however far a subscriber is behind.
MAX_EVENTS = 10_000
# Bytes of the events that one read returns, at least one event.
READ_BYTES = 256 * 1024

_LAST = "(SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'tmp_replication_events')"


@dataclass(frozen=True)
class SubscriberKey:
    """A durable subscriber: its plugin, and the name that it gave, which is unique within the plugin."""

    plugin: str
    name: str


def register(connection: apsw.Connection, key: SubscriberKey, types: Collection[str], *, now: float) -> None:
    """Remember a subscriber and its types. A new one starts after the events of before; others keep their position."""
    connection.execute(
        f"INSERT INTO tmp_replication_subscribers VALUES (?, ?, ?, {_LAST}, ?) "
        "ON CONFLICT (plugin, name) DO UPDATE SET types = excluded.types, seen_at = excluded.seen_at",
        (key.plugin, key.name, json.dumps(sorted(types)), now),
    )


def store(connection: apsw.Connection, event: ReplicationEvent, *, now: float) -> None:
    """Store an event if a subscriber wants it. Call it in the transaction of what the event reports."""
    connection.execute(
        "INSERT INTO tmp_replication_events (type, created_at, event) SELECT ?1, ?2, ?3 WHERE EXISTS "
        "(SELECT 1 FROM tmp_replication_subscribers, json_each(types) WHERE value = ?1)",
        (event.type, now, json.dumps(event.as_dict())),
    )
    if connection.changes():
        connection.execute(f"DELETE FROM tmp_replication_events WHERE id <= {_LAST} - ?", (MAX_EVENTS,))


def next_events(connection: apsw.Connection, key: SubscriberKey) -> tuple[list[tuple[int, ReplicationEvent]], bool]:
    """The oldest events that a subscriber has not taken, with their ids; and whether older ones were removed.

    A subscriber that was forgotten, after it stayed away for too long, has none.
    """
    found = connection.execute(
        "SELECT position, types FROM tmp_replication_subscribers WHERE plugin = ? AND name = ?", (key.plugin, key.name)
    ).fetchone()
    if found is None:
        return [], False
    position, types = int(str(found[0])), str(found[1])
    oldest = connection.execute("SELECT min(id) FROM tmp_replication_events").get
    events: list[tuple[int, ReplicationEvent]] = []
    size = 0
    rows = connection.execute(
        "SELECT id, event FROM tmp_replication_events WHERE id > ? AND type IN (SELECT value FROM json_each(?)) "
        "ORDER BY id",
        (position, types),
    )
    for number, text in rows:
        events.append((int(str(number)), ReplicationEvent.parse(json.loads(str(text)))))
        size += len(str(text))
        if size >= READ_BYTES:
            break
    rows.close()
    return events, oldest is not None and int(oldest) > position + 1


def advance(connection: apsw.Connection, key: SubscriberKey, position: int) -> None:
    """Store that a subscriber has taken the events up to this id."""
    connection.execute(
        "UPDATE tmp_replication_subscribers SET position = ? WHERE plugin = ? AND name = ?",
        (position, key.plugin, key.name),
    )


def touch(connection: apsw.Connection, keys: Collection[SubscriberKey], *, now: float) -> None:
    """Store that this host has these subscribers."""
    connection.executemany(
        "UPDATE tmp_replication_subscribers SET seen_at = ? WHERE plugin = ? AND name = ?",
        [(now, key.plugin, key.name) for key in keys],
    )


def prune(connection: apsw.Connection, *, before: float, at_most: int) -> int:
    """Forget subscribers that no host has had since this time, and remove events that are older or that all have taken.

    at_most: how many events one call removes. Returns how many it removed.
    """
    connection.execute("DELETE FROM tmp_replication_subscribers WHERE seen_at < ?", (before,))
    connection.execute(
        "DELETE FROM tmp_replication_events WHERE id IN (SELECT id FROM tmp_replication_events WHERE created_at < ?1 "
        f"OR id <= (SELECT coalesce(min(position), {_LAST}) FROM tmp_replication_subscribers) ORDER BY id LIMIT ?2)",
        (before, at_most),
    )
    return connection.changes()

"""The outbox: events that are stored, with the run that causes them, until they are sent.

Those are `degraded`, `recovered`, and that of a run which the end of the host has interrupted.

Functions of an APSW connection, for the transaction that records the run. The event is stored in that transaction and
sent after it, so that a host that ends in between sends it at its next start. Must not know who gets events.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import apsw

from starbase_data_replication.model import ReplicationEvent, SyncRun
from starbase_host import iso

# Events that are sent at the same time: a subscriber that hangs then delays fifty events once, and not each in turn.
AT_ONCE = 50


def record_health(connection: apsw.Connection, run: SyncRun) -> ReplicationEvent | None:
    """Update the health of a replication after a sync: the first failure degrades it, the next success recovers it.

    Returns the event of that, which is stored now; None if nothing has changed.
    """
    if not run.kind.syncs or run.status not in ("success", "error"):
        return None
    found = connection.execute(
        "SELECT degraded_since, consecutive_failures, target_table FROM tmp_replication_configs WHERE name = ?",
        (run.config_name,),
    ).fetchone()
    if found is None:
        return None
    since, failures, target = found
    failed = run.status == "error"
    if failed == (since is not None):
        return None
    connection.execute(
        "UPDATE tmp_replication_configs SET degraded_since = ? WHERE name = ?",
        (run.finished_at if failed else None, run.config_name),
    )
    details = {"degraded_since": iso(run.finished_at if failed else since), "consecutive_failures": failures}
    event = ReplicationEvent.of(run, "degraded" if failed else "recovered", details, target_table=str(target))
    add(connection, event)
    return event


def add(connection: apsw.Connection, event: ReplicationEvent) -> None:
    """Store an event until it is sent."""
    connection.execute("INSERT INTO tmp_replication_outbox (event) VALUES (?)", (json.dumps(event.as_dict()),))


def select_unsent(connection: apsw.Connection) -> list[tuple[int, ReplicationEvent]]:
    """The oldest events that have not been sent, at most AT_ONCE, each with its number in the outbox."""
    rows = connection.execute("SELECT id, event FROM tmp_replication_outbox ORDER BY id LIMIT ?", (AT_ONCE,)).fetchall()
    return [(int(str(number)), ReplicationEvent.parse(json.loads(str(event)))) for number, event in rows]


def delete_sent(connection: apsw.Connection, numbers: Sequence[int]) -> None:
    """Delete events that have been sent, by their numbers."""
    connection.executemany("DELETE FROM tmp_replication_outbox WHERE id = ?", [(number,) for number in numbers])

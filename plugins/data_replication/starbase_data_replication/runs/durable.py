"""Delivering stored events to durable subscribers: each at least once, in order, across restarts of the host.

An event is stored with what it reports; a subscriber's position is stored after it has taken the event. Must not know
why an event was stored.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from starbase_data_replication.facade import Callback
from starbase_data_replication.model import ReplicationEvent
from starbase_data_replication.runs.database_retry import retry_database
from starbase_data_replication.storage import SubscriberKey, event_log
from starbase_host import Host, StarbaseError, Worker

log = logging.getLogger("starbase.data_replication")

LONGEST_WAIT_SECONDS = 300.0


@dataclass(kw_only=True, eq=False)
class DurableSubscriber:
    """One durable subscriber while a host runs.

    key: its plugin and name.
    callback: takes one event; a plain or a coroutine function.
    types: the types of events that it gets.
    host: the host of the data-replication plugin.
    opened: set once its tables exist.
    ready: set once every plugin has started; before, nothing is delivered.
    """

    key: SubscriberKey
    callback: Callback
    types: Collection[str]
    host: Host
    opened: asyncio.Event
    ready: asyncio.Event
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"on_event-{self.key.plugin}-{self.key.name}")

    def wake(self) -> None:
        """Look now for events that are new."""
        self._changed.set()

    def close(self) -> None:
        """End the delivery. An event that the callback is taking comes again."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        worker = Worker(f"on_event-{self.key.name}", plugin=self.key.plugin)
        database = self.host.database
        retry = partial(retry_database, self.host, what=f"the durable subscriber {self.key.name} waits")
        try:
            await self.opened.wait()
            register = partial(event_log.register, key=self.key, types=self.types, now=self.host.clock.now())
            await retry(partial(database.write, register))
            await self.ready.wait()
            while True:
                self._changed.clear()
                events, missed = await retry(partial(database.read, partial(event_log.next_events, key=self.key)))
                if missed and events:
                    log.warning(
                        "plugin %s: its durable subscriber %s was behind for too long and has missed events",
                        self.key.plugin, self.key.name,
                    )  # fmt: skip
                for number, event in events:
                    await self._deliver(event, worker)
                    await retry(partial(database.write, partial(event_log.advance, key=self.key, position=number)))
                if not events:
                    await self._changed.wait()
        except StarbaseError:
            # The host stops: the next start goes on from the stored position.
            pass
        finally:
            worker.close()

    async def _deliver(self, event: ReplicationEvent, worker: Worker) -> None:
        """Deliver an event until the callback has taken it: again after 2, 4, 8 … seconds, so that the order stays."""
        wait = 1.0
        while not await self.host.call_function(
            self.key.plugin, f"on_event {self.key.name}", self.callback, event.copy(), worker=worker
        ):
            wait = min(2 * wait, LONGEST_WAIT_SECONDS)
            await self.host.clock.sleep(wait)


def check_durable(types: Collection[str], never: Collection[str], name: Any) -> None:
    """Raise ValueError if events of these types are not stored, or the name is not usable."""
    if not isinstance(name, str) or not 0 < len(name) <= 63:
        raise ValueError("durable must be a name of 1 to 63 characters")
    if ephemeral := sorted(set(types) & set(never)):
        raise ValueError(f"{', '.join(ephemeral)}: not stored; subscribe to it without durable")

"""Delivering events of runs to plugins that implement `replication_event`, and to callbacks given to `on_event`.

An event is sent after the commit of what it reports, at most once: the run record is the truth. `degraded` and
`recovered` are stored with the record, and sent at the next start if the host ends before they were sent. A subscriber
that hangs or raises is logged and delays no other; when too many deliveries wait, new ones are dropped and logged.
Must not know why a run has ended.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any, TypeVar

from starbase_data_replication.model import ReplicationEvent
from starbase_data_replication.storage import Store, outbox
from starbase_host import Host, StarbaseError, Worker

log = logging.getLogger("starbase.data_replication")

# Deliveries that may wait for subscribers: each keeps its event in memory, and one that hangs waits for its time limit.
MAX_WAITING = 1000
# How long to wait before a database that is locked or full is asked again.
AGAIN_SECONDS = 5.0
T = TypeVar("T")
Callback = Callable[[ReplicationEvent], Awaitable[None] | None]


class Events:
    """Delivers the events of one host in the background."""

    def __init__(self, host: Host, store: Store) -> None:
        self._host = host
        self._store = store
        self._posting = asyncio.Lock()
        self._subscribers: dict[int, tuple[Callback, frozenset[str], Worker]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._next = 0

    def subscribe(self, callback: Callback, types: Collection[str]) -> Callable[[], None]:
        """Call `callback(event)` for events of these types; returns a function that ends the subscription."""
        self._next += 1
        number = self._next
        self._subscribers[number] = (callback, frozenset(types), Worker(f"on_event-{number}"))

        def unsubscribe() -> None:
            ended = self._subscribers.pop(number, None)
            if ended is not None:
                ended[2].close()

        return unsubscribe

    def send(self, event: ReplicationEvent) -> None:
        """Deliver an event in the background."""
        if len(self._tasks) >= MAX_WAITING:
            log.error("%d events wait for their subscribers; that of run %s is dropped", MAX_WAITING, event.run_id)
            return
        self._spawn(self._host.call("replication_event", event=event))
        for callback, types, worker in list(self._subscribers.values()):
            if event.type in types:
                self._spawn(self._deliver(callback, worker, event))

    def post(self) -> None:
        """Send the events of the outbox in the background, and delete each once it was sent."""
        self._spawn(self._post())

    async def _post(self) -> None:
        database = self._store.database
        async with self._posting:
            while events := await self._retry(partial(database.read, outbox.select_unsent)):
                # Several at once: a subscriber that hangs delays each of its calls until its time limit.
                await asyncio.gather(*(self._send_to_all(event) for _, event in events))
                numbers = [number for number, _ in events]
                await self._retry(partial(database.write, partial(outbox.delete_sent, numbers=numbers)))

    async def _retry(self, attempt: Callable[[], Awaitable[T]]) -> T | None:
        """Repeat an access to the database while it cannot be used, so that no event is sent twice; None at the end."""
        while True:
            try:
                return await attempt()
            except StarbaseError as error:
                if self._host.stopping.is_set():
                    # The next start sends what is still in the outbox.
                    return None
                log.error("events in the outbox wait for the database: %s", error)
                await self._host.clock.sleep(AGAIN_SECONDS)

    async def _send_to_all(self, event: ReplicationEvent) -> None:
        """Deliver an event to every subscriber, and wait until each has returned or failed."""
        deliveries: list[Awaitable[Any]] = [self._host.call("replication_event", event=event)]
        deliveries += [
            self._deliver(callback, worker, event)
            for callback, types, worker in list(self._subscribers.values())
            if event.type in types
        ]
        await asyncio.gather(*deliveries, return_exceptions=True)

    async def drain(self, timeout_seconds: float) -> None:
        """Wait for the deliveries under way, at most so long."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_seconds)

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, callback: Callback, worker: Worker, event: ReplicationEvent) -> None:
        try:
            await worker.call(callback, (event,), self._host.config.hook_timeout_seconds)
        except Exception:
            log.exception("a callback given to on_event failed")

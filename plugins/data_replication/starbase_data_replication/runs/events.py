"""Delivering events of runs to plugins that implement `replication_event`, and to callbacks given to `on_event`.

An event is sent after the commit of what it reports, at most once: the run record is the truth. `degraded` and
`recovered` are stored with the record, and sent at the next start if the host ends before they were sent. A subscriber
that hangs or raises is logged and delays no other; when too many deliveries wait, new ones are dropped and logged.
Must not know why a run has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

from starbase_data_replication.facade import Callback
from starbase_data_replication.model import EVENT_TYPES, PROGRESS, READY, ReplicationEvent
from starbase_data_replication.runs.database_retry import retry_database
from starbase_data_replication.runs.durable import DurableSubscriber, check_durable
from starbase_data_replication.storage import Store, event_log, outbox
from starbase_host import Conflict, Host, StarbaseError, Streak, Worker, did_you_mean, iso

log = logging.getLogger("starbase.data_replication")

# Deliveries that may wait for subscribers: each keeps its event in memory, and one that hangs waits for its time limit.
MAX_WAITING = 1000


@dataclass(frozen=True)
class _Subscriber:
    """A callback given to `on_event`, the types of events that it gets, its plugin, and its own thread."""

    callback: Callback
    types: frozenset[str]
    plugin: str
    worker: Worker


class Events:
    """Delivers the events of one host in the background."""

    def __init__(self, host: Host, store: Store) -> None:
        self._host = host
        self._store = store
        self._posting = asyncio.Lock()
        self._subscribers: dict[int, _Subscriber] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._next = 0
        self._dropped = Streak(host.config.hook_timeout_seconds)
        # Set once the plugin's tables exist, and once every plugin has started.
        self.opened = asyncio.Event()
        self._ready = asyncio.Event()
        self._durable: dict[event_log.SubscriberKey, DurableSubscriber] = {}

    def subscribe(self, callback: Callback, types: Collection[str], durable: str | None = None) -> Callable[[], None]:
        """Call `callback(event)` for events of these types; returns a function that ends the subscription.

        durable: the name of a durable subscriber of the calling plugin. Raises ValueError for an unknown type, and
        Conflict for a name that is in use.
        """
        for type in types:
            if type not in EVENT_TYPES:
                raise ValueError(f"{type!r} is not a type of event; {did_you_mean(str(type), EVENT_TYPES)}")
        if durable is not None:
            return self._subscribe_durably(callback, types, durable)
        self._next += 1
        number = self._next
        plugin = self._host.running_plugin()
        self._subscribers[number] = _Subscriber(
            callback, frozenset(types), plugin, Worker(f"on_event-{number}", plugin=plugin)
        )

        def unsubscribe() -> None:
            ended = self._subscribers.pop(number, None)
            if ended is not None:
                ended.worker.close()

        return unsubscribe

    def _subscribe_durably(self, callback: Callback, types: Collection[str], name: str) -> Callable[[], None]:
        check_durable(types, (PROGRESS, READY), name)
        key = event_log.SubscriberKey(self._host.running_plugin(), name)
        if key in self._durable:
            raise Conflict(f"plugin {key.plugin} has a durable subscriber {name} already; give each another name")
        subscriber = DurableSubscriber(
            key=key,
            callback=callback,
            types=frozenset(types),
            host=self._host,
            opened=self.opened,
            ready=self._ready,
        )
        self._durable[key] = subscriber
        subscriber.start()

        def unsubscribe() -> None:
            if self._durable.get(key) is subscriber:
                del self._durable[key]
                subscriber.close()

        return unsubscribe

    def close(self) -> None:
        """End the delivery to durable subscribers; their positions stay."""
        for subscriber in self._durable.values():
            subscriber.close()
        self._durable.clear()

    async def touch(self) -> None:
        """Store that this host has its durable subscribers, so that they are not forgotten."""
        if self._durable:
            touch = partial(event_log.touch, keys=list(self._durable), now=self._host.clock.now())
            await self._store.database.write(touch)

    def wants(self, type: str) -> bool:
        """Whether a callback has asked for events of this type."""
        return bool(self._of_type(type))

    def send(self, event: ReplicationEvent) -> None:
        """Deliver an event in the background. For durable subscribers, it was stored with what it reports."""
        for subscriber in self._durable.values():
            subscriber.wake()
        now = self._host.clock.monotonic()
        for delivery in self._deliveries(event):
            if len(self._tasks) >= MAX_WAITING:
                delivery.close()
                if self._dropped.fail(now):
                    what = f"a {event.type} event is dropped, number {self._dropped.count:,} in a row"
                    log.error("%d events wait for their subscribers; %s", MAX_WAITING, what)
                continue
            if dropped := self._dropped.succeed(now):
                log.warning("events are sent again to subscribers, after %d were dropped", dropped)
            self._spawn(delivery)

    def announce_ready(self) -> None:
        """Send `host_ready`, once."""
        if not self._ready.is_set():
            self._ready.set()
            self.send(ReplicationEvent(type=READY, occurred_at=iso(self._host.clock.now()) or ""))

    def post(self) -> None:
        """Send the events of the outbox in the background, and delete each once it was sent."""
        self._spawn(self._post())

    async def _post(self) -> None:
        database = self._store.database
        retry = partial(retry_database, self._host, what="events in the outbox wait")
        # The host stops: the next start sends what is still in the outbox.
        with contextlib.suppress(StarbaseError):
            async with self._posting:
                while events := await retry(partial(database.read, outbox.select_unsent)):
                    # Several at once: a subscriber that hangs delays each of its calls until its time limit.
                    await asyncio.gather(*(self._send_to_all(event) for _, event in events))
                    numbers = [number for number, _ in events]
                    await retry(partial(database.write, partial(outbox.delete_sent, numbers=numbers)))

    async def _send_to_all(self, event: ReplicationEvent) -> None:
        """Deliver an event to every subscriber, and wait until each has returned or failed."""
        await asyncio.gather(*self._deliveries(event), return_exceptions=True)

    def _deliveries(self, event: ReplicationEvent) -> list[Coroutine[Any, Any, Any]]:
        """What delivers an event to each subscriber: a copy for each, which shares nothing with that of another."""
        # A hook cannot say which types it wants, and would get this one every second.
        hooks = [] if event.type == PROGRESS else self._host.implementers("replication_event")
        return [
            *(self._host.call("replication_event", only=plugin, event=event.copy()) for plugin in hooks),
            *(self._deliver(each, event.copy()) for each in self._of_type(event.type)),
        ]

    async def drain(self, timeout_seconds: float) -> None:
        """Wait for the deliveries under way, at most so long."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_seconds)

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _of_type(self, type: str) -> list[_Subscriber]:
        return [each for each in self._subscribers.values() if type in each.types]

    async def _deliver(self, subscriber: _Subscriber, event: ReplicationEvent) -> None:
        await self._host.call_function(
            subscriber.plugin, "on_event", subscriber.callback, event, worker=subscriber.worker
        )

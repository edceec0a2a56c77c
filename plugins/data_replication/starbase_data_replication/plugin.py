"""The hook implementations: wiring only. What runs is started in `plugin_lifespan` and ends with it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, cast

import click

from starbase_data_replication import hookspecs
from starbase_data_replication.cli import commands
from starbase_data_replication.connections import Connections
from starbase_data_replication.facade import Callback, DataReplication, ReplicationStatus, RunRecord
from starbase_data_replication.routes import Api
from starbase_data_replication.runs import (
    Events,
    Recorder,
    Retention,
    RowCounts,
    Runner,
    Scheduler,
    Slots,
    Watchdog,
)
from starbase_data_replication.service import Service
from starbase_data_replication.sources import Dialects
from starbase_data_replication.sources.mysql import MysqlDialect
from starbase_data_replication.sources.network import HostPolicy, allowed_hosts
from starbase_data_replication.sources.postgresql import PostgresqlDialect
from starbase_data_replication.sources.settings import Variables, allowed_variables, not_allowed
from starbase_data_replication.storage import EncryptedSettings, SecretKeys, Store, user_objects
from starbase_host import (
    Alarm,
    CommandHost,
    ConfigError,
    Host,
    Route,
    Unavailable,
    check_versions,
    did_you_mean,
    hookimpl,
)

# Libraries whose private methods are used or replaced, so only tested versions will do.
BOUND = ("aiomysql", "PyMySQL", "asyncpg", "databases")
HOSTS = allowed_hosts.OPTION
ENV = allowed_variables.OPTION
# Option: (type, default, lower bound, upper bound).
OPTIONS: dict[str, tuple[type, float, float, float]] = {
    "max_concurrent_syncs": (int, 4, 1, 1000),
    "max_connections_per_source": (int, 4, 1, 1000),
    "silence_timeout_seconds": (float, 60, 1, 3600),
    "max_trigger_seconds": (float, user_objects.SECONDS, 0.01, 86_400),
    "log_retention_days": (float, 30, 0.01, 36_500),
    "log_max_runs_per_replication": (int, 1000, 1, 10_000_000),
}
# How long the end of the host waits for subscribers to return: a part of the five seconds that it may take.
DRAIN_SECONDS = 0.5
# The records of runs that one call returns.
MAX_RUNS = 1000
# The time for the end of this plugin, a part of the host's three seconds, and the least for sources to close.
END_SECONDS, CLOSE_SECONDS = 2.0, 0.25


def plugin(options: Mapping[str, Any]) -> DataReplicationPlugin:
    """The factory that the entry point names. Raises ConfigError for an unknown or wrong option.

    Raises IncompatibleLibrary for a driver in a version that its requirements do not allow.
    """
    check_versions("starbase-host", *BOUND)
    return DataReplicationPlugin(secret_keys=SecretKeys.from_environment(), **_checked(options))


class DataReplicationPlugin(DataReplication):
    """The plugin. What `DataReplication` has is for other plugins; the rest is called by the host.

    api_version: of what `starbase_data_replication` exports, its hooks and its events.
    """

    api_version = "1.0"

    def __init__(
        self,
        *,
        secret_keys: SecretKeys,
        allowed_source_hosts: list[str] | None,
        allowed_env: list[str],
        max_concurrent_syncs: int,
        max_connections_per_source: int,
        silence_timeout_seconds: float,
        max_trigger_seconds: float,
        log_retention_days: float,
        log_max_runs_per_replication: int,
    ) -> None:
        self._secret_keys = secret_keys
        self._allowed_env = allowed_env
        self._max_concurrent_syncs = max_concurrent_syncs
        self._max_connections_per_source = max_connections_per_source
        self._silence_timeout_seconds = silence_timeout_seconds
        self._max_trigger_seconds = max_trigger_seconds
        self._retention = Retention(days=log_retention_days, runs=log_max_runs_per_replication)
        self._policy = HostPolicy(allowed_source_hosts)
        self._dialects = Dialects(
            {"postgresql": PostgresqlDialect(self._policy), "mysql": MysqlDialect(self._policy)},
        )
        self._made: _Parts | None = None

    def on_event(
        self, callback: Callback, types: Collection[str] = ("sync",), *, durable: str | None = None
    ) -> Callable[[], None]:
        return self._parts().events.subscribe(callback, types, durable)

    async def status(self, name: str | None = None) -> list[ReplicationStatus]:
        return cast(list[ReplicationStatus], await self._parts().service.status(name))

    async def runs(self, *, name: str | None = None, after: int = 0, limit: int = 100) -> list[RunRecord]:
        if not 1 <= limit <= MAX_RUNS:
            raise ValueError(f"limit must be a number from 1 to {MAX_RUNS}")
        return cast(list[RunRecord], await self._parts().service.runs(name=name, after=after, limit=limit))

    async def sync(self, name: str) -> RunRecord:
        service = self._parts().service
        run = await service.finish(await service.sync(name))
        return cast(RunRecord, await service.record_of(run))

    async def configure(self, body: Mapping[str, Any]) -> ReplicationStatus:
        service = self._parts().service
        stored = await service.configure(dict(body))
        (status,) = await service.status(stored.name)
        return cast(ReplicationStatus, status)

    @hookimpl
    def register_hookspecs(self) -> ModuleType:
        return hookspecs

    @hookimpl
    def register_commands(self, host: CommandHost) -> list[click.Command]:
        return commands(host)

    @hookimpl
    async def register_routes(self, host: Host) -> list[Route]:
        host.database.make_private("tmp_replication_secrets")
        store = Store(host.database)
        connections = Connections(
            self._dialects,
            secret_keys=self._secret_keys,
            max_connections=self._max_connections_per_source,
            variables=Variables(self._allowed_env, never=host.config.token_variables),
            policy=self._policy,
        )
        events = Events(host, store)
        runner = Runner(
            host=host,
            store=store,
            connections=connections,
            recorder=Recorder(
                host=host,
                store=store,
                connections=connections,
                events=events,
                counts=RowCounts(database=host.database, clock=host.clock),
            ),
            # Where there is more than one slot, one is kept free for other servers.
            slots=Slots(
                total=self._max_concurrent_syncs,
                per_source=min(self._max_connections_per_source, max(1, self._max_concurrent_syncs - 1)),
                per_server=max(1, self._max_concurrent_syncs - 1),
            ),
            added_seconds=self._max_trigger_seconds,
        )
        scheduler = Scheduler(runner=runner, retention=self._retention)
        service = Service(host, store, runner, scheduler, connections, self._dialects)
        self._made = _Parts(
            store=store,
            connections=connections,
            events=events,
            runner=runner,
            scheduler=scheduler,
            service=service,
        )
        return Api(service).routes()

    @hookimpl
    def plugin_lifespan(self, host: Host) -> contextlib.AbstractAsyncContextManager[None]:
        return self._lifespan(host)

    @contextlib.asynccontextmanager
    async def _lifespan(self, host: Host) -> AsyncIterator[None]:
        parts = self._parts()
        await host.database.migrate("data_replication", "starbase_data_replication.storage.migrations")
        parts.events.opened.set()
        await self._secret_keys.rotate_stored(host.database, serves=host.serves)
        await self._dialects.gather(host)
        await parts.scheduler.start(due=await self._unable(host, parts))
        watchdog = Watchdog(
            runner=parts.runner,
            scheduler=parts.scheduler,
            clock=host.clock,
            silence_seconds=self._silence_timeout_seconds,
        )
        watching = asyncio.create_task(watchdog.watch(), name="watchdog")
        try:
            yield
        finally:
            ends_at = host.clock.monotonic() + END_SECONDS
            watching.cancel()
            await parts.runner.close()
            await parts.events.drain(DRAIN_SECONDS)
            parts.events.close()
            # Else a dialect that does not close its sources would be taken for this plugin, which does not end.
            await parts.connections.close(max(CLOSE_SECONDS, ends_at - host.clock.monotonic()))

    async def _unable(self, host: Host, parts: _Parts) -> set[str]:
        """The names of the replications that this host cannot connect for; each is logged.

        They are due at once: their run fails before it connects, and status then shows the error.
        """
        names = set()
        for stored in await parts.store.all():
            settings = parts.connections.decrypted(stored.replication).source_config
            for field, why in not_allowed(settings, parts.connections.variables).items():
                host.log.warning("replication %s cannot sync: %s: %s", stored.replication.name, field, why)
                names.add(stored.name)
            if isinstance(settings, EncryptedSettings):
                # `rotate_stored` has logged these already.
                names.add(stored.name)
        return names

    @hookimpl
    async def on_alarm(self, alarm: Alarm) -> None:
        await self._parts().scheduler.deliver(alarm)

    def _parts(self) -> _Parts:
        if self._made is None:
            raise Unavailable("the host has not started yet; call this in plugin_lifespan or later")
        return self._made


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """The parts of this plugin while a host runs."""

    store: Store
    connections: Connections
    events: Events
    runner: Runner
    scheduler: Scheduler
    service: Service


def _checked(options: Mapping[str, Any]) -> dict[str, Any]:
    for name in options:
        known = [*OPTIONS, HOSTS, ENV]
        if name not in known:
            raise ConfigError(name, f"unknown option; {did_you_mean(name, known)}")
    checked: dict[str, Any] = {HOSTS: _checked_hosts(options.get(HOSTS))}
    checked[ENV] = _checked_env(options.get(ENV, list(allowed_variables.DEFAULT)))
    for name, (kind, default, low, high) in OPTIONS.items():
        value = options.get(name, default)
        allowed = (int, float) if kind is float else (int,)
        if isinstance(value, bool) or not isinstance(value, allowed) or not low <= value <= high:
            raise ConfigError(name, f"must be a {'whole ' if kind is int else ''}number from {low:g} to {high:.10g}")
        checked[name] = kind(value)
    return checked


def _checked_hosts(hosts: Any) -> list[str] | None:
    if hosts is not None and not isinstance(hosts, list):
        raise ConfigError(HOSTS, 'must be a list of names, patterns and networks, such as ["*.example.com"]')
    for index, entry in enumerate(hosts or ()):
        if (why := allowed_hosts.wrong_with(entry)) is not None:
            raise ConfigError(f"{HOSTS}[{index}]", why)
    return hosts


def _checked_env(names: Any) -> list[str]:
    if not isinstance(names, list):
        raise ConfigError(ENV, 'must be a list of variables and patterns of them, such as ["PG_*", "MYSQL_*"]')
    for index, entry in enumerate(names):
        if (why := allowed_variables.wrong_with(entry)) is not None:
            raise ConfigError(f"{ENV}[{index}]", why)
    return names

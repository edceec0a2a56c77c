"""The dialects by name, and how those of other plugins are called: off the event loop and off the database's threads,
with a time limit, and with any exception turned into an ordinary error.

Must not know a dialect's settings. The methods of a source are coroutines on the event loop; the runner isolates those.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from starbase_data_replication.errors import DialectFailed, SyncError
from starbase_data_replication.sources.features import Feature, RegisteredDialect, WrongFeatures, checked_features
from starbase_data_replication.sources.judged import Asking, called, judged_source
from starbase_data_replication.sources.protocols import Dialect, Source
from starbase_host import Host, Worker, kind_of

T = TypeVar("T")
OFFERING = "replication_dialects"
# How long it may take to judge an answer: a batch of many rows is copied, while other threads work.
JUDGING_SECONDS = 5.0
# Characters of the JSON Schema of a dialect's settings.
LONGEST_SCHEMA = 65_536
# A dialect must have these; mypy finds the rest.
METHODS = ("check", "identity", "secret_parts", "hosts", "table_name", "open")


@dataclass(frozen=True, kw_only=True)
class _Offer:
    """What a plugin offers under one name.

    name: the dialect's.
    dialect: the object.
    features: what it declares.
    wrong: why it is left out, as a predicate; None if it is not.
    """

    name: str
    dialect: Any
    features: frozenset[Feature] = frozenset()
    wrong: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Foreign:
    """A dialect of another plugin.

    plugin: the plugin's name.
    known: what is known of it without a call.
    worker: the thread that it is called in.
    seconds: how long a call may take.
    """

    plugin: str
    known: RegisteredDialect
    worker: Worker
    seconds: float

    def __str__(self) -> str:
        return self.known.label


class Dialects(Mapping[str, Dialect]):
    """Dialects by name: those of data replication itself, then those that other plugins offer."""

    def __init__(self, own: Mapping[str, Dialect]) -> None:
        self._dialects = dict(own)
        self._foreign: dict[str, _Foreign] = {}
        self._host: Host | None = None

    def __getitem__(self, name: str) -> Dialect:
        return self._dialects[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._dialects)

    def __len__(self) -> int:
        return len(self._dialects)

    def whose(self, name: str) -> str | None:
        """What to call a dialect of another plugin; None for one of data replication itself."""
        return str(self._foreign[name]) if name in self._foreign else None

    def known(self, name: str) -> RegisteredDialect:
        """What is known of a dialect without a call of it."""
        return self._foreign[name].known if name in self._foreign else RegisteredDialect(label=f"the dialect {name}")

    def plugin_of(self, name: str) -> str | None:
        """The plugin that offers a dialect; None for a dialect of data replication itself."""
        return self._foreign[name].plugin if name in self._foreign else None

    def record_failure(self, name: str, why: str) -> None:
        """Count a failure of a dialect as its plugin's, for `GET /plugins`, unless it is data replication's own."""
        plugin = self.plugin_of(name)
        if plugin is not None and self._host is not None:
            self._host.record_failure(plugin, f"dialect {name}", why)

    async def gather(self, host: Host) -> None:
        """Take the dialects that plugins offer. A wrong one is logged and left out."""
        self._host = host
        seconds = host.config.hook_timeout_seconds
        offers = await host.call("replication_dialects")
        # An answer is another plugin's object, which may do anything when it is used.
        looks = (_looked_at(plugin, answer, seconds) for plugin, answer in offers)
        for (plugin, _), found in zip(offers, await asyncio.gather(*looks, return_exceptions=True), strict=True):
            if isinstance(found, BaseException):
                host.log.error("plugin %s: the dialects that it offers are left out", plugin, exc_info=found)
                host.record_failure(plugin, OFFERING, str(found))
                continue
            for offer in found:
                name = offer.name
                if offer.wrong is not None or name in self._dialects:
                    why = f"the dialect {name} {offer.wrong or 'exists already'}; it is left out"
                    host.log.error("plugin %s: %s", plugin, why)
                    host.record_failure(plugin, OFFERING, why)
                    continue
                label = f"the dialect {name} of plugin {plugin}"
                self._dialects[name] = offer.dialect
                self._foreign[name] = _Foreign(
                    plugin=plugin,
                    known=RegisteredDialect(label=label, features=offer.features, foreign=True),
                    worker=Worker(f"{plugin}-{name}", plugin=plugin),
                    seconds=seconds,
                )

    async def call(self, names: Iterable[object], function: Callable[[], T]) -> T:
        """Call a function that uses these dialects, in the thread of the first that is another plugin's.

        For a dialect of another plugin, raises DialectFailed for any exception that is not a StarbaseError, and if
        the call takes longer than a hook may.
        """
        for name in names:
            if isinstance(name, str) and name in self._foreign:
                return await self._call_foreign(name, function)
        return function()

    async def schema(self, name: str) -> dict[str, Any] | None:
        """The JSON Schema of a dialect's settings; None if it has none, or if asking for it fails."""
        dialect = self._dialects[name]
        try:
            return await self.call([name], partial(_schema_of, dialect))
        except SyncError as error:
            if self._host is not None:
                self._host.log.error("the schema of %s is left out: %s", self.known(name).label, error)
            return None

    async def open(self, name: str, function: Callable[[], Source]) -> Source:
        """Call a dialect's `open` off the event loop, because it may import a driver, which takes part of a second."""
        if name in self._foreign:
            foreign = self._foreign[name]
            asking = Asking(
                foreign.known,
                partial(Worker, foreign.known.label, plugin=foreign.plugin),
                max(foreign.seconds, JUDGING_SECONDS),
                partial(self.record_failure, name),
            )
            return await self._call_foreign(name, lambda: judged_source(function(), asking))
        return await asyncio.to_thread(function)

    async def _call_foreign(self, name: str, function: Callable[[], T]) -> T:
        foreign = self._foreign[name]
        try:
            return await called(foreign.worker, foreign.seconds, str(foreign), function)
        except DialectFailed as error:
            self.record_failure(name, str(error))
            raise


def _schema_of(dialect: Any) -> dict[str, Any] | None:
    """What a dialect's `schema` returns, as plain JSON; None without one. Raises SyncError if it is too long."""
    schema = getattr(dialect, "schema", None)
    if schema is None:
        return None
    text = json.dumps(schema(), allow_nan=False)
    found = json.loads(text)
    if len(text) > LONGEST_SCHEMA or not isinstance(found, dict):
        raise SyncError(f"it is not an object of at most {LONGEST_SCHEMA:,} characters of JSON")
    return found


async def bounded(function: Callable[[], Awaitable[None]], seconds: float, plugin: str | None = None) -> None:
    """Await a coroutine of a source for at most so many seconds. Raises what it raises, or TimeoutError.

    plugin: the plugin that the source's dialect is from, if it is not data replication's own.
    """
    worker = Worker("source", plugin=plugin)
    try:
        await worker.call(function, (), seconds)
    finally:
        worker.close()


async def _looked_at(plugin: str, answer: object, seconds: float) -> list[_Offer]:
    worker = Worker(f"{plugin}-dialects", plugin=plugin)
    try:
        return await called(worker, seconds, "the answer of replication_dialects", partial(_offers, answer))
    finally:
        worker.close()


def _offers(answer: object) -> list[_Offer]:
    if not isinstance(answer, Mapping):
        raise SyncError("replication_dialects did not return a mapping of names to dialects")
    return [_offer(name, dialect) for name, dialect in answer.items()]


def _offer(name: object, dialect: Any) -> _Offer:
    if type(name) is not str:
        return _Offer(name="?", dialect=dialect, wrong="has a name that is not a string")
    if isinstance(dialect, type):
        return _Offer(name=name, dialect=dialect, wrong="is a class; offer an instance of it")
    try:
        if missing := [method for method in METHODS if not callable(getattr(dialect, method, None))]:
            return _Offer(name=name, dialect=dialect, wrong=f"has no method {missing[0]}, which a Dialect must have")
        return _Offer(name=name, dialect=dialect, features=checked_features(getattr(dialect, "features", None)))
    except WrongFeatures as error:
        return _Offer(name=name, dialect=dialect, wrong=str(error))
    except BaseException as error:
        return _Offer(name=name, dialect=dialect, wrong=f"cannot be inspected ({kind_of(error)})")

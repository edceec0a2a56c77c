"""The open sources: one for each server and login, shared by the replications that read from it.

Owns the one place where stored settings are decrypted, and where `${NAME}`s are read: just before connecting. Must not
know runs, or when one is due.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import traceback
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from starbase_data_replication.errors import DialectFailed, SourceRejected
from starbase_data_replication.model import Replication, TableName
from starbase_data_replication.sources import (
    Dialect,
    Dialects,
    Pingable,
    RegisteredDialect,
    Source,
    bounded,
    checked_hosts,
)
from starbase_data_replication.sources.network import HostPolicy, allowed_hosts
from starbase_data_replication.sources.settings import (
    EVERY,
    Variables,
    hidden_parts,
    referenced,
    resolve,
    scrub,
    secrets,
)
from starbase_data_replication.storage import SecretKeys
from starbase_host import ConfigError, InvalidRequest, StarbaseError, kind_of

log = logging.getLogger("starbase.data_replication")

# Settings that say which table, not which server.
TABLE_KEYS = ("defaultSchema",)
# How long an unused source may take to close; a server that does not answer would hold up the request that waits.
CLOSE_SECONDS = 10.0
# Settings whose hidden parts are remembered; those of runs are learned again at each run.
MOST_HIDDEN = 1_000
# Shorter values of variables are not scrubbed: one or two characters occur in most messages.
SHORTEST_SCRUBBED = 3


class _Opened(NamedTuple):
    """A source that is open, the settings as they were resolved to open it, and its dialect."""

    resolved: str
    dialect: str
    source: Source


class Connections:
    """Opens sources when they are first used, and closes those that no replication uses any more.

    variables: which variables of the environment their settings may name.
    policy: where sources of other plugins' dialects may be. Those of data replication check it as they connect.
    """

    def __init__(
        self,
        dialects: Dialects,
        *,
        secret_keys: SecretKeys,
        max_connections: int,
        variables: Variables = EVERY,
        policy: HostPolicy = allowed_hosts.DEFAULT,
    ) -> None:
        self.variables = variables
        self._policy = policy
        self._dialects = dialects
        self._secret_keys = secret_keys
        self._max_connections = max_connections
        # By the settings as written.
        self._open: dict[str, _Opened] = {}
        # By settings as written: what their dialect hides of them, if it is another plugin's.
        self._hidden: dict[str, tuple[str, ...]] = {}
        # A lock for each source that is being opened: a dialect that is slow to open one then delays no other.
        self._opening: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def dialect(self, name: str) -> Dialect:
        """The dialect of this name. Raises ConfigError if no plugin offers it any more."""
        if name not in self._dialects:
            raise ConfigError("sourceConfig.dialect", f"{name} is not offered by any plugin now")
        return self._dialects[name]

    def whose(self, name: str) -> str | None:
        """How messages name the dialect of another plugin; None for a dialect of data replication itself."""
        return self._dialects.whose(name)

    def known(self, name: str) -> RegisteredDialect:
        """What is known of a dialect without a call of it."""
        return self._dialects.known(name)

    def key(self, settings: Mapping[str, Any]) -> str:
        """The key of the source of these stored settings: equal for replications that share one."""
        with contextlib.suppress(ConfigError):
            settings = self._secret_keys.decrypt(settings)
        return _key(settings)

    def server(self, settings: Mapping[str, Any]) -> str:
        """The key of the server of these stored settings: equal for its databases, whoever logs in to them.

        Of a dialect of another plugin, the key of the source: only data replication's own say which server it is.
        """
        name = settings.get("dialect")
        if not isinstance(name, str) or name not in self._dialects or self._dialects.whose(name) is not None:
            return self.key(settings)
        with contextlib.suppress(ConfigError):
            settings = self._secret_keys.decrypt(settings)
        recipient = getattr(self._dialects[name], "recipient", None)
        with contextlib.suppress(StarbaseError):
            if recipient is not None:
                # Without the user, who is the last of it.
                return json.dumps([name, *recipient(settings)[:-1]])
        return _key(settings)

    def decrypt(self, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """Stored settings with their secrets. Raises ConfigError if no key decrypts them."""
        return self._secret_keys.decrypt(settings)

    def decrypted(self, replication: Replication) -> Replication:
        """The replication with its secrets; as it is, if no key decrypts them."""
        with contextlib.suppress(ConfigError):
            return replace(replication, source_config=self._secret_keys.decrypt(replication.source_config))
        return replication

    def encrypted(self, replication: Replication, shown: Mapping[str, Any]) -> Replication:
        """The replication as it is to be stored; `shown` is what may be shown of its settings."""
        return replace(replication, source_config=self._secret_keys.encrypt(replication.source_config, shown))

    def scrubbed(self, text: str, settings: Mapping[str, Any]) -> str:
        """A text without these stored settings' secrets, and with `${NAME}` for what the environment put there."""
        with contextlib.suppress(ConfigError):
            settings = self._secret_keys.decrypt(settings)
        hidden = (*secrets(settings), *self._hidden.get(_key(settings), ()))
        try:
            resolved = resolve(settings, variables=self.variables)
        except StarbaseError:
            return scrub(text, hidden)
        text = scrub(text, (*hidden, *secrets(resolved)))
        for name, value in referenced(settings).items():
            if len(value) >= SHORTEST_SCRUBBED:
                text = scrub(text, [value], f"${{{name}}}")
        return text

    async def learn_secrets(self, settings: Mapping[str, Any]) -> None:
        """Ask the dialect of another plugin what it hides of these settings; everything, if it does not answer."""
        name = settings.get("dialect")
        if not isinstance(name, str) or self._dialects.whose(name) is None:
            return
        dialect = self._dialects[name]
        try:
            hidden = await self._dialects.call([name], lambda: hidden_parts(settings, dialect.secret_parts(settings)))
        except StarbaseError:
            hidden = hidden_parts(settings, {"dialect": name})
        if len(self._hidden) >= MOST_HIDDEN:
            self._hidden.clear()
        self._hidden[_key(settings)] = hidden

    @contextlib.asynccontextmanager
    async def hiding_secrets(self, *found: Mapping[str, Any]) -> AsyncIterator[None]:
        """Scrub these settings' secrets from errors that a dialect of another plugin raises, or that quote it."""
        foreign = [each for each in found if self._dialects.whose(str(each.get("dialect"))) is not None]
        for settings in foreign:
            await self.learn_secrets(settings)

        def hide(text: str) -> str:
            for settings in foreign:
                text = self.scrubbed(text, settings)
            return text

        try:
            yield
        except StarbaseError as error:
            if foreign:
                error.args = tuple(hide(str(each)) for each in error.args)
                error.__notes__ = [hide(note) for note in getattr(error, "__notes__", ())]
            if foreign and isinstance(error, InvalidRequest):
                error.fields = {hide(name): hide(why) for name, why in error.fields.items()}
            raise

    @contextlib.contextmanager
    def scrubbing_errors(self, settings: object) -> Iterator[None]:
        """Log unforeseen errors, such as a foreign dialect's, without these settings' secrets, and replace them."""
        try:
            yield
        except Exception as error:
            if isinstance(error, DialectFailed) or not isinstance(error, StarbaseError):
                text = "".join(traceback.format_exception(error))
                log.error("%s", self.scrubbed(text, settings) if isinstance(settings, Mapping) else kind_of(error))
            if isinstance(error, StarbaseError):
                raise
            raise StarbaseError("internal error; the host's log has the details") from None

    async def table(self, settings: Mapping[str, Any], source_table: str) -> tuple[TableName, list[str]]:
        """A source's table, and the parts of its identity, by its dialect."""
        dialect = self.dialect(settings["dialect"])

        def ask() -> tuple[TableName, list[str]]:
            return dialect.table_name(settings, source_table), [*dialect.identity(settings, source_table)]

        return await self._dialects.call([settings["dialect"]], ask)

    async def source(self, settings: Mapping[str, Any]) -> Source:
        """The open source of these settings, in which `${NAME}`s are as written.

        Raises InvalidRequest for a variable that is not set, and what the dialect raises.
        """
        written, resolved = _key(settings), resolve(settings, variables=self.variables)
        if self._dialects.whose(settings["dialect"]) is not None:
            await self._check_hosts(settings["dialect"], resolved)
        async with self._opening.setdefault(written, asyncio.Lock()):
            if written in self._open and self._open[written].resolved != _key(resolved):
                # A password in the environment was rotated.
                await self._close(written)
            if written not in self._open:
                dialect = self.dialect(settings["dialect"])
                open_it = partial(dialect.open, resolved, max_connections=self._max_connections)
                source = await self._dialects.open(settings["dialect"], open_it)
                self._open[written] = _Opened(_key(resolved), settings["dialect"], source)
            return self._open[written].source

    async def _check_hosts(self, name: str, resolved: Mapping[str, Any]) -> None:
        """Raise SourceRejected if a dialect of another plugin names a place that may not be a source, or none."""
        dialect = self.dialect(name)
        hosts = await self._dialects.call([name], lambda: checked_hosts(dialect.hosts(resolved)))
        if not hosts and self._policy.limits:
            raise SourceRejected(
                f"{self.whose(name)} names no host, so {allowed_hosts.OPTION} cannot be applied to it; update the "
                f"plugin, or remove {allowed_hosts.OPTION}"
            )
        for host in hosts:
            if host.startswith("/"):
                self._policy.check_socket(host, "the path")
            else:
                await self._policy.addresses(host)

    async def keep_only(self, used: Iterable[Mapping[str, Any]]) -> None:
        """Close every source but those of these stored settings."""
        wanted = set()
        for settings in used:
            with contextlib.suppress(ConfigError):
                wanted.add(_key(self._secret_keys.decrypt(settings)))
        for written in self._open.keys() - wanted:
            await self._close(written)

    async def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Close every source, all at the same time, each within so many seconds."""
        await asyncio.gather(*(self._close(written, seconds) for written in list(self._open)))

    def record_failure(self, dialect: str, why: str) -> None:
        """Count a failure of a dialect as its plugin's; see `Dialects.record_failure`."""
        self._dialects.record_failure(dialect, why)

    async def ping(self, source: Pingable, dialect: str, seconds: float) -> None:
        """Ask whether a source answers. Raises TimeoutError, and what it raises."""
        await bounded(source.ping, seconds, self._dialects.plugin_of(dialect))

    async def _close(self, written: str, seconds: float = CLOSE_SECONDS) -> None:
        opened = self._open.pop(written)
        try:
            await bounded(opened.source.close, seconds, self._dialects.plugin_of(opened.dialect))
        except Exception as error:
            # Not raised: a request that configures or deletes a replication has succeeded all the same.
            whose = self._dialects.whose(opened.dialect)
            by = f" by {whose}" if whose is not None else ""
            why = f"{kind_of(error)} after {seconds:.2g} s" if isinstance(error, TimeoutError) else kind_of(error)
            log.error("a source could not be closed%s (%s); the server ends its connections in time", by, why)
            self.record_failure(opened.dialect, f"close: {why}")


def _key(settings: Mapping[str, Any]) -> str:
    return json.dumps({name: value for name, value in settings.items() if name not in TABLE_KEYS}, sort_keys=True)

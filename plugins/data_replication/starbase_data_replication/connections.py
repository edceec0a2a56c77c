"""The sources that are open: one for each remote, shared by the replications that read from it.

The one place where sealed settings are opened, and `${NAME}`s are read: just before connecting.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from starbase_data_replication.options import Replication
from starbase_data_replication.sealing import Seal
from starbase_data_replication.sources.base import Dialect, Source
from starbase_data_replication.sources.settings import referenced, resolve, scrub, secrets
from starbase_host import ConfigError, StarbaseError

log = logging.getLogger("starbase.data_replication")

# Settings that say which table, not which server.
TABLE_KEYS = ("defaultSchema",)
# A value of fewer characters would be found in half of all messages.
SHORTEST_SCRUBBED = 3


class Connections:
    """Opens sources when they are first asked for, and closes those that nobody uses any more."""

    def __init__(self, dialects: Mapping[str, Dialect], *, seal: Seal, max_connections: int) -> None:
        self._dialects = dialects
        self._seal = seal
        self._max_connections = max_connections
        # By the settings as written: the settings as resolved, and the source opened with them.
        self._open: dict[str, tuple[str, Source]] = {}
        self._opening = asyncio.Lock()

    def dialect(self, name: str) -> Dialect:
        """Raises ConfigError when no plugin offers it any more."""
        if name not in self._dialects:
            raise ConfigError("sourceConfig.dialect", f"{name} is not offered by any plugin now")
        return self._dialects[name]

    def key(self, settings: Mapping[str, Any]) -> str:
        """What the replications that share one source have in common; of settings as stored."""
        with contextlib.suppress(ConfigError):
            settings = self._seal.open(settings)
        return _key(settings)

    def opened(self, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """Stored settings with their secrets. Raises ConfigError when no key opens them."""
        return self._seal.open(settings)

    def unsealed(self, replication: Replication) -> Replication:
        """The replication with its secrets; as it is, when no key opens them."""
        with contextlib.suppress(ConfigError):
            return replace(replication, source_config=self._seal.open(replication.source_config))
        return replication

    def sealed(self, replication: Replication, shown: Mapping[str, Any]) -> Replication:
        """The replication as it is to be stored; `shown` is what may be shown of its settings."""
        return replace(replication, source_config=self._seal.close(replication.source_config, shown))

    def scrubbed(self, text: str, settings: Mapping[str, Any]) -> str:
        """A text without these stored settings' secrets, and with `${NAME}` for what the environment put there."""
        with contextlib.suppress(ConfigError):
            settings = self._seal.open(settings)
        hidden = secrets(settings)
        try:
            resolved = resolve(settings)
        except StarbaseError:
            return scrub(text, hidden)
        text = scrub(text, (*hidden, *secrets(resolved)))
        for name, value in referenced(settings).items():
            if len(value) >= SHORTEST_SCRUBBED:
                text = text.replace(value, f"${{{name}}}")
        return text

    @contextlib.contextmanager
    def discreet(self, settings: object) -> Iterator[None]:
        """What nobody has foreseen, a third party's dialect perhaps, is logged without these settings' secrets."""
        try:
            yield
        except StarbaseError:
            raise
        except Exception as error:
            text = "".join(traceback.format_exception(error))
            log.error("%s", self.scrubbed(text, settings) if isinstance(settings, Mapping) else type(error).__name__)
            raise StarbaseError("internal error; the host's log has the details") from None

    async def source(self, settings: Mapping[str, Any]) -> Source:
        """The source of these settings, opened, `${NAME}`s as written. Raises InvalidRequest for an unset variable."""
        written, resolved = _key(settings), resolve(settings)
        async with self._opening:
            if written in self._open and self._open[written][0] != _key(resolved):
                # A password in the environment was rotated.
                await self._close(written)
            if written not in self._open:
                dialect = self.dialect(settings["dialect"])
                # Not on the loop: with the first source its driver is imported, which takes a part of a second.
                source = await asyncio.to_thread(dialect.open, resolved, max_connections=self._max_connections)
                self._open[written] = _key(resolved), source
            return self._open[written][1]

    async def keep_only(self, used: Iterable[Mapping[str, Any]]) -> None:
        """Close what none of these settings, as stored, needs."""
        wanted = set()
        for settings in used:
            with contextlib.suppress(ConfigError):
                wanted.add(_key(self._seal.open(settings)))
        for written in self._open.keys() - wanted:
            await self._close(written)

    async def close(self) -> None:
        await self.keep_only(())

    async def _close(self, written: str) -> None:
        _, source = self._open.pop(written)
        await source.close()


def _key(settings: Mapping[str, Any]) -> str:
    return json.dumps({name: value for name, value in settings.items() if name not in TABLE_KEYS}, sort_keys=True)

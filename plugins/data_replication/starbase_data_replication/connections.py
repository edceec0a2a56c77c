"""The sources that are open: one for each remote, shared by the replications that read from it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from starbase_data_replication.sources.base import Dialect, Source
from starbase_data_replication.sources.settings import resolve
from starbase_host import ConfigError

# Settings that say which table, not which server.
TABLE_KEYS = ("defaultSchema",)


class Connections:
    """Opens sources when they are first asked for, and closes those that nobody uses any more."""

    def __init__(self, dialects: Mapping[str, Dialect], *, max_connections: int) -> None:
        self._dialects = dialects
        self._max_connections = max_connections
        # By the settings as written: the settings as resolved, and the source opened with them.
        self._open: dict[str, tuple[str, Source]] = {}

    def dialect(self, name: str) -> Dialect:
        """Raises ConfigError when no plugin offers it any more."""
        if name not in self._dialects:
            raise ConfigError("sourceConfig.dialect", f"{name} is not offered by any plugin now")
        return self._dialects[name]

    def key(self, settings: Mapping[str, Any]) -> str:
        """What the replications that share one source have in common."""
        return _key(settings)

    async def source(self, settings: Mapping[str, Any]) -> Source:
        """The source of these settings, `${NAME}`s as written. Raises InvalidRequest for an unset variable."""
        written, resolved = self.key(settings), resolve(settings)
        if written in self._open and self._open[written][0] != _key(resolved):
            # A password in the environment was rotated.
            await self._close(written)
        if written not in self._open:
            dialect = self.dialect(settings["dialect"])
            self._open[written] = _key(resolved), dialect.open(resolved, max_connections=self._max_connections)
        return self._open[written][1]

    async def keep_only(self, used: Iterable[Mapping[str, Any]]) -> None:
        """Close what none of these settings needs."""
        wanted = {_key(settings) for settings in used}
        for written in self._open.keys() - wanted:
            await self._close(written)

    async def close(self) -> None:
        await self.keep_only(())

    async def _close(self, written: str) -> None:
        _, source = self._open.pop(written)
        await source.close()


def _key(settings: Mapping[str, Any]) -> str:
    return json.dumps({name: value for name, value in settings.items() if name not in TABLE_KEYS}, sort_keys=True)

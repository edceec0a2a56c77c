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
        self._open: dict[str, Source] = {}

    def dialect(self, name: str) -> Dialect:
        """Raises ConfigError when no plugin offers it any more."""
        if name not in self._dialects:
            raise ConfigError("sourceConfig.dialect", f"{name} is not offered by any plugin now")
        return self._dialects[name]

    def source(self, settings: Mapping[str, Any]) -> Source:
        """The source of these settings, `${NAME}`s as written. Raises InvalidRequest for an unset variable."""
        key = _key(settings)
        if key not in self._open:
            dialect = self.dialect(settings["dialect"])
            self._open[key] = dialect.open(resolve(settings), max_connections=self._max_connections)
        return self._open[key]

    async def keep_only(self, used: Iterable[Mapping[str, Any]]) -> None:
        """Close what none of these settings needs."""
        wanted = {_key(settings) for settings in used}
        for key in [key for key in self._open if key not in wanted]:
            await self._open.pop(key).close()

    async def close(self) -> None:
        await self.keep_only(())


def _key(settings: Mapping[str, Any]) -> str:
    # Resolved, so that a rotated password in the environment opens a new pool.
    return json.dumps({k: v for k, v in resolve(settings).items() if k not in TABLE_KEYS}, sort_keys=True)

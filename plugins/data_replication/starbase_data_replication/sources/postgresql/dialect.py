"""The dialect `postgresql`: how a source is opened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from starbase_data_replication.sources.built_in import BuiltInDialect, SettingsModule
from starbase_data_replication.sources.postgresql import settings as postgresql_settings
from starbase_data_replication.sources.protocols import Source


class PostgresqlDialect(BuiltInDialect):
    settings: ClassVar[SettingsModule] = postgresql_settings

    def open(self, settings: Mapping[str, Any], *, max_connections: int) -> Source:
        # The driver is imported when the first source is opened: a host without one starts without it.
        from starbase_data_replication.sources.postgresql.source import PostgresqlSource

        arguments = postgresql_settings.pool_arguments(postgresql_settings.read(settings))
        return PostgresqlSource(arguments, max_connections=max_connections, policy=self._policy)

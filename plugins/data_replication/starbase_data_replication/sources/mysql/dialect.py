"""The dialect `mysql`, for MySQL and MariaDB: how a source is opened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from starbase_data_replication.sources.built_in import BuiltInDialect, SettingsModule
from starbase_data_replication.sources.mysql import settings as mysql_settings
from starbase_data_replication.sources.protocols import Source


class MysqlDialect(BuiltInDialect):
    settings: ClassVar[SettingsModule] = mysql_settings

    def open(self, settings: Mapping[str, Any], *, max_connections: int) -> Source:
        # The driver is imported when the first source is opened: a host without one starts without it.
        from starbase_data_replication.sources.mysql.source import MysqlSource

        read = mysql_settings.read(settings)
        return MysqlSource(
            mysql_settings.pool_arguments(read),
            max_connections=max_connections,
            tls_required=read.tls_required,
            ssl_fallback=read.ssl_fallback,
            policy=self._policy,
        )

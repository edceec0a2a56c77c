"""MySQL and MariaDB as the plugin sees them: how settings are read, and how a source is opened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starbase_data_replication.model import TableName
from starbase_data_replication.sources.mysql import settings as reading
from starbase_data_replication.sources.network import Reach, allowed_hosts
from starbase_data_replication.sources.protocols import Source


class MysqlDialect:
    """The dialect `mysql`. reach: where a source may be."""

    def __init__(self, reach: Reach = allowed_hosts.DEFAULT) -> None:
        self._reach = reach

    def check(self, settings: Mapping[str, Any], source_table: str) -> dict[str, str]:
        return reading.check(settings, source_table)

    def identity(self, settings: Mapping[str, Any], source_table: str) -> tuple[str, ...]:
        return reading.identity(settings, source_table)

    def recipient(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        return reading.recipient(settings)

    def secret_parts(self, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        return reading.masked(settings)

    def table_name(self, settings: Mapping[str, Any], source_table: str) -> TableName:
        return reading.table_name(settings, source_table)

    def open(self, settings: Mapping[str, Any], *, max_connections: int) -> Source:
        # The driver is imported when the first source is opened: a host without one starts without it.
        from starbase_data_replication.sources.mysql.source import MysqlSource

        read = reading.read(settings)
        return MysqlSource(
            reading.pool_arguments(read),
            max_connections=max_connections,
            tls_required=read.tls_required,
            ssl_fallback=read.ssl_fallback,
            reach=self._reach,
        )

"""A dialect by its settings, declared as a JSON Schema, and its class of connections."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from starbase_data_replication.dialect_kit.connections import AsyncConnection, BlockingConnection
from starbase_data_replication.dialect_kit.in_thread import InThread
from starbase_data_replication.dialect_kit.source import KitSource
from starbase_data_replication.model import TableName
from starbase_data_replication.sources import Source
from starbase_data_replication.sources.settings import masked_by, problems_of, split_name, with_defaults
from starbase_host import ConfigError, InvalidRequest


class BaseDialect(ABC):
    """Every method of Dialect but `schema`.

    Attributes:
        connection: the class of connections; its constructor gets the settings.
        address: the settings that say where the source is, and nothing else, such as host, port and database. Two
            tables are the same if these and their names are. Secrets are sent there.
        rows_heed: what `rows` of a connection heeds of a plan: "where", "left_filter" (which needs "where"), "keys",
            "resume" (after_key and in_key_order), and "snapshot" if `begin` opens one. A plan has nothing else of
            these. Without "keys", the kit reads the whole table to find single rows.
        host_settings: those of its settings that are a host.
        path_settings: those of its settings that are the path of a file, a directory or a socket.
    """

    connection: ClassVar[type[AsyncConnection] | type[BlockingConnection]]
    address: ClassVar[tuple[str, ...]]
    rows_heed: ClassVar[frozenset[str]] = frozenset()
    host_settings: ClassVar[tuple[str, ...]] = ("host",)
    path_settings: ClassVar[tuple[str, ...]] = ("directory", "file", "socket")

    @abstractmethod
    def schema(self) -> Mapping[str, Any]:
        """The JSON Schema of a sourceConfig, without `dialect`: an object of strings, numbers and booleans.

        Its keywords: `properties` with `type`, `enum`, `default`, `minimum`, `maximum`, `minLength`, `maxLength`,
        `title` and `description`; `required`; `writeOnly` marks a secret.
        """

    @property
    def features(self) -> frozenset[str]:
        """What the host may ask of a source, besides following a table."""
        return self.rows_heed | {"keys", "compare"}

    def check(self, settings: Mapping[str, Any], source_table: str) -> dict[str, str]:
        problems = problems_of(self.schema(), settings)
        try:
            self.table_name(settings, source_table)
        except ConfigError as error:
            return {**problems, **error.fields}
        return problems

    def identity(self, settings: Mapping[str, Any], source_table: str) -> tuple[str, ...]:
        table = self.table_name(settings, source_table)
        return (*self.recipient(settings), table.schema or "", table.name)

    def recipient(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        found = with_defaults(self.schema(), settings)
        return tuple(str(found.get(name, "")) for name in self.address)

    def secret_parts(self, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        return masked_by(self.schema(), settings)

    def hosts(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        found = with_defaults(self.schema(), settings)
        hosts = [str(found[name]) for name in self.host_settings if found.get(name)]
        paths = [str(Path(found[name]).resolve()) for name in self.path_settings if found.get(name)]
        return (*hosts, *paths)

    def table_name(self, settings: Mapping[str, Any], source_table: str) -> TableName:
        *schema, name = split_name(source_table)
        return TableName(schema=schema[0] if schema else None, name=name)

    def open(self, settings: Mapping[str, Any], *, max_connections: int) -> Source:
        """Make a source. Raises InvalidRequest for a setting that is wrong once its `${NAME}`s are resolved."""
        if problems := problems_of(self.schema(), settings):
            raise InvalidRequest(fields=problems)
        found, kind = with_defaults(self.schema(), settings), self.connection

        def make() -> AsyncConnection:
            return InThread(kind, found) if issubclass(kind, BlockingConnection) else kind(found)

        return KitSource(make, max_connections=max_connections, heeds=self.rows_heed)

"""What the dialects of this package do alike: answer from a sourceConfig that their own settings.py reads.

Must not know a dialect or a driver.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from starbase_data_replication.model import TableName
from starbase_data_replication.sources.features import EVERY_FEATURE
from starbase_data_replication.sources.network import HostPolicy, allowed_hosts
from starbase_data_replication.sources.settings import masked


class SettingsModule(Protocol):
    """A dialect's settings.py. Its functions have the contract of the methods of Dialect."""

    def schema(self) -> Mapping[str, Any]: ...
    def check(self, settings: Mapping[str, Any], source_table: str, /) -> dict[str, str]: ...
    def identity(self, settings: Mapping[str, Any], source_table: str, /) -> tuple[str, ...]: ...
    def recipient(self, settings: Mapping[str, Any], /) -> tuple[str, ...]: ...
    def table_name(self, settings: Mapping[str, Any], source_table: str, /) -> TableName: ...


class BuiltInDialect:
    """Every method of Dialect but `open`. policy: where a source may be."""

    settings: ClassVar[SettingsModule]
    features = EVERY_FEATURE

    def __init__(self, policy: HostPolicy = allowed_hosts.DEFAULT) -> None:
        self._policy = policy

    def schema(self) -> Mapping[str, Any]:
        return self.settings.schema()

    def check(self, settings: Mapping[str, Any], source_table: str) -> dict[str, str]:
        return self.settings.check(settings, source_table)

    def identity(self, settings: Mapping[str, Any], source_table: str) -> tuple[str, ...]:
        return self.settings.identity(settings, source_table)

    def recipient(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        return self.settings.recipient(settings)

    def secret_parts(self, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        return masked(settings)

    def hosts(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        # Not used by the host: each connection checks the address that it goes to, which a name alone does not tell.
        return tuple(self.settings.recipient(settings)[0].split(","))

    def table_name(self, settings: Mapping[str, Any], source_table: str) -> TableName:
        return self.settings.table_name(settings, source_table)

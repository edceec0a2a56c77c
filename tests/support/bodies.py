"""Bodies of `configure`, and what the plugin makes of them: a replication, or what is wrong with which field."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import pytest

from starbase_data_replication.config.parse import check_target, parse
from starbase_data_replication.model import TableName
from starbase_data_replication.model.options import Replication
from starbase_data_replication.sources.features import EVERY_FEATURE, Feature
from starbase_data_replication.sources.mysql.dialect import MysqlDialect
from starbase_data_replication.sources.postgresql.dialect import PostgresqlDialect
from starbase_data_replication.sources.protocols import Dialect, Source
from starbase_host import InvalidRequest


@dataclasses.dataclass(frozen=True)
class Room:
    """A dialect that only reads settings."""

    settings: Any
    features: ClassVar[frozenset[Feature]] = EVERY_FEATURE

    def check(self, settings: Mapping[str, Any], source_table: str) -> dict[str, str]:
        return cast("dict[str, str]", self.settings.check(settings, source_table))

    def identity(self, settings: Mapping[str, Any], source_table: str) -> tuple[str, ...]:
        return cast("tuple[str, ...]", self.settings.identity(settings, source_table))

    def secret_parts(self, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        return cast("Mapping[str, Any]", self.settings.masked(settings))

    def hosts(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        return ()

    def table_name(self, settings: Mapping[str, Any], source_table: str) -> TableName:
        return cast("TableName", self.settings.table_name(settings, source_table))

    def open(self, settings: Mapping[str, Any], *, max_connections: int) -> Source:
        raise NotImplementedError


class Vault:
    """A third party's dialect: it hides a nested token in its own way."""

    @staticmethod
    def check(settings: Mapping[str, Any], source_table: str) -> dict[str, str]:
        return {} if "auth" in settings else {"sourceConfig.auth": "is required"}

    @staticmethod
    def identity(settings: Mapping[str, Any], source_table: str) -> tuple[str, ...]:
        return ("vault", source_table)

    @staticmethod
    def masked(settings: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**settings, "auth": {**settings["auth"], "token": "<hidden>"}}


DIALECTS: Mapping[str, Dialect] = {
    "postgresql": PostgresqlDialect(),
    "mysql": MysqlDialect(),
    "vault": Room(Vault),
}
SOURCE = {"dialect": "postgresql", "host": "db", "user": "app", "password": "s3cret"}
BODY = {"name": "orders", "sourceConfig": SOURCE, "sourceTable": "orders", "targetTable": "orders"}


def configure(
    body: object, existing: Replication | None = None, *, targets: Mapping[str, str] | None = None
) -> Replication:
    replication = parse(body, existing=existing, dialects=DIALECTS)
    check_target(replication, (targets or {}).items())
    return replication


def problems(body: object, existing: Replication | None = None) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        configure(body, existing)
    assert "s3cret" not in str(caught.value)
    return caught.value.fields

"""The host. A plugin may import these names, and nothing else of this package."""

from starbase_host import hooks
from starbase_host.alarms import Alarm
from starbase_host.api_version import API, ApiDeprecation, deprecated
from starbase_host.client import CommandHost
from starbase_host.clock import Clock, iso
from starbase_host.config import HostConfig
from starbase_host.database import Database, fold_name, quote, transaction
from starbase_host.errors import (
    ConfigError,
    Conflict,
    Forbidden,
    IncompatibleLibrary,
    InvalidRequest,
    NotFound,
    QueryRejected,
    StarbaseError,
    TooLarge,
    Unavailable,
    did_you_mean,
)
from starbase_host.failures import Streak, has_plain_text, kind_of
from starbase_host.hookspecs import hookimpl, hookspec
from starbase_host.http import Answer, parse_json, read_body, read_form, read_json
from starbase_host.isolation import Worker
from starbase_host.library_overrides import check_overrides, check_versions, overrides
from starbase_host.mentions import mentioning
from starbase_host.plugins import Host
from starbase_host.printable import printable
from starbase_host.query import Query, Result
from starbase_host.read_rules import ReadDecision
from starbase_host.routes import Caller, Role, Route
from starbase_host.sandbox import large_views
from starbase_host.texts import ENV_REFERENCE, MALFORMED_REFERENCE, has_surrogate

__all__ = [
    "API",
    "ENV_REFERENCE",
    "MALFORMED_REFERENCE",
    "Alarm",
    "Answer",
    "ApiDeprecation",
    "Caller",
    "Clock",
    "CommandHost",
    "ConfigError",
    "Conflict",
    "Database",
    "Forbidden",
    "Host",
    "HostConfig",
    "IncompatibleLibrary",
    "InvalidRequest",
    "NotFound",
    "Query",
    "QueryRejected",
    "ReadDecision",
    "Result",
    "Role",
    "Route",
    "StarbaseError",
    "Streak",
    "TooLarge",
    "Unavailable",
    "Worker",
    "check_overrides",
    "check_versions",
    "deprecated",
    "did_you_mean",
    "fold_name",
    "has_plain_text",
    "has_surrogate",
    "hookimpl",
    "hooks",
    "hookspec",
    "iso",
    "kind_of",
    "large_views",
    "mentioning",
    "overrides",
    "parse_json",
    "printable",
    "quote",
    "read_body",
    "read_form",
    "read_json",
    "transaction",
]

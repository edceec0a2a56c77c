"""What a sourceConfig of dialect `postgresql` says, and what asyncpg's pool is given for it.

Owns the keys, their checks and defaults, and the way TLS is asked for. Must not connect.

Nothing comes from anywhere but the sourceConfig: each argument that asyncpg would otherwise look up in PG*
variables, a service file or ~/.pgpass is given, the password as "" where there is none. So `user` is
required. The one exception: with sslmode `prefer` or `allow`, which asyncpg takes only as words, asyncpg
itself offers the client certificate of PGSSLCERT or ~/.postgresql to a server that asks for one.

TLS is as libpq has it: `require` encrypts without verifying, unless sslrootcert is given; `verify-ca` checks
the certificate, `verify-full` the host's name too. Without sslrootcert the machine's own certificates are
trusted.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starbase_data_replication.model import TableName
from starbase_data_replication.sources.settings import (
    SettingsReader,
    has_reference,
    settings_schema_of,
    split_name,
    tls_context,
)
from starbase_host import ConfigError, InvalidRequest

DIALECT = "postgresql"
# The application name of our sessions, for people to read: a pooler passes it on to the sessions of others.
READER_NAME = "starbase-host (reads only)"
SCHEMES = ("postgresql", "postgres")
DEFAULT_PORT = 5432
DEFAULT_SCHEMA = "public"
VERIFYING = ("verify-ca", "verify-full")
STRICT = ("require", *VERIFYING)
SSL_MODES = ("disable", "allow", "prefer", *STRICT)
SESSION_ATTRIBUTES = ("any", "primary", "standby", "prefer-standby", "read-write", "read-only")
TLS_FILES = ("sslrootcert", "sslcert", "sslkey")
# The keys beside connectionString, as JSON Schema.
PROPERTIES: dict[str, dict[str, Any]] = {
    "host": {"type": "string", "description": "A name, an address, or the directory of a Unix socket; or several."},
    "port": {"type": ["integer", "string"], "default": DEFAULT_PORT, "description": "One for all hosts, or one each."},
    "user": {"type": "string"},
    "password": {"type": "string", "writeOnly": True},
    "database": {"type": "string", "description": "The default is the user's name."},
    "defaultSchema": {
        "type": "string",
        "default": DEFAULT_SCHEMA,
        "description": "The schema of a sourceTable without one.",
    },
    "sslmode": {"type": "string", "enum": list(SSL_MODES), "default": "prefer", "description": "As in libpq."},
    "sslrootcert": {"type": "string", "description": "The certificates to trust: a file, the PEM, or system."},
    "sslcert": {"type": "string", "description": "The client's certificate: a file, or the PEM."},
    "sslkey": {"type": "string", "writeOnly": True, "description": "The certificate's key: a file, or the PEM."},
}
KEYS = tuple(PROPERTIES)

# A connection string's parameters, and the keys that they set.
PARAMETERS = {
    **{name: name for name in ("host", "port", "user", "password", "sslmode", *TLS_FILES)},
    **{name: name for name in ("application_name", "connect_timeout", "target_session_attrs")},
    "dbname": "database",
}
REFUSED = {
    "options": "the host sets the server settings itself",
    "channel_binding": "the driver does not support it",
    "sslpassword": "a key with a password cannot be used",
    **dict.fromkeys(("passfile", "service"), "the host reads no file of its user; write the value here, or as ${NAME}"),
    **dict.fromkeys(
        ("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"),
        "keepalives are always on: a network that is gone is noticed after half a minute",
    ),
}


@dataclass(frozen=True, kw_only=True)
class PostgresqlSettings:
    """Where a source is and how to connect to it; every value in its final form. As many ports as hosts."""

    hosts: tuple[str, ...]
    ports: tuple[int, ...]
    user: str
    password: str = field(repr=False, default="")
    database: str
    default_schema: str = DEFAULT_SCHEMA
    sslmode: str = "prefer"
    sslrootcert: str | None = None
    sslcert: str | None = None
    sslkey: str | None = None
    application_name: str = READER_NAME
    connect_timeout: int = 10
    target_session_attrs: str = "any"


def schema() -> dict[str, Any]:
    """The JSON Schema of a sourceConfig without its `dialect`. What depends on several keys, only `check` finds."""
    return settings_schema_of(PROPERTIES, scheme=SCHEMES[0])


def check(settings: Mapping[str, Any], source_table: str) -> dict[str, str]:
    """What is wrong with a sourceConfig and a sourceTable: field to message and fix."""
    reader, _ = _read(settings, resolved=False)
    try:
        split_name(source_table)
    except ConfigError as error:
        return {**reader.problems, **error.fields}
    return reader.problems


def identity(settings: Mapping[str, Any], source_table: str) -> tuple[str, ...]:
    """What makes a source's table that table: dialect, hosts, ports, database, schema, table.

    Alike for a connection string and for fields that say the same. A `${NAME}` stays as written; where the
    whole connection string is one, it stands in the place of hosts, ports and database.
    """
    reader, values = _read(settings, resolved=False)
    table = table_name(settings, source_table)
    database = () if reader.opaque else (values["database"],)
    return (DIALECT, *_server(reader, values), *database, table.schema or "", table.name)


def recipient(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """To whom a password is sent: hosts, ports and user."""
    reader, values = _read(settings, resolved=False)
    return (*_server(reader, values), str(values.get("user")))


def _server(reader: SettingsReader, values: Mapping[str, Any]) -> tuple[str, ...]:
    if reader.opaque:
        return (str(reader.connection_string),)
    hosts = (host if host.startswith("/") or has_reference(host) else host.lower() for host in values["hosts"])
    return ",".join(hosts), ",".join(values["ports"])


def table_name(settings: Mapping[str, Any], source_table: str) -> TableName:
    """Parse a sourceTable, with the default schema. Raises ConfigError for a malformed one."""
    *schema, name = split_name(source_table)
    return TableName(schema=schema[0] if schema else settings.get("defaultSchema") or DEFAULT_SCHEMA, name=name)


def read(settings: Mapping[str, Any]) -> PostgresqlSettings:
    """Resolved settings in their final form. Raises InvalidRequest that names every wrong field."""
    reader, values = _read(settings, resolved=True)
    if reader.problems:
        raise InvalidRequest(fields=reader.problems)
    values["ports"] = tuple(int(port) for port in values["ports"])
    values["connect_timeout"] = int(values["connect_timeout"])
    return PostgresqlSettings(**values)


def pool_arguments(settings: PostgresqlSettings) -> dict[str, Any]:
    """Keyword arguments for asyncpg.create_pool. Raises ConfigError for a certificate that cannot be used."""
    single = len(settings.hosts) == 1
    return {
        "host": settings.hosts[0] if single else list(settings.hosts),
        "port": settings.ports[0] if single else list(settings.ports),
        "user": settings.user,
        "password": settings.password,
        "database": settings.database,
        "ssl": _ssl(settings),
        "direct_tls": False,
        "krbsrvname": "postgres",
        "gsslib": "gssapi",
        "timeout": settings.connect_timeout,
        "target_session_attrs": settings.target_session_attrs,
        "server_settings": {"application_name": settings.application_name},
        "statement_cache_size": 0,
    }


def _ssl(settings: PostgresqlSettings) -> ssl.SSLContext | str | bool:
    """asyncpg refuses a server without TLS when given a context, and falls back only when given a word.

    `require` as a word would verify by the file that PGSSLROOTCERT names, or by ~/.postgresql/root.crt.
    """
    if settings.sslmode not in STRICT:
        return False if settings.sslmode == "disable" else settings.sslmode
    # libpq takes `system` to mean verify-full, as otherwise anybody's certificate would do.
    system = settings.sslrootcert == "system"
    return tls_context(
        verify=settings.sslmode in VERIFYING or settings.sslrootcert is not None,
        hostname=settings.sslmode == "verify-full" or system,
        files={name: getattr(settings, name) for name in TLS_FILES},
        ca="sslrootcert",
        cert="sslcert",
        key="sslkey",
    )


def _read(settings: Mapping[str, Any], *, resolved: bool) -> tuple[SettingsReader, dict[str, Any]]:
    """Everything that the settings say, under PostgresqlSettings' names; ports still as text."""
    reader = SettingsReader(settings, resolved=resolved)
    reader.keep_known(KEYS)
    values: dict[str, Any] = {"default_schema": reader.text("defaultSchema", DEFAULT_SCHEMA, control=True)}
    if reader.connection_string is not None and not reader.expand(
        schemes=SCHEMES, parameters=PARAMETERS, beside="defaultSchema", refused=REFUSED
    ):
        return reader, values
    values["hosts"], values["ports"] = reader.addresses(DEFAULT_PORT)
    values["user"] = reader.text("user", control=True)
    if "user" not in reader.values:
        reader.missing("user", "the user")
    values["password"] = reader.password() or ""
    values["database"] = reader.text("database", values["user"], control=True)
    values["application_name"] = reader.text("application_name", PostgresqlSettings.application_name)
    values["connect_timeout"] = reader.whole(
        "connect_timeout", reader.values.get("connect_timeout", PostgresqlSettings.connect_timeout), 1, 600
    )
    attributes = PostgresqlSettings.target_session_attrs
    values["target_session_attrs"] = reader.choice("target_session_attrs", SESSION_ATTRIBUTES, attributes)
    _read_tls(reader, values)
    return reader, values


def _read_tls(reader: SettingsReader, values: dict[str, Any]) -> None:
    mode = values["sslmode"] = reader.choice("sslmode", SSL_MODES, PostgresqlSettings.sslmode)
    values.update({name: reader.file_or_pem(name) for name in TLS_FILES})
    if mode in SSL_MODES and mode not in STRICT:
        for name in TLS_FILES:
            if values[name] is not None:
                reader.problem(name, f"is not used with sslmode {mode}; set sslmode to {', '.join(STRICT)}")
    if values["sslkey"] is not None and values["sslcert"] is None:
        reader.problem("sslkey", "needs sslcert, the certificate that it belongs to")
    if mode in STRICT and any(host.startswith("/") for host in values["hosts"]):
        reader.problem("sslmode", f"cannot be {mode} on a Unix socket, which is never encrypted; remove it")

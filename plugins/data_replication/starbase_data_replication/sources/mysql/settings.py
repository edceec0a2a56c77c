"""What a sourceConfig of dialect `mysql` says (MariaDB too), and what aiomysql's pool is given for it.

Owns the keys, their checks and defaults, and the way TLS is asked for. Must not connect.

In MySQL a schema is a database: `defaultSchema` is another name for `database`, and `shop.orders` as
sourceTable names a table of the database `shop`, whichever one the connection begins in.

TLS is as MySQL's own client has it: PREFERRED encrypts where the server can, REQUIRED always, neither
verifies; VERIFY_CA checks the certificate, VERIFY_IDENTITY the host's name too. `ssl: true` is REQUIRED,
`ssl: false` DISABLED, and a sslCa without an explicit mode means VERIFY_CA.

Given a context, aiomysql encrypts only if the server says that it can, and goes on in clear text if not, in
silence: with `tls_required`, the connection must refuse that before the password is sent.
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

DIALECT = "mysql"
SCHEMES = ("mysql", "mariadb")
DEFAULT_PORT = 3306
QUOTES = '`"'
VERIFYING = ("VERIFY_CA", "VERIFY_IDENTITY")
STRICT = ("REQUIRED", *VERIFYING)
SSL_MODES = ("DISABLED", "PREFERRED", *STRICT)
TLS_FILES = ("sslCa", "sslCert", "sslKey")
# The keys beside connectionString, as JSON Schema.
PROPERTIES: dict[str, dict[str, Any]] = {
    "host": {"type": "string", "description": "A name, an address, or the path of a Unix socket."},
    "port": {"type": "integer", "minimum": 1, "maximum": 65535, "default": DEFAULT_PORT},
    "user": {"type": "string"},
    "password": {"type": "string", "writeOnly": True},
    "database": {"type": "string"},
    "defaultSchema": {"type": "string", "description": "Another name for database."},
    "ssl": {"type": "boolean", "description": "true means sslMode REQUIRED, false DISABLED."},
    "sslMode": {"type": "string", "enum": list(SSL_MODES), "default": "PREFERRED"},
    "sslCa": {"type": "string", "description": "The certificates to trust: a file, the PEM, or system."},
    "sslCert": {"type": "string", "description": "The client's certificate: a file, or the PEM."},
    "sslKey": {"type": "string", "writeOnly": True, "description": "The certificate's key: a file, or the PEM."},
    "serverPublicKey": {"type": "string", "description": "The server's RSA public key: a file, or the PEM."},
}
KEYS = tuple(PROPERTIES)

# A connection string's parameters, and the keys that they set.
PARAMETERS = {
    **dict.fromkeys(("ssl-mode", "ssl_mode", "sslmode"), "sslMode"),
    **dict.fromkeys(("ssl-ca", "ssl_ca"), "sslCa"),
    **dict.fromkeys(("ssl-cert", "ssl_cert"), "sslCert"),
    **dict.fromkeys(("ssl-key", "ssl_key"), "sslKey"),
    **dict.fromkeys(("server-public-key-path", "server_public_key_path"), "serverPublicKey"),
    "connect_timeout": "connect_timeout",
}
REFUSED = {"charset": "it is always utf8mb4", "ssl": "write ssl-mode=REQUIRED"}


@dataclass(frozen=True, kw_only=True)
class MysqlSettings:
    """Where a source is and how to connect to it, in final form. A `host` that begins with / is a socket."""

    host: str
    port: int = DEFAULT_PORT
    user: str
    password: str = field(repr=False, default="")
    database: str
    ssl_mode: str = "PREFERRED"
    ssl_ca: str | None = None
    ssl_cert: str | None = None
    ssl_key: str | None = None
    server_public_key: str | None = None
    connect_timeout: int = 10

    @property
    def unix_socket(self) -> str | None:
        return self.host if self.host.startswith("/") else None

    @property
    def tls_required(self) -> bool:
        """True when a connection without TLS must be refused, even if the server offers no TLS."""
        return self.ssl_mode in STRICT

    @property
    def ssl_fallback(self) -> bool:
        """True when a TLS handshake that fails is to be followed by a connection without TLS."""
        return self.ssl_mode == "PREFERRED" and self.unix_socket is None


def schema() -> dict[str, Any]:
    """The JSON Schema of a sourceConfig without its `dialect`. What depends on several keys, only `check` finds."""
    return settings_schema_of(PROPERTIES, scheme=SCHEMES[0])


def check(settings: Mapping[str, Any], source_table: str) -> dict[str, str]:
    """What is wrong with a sourceConfig and a sourceTable: field to message and fix."""
    reader, _ = _read(settings, resolved=False)
    try:
        split_name(source_table, quotes=QUOTES)
    except ConfigError as error:
        return {**reader.problems, **error.fields}
    return reader.problems


def identity(settings: Mapping[str, Any], source_table: str) -> tuple[str, ...]:
    """What makes a source's table that table: dialect, host, port, database, table.

    The database is the one that the table is in. Alike for a connection string and for fields that say the
    same. A `${NAME}` stays as written; where the whole connection string is one, it stands in the place of
    host and port.
    """
    reader, values = _read(settings, resolved=False)
    table = table_name(settings, source_table)
    return (DIALECT, *_server(reader, values), table.schema or "", table.name)


def recipient(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """To whom a password is sent: host, port and user."""
    reader, values = _read(settings, resolved=False)
    return (*_server(reader, values), str(values.get("user")))


def _server(reader: SettingsReader, values: Mapping[str, Any]) -> tuple[str, ...]:
    if reader.opaque:
        return (str(reader.connection_string),)
    host = values["host"]
    host = host if host.startswith("/") or has_reference(host) else host.lower()
    return host, "" if host.startswith("/") else values["port"]


def table_name(settings: Mapping[str, Any], source_table: str) -> TableName:
    """Parse a sourceTable, with the database as its schema.

    The schema is None only while the whole connection string is an unresolved `${NAME}`. Raises ConfigError
    for a name that `check` refuses.
    """
    *schema, name = split_name(source_table, quotes=QUOTES)
    return TableName(schema=schema[0] if schema else _read(settings, resolved=False)[1].get("database"), name=name)


def read(settings: Mapping[str, Any]) -> MysqlSettings:
    """Resolved settings in their final form. Raises InvalidRequest that names every wrong field."""
    reader, values = _read(settings, resolved=True)
    if reader.problems:
        raise InvalidRequest(fields=reader.problems)
    values["port"] = int(values["port"])
    values["connect_timeout"] = int(values["connect_timeout"])
    return MysqlSettings(**values)


def pool_arguments(settings: MysqlSettings) -> dict[str, Any]:
    """Keyword arguments for aiomysql.create_pool. Raises ConfigError for an unusable certificate or key."""
    # Of the driver's side: a host without a source starts without it.
    from starbase_data_replication.sources.mysql.authentication import public_key

    return {
        "host": "localhost" if settings.unix_socket else settings.host,
        "port": settings.port,
        "user": settings.user,
        # aiomysql sends a password as Latin-1, and the server compares bytes of UTF-8.
        "password": settings.password.encode().decode("latin-1"),
        "db": settings.database,
        "unix_socket": settings.unix_socket,
        "ssl": _ssl(settings),
        "connect_timeout": settings.connect_timeout,
        "charset": "utf8mb4",
        "autocommit": True,
        "local_infile": False,
        "server_public_key": public_key(settings.server_public_key),
    }


def _ssl(settings: MysqlSettings) -> ssl.SSLContext | None:
    if settings.ssl_mode == "DISABLED" or (settings.unix_socket and not settings.tls_required):
        return None
    return tls_context(
        verify=settings.ssl_mode in VERIFYING,
        hostname=settings.ssl_mode == "VERIFY_IDENTITY",
        files={"sslCa": settings.ssl_ca, "sslCert": settings.ssl_cert, "sslKey": settings.ssl_key},
        ca="sslCa",
        cert="sslCert",
        key="sslKey",
    )


def _read(settings: Mapping[str, Any], *, resolved: bool) -> tuple[SettingsReader, dict[str, Any]]:
    """Everything that the settings say, under MysqlSettings' names; the port still as text."""
    reader = SettingsReader(settings, resolved=resolved)
    reader.keep_known(KEYS)
    if reader.connection_string is not None and not reader.expand(
        schemes=SCHEMES, parameters=PARAMETERS, beside="defaultSchema", refused=REFUSED
    ):
        schema = reader.text("defaultSchema", control=True)
        return reader, {} if schema is None else {"database": schema}
    values: dict[str, Any] = {"host": "", "port": ""}
    hosts, ports = reader.addresses(DEFAULT_PORT)
    if len(hosts) == 1 and ports:
        values.update(host=hosts[0], port=ports[0])
    elif len(hosts) > 1:
        reader.problem("host", "must be one host; this dialect does not take several")
    if values["host"].startswith("/") and "port" in reader.values:
        reader.problem("port", "is not used with a Unix socket; remove it")
    values["user"] = reader.text("user", control=True)
    if "user" not in reader.values:
        reader.missing("user", "the user")
    values["password"] = reader.password() or ""
    values["database"] = _database(reader)
    timeout = reader.values.get("connect_timeout", MysqlSettings.connect_timeout)
    values["connect_timeout"] = reader.whole("connect_timeout", timeout, 1, 600)
    _read_tls(reader, values)
    return reader, values


def _database(reader: SettingsReader) -> str | None:
    database = reader.text("database", control=True)
    schema = reader.text("defaultSchema", control=True)
    if database is None and schema is None and not {"database", "defaultSchema"} & set(reader.values):
        reader.missing("database", "the database")
    if database is not None and schema is not None and database != schema:
        reader.problem("defaultSchema", "is another database than database; in MySQL they are the same, remove one")
    return database if database is not None else schema


def _read_tls(reader: SettingsReader, values: dict[str, Any]) -> None:
    values["ssl_ca"], values["ssl_cert"], values["ssl_key"] = map(reader.file_or_pem, TLS_FILES)
    values["server_public_key"] = reader.file_or_pem("serverPublicKey")
    mode = values["ssl_mode"] = _ssl_mode(reader)
    if mode in STRICT and values["server_public_key"] is not None:
        reader.problem("serverPublicKey", f"is not used with sslMode {mode}, where TLS hides the password; remove it")
    if mode in SSL_MODES and mode not in VERIFYING and values["ssl_ca"] is not None:
        reader.problem("sslCa", f"is not used with sslMode {mode}; set sslMode to {' or '.join(VERIFYING)}")
    if mode == "DISABLED" and values["ssl_cert"] is not None:
        reader.problem("sslCert", f"is not used with sslMode {mode}; set sslMode to {', '.join(STRICT)}")
    if values["ssl_key"] is not None and values["ssl_cert"] is None:
        reader.problem("sslKey", "needs sslCert, the certificate that it belongs to")
    if mode == "VERIFY_IDENTITY" and values["host"].startswith("/"):
        reader.problem("sslMode", "cannot verify the name of a Unix socket's host; set sslMode to VERIFY_CA")


def _ssl_mode(reader: SettingsReader) -> str:
    switch, word = reader.values.get("ssl"), reader.values.get("sslMode")
    if isinstance(word, str) and not has_reference(word):
        reader.values["sslMode"] = word.upper().replace("-", "_")
    if switch is not None and not isinstance(switch, bool):
        reader.problem("ssl", f"must be true or false; for more, set sslMode to {', '.join(SSL_MODES)}")
    elif switch is not None and word is not None:
        reader.problem("ssl", "cannot be given together with sslMode; remove one of them")
    if word is None and switch is False:
        return "DISABLED"
    if word is None and reader.values.get("sslCa") is not None:
        return "VERIFY_CA"
    implied = "REQUIRED" if switch is True else MysqlSettings.ssl_mode
    return reader.choice("sslMode", SSL_MODES, implied) or implied

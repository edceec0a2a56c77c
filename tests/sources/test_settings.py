"""What a sourceConfig says in its two forms, what is refused, and what makes a table that table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from starbase_data_replication.sources.mysql import settings as mysql
from starbase_data_replication.sources.postgresql import settings as postgresql
from starbase_data_replication.sources.settings.scrubbing import MASK
from starbase_data_replication.sources.settings.secrets import masked
from tests.support.source_configs import MYSQL, POSTGRESQL, url


def reason(problems: Mapping[str, str], field: str) -> str:
    assert list(problems) == [field], problems
    return problems[field]


def test_postgresql_fields_and_their_defaults() -> None:
    read = postgresql.read(POSTGRESQL)
    assert read == postgresql.PostgresqlSettings(
        hosts=("db.example.com",), ports=(5432,), user="app", password="s3cret", database="app"
    )
    assert (read.default_schema, read.sslmode, read.connect_timeout) == ("public", "prefer", 10)
    assert "s3cret" not in repr(read)


def test_postgresql_connection_string_in_full() -> None:
    read = postgresql.read(
        url(
            "postgres://us%40er:p%3Ass@h1:1,[::1]:2,h3/my%20db?sslmode=require&application_name=a+b"
            "&connect_timeout=3&target_session_attrs=read-write&sslcert=/c&sslkey=/k&sslrootcert=/r",
            defaultSchema="sales",
        )
    )
    assert (read.hosts, read.ports) == (("h1", "::1", "h3"), (1, 2, 5432))
    assert (read.user, read.password, read.database) == ("us@er", "p:ss", "my db")
    assert (read.sslmode, read.application_name, read.connect_timeout) == ("require", "a+b", 3)
    assert (read.target_session_attrs, read.default_schema) == ("read-write", "sales")
    assert (read.sslrootcert, read.sslcert, read.sslkey) == ("/r", "/c", "/k")


@pytest.mark.parametrize(
    ("text", "hosts", "ports"),
    [
        ("postgresql://u@%2Fvar%2Frun%2Fpostgresql/db", ("/var/run/postgresql",), (5432,)),
        ("postgresql:///db?host=/tmp&user=u", ("/tmp",), (5432,)),
        ("postgresql:///db?host=h1,h2&port=5,6&user=u", ("h1", "h2"), (5, 6)),
        ("postgresql://u@h1,h2/db?port=7", ("h1", "h2"), (7, 7)),
        ("postgresql://u@[fe80::1%25eth0]/db", ("fe80::1%eth0",), (5432,)),
        ("postgresql://u@h", ("h",), (5432,)),
    ],
)
def test_postgresql_hosts(text: str, hosts: tuple[str, ...], ports: tuple[int, ...]) -> None:
    read = postgresql.read(url(text))
    assert (read.hosts, read.ports) == (hosts, ports)


@pytest.mark.parametrize(
    ("password", "rest"),
    [
        ("p@ss", "@h/db"),
        ("p@ss:w/@rd", "@h/db"),
        ("p?a=b", "@h/db?sslmode=require"),
        ("p/ss", "@h/db"),
        ("p?ss", "@h/db?sslmode=require"),
        ("p#ss", "@h/db"),
        ("p:ss", "@h:5432/db"),
        ("100%", "@h/db"),
        ("100%zz&a=b", "@h/db"),
        ("p@ss?", "@h/db?application_name=x%40y"),
        ("[a]", "@[::1]:5432/db"),
        ("a+b c", "@h/db"),
    ],
)
def test_a_password_that_was_not_encoded(password: str, rest: str) -> None:
    settings = url(f"postgresql://u:{password}{rest}")
    assert postgresql.check(settings, "t") == {}
    assert postgresql.read(settings).password == password
    assert postgresql.read(settings).database == "db"
    assert masked(settings)["connectionString"] == f"postgresql://u:***{rest}"


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u:1?hunter=1@h/db",
        "postgresql://u:p@hunter/2@h/db",
        "postgresql://h:5432/hunter@h",
        "postgresql:///db?user=hunter@h",
        "postgresql://u:p@h/db?application_name=hunter@h",
        "postgresql://u:hunter#h/db",
        "postgresql://u:hunter",
        "postgresql://u:hunter:2/db",
        "postgresql://u:p@h/db?hunter",
        "postgresql://u:p@h:hunter/db",
        "hunter",
        "host=h password=hunter",
        "mysql://u:hunter@h/db",
        "postgresql://u:hunter@h/\ndb",
    ],
)
def test_a_malformed_connection_string_is_refused_without_being_shown(text: str) -> None:
    problems = postgresql.check({"dialect": "postgresql", "connectionString": text}, "t")
    assert "hunter" not in reason(problems, "sourceConfig.connectionString")


@pytest.mark.parametrize(
    ("settings", "field", "fix"),
    [
        (url("postgresql://u@h/db?foo=1"), "connectionString", 'parameter "foo" is not supported; remove it'),
        (url("postgresql://u@h/db?options=-c"), "connectionString", 'parameter "options" is not supported'),
        (url("postgresql://u@h/db?user=v"), "connectionString", "mean the same"),
        (url("postgresql://u@h/db?sslmode=require&sslmode=disable"), "connectionString", "mean the same"),
        (url("postgresql://h/db"), "connectionString", "does not say the user"),
        (url("postgresql://u@/db"), "connectionString", "does not say the host"),
        (
            url("postgresql://u@h:0/db"),
            "connectionString",
            "the port must be a whole number from 1 to 65535",
        ),
        (url("postgresql://u@h/db?sslmode=on"), "connectionString", "must be one of disable, allow, prefer"),
        (url("postgresql://u@h/%00"), "connectionString", "the database must not hold a NUL"),
        (url("postgresql://u:%ff@h/"), "connectionString", "the password holds percent-encoded bytes"),
        (url("postgresql://u:***@h/"), "connectionString", "write the password itself"),
        (url("postgresql://u@::1/db"), "connectionString", "write IPv6 as [::1]:5432"),
        (url("postgresql://u@h1,h2/db?port=1,2,3"), "connectionString", "3 values for 2 hosts"),
        (url("postgresql://u@h/db", host="h"), "host", "cannot be given together with connectionString"),
        (url("postgresql://u@h/db", sslmode="require"), "sslmode", "cannot be given together with connectionString"),
        ({**POSTGRESQL, "hots": 1}, "hots", "did you mean host?"),
        ({**POSTGRESQL, "default_schema": "x"}, "default_schema", "did you mean defaultSchema?"),
        ({**POSTGRESQL, "port": 0}, "port", "from 1 to 65535"),
        ({**POSTGRESQL, "port": True}, "port", "from 1 to 65535"),
        ({**POSTGRESQL, "port": 10**400}, "port", "from 1 to 65535"),
        ({**POSTGRESQL, "port": 5432.5}, "port", "from 1 to 65535"),
        ({**POSTGRESQL, "password": 12345}, "password", "must be a string"),
        ({**POSTGRESQL, "password": MASK}, "password", "write the password itself"),
        ({**POSTGRESQL, "host": ""}, "host", "must not be empty"),
        ({**POSTGRESQL, "host": ["h"]}, "host", "must be a string"),
        ({**POSTGRESQL, "host": "h," + "h" * 9999}, "host", "must be a host's name"),
        (url("postgresql://u@h/" + "?" * 9999), "connectionString", "must not be longer"),
        ({**POSTGRESQL, "host": "a b"}, "host", "must be a host's name"),
        ({**POSTGRESQL, "host": "h:5432"}, "host", "the port goes into port"),
        ({**POSTGRESQL, "host": "a..b"}, "host", "must be a host's name"),
        ({**POSTGRESQL, "host": "postgresql://h/db"}, "host", "write it as connectionString"),
        ({**POSTGRESQL, "user": "\ud800"}, "user", "not valid Unicode"),
        ({**POSTGRESQL, "sslrootcert": "/ca"}, "sslrootcert", "is not used with sslmode prefer"),
        ({**POSTGRESQL, "sslmode": "require", "sslkey": "/k"}, "sslkey", "needs sslcert"),
        ({**POSTGRESQL, "host": "/tmp", "sslmode": "require"}, "sslmode", "Unix socket"),
        ({"dialect": "postgresql", "user": "u"}, "host", "is required"),
        ({"dialect": "postgresql", "host": "h"}, "user", "is required"),
    ],
)
def test_postgresql_names_the_field_and_the_fix(settings: dict[str, Any], field: str, fix: str) -> None:
    assert fix in reason(postgresql.check(settings, "t"), f"sourceConfig.{field}")


def test_every_problem_is_reported_at_once() -> None:
    problems = postgresql.check({"port": "x", "user": 1, "sslmode": "on", "no": 1}, "a.b.c")
    assert set(problems) == {
        *(f"sourceConfig.{key}" for key in ("host", "port", "user", "sslmode", "no")),
        "sourceTable",
    }


def test_null_is_left_out_and_references_pass() -> None:
    assert postgresql.check({**POSTGRESQL, "port": None, "sslcert": None}, "t") == {}
    keys = ("host", "port", "user", "password", "database", "defaultSchema", "sslmode")
    assert postgresql.check(dict.fromkeys(keys, "${X}"), "t") == {}
    assert postgresql.check({"connectionString": "${DATABASE_URL}"}, "t") == {}
    assert postgresql.check(url("postgresql://${U}:${P}@${H}:${PORT}/${D}?sslmode=${S}"), "t") == {}


def test_mysql_fields_and_their_defaults() -> None:
    read = mysql.read(MYSQL)
    assert read == mysql.MysqlSettings(host="db.example.com", user="app", password="s3cret", database="shop")
    assert (read.port, read.ssl_mode, read.ssl_fallback, read.tls_required) == (
        3306,
        "PREFERRED",
        True,
        False,
    )


def test_a_nul_ends_pasted_certificates_and_nothing_else() -> None:
    pem = "-----BEGIN CERTIFICATE-----\nMII=\n-----END CERTIFICATE-----\n"
    assert mysql.read({**MYSQL, "sslCa": pem + "\0"}).ssl_ca == pem
    for wrong in (pem + "\0" + pem, "/ca\0"):
        assert "NUL" in mysql.check({**MYSQL, "sslCa": wrong}, "t")["sourceConfig.sslCa"]


@pytest.mark.parametrize(
    ("more", "mode"),
    [
        ({"ssl": True}, "REQUIRED"),
        ({"ssl": False}, "DISABLED"),
        ({"sslMode": "verify-ca"}, "VERIFY_CA"),
        ({"sslCa": "/ca"}, "VERIFY_CA"),
        ({"ssl": True, "sslCa": "/ca"}, "VERIFY_CA"),
        ({"sslMode": "VERIFY_IDENTITY", "sslCa": "/ca"}, "VERIFY_IDENTITY"),
        ({}, "PREFERRED"),
    ],
)
def test_mysql_ssl_modes(more: dict[str, Any], mode: str) -> None:
    read = mysql.read({**MYSQL, **more})
    assert read.ssl_mode == mode
    assert read.tls_required == (mode not in ("DISABLED", "PREFERRED"))


@pytest.mark.parametrize("parameter", ["ssl-mode", "ssl_mode", "sslmode"])
def test_mysql_connection_string(parameter: str) -> None:
    read = mysql.read(url(f"mariadb://u:p%40@h:3307/db?{parameter}=required&connect_timeout=4"))
    assert (read.host, read.port, read.user, read.password, read.database) == ("h", 3307, "u", "p@", "db")
    assert (read.ssl_mode, read.connect_timeout) == ("REQUIRED", 4)


@pytest.mark.parametrize(
    ("settings", "field", "fix"),
    [
        (url("mysql://u@h/db?charset=utf8"), "connectionString", "it is always utf8mb4"),
        (url("mysql://u@h1,h2/db"), "connectionString", "must be one host"),
        (url("mysql://u@h"), "connectionString", "does not say the database"),
        (url("mysql://u@h/db", defaultSchema="other"), "defaultSchema", "is another database"),
        (url("postgresql://u@h/db"), "connectionString", "must begin with mysql:// or mariadb://"),
        ({**MYSQL, "database": None}, "database", "is required"),
        ({**MYSQL, "host": "/run/mysqld.sock", "port": 3306}, "port", "is not used with a Unix socket"),
        ({**MYSQL, "ssl": "yes"}, "ssl", "must be true or false"),
        ({**MYSQL, "ssl": True, "sslMode": "REQUIRED"}, "ssl", "cannot be given together with sslMode"),
        ({**MYSQL, "sslMode": "ON"}, "sslMode", "must be one of DISABLED, PREFERRED"),
        ({**MYSQL, "sslMode": "REQUIRED", "sslCa": "/ca"}, "sslCa", "set sslMode to VERIFY_CA"),
        ({**MYSQL, "ssl": False, "sslCert": "/c"}, "sslCert", "is not used with sslMode DISABLED"),
        ({**MYSQL, "sslKey": "/k"}, "sslKey", "needs sslCert"),
        ({**MYSQL, "charset": "utf8"}, "charset", "is not a key"),
    ],
)
def test_mysql_names_the_field_and_the_fix(settings: dict[str, Any], field: str, fix: str) -> None:
    assert fix in reason(mysql.check(settings, "t"), f"sourceConfig.{field}")

"""How a table is named, and what makes a table of a source that table, in either form of a sourceConfig."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from starbase_data_replication.sources.mysql import settings as mysql
from starbase_data_replication.sources.postgresql import settings as postgresql
from starbase_data_replication.sources.settings.env_references import resolve
from starbase_data_replication.sources.settings.names import split_name
from starbase_data_replication.sources.settings.scrubbing import MASK
from starbase_host import ConfigError
from tests.support.source_configs import MYSQL, POSTGRESQL, TEXTS, url


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("orders", ("orders",)),
        ("sales.Orders", ("sales", "Orders")),
        ('"my.schema"."My Table"', ("my.schema", "My Table")),
        ('sales."a.b"', ("sales", "a.b")),
        ('"a""b"', ('a"b',)),
        ("my orders.t", ("my orders", "t")),
    ],
)
def test_split_name(text: str, names: tuple[str, ...]) -> None:
    assert split_name(text) == names


def test_backticks_quote_in_mysql_only() -> None:
    assert mysql.table_name(MYSQL, "`a.b`.`c``d`").name == "c`d"
    assert postgresql.table_name(POSTGRESQL, "`a`").name == "`a`"


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a..b", "a.b.c", '""', '"a', 'a"b"', '"a"b', " a", "a\0"])
def test_split_name_refuses(text: str) -> None:
    for room in (postgresql, mysql):
        assert "sourceTable" in room.check({}, text)
        with pytest.raises(ConfigError):
            room.table_name({**MYSQL}, text)


@given(st.lists(TEXTS, min_size=1, max_size=2))
def test_any_names_survive_quoting(names: list[str]) -> None:
    assert split_name(".".join('"' + name.replace('"', '""') + '"' for name in names)) == tuple(names)


def test_table_name_fills_in_the_default() -> None:
    assert str(postgresql.table_name(POSTGRESQL, "orders")) == "public.orders"
    assert str(postgresql.table_name({**POSTGRESQL, "defaultSchema": "sales"}, "orders")) == "sales.orders"
    assert str(mysql.table_name(MYSQL, "orders")) == "shop.orders"
    assert str(mysql.table_name(MYSQL, "crm.orders")) == "crm.orders"
    assert mysql.table_name({"connectionString": "${URL}"}, "orders").schema is None


def test_identity_is_the_same_in_both_forms_and_without_user_password_and_tls() -> None:
    fields = {**POSTGRESQL, "host": "DB.example.com", "database": "shop", "sslmode": "require"}
    text = url("postgres://other:pw@db.EXAMPLE.com:5432/shop?application_name=x")
    expected = ("postgresql", "db.example.com", "5432", "shop", "public", "orders")
    assert postgresql.identity(fields, "orders") == expected
    assert postgresql.identity(text, 'public."orders"') == expected
    assert mysql.identity({**MYSQL, "ssl": True}, "orders") == mysql.identity(
        url("mysql://x:y@DB.example.com/shop"), "`shop`.orders"
    )


@pytest.mark.parametrize(
    "change", [{"host": "h2"}, {"port": 5433}, {"database": "d2"}, {"defaultSchema": "s2"}, {"host": "a,b"}]
)
def test_identity_differs_where_the_rows_may(change: dict[str, Any]) -> None:
    settings = {**POSTGRESQL, "database": "d"}
    assert postgresql.identity({**settings, **change}, "t") != postgresql.identity(settings, "t")


def test_identity_keeps_references_as_written() -> None:
    settings = {**POSTGRESQL, "host": "${Db_Host}", "port": "${PORT}", "database": "${DB}"}
    expected = ("postgresql", "${Db_Host}", "${PORT}", "${DB}", "public", "t")
    assert postgresql.identity(settings, "t") == expected
    assert postgresql.identity(url("postgresql://u:p@${Db_Host}:${PORT}/${DB}"), "t") == expected
    whole = {"dialect": "postgresql", "connectionString": "${DATABASE_URL}", "defaultSchema": "s"}
    assert postgresql.identity(whole, "t") == ("postgresql", "${DATABASE_URL}", "s", "t")
    assert mysql.identity(whole, "t") == ("mysql", "${DATABASE_URL}", "s", "t")


def test_identity_keeps_the_case_of_a_socket() -> None:
    assert postgresql.identity({**POSTGRESQL, "host": "/Run/Pg"}, "t")[1] == "/Run/Pg"
    assert mysql.identity({**MYSQL, "host": "/Run/my.sock"}, "t")[1:3] == ("/Run/my.sock", "")


@given(user=TEXTS, password=TEXTS, database=TEXTS, port=st.integers(1, 65535), room=st.sampled_from(["pg", "my"]))
def test_both_forms_give_the_same_identity_for_all_characters(
    user: str, password: str, database: str, port: int, room: str
) -> None:
    assume(not any("${" in text or text == MASK for text in (user, password, database)))
    dialect = postgresql if room == "pg" else mysql
    fields = {"host": "H.example", "port": port, "user": user, "password": password, "database": database}
    user_, password_, database_ = (quote(text, safe="") for text in (user, password, database))
    text = {"connectionString": f"{dialect.DIALECT}://{user_}:{password_}@H.example:{port}/{database_}"}
    assert dialect.check(fields, "t") == dialect.check(text, "t") == {}
    assert dialect.read(text) == dialect.read(fields)
    assert dialect.identity(text, "t") == dialect.identity(fields, "t")
    assert dialect.read(resolve(text, {})) == dialect.read(fields)

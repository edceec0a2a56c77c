"""PostgreSQL's types for the tests: the extensions that bring some, and generated values of each as its own text."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from tests.support.postgresql_texts import (
    addresses,
    any_floats,
    arrays,
    bits,
    catalogue,
    clocks,
    dates,
    decimals,
    finite,
    finite_points,
    floats4,
    hexadecimal,
    hexes,
    hstores,
    intervals,
    joined,
    json_texts,
    labels,
    lexemes,
    moment_ranges,
    moods,
    multiranges,
    nested,
    numbers,
    pairs,
    points,
    prices,
    ranges,
    rows,
    scaled,
    sized,
    small,
    stamps,
    trimmed,
    words,
    xml_text,
    zoned,
    zones,
)
from tests.support.servers import TestDatabase

# Those of contrib that bring types.
EXTENSIONS = (
    "btree_gist", "citext", "cube", "earthdistance", "hstore", "intarray", "isn", "lo", "ltree", "pg_trgm", "seg",
)  # fmt: skip

USER_TYPES = """
    CREATE TYPE mood AS ENUM ('sad', 'ok', 'Happy 🙂', 'a "quoted", one', '');
    CREATE TYPE pair AS (a int, b text, c numeric[], d timestamptz, e json);
    CREATE TYPE nested AS (x pair, y pair[], z mood);
    CREATE TYPE floats AS RANGE (subtype = float8);
    CREATE DOMAIN price AS numeric(12, 2) CHECK (VALUE >= 0);
    CREATE DOMAIN dear AS price;
    CREATE DOMAIN stamp3 AS timestamptz(3);
    CREATE DOMAIN moods AS mood[];
    CREATE DOMAIN pairs AS pair;
    CREATE DOMAIN padded AS char(6);
    CREATE DOMAIN document AS jsonb;
    -- Names of the catalogue's own types, for other ones.
    CREATE SCHEMA odd; CREATE TYPE odd.money AS ENUM ('a', 'b'); CREATE TYPE odd.date AS (a int);
    CREATE DOMAIN odd.float8 AS text;
"""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A column: its type, the texts that it is filled with, and how a text becomes the type.

    needs: the extension that has it, or "xml". rebuilt: the literal of what is stored, given as Python has it.
    """

    sql: str
    values: st.SearchStrategy[str]
    needs: str = ""
    via: str = ""
    rebuilt: Callable[[Any], str] = str


def create_extensions(database: TestDatabase) -> set[str]:
    """Create those that the server has; which these are. Only the wheel's brings `vector`, and no contrib."""
    offered = {name for (name,) in database.fetch("SELECT name FROM pg_available_extensions")}
    wanted = [name for name in (*EXTENSIONS, "vector") if name in offered]
    database.execute("; ".join(f"CREATE EXTENSION IF NOT EXISTS {name}" for name in wanted) or "SELECT 1")
    return set(wanted)


def has_xml(database: TestDatabase) -> bool:
    """The wheel's PostgreSQL is built without it: such a column exists, and holds no value."""
    return bool(database.fetch("SELECT count(*) FROM pg_config() WHERE setting LIKE '%with-libxml%'")[0][0])


def literal(value: Any) -> str:
    """What JSON made of an array, as the text of an array."""
    if value is None:
        return "NULL"
    if isinstance(value, list):
        return "{" + ",".join(map(literal, value)) + "}"
    return (
        '"' + (str(value).lower() if isinstance(value, bool) else value).replace("\\", "\\\\").replace('"', '\\"') + '"'
    )


def array_text(stored: str) -> str:
    """An array as the replica has it, as PostgreSQL's own text: of JSON, numbers digit by digit."""
    if not stored.startswith("[") or (stored.split("=")[0].strip("[]0123456789:-") == "" and "]=" in stored):
        return stored
    return literal(json.loads(stored, parse_float=str, parse_int=str, parse_constant=str))


def shortest(stored: float | str) -> str:
    return stored if isinstance(stored, str) else repr(stored)


def digits(stored: float | int | str) -> str:
    """A decimal's digits, from the number, or the text, that the replica has."""
    return format(Decimal(repr(stored)), "f").removesuffix(".0") if isinstance(stored, float) else str(stored)


def _kinds() -> dict[str, Kind]:
    found = {
        "int2": Kind(sql="int2", values=numbers(-(2**15), 2**15 - 1)),
        "int4": Kind(sql="int4", values=numbers(-(2**31), 2**31 - 1)),
        "int8": Kind(sql="int8", values=numbers(-(2**63), 2**63 - 1)),
        "bool": Kind(sql="bool", values=st.sampled_from(["t", "f"])),
        "oid": Kind(sql="oid", values=numbers(0, 2**32 - 1)),
        "xid": Kind(sql="xid", values=numbers(0, 2**32 - 1)),
        "cid": Kind(sql="cid", values=numbers(0, 2**32 - 1)),
        "xid8": Kind(sql="xid8", values=numbers(0, 2**64 - 1)),
        "tid": Kind(sql="tid", values=st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**16 - 1)).map(str)),
        "float4": Kind(sql="float4", values=floats4, rebuilt=shortest),
        "float8": Kind(sql="float8", values=any_floats, rebuilt=shortest),
        # The zeros behind the last digit are not kept, which the type does not ask for.
        "numeric": Kind(sql="numeric", values=decimals.map(trimmed), rebuilt=digits),
        "numeric_text": Kind(sql="numeric", values=decimals),
        **{
            f"numeric_{precision}_{scale}": Kind(
                sql=f"numeric({precision},{scale})", values=sized(precision, scale), rebuilt=digits
            )
            for precision, scale in ((12, 2), (15, 15), (15, 0), (18, 0), (16, 2), (19, 0), (38, 10), (78, 0))
        },
        "money": Kind(
            sql="money", values=numbers(-(2**63), 2**63 - 1).map(lambda n: scaled(int(n), 2)), rebuilt=digits
        ),
        "money_small": Kind(
            sql="money", values=numbers(-(10**6), 10**6).map(lambda n: scaled(int(n), 2)), rebuilt=digits
        ),
        "text": Kind(sql="text", values=words),
        "varchar": Kind(sql="varchar(30)", values=words),
        "char": Kind(sql="char(30)", values=words),
        "name": Kind(sql="name", values=st.text("aé \"'", max_size=20)),
        "one_char": Kind(sql='"char"', values=st.sampled_from(["", "a", "\\", "~", " ", "\n"])),
        "bytea": Kind(sql="bytea", values=st.binary(max_size=50).map(hexadecimal), rebuilt=hexadecimal),
        "uuid": Kind(sql="uuid", values=st.uuids().map(str)),
        "json": Kind(sql="json", values=json_texts(words)),
        "jsonb": Kind(sql="jsonb", values=json_texts(words)),
        "jsonpath": Kind(sql="jsonpath", values=words.map(lambda key: f"$.{json.dumps(key)}[*] ? (@ > 1.50)")),
        "xml": Kind(sql="xml", values=xml_text, needs="xml"),
        "date": Kind(sql="date", values=dates),
        "time": Kind(sql="time", values=clocks | st.just("24:00:00")),
        "timetz": Kind(sql="timetz", values=st.tuples(clocks, zones).map("".join)),
        "timestamp": Kind(sql="timestamp", values=stamps),
        "timestamp_0": Kind(sql="timestamp(0)", values=stamps),
        "timestamptz": Kind(sql="timestamptz", values=zoned),
        "timestamptz_3": Kind(sql="timestamptz(3)", values=zoned),
        "interval": Kind(sql="interval", values=intervals),
        "inet": Kind(sql="inet", values=addresses(network=False)),
        "cidr": Kind(sql="cidr", values=addresses(network=True)),
        "macaddr": Kind(sql="macaddr", values=hexes(6)),
        "macaddr8": Kind(sql="macaddr8", values=hexes(8)),
        "bit": Kind(sql="bit(9)", values=bits(9, 9)),
        "varbit": Kind(sql="varbit", values=bits(0, 90)),
        "tsvector": Kind(sql="tsvector", values=joined(lexemes.map(lambda lexeme: f"{lexeme}:1A,3B"), " ")),
        "tsquery": Kind(sql="tsquery", values=joined(lexemes.map(lambda lexeme: f"!{lexeme}:*A"), " & ")),
        "pg_lsn": Kind(sql="pg_lsn", values=st.integers(0, 2**64 - 1).map(lambda n: f"{n >> 32:X}/{n & 0xFFFFFFFF:X}")),
        "pg_snapshot": Kind(sql="pg_snapshot", values=st.sampled_from(["10:20:10,14,15", "1:1:"])),
        "txid_snapshot": Kind(sql="txid_snapshot", values=st.sampled_from(["10:20:10,14,15", "1:1:"])),
        "regclass": Kind(sql="regclass", values=catalogue, via="::oid"),
        "regtype": Kind(sql="regtype", values=catalogue, via="::oid"),
        "int2vector": Kind(sql="int2vector", values=joined(numbers(-(2**15), 2**15 - 1), " ")),
        "oidvector": Kind(sql="oidvector", values=joined(numbers(0, 2**32 - 1), " ")),
        "refcursor": Kind(sql="refcursor", values=words),
        "aclitem": Kind(sql="aclitem", values=st.sampled_from(["=r/postgres", "postgres=arwdDxt/postgres"])),
        "point": Kind(sql="point", values=points),
        "line": Kind(sql="line", values=st.tuples(small, small).map(lambda p: f"{{1,{p[0]},{p[1]}}}")),
        "lseg": Kind(sql="lseg", values=st.tuples(points, points).map(lambda p: f"[{p[0]},{p[1]}]")),
        "box": Kind(sql="box", values=st.tuples(finite_points, finite_points).map(lambda p: f"{p[0]},{p[1]}")),
        "path": Kind(sql="path", values=joined(points, ",", low=1).map(lambda p: f"[{p}]")),
        "polygon": Kind(sql="polygon", values=joined(finite_points, ",", low=1).map(lambda p: f"({p})")),
        "circle": Kind(sql="circle", values=st.tuples(points, st.integers(0, 99)).map(lambda c: f"<{c[0]},{c[1]}>")),
        "enum": Kind(sql="mood", values=moods),
        "composite": Kind(sql="pair", values=pairs),
        "nested": Kind(sql="nested", values=nested),
        "int4range": Kind(sql="int4range", values=ranges(st.integers(-99, 99))),
        "int8range": Kind(sql="int8range", values=ranges(st.integers(-(2**62), 2**62))),
        "numrange": Kind(sql="numrange", values=ranges(st.integers(-99, 99), lambda n: f"{n}.10")),
        "daterange": Kind(sql="daterange", values=ranges(st.integers(1000, 9000), lambda n: f"{n}-01-31")),
        "tsrange": Kind(sql="tsrange", values=moment_ranges),
        "tstzrange": Kind(sql="tstzrange", values=moment_ranges),
        "floatrange": Kind(sql="floats", values=ranges(st.floats(allow_nan=False), repr)),
        "int4multirange": Kind(sql="int4multirange", values=multiranges(ranges(st.integers(-99, 99)))),
        "tsmultirange": Kind(sql="tsmultirange", values=multiranges(moment_ranges)),
        "price": Kind(sql="price", values=prices, rebuilt=digits),
        "dear": Kind(sql="dear", values=prices, rebuilt=digits),
        "stamp3": Kind(sql="stamp3", values=zoned),
        "pairs": Kind(sql="pairs", values=pairs),
        "padded": Kind(sql="padded", values=st.text("ab é", max_size=6)),
        "document": Kind(sql="document", values=json_texts(words)),
        "odd_money": Kind(sql="odd.money", values=st.sampled_from(["a", "b"])),
        "odd_date": Kind(sql="odd.date", values=rows(small)),
        "odd_float8": Kind(sql="odd.float8", values=words),
        "citext": Kind(sql="citext", values=words, needs="citext"),
        "hstore": Kind(sql="hstore", values=hstores, needs="hstore"),
        "ltree": Kind(sql="ltree", values=joined(labels, "."), needs="ltree"),
        "lquery": Kind(sql="lquery", values=joined(labels, ".", low=1).map(lambda p: f"*.{p}.*{{1,2}}"), needs="ltree"),
        "ltxtquery": Kind(sql="ltxtquery", values=joined(labels, " & !", low=1), needs="ltree"),
        "cube": Kind(sql="cube", values=joined(finite, ",", low=1).map(lambda p: f"({p})"), needs="cube"),
        "seg": Kind(sql="seg", values=st.sampled_from(["1.50", "1.5 .. 2.50", "<3", "~1e5", "1 .."]), needs="seg"),
        "query_int": Kind(
            sql="query_int", values=st.integers(1, 99).map(lambda n: f"{n} & (2 | !3)"), needs="intarray"
        ),
        "lo": Kind(sql="lo", values=numbers(0, 2**32 - 1), needs="lo"),
        "ean13": Kind(sql="ean13", values=st.sampled_from(["978-0-393-04002-9", "9770317847001"]), needs="isn"),
        "isbn": Kind(sql="isbn", values=st.just("0-393-04002-X"), needs="isn"),
        "vector": Kind(
            sql="vector", values=joined(st.floats(-1e3, 1e3, width=32).map(repr), ",", low=1).map("[{}]".format),
            needs="vector",
        ),
    }  # fmt: skip
    elements = {
        "int4": small, "int8": numbers(-(2**63), 2**63 - 1), "numeric": decimals.filter(lambda n: len(n) < 400),
        "float8": any_floats, "float4": floats4, "bool": st.sampled_from(["t", "f"]), "text": words,
        "char(7)": st.text("ab é", max_size=7), "bytea": st.binary(max_size=9).map(hexadecimal),
        "uuid": st.uuids().map(str), "date": dates, "timestamp": stamps, "timestamptz": zoned,
        "time": clocks, "interval": intervals,
        "money": st.integers(-(10**9), 10**9).map(lambda n: scaled(n, 2)), "inet": addresses(network=False),
        "json": json_texts(words), "jsonb": json_texts(words), "mood": moods, "pair": pairs, "price": prices,
        "int4range": ranges(st.integers(-99, 99)), "moods": arrays(moods), "point": points,
        "xid8": numbers(0, 2**64 - 1),
        "int2vector": joined(small, " "),
    }  # fmt: skip
    for name, values in elements.items():
        label = "".join(filter(str.isalnum, name))
        found[f"a_{label}"] = Kind(sql=f"{name}[]", values=arrays(values), rebuilt=array_text)
    found["a_hstore"] = Kind(sql="hstore[]", values=arrays(hstores), rebuilt=array_text, needs="hstore")
    found["a_citext"] = Kind(sql="citext[]", values=arrays(words), rebuilt=array_text, needs="citext")
    found["d_moods"] = Kind(sql="moods", values=arrays(moods), rebuilt=array_text)
    return found


KINDS = _kinds()

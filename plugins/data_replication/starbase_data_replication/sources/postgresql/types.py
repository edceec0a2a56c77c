"""PostgreSQL's types and what they become in SQLite. Data: one line a type. docs/reference/types.md is made of it.

The source is asked, inside each transaction, for the settings that make a value's text the same on every server
and for every role: see SETTINGS in source.py. What a cast answers, PostgreSQL reads back as the same value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from starbase_data_replication.model import NO_AFFINITY, Cast, decimal_cast, float_or_text, text_or_bytes, unsigned

CATALOG = "pg_catalog"
BASE = "b"
ARRAY = "a"


def _integer(form: str, example: str, *, select: str = "{}") -> Cast:
    return Cast(select=select, declared="INTEGER", form=form, example=example)


def _text(form: str, example: str, *, select: str = "{}::text", sorts: bool = False) -> Cast:
    return Cast(select=select, form=form, example=example, sorts=sorts)


def _stamp(type_name: str, zone: str, form: str, example: str) -> Cast:
    """ISO 8601 with six digits, so that the order of the text is the order of time.

    to_char writes years past 9999 with all their digits and those before 1 without a sign, and has no infinity.
    """

    def select(text: str) -> str:
        return (
            f"CASE WHEN {{}} >= '0001-01-01'::{type_name} AND {{}} < 'infinity'::{type_name} THEN {text} "
            f"WHEN pg_catalog.isfinite({{}}) THEN {text} || ' BC' ELSE {{}}::text END"
        )

    own = f"""pg_catalog.to_char({{}}, 'YYYY-MM-DD"T"HH24:MI:SS.US{zone}')"""
    sqlites = "pg_catalog.rtrim(pg_catalog.rtrim(pg_catalog.to_char({}, 'YYYY-MM-DD HH24:MI:SS.US'), '0'), '.')"
    return Cast(select=select(own), moment=select(sqlites), form=form, example=example)


def numeric(precision: int | None = None, scale: int | None = None) -> Cast:
    """The cast of a numeric of so many digits, so many of them after the point; without them, of any."""
    also = "; `NaN` as text, which sorts last" if precision is not None else "; `NaN`, `Infinity`, `-Infinity` as text"
    return decimal_cast(precision, scale, select="{}::text", also=also)


_BY_BYTES = 'the text; sorts by its bytes, as the source does under COLLATE "C"'
_FLOAT = "the double itself; NaN as the text `NaN`, which sorts last"
_STAMP_FORM = "ISO 8601 with six digits{}; `infinity`, `-infinity`; years before 1 end in ` BC`"
# Compared as oid: a text that is cast to one of these is looked up as a name.
OBJECTS = (
    "regclass", "regcollation", "regconfig", "regdictionary", "regnamespace", "regoper", "regoperator", "regproc",
    "regprocedure", "regrole", "regtype",
)  # fmt: skip
_LSN = " || '/' || ".join(f"pg_catalog.lpad(pg_catalog.split_part({{}}::text, '/', {n}), 8, '0')" for n in (1, 2))
_OWN = "PostgreSQL's own text"
# Types that only indexes use: they have no text to read, so no value can be inserted.
_INTERNAL = _text("none: only an index uses the type, no row has a value of it", "")

CASTS: dict[str, Cast] = {
    "int2": _integer("the number", "-32768"),
    "int4": _integer("the number", "2147483647"),
    "int8": _integer("the number", "-9223372036854775808"),
    "bool": _integer("0 or 1", "1", select="{}::int4"),
    "oid": _integer("the number", "4294967295"),
    "xid": replace(_integer("the number", "4294967295", select="{}::text::int8"), sorts=False),
    "cid": replace(_integer("the number", "4294967295", select="{}::text::int8"), sorts=False),
    "xid8": Cast(
        select="{}::text", declared=NO_AFFINITY, convert=unsigned, example="9223372036854775807",
        form="INTEGER up to 2^63-1, the digits as TEXT above", sorts=False,
    ),
    "float4": Cast(
        select="({}::text)::float8", declared=NO_AFFINITY, convert=float_or_text, example="0.1",
        form=f"{_FLOAT}; the fewest digits that identify the number; read them as real",
    ),
    "float8": Cast(declared=NO_AFFINITY, convert=float_or_text, form=_FLOAT, example="0.1"),
    "numeric": numeric(),
    "money": decimal_cast(
        select="{}::numeric::text", also="; the database's lc_monetary gives the number of decimals", example="-1234.56"
    ),
    "text": _text(_BY_BYTES, "naïve 🙂", select="{}"),
    "varchar": _text(_BY_BYTES, "naïve 🙂", select="{}"),
    # A cast to text would take away the padding.
    "bpchar": _text(f"{_BY_BYTES}; with its padding", "ab   ", select="pg_catalog.textin(pg_catalog.bpcharout({}))"),
    "name": _text("the text", "pg_class", sorts=True),
    "char": _text("the byte's character; above 127 a backslash and three octal digits", "r"),
    "bytea": Cast(declared="BLOB", form="the bytes", example="\\x00ff"),
    "uuid": _text("36 characters, lower case", "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", sorts=True),
    "json": _text("as it was written: spaces, key order, double keys and every digit kept", '{"a": 1.10, "a": 2}'),
    "jsonb": _text(f"{_OWN}, every digit kept", '{"a": 1.10}'),
    "jsonpath": _text(_OWN, '$."a"[*]?(@ > 1)'),
    "xml": _text("as it was written, with its declaration", '<?xml version="1.0"?><a/>'),
    "date": _text("ISO 8601; `infinity`, `-infinity`; years before 1 end in ` BC`", "2026-11-22", sorts=True),
    "time": _text("ISO 8601, as many digits as it needs", "16:02:16.5", sorts=True),
    "timetz": _text("ISO 8601 with its zone, as many digits as it needs", "16:02:16.5+05:30"),
    "timestamp": _stamp("timestamp", "", _STAMP_FORM.format(""), "2026-11-22T16:02:16.500000"),
    "timestamptz": _stamp("timestamptz", '"Z"', _STAMP_FORM.format(" in UTC"), "2026-11-22T16:02:16.500000Z"),
    "interval": _text("ISO 8601 duration, each part with its own sign; `infinity`, `-infinity`", "P1Y2M-3DT4H5M6.7S"),
    "inet": _text("address/bits", "192.168.0.1/24"),
    "cidr": _text("address/bits", "192.168.0.0/24"),
    "macaddr": _text("six bytes in hex", "08:00:2b:01:02:03", sorts=True),
    "macaddr8": _text("eight bytes in hex", "08:00:2b:01:02:03:04:05", sorts=True),
    "bit": _text("the bits as 0 and 1", "0101", sorts=True),
    "varbit": _text("the bits as 0 and 1", "0101", sorts=True),
    "tsvector": _text(_OWN, "'fat':2 'rat':3A"),
    "tsquery": _text(_OWN, "'fat' & 'rat':*"),
    "pg_lsn": _text("twice eight hex digits", "00000016/B374D848", select=_LSN, sorts=True),
    "pg_snapshot": _text(_OWN, "10:20:10,14,15"),
    "txid_snapshot": _text(_OWN, "10:20:10,14,15"),
    "tid": _text(_OWN, "(0,1)"),
    **dict.fromkeys(
        OBJECTS, _integer("the object's number, which does not change with its name", "1259", select="{}::oid::int8")
    ),
    "int2vector": _text(_OWN, "1 2 3"),
    "oidvector": _text(_OWN, "1 2 3"),
    "point": _text(_OWN, "(1.5,-2)"),
    "line": _text(_OWN, "{1,-1,0}"),
    "lseg": _text(_OWN, "[(0,0),(1,1)]"),
    "box": _text(_OWN, "(1,1),(0,0)"),
    "path": _text(_OWN, "[(0,0),(1,1)]"),
    "polygon": _text(_OWN, "((0,0),(1,1),(1,0))"),
    "circle": _text(_OWN, "<(0,0),1>"),
    "refcursor": _text(_OWN, "c1"),
    "aclitem": _text(f"{_OWN}, with the names of roles", "postgres=r/postgres"),
    **dict.fromkeys(
        ("pg_node_tree", "pg_ndistinct", "pg_dependencies", "pg_mcv_list", "pg_brin_bloom_summary",
         "pg_brin_minmax_multi_summary"),
        _text(f"{_OWN}; only the catalogue's tables can contain a value", ""),
    ),
    "gtsvector": _INTERNAL,
}  # fmt: skip

# Of these, some that are often many or large, and whose `::text` is their own output: no function in pg_cast makes it.
OWN_TEXT = frozenset({"numeric", "json", "jsonb", "uuid", "date", "time", "timetz"})

# Base types of extensions: PostgreSQL's own (contrib), and pgvector.
EXTENSION_CASTS: dict[str, Cast] = {
    "citext": _text("the text; the source ignores case when it sorts", "Naïve"),
    # Its order has operators of other names.
    "hstore": replace(_text(_OWN, '"a"=>"1", "b"=>NULL'), resumable=False),
    "ltree": _text(_OWN, "Top.Science"),
    "lquery": _text(_OWN, "*.Science.*{1,2}"),
    "ltxtquery": _text(_OWN, "Europe & Russia@*"),
    "cube": _text(_OWN, "(0, 0),(1.5, 2)"),
    "seg": _text(f"{_OWN}: seven significant digits or more are written as six, as pg_dump does", "1.5 .. 2.50"),
    "query_int": _text(_OWN, "1 & ( 2 | 3 )"),
    "ean13": _text(_OWN, "978-0-393-04002-9"),
    "isbn13": _text(_OWN, "978-0-393-04002-9"),
    "ismn13": _text(_OWN, "979-0-060-11561-5"),
    "issn13": _text(_OWN, "977-1436-452-00-8"),
    "isbn": _text(_OWN, "0-393-04002-X"),
    "ismn": _text(_OWN, "M-060-11561-5"),
    "issn": _text(_OWN, "1436-4522"),
    "upc": _text(_OWN, "220356483481"),
    "vector": _text(_OWN, "[1,2.5,-3]"),
    "halfvec": _text(_OWN, "[1,2.5,-3]"),
    "sparsevec": _text(_OWN, "{1:1.5,3:2}/5"),
    **dict.fromkeys(
        ("gbtreekey2", "gbtreekey4", "gbtreekey8", "gbtreekey16", "gbtreekey32", "gbtreekey_var", "ghstore",
         "gtrgm", "intbig_gkey", "ltree_gist"),
        _INTERNAL,
    ),
}  # fmt: skip

# By pg_type.typtype, for what users define.
CASTS_BY_KIND: dict[str, Cast] = {
    "e": _text("the label; the source sorts labels in the order of their declaration", "in transit"),
    "r": _text(_OWN, "[1,5)"),
    "m": _text(_OWN, "{[1,5),[7,9)}"),
    "c": _text(f"{_OWN}; an array in it as `{{…}}`", '(1,"a b",)'),
}

# JSON, for elements that JSON represents exactly. JSON has no bounds, so an array that does not begin at 1 keeps
# PostgreSQL's own text.
_AS_JSON = (
    r"CASE WHEN pg_catalog.array_dims({{}}) ~ '\[(?!1:)' THEN {{}}::text "
    "ELSE pg_catalog.array_to_json({{}}{cast})::text END"
)
JSON_ARRAY = Cast(
    select=_AS_JSON.format(cast=""), resumable=False, sorts=False, example='[1,null,3]',
    form="a JSON array, numbers with every digit, values that JSON lacks in quotes (`\"NaN\"`); an array with "
    "explicit bounds as PostgreSQL's text, `[0:1]={1,2}`",
)  # fmt: skip
# In JSON, NULL and a JSON null, or a nested array's bounds, would look alike.
TEXT_ARRAY = _text(f"{_OWN}", '{"(1,a)",NULL}')
# Elements whose text depends on a setting, or on the names of objects, are kept as their exact number.
_ELEMENT_CASTS = {"money": "::numeric[]", **dict.fromkeys(OBJECTS, "::oid[]::int8[]")}
_NOT_AS_JSON = ("json", "jsonb", "hstore", "int2vector", "oidvector")
UNKNOWN = Cast(select="{}::text", known=False, resumable=False, sorts=False)

# Tracking columns of these types hold a time: the SQL for "the source's clock, as this type, cut down to the
# column's precision". {now} is the clock, {local} the lowest time that the zone of zoneless columns will show from
# now on, {unit} the precision.
CLOCKS: dict[str, str] = {
    "timestamptz": "pg_catalog.date_trunc('{unit}', {now})",
    "timestamp": "pg_catalog.date_trunc('{unit}', {local})",
    "date": "({local})::date",
}
# How a type's values rise in a tracking column: see Column.rises.
RISES: dict[str, str] = {
    **dict.fromkeys(CLOCKS, "time"),
    **dict.fromkeys(("int2", "int4", "int8", "numeric", "float4", "float8", "xid8", "pg_lsn"), "number"),
    "uuid": "uuid",
    **dict.fromkeys(("text", "varchar", "bpchar", "name"), "text"),
    "bytea": "bytes",
}
# Number types that also have NaN or infinity.
UNBOUNDED = ("numeric", "float4", "float8")
# Types of numbers that hold a time since 1970.
COUNTING = ("int2", "int4", "int8", "numeric", "float8")
# A value that one transaction has and no later one.
PASSING = ("xid8",)
# A zone's clock is put back once a year: new rows then have times that already passed an hour ago.
LOCAL_CLOCK = "least({now} AT TIME ZONE {zone}, ({now} + interval '3 hours') AT TIME ZONE {zone} - interval '3 hours')"


def cast_for(
    *,
    schema: str,
    name: str,
    kind: str,
    element: tuple[str, str, str] | None,
    digits: tuple[int, int] | None = None,
) -> Cast:
    """The cast of a type that is not a domain. kind is pg_type.typtype, or `a` for an array.

    element: schema, name and kind of an array's elements, domains looked through. digits: precision and scale of a
    numeric that has them.
    """
    if digits is not None:
        return numeric(*digits)
    if kind == ARRAY:
        return TEXT_ARRAY if element is None else _array_cast(*element)
    if kind != BASE:
        return CASTS_BY_KIND.get(kind, UNKNOWN)
    # An extension may be in any schema, so its types are known by their names.
    return CASTS.get(name, UNKNOWN) if schema == CATALOG else EXTENSION_CASTS.get(name, UNKNOWN)


def _array_cast(schema: str, name: str, kind: str) -> Cast:
    elements = cast_for(schema=schema, name=name, kind=kind, element=None)
    if not elements.known:
        return UNKNOWN
    if kind in (ARRAY, "c") or name in _NOT_AS_JSON:
        return TEXT_ARRAY
    cast = _ELEMENT_CASTS.get(name, "") if schema == CATALOG else ""
    return replace(JSON_ARRAY, select=_AS_JSON.format(cast=cast))


def in_bytes(cast: Cast) -> Cast:
    """The cast of the same type in a database whose text may have no valid encoding: its bytes are sent."""
    if cast.declared != "TEXT":
        return cast
    return replace(
        cast,
        convert=text_or_bytes,
        resumable=False,
        unrepresentable=bytes,
        policy="are not valid UTF-8, and kept as a BLOB of their bytes",
    )


def in_encoding(cast: Cast, decoded: Callable[[bytes], str | bytes]) -> Cast:
    """The cast of the same type in a database whose encoding has bytes without a place in Unicode.

    decoded: what becomes of the bytes, where a value comes as such; COPY's are decoded many at once.
    """
    if cast.declared != "TEXT":
        return cast
    return replace(
        cast,
        convert=decoded,
        unrepresentable=bytes,
        policy="have no Unicode text of their own, and are kept as a BLOB of their bytes",
    )


def clock_unit(digits: int | None) -> str:
    """What to cut a time down to for a column of so many fractional digits (None: six)."""
    if digits is None or digits > 3:
        return "microseconds" if digits in (None, 6) else "milliseconds"
    return "milliseconds" if digits == 3 else "second"

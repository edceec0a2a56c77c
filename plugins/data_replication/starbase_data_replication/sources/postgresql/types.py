"""PostgreSQL's types and what they become in SQLite. Data: one line a type.

The source is asked, inside each transaction, for DateStyle ISO, TimeZone UTC, IntervalStyle iso_8601 and
extra_float_digits 1, so `::text` means the same on every server.
"""

from __future__ import annotations

from starbase_data_replication.casts import NO_AFFINITY, Cast, float_or_text

# to_char has no form for infinity or for years of other than four digits; those keep PostgreSQL's own text.
_FOUR_DIGIT_YEARS = "{{}} >= '0001-01-01'::{type} AND {{}} < '10000-01-01'::{type}"


def _stamp(type_name: str, suffix: str) -> str:
    """ISO 8601 with six digits, so that the order of the text is the order of time."""
    inside = _FOUR_DIGIT_YEARS.format(type=type_name)
    pattern = f"""'YYYY-MM-DD"T"HH24:MI:SS.US{suffix}'"""
    return f"CASE WHEN {inside} THEN to_char({{}}, {pattern}) ELSE {{}}::text END"


INTEGER = Cast(declared="INTEGER")
TEXT = Cast()
AS_TEXT = Cast(select="{}::text")
UNREADABLE_TEXT = Cast(select="{}::text", resumable=False)

CASTS: dict[str, Cast] = {
    "int2": INTEGER,
    "int4": INTEGER,
    "int8": INTEGER,
    "oid": INTEGER,
    "bool": Cast(select="{}::int4", declared="INTEGER"),
    "float4": Cast(select="({}::text)::float8", declared=NO_AFFINITY, convert=float_or_text),
    "float8": Cast(declared=NO_AFFINITY, convert=float_or_text),
    "numeric": AS_TEXT,
    "money": Cast(select="{}::numeric::text"),
    "text": TEXT,
    "varchar": TEXT,
    "bpchar": TEXT,
    "name": AS_TEXT,
    "char": AS_TEXT,
    "citext": AS_TEXT,
    "bytea": Cast(declared="BLOB"),
    "uuid": AS_TEXT,
    "json": AS_TEXT,
    "jsonb": AS_TEXT,
    "xml": AS_TEXT,
    "date": AS_TEXT,
    "time": AS_TEXT,
    "timetz": AS_TEXT,
    "timestamp": Cast(select=_stamp("timestamp", "")),
    "timestamptz": Cast(select=_stamp("timestamptz", '"Z"')),
    "interval": AS_TEXT,
    "inet": AS_TEXT,
    "cidr": AS_TEXT,
    "macaddr": AS_TEXT,
    "macaddr8": AS_TEXT,
    "bit": AS_TEXT,
    "varbit": AS_TEXT,
    "tsvector": UNREADABLE_TEXT,
    "tsquery": UNREADABLE_TEXT,
    "pg_lsn": AS_TEXT,
    "xid8": AS_TEXT,
    "hstore": UNREADABLE_TEXT,
    "ltree": AS_TEXT,
    "point": UNREADABLE_TEXT,
    "line": UNREADABLE_TEXT,
    "lseg": UNREADABLE_TEXT,
    "box": UNREADABLE_TEXT,
    "path": UNREADABLE_TEXT,
    "polygon": UNREADABLE_TEXT,
    "circle": UNREADABLE_TEXT,
}

# By pg_type.typtype, for what users define: enums, ranges, multiranges, composites.
CASTS_BY_KIND: dict[str, Cast] = {"e": AS_TEXT, "r": UNREADABLE_TEXT, "m": UNREADABLE_TEXT, "c": UNREADABLE_TEXT}

ARRAY = Cast(select="array_to_json({})::text", resumable=False)
UNKNOWN = Cast(select="{}::text", known=False, resumable=False)

# Tracking columns of these types hold a time: the SQL for "the source's clock, as this type, cut down to the
# column's precision". {now} is the clock, {local} the lowest time that the zone of zoneless columns will show from
# now on, {unit} the precision.
CLOCKS: dict[str, str] = {
    "timestamptz": "date_trunc('{unit}', {now})",
    "timestamp": "date_trunc('{unit}', {local})",
    "date": "({local})::date",
}
# Types of numbers that have values beyond all numbers.
UNBOUNDED = ("numeric", "float4", "float8")
# A zone's clock is put back once a year: then rows come in whose times were there an hour ago already.
LOCAL_CLOCK = "least({now} AT TIME ZONE {zone}, ({now} + interval '3 hours') AT TIME ZONE {zone} - interval '3 hours')"


def cast_for(*, name: str, kind: str, category: str) -> Cast:
    """The cast of a base type: by its name, else an array, else by its kind, else its text with a warning."""
    if name in CASTS:
        return CASTS[name]
    if category == "A":
        return ARRAY
    return CASTS_BY_KIND.get(kind, UNKNOWN)


def clock_unit(digits: int | None) -> str:
    """What to cut a time down to for a column of so many fractional digits (None: six)."""
    if digits is None or digits > 3:
        return "microseconds" if digits in (None, 6) else "milliseconds"
    return "milliseconds" if digits == 3 else "second"

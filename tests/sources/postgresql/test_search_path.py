"""What other roles create in a schema of the search path changes nothing that the source is asked.

PostgreSQL resolves the name of a function or operator by the types of its arguments: one in `public` that fits them
exactly is preferred to one in `pg_catalog` that fits after a cast (CVE-2018-1058).
"""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import starbase_data_replication
from starbase_data_replication.model import Column
from starbase_data_replication.sources.postgresql.sql import operator
from starbase_data_replication.sources.postgresql.types import CASTS, EXTENSION_CASTS
from tests.support.hosts import running
from tests.support.servers import TestDatabase

# Types of values, columns and catalogue columns in the statements of this dialect.
TYPES = (
    "text", "varchar", "bpchar", "name", '"char"', "oid", "regclass", "int2", "int4", "int8", "numeric", "float8",
    "bool", "timestamptz", "timestamp", "date", "interval", "uuid", "bytea", "jsonb", "text[]", "int8[]", "int2[]",
    "oid[]", "xid", "name[]",
    "regtype", "regproc", "regnamespace",
)  # fmt: skip
OPERATORS = ("=", "<>", "<", ">", "<=", ">=", "||", "%", "+", "-", "*", "/", "~", "~*", "~~", "->>", "&", ">>", "#")

# A function of each pair of types, and under each name, that ends the statement that calls it.
HOSTILE = """
DO $do$
DECLARE a text; b text; o text; f text;
    types text[] := $types$; operators text[] := $operators$; names text[] := $names$;
    body text := 'LANGUAGE plpgsql AS $b$ BEGIN RAISE EXCEPTION ''hijacked: %s(%s, %s)''; END $b$';
BEGIN
    SET LOCAL check_function_bodies = off;
    FOREACH f IN ARRAY names LOOP
        FOREACH a IN ARRAY types LOOP
            EXECUTE pg_catalog.format('CREATE FUNCTION public.%I(%s) RETURNS text %s', f, a,
                pg_catalog.format(body, f, a, ''));
            FOREACH b IN ARRAY ARRAY['text', 'int4', a] LOOP
                BEGIN
                    EXECUTE pg_catalog.format('CREATE FUNCTION public.%I(%s, %s) RETURNS text %s', f, a, b,
                        pg_catalog.format(body, f, a, b));
                EXCEPTION WHEN duplicate_function THEN NULL;
                END;
            END LOOP;
        END LOOP;
    END LOOP;
    FOREACH a IN ARRAY types LOOP
        FOREACH b IN ARRAY types LOOP
            EXECUTE pg_catalog.format('CREATE FUNCTION public.hijack(%s, %s) RETURNS bool %s', a, b,
                pg_catalog.format(body, 'operator', a, b));
            FOREACH o IN ARRAY operators LOOP
                EXECUTE pg_catalog.format(
                    'CREATE OPERATOR public.%s (FUNCTION = public.hijack, LEFTARG = %s, RIGHTARG = %s)', o, a, b);
            END LOOP;
        END LOOP;
    END LOOP;
END $do$
"""


def array(texts: list[str] | tuple[str, ...]) -> str:
    return "ARRAY[" + ", ".join("'" + text.replace("'", "''") + "'" for text in texts) + "]"


def called_names(database: TestDatabase) -> list[str]:
    """The names of PostgreSQL's functions that this dialect's files mention as a call."""
    folder = files(starbase_data_replication) / "sources" / "postgresql"
    texts = [each.read_text(encoding="utf-8") for each in folder.iterdir() if each.name.endswith((".py", ".sql"))]
    mentioned = {name for text in texts for name in re.findall(r"\b([a-z_0-9]+)\(", text)}
    rows = database.fetch("SELECT DISTINCT proname::text FROM pg_catalog.pg_proc")
    return sorted(mentioned & {str(name) for (name,) in rows})


TABLES = (
    "CREATE TABLE codes (code varchar(20), part char(3), name name, number int2, at timestamptz DEFAULT now(), "
    "words text[], price numeric(10, 2), any_price numeric, real_price float8, doc jsonb, note text, day date, "
    "stamp timestamp, raw bytea, amount money, PRIMARY KEY (code, part, name, number))",
    "INSERT INTO codes SELECT 'c' || g, 'p', 'n', g, now() - interval '1 day', ARRAY['a', NULL], 1.5, 'NaN', 0.1, "
    "'{}', 'x', now(), now(), '\\x00', 5 FROM generate_series(1, 50) AS g",
    "CREATE TABLE numbers (id bigserial PRIMARY KEY, v text)",
    "INSERT INTO numbers (v) VALUES ('one')",
    "CREATE TABLE named (id varchar(9) PRIMARY KEY, v text)",
    "INSERT INTO named VALUES ('a1', 'one')",
    "CREATE TABLE timed (id uuid PRIMARY KEY, at timestamp, day date)",
    "INSERT INTO timed VALUES (gen_random_uuid(), now() - interval '1 day', now())",
    "CREATE VIEW seen AS SELECT id, v FROM numbers",
)
REPLICATIONS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("codes", "at", {"deletes": "reconcile"}),
    ("numbers", "id", {"deletes": "reconcile", "where": "v > 'a'::text"}),
    ("named", "id", {}),
    ("timed", "at", {"trackingTimeZone": "UTC"}),
    ("seen", "id", {"keyColumns": ["id"]}),
)


def test_functions_and_operators_of_other_roles_are_not_called(postgres_database: TestDatabase, tmp_path: Path) -> None:
    for statement in TABLES:
        postgres_database.execute(statement)
    names = called_names(postgres_database)
    assert {"make_interval", "concat", "convert_to"} <= set(names)
    hostile = HOSTILE.replace("$names$", array(names))
    postgres_database.execute(hostile.replace("$types$", array(TYPES)).replace("$operators$", array(OPERATORS)))
    with running(tmp_path) as host:
        for table, tracking, more in REPLICATIONS:
            host.configure(
                name=table, sourceConfig=postgres_database.source_config, sourceTable=table, targetTable=table,
                trackingColumn=tracking, isActive=False, closeWaitSeconds=0, settleSeconds=0, **more,
            )  # fmt: skip
            for _ in range(3):
                run = host.sync(table)
                assert run["status"] == "success", run
            result = host.result("POST", f"/data-replication/verify/{table}", {"repair": True})
            assert "hijacked" not in str(result), result
        postgres_database.execute("DELETE FROM codes WHERE number::int4 > 40::int4")
        run = host.result("POST", "/data-replication/reconcile/codes", {"force": True})
        assert host.query("SELECT count(*) FROM codes") == [[40]], run


def test_operators_of_the_catalogue_are_named_with_their_schema() -> None:
    column = Column(name="k", source_type="varchar", nullable=False, cast=CASTS["varchar"], tracking_kind="varchar")
    assert operator(">", column) == "OPERATOR(pg_catalog.>)"
    citext = Column(name="k", source_type="citext", nullable=False, cast=EXTENSION_CASTS["citext"])
    assert operator(">", column, citext) == ">"

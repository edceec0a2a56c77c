"""PostgreSQL's types: every one of its catalogue is in the ledger, and every value arrives intact."""

from __future__ import annotations

import pytest
from scripts import ledger

from starbase_data_replication.sources.postgresql.types import (
    ARRAY,
    BASE,
    CASTS,
    CASTS_BY_KIND,
    EXTENSION_CASTS,
    OBJECTS,
    OWN_TEXT,
    cast_for,
)
from tests.support.postgresql_types import EXTENSIONS, create_extensions, has_xml
from tests.support.servers import TestDatabase

# Base types, with the schema that they are found in; an array's and a domain's follow from what they are made of.
BASE_TYPES = """
    SELECT n.nspname, t.typname::text, has_extension.extname IS NOT NULL
    FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
    LEFT JOIN LATERAL (
        SELECT e.extname FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
        WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e') has_extension ON true
    WHERE t.typtype = 'b' AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)
"""
KINDS = "SELECT DISTINCT t.typtype::text FROM pg_type t"
# A pseudo-type is for functions: no column of a table has one.
NO_COLUMN = {"p"}


def test_every_type_of_the_catalogue_is_in_the_ledger(either_postgres: TestDatabase) -> None:
    create_extensions(either_postgres)
    found = either_postgres.fetch(BASE_TYPES)
    assert len(found) > 60
    missing = [
        name for schema, name, _ in found if not cast_for(schema=schema, name=name, kind="b", element=None).known
    ]
    assert missing == []
    kinds = {kind for (kind,) in either_postgres.fetch(KINDS)}
    assert kinds - set(CASTS_BY_KIND) - {BASE, "d"} - NO_COLUMN == set()
    assert cast_for(schema="public", name="_strange", kind=ARRAY, element=("x", "strange", "b")).known is False


@pytest.mark.parametrize("extension", [False, True], ids=["own", "extensions"])
def test_each_example_is_what_its_type_becomes_and_reads_back(either_postgres: TestDatabase, extension: bool) -> None:
    """The ledger's example, read as its type, is what the cast makes of it again."""
    create_extensions(either_postgres)
    there = {name for schema, name, belongs in either_postgres.fetch(BASE_TYPES) if belongs is extension}
    casts = EXTENSION_CASTS if extension else CASTS
    settings = (
        "SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'iso_8601'; "
        "SET extra_float_digits = 3; SET bytea_output = 'hex'"
    )
    with either_postgres.connect() as session:
        session.execute(settings)
        for name in sorted(there & set(casts)):
            cast = casts[name]
            assert cast.form, name
            if cast.example:
                if name == "xml" and not has_xml(either_postgres):
                    continue
                select = cast.select.replace("{}", "x")
                via = "oid::" if name in OBJECTS else ""
                sql = f'SELECT ({select})::text FROM (SELECT $1::text::{via}"{name}" AS x) s'
                ((answer,),) = session.fetch(sql, cast.example)
                assert answer == cast.example, name


def test_what_is_copied_without_a_cast_has_no_text_but_its_own(either_postgres: TestDatabase) -> None:
    functions = either_postgres.fetch(
        "SELECT t.typname::text FROM pg_cast c JOIN pg_type t ON t.oid = c.castsource "
        "WHERE c.casttarget = 'pg_catalog.text'::regtype"
    )
    assert ("inet",) in functions
    assert {name for (name,) in functions} & OWN_TEXT == set()
    assert {CASTS[name].select for name in OWN_TEXT} == {"{}::text"}


def test_extensions_are_there(postgres_database: TestDatabase) -> None:
    """Nothing is left out in silence: contrib is installed with the distribution's server."""
    create_extensions(postgres_database)
    there = {name for (name,) in postgres_database.fetch("SELECT extname FROM pg_extension")}
    assert set(EXTENSIONS) <= there


def test_the_page_is_what_the_casts_say() -> None:
    assert ledger.PAGE.read_text(encoding="utf-8") == ledger.page(), "run python scripts/ledger.py"

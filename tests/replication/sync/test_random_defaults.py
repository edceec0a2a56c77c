"""A tracking column to which the source gives random numbers, or times with a random part, is refused: new rows would
lie below the floor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from starbase_data_replication.sources.origins import random_function
from tests.support.hosts import HostProcess, running
from tests.support.servers import TestDatabase

TABLES = {
    "postgresql": """
        CREATE TABLE r (id bigint PRIMARY KEY DEFAULT (random() * 1e15)::bigint, at timestamptz DEFAULT now());
        CREATE VIEW seen AS SELECT id, at FROM r;
        CREATE TABLE f (id float8 PRIMARY KEY DEFAULT random(), at timestamptz DEFAULT now());
        CREATE DOMAIN soon AS timestamp DEFAULT (now() + random() * interval '1 day');
        CREATE TABLE late (
            id timestamptz PRIMARY KEY DEFAULT now() + random() * interval '1 day',
            day date DEFAULT current_date - (random() * 10)::int,
            dom soon,
            at timestamptz DEFAULT now()
        );
        CREATE VIEW late_seen AS SELECT id AS due, day, dom, at FROM late;
        CREATE VIEW late_twice AS SELECT due AS id, day, dom, at FROM late_seen
    """,
    "mysql": """
        CREATE TABLE r (id bigint PRIMARY KEY DEFAULT (floor(rand() * 1e15)), at timestamp(6) DEFAULT now(6));
        CREATE VIEW seen AS SELECT id, at FROM r;
        CREATE TABLE f (id double PRIMARY KEY DEFAULT (rand()), at timestamp(6) DEFAULT now(6));
        CREATE TABLE late (
            id datetime(6) PRIMARY KEY DEFAULT (now(6) + INTERVAL rand() * 100 SECOND),
            day date DEFAULT (curdate() - INTERVAL floor(rand() * 10) DAY),
            dom timestamp(3) DEFAULT (now(3) + INTERVAL rand() * 86400 SECOND),
            at timestamp(6) DEFAULT now(6)
        );
        CREATE VIEW late_seen AS SELECT id AS due, day, dom, at FROM late;
        CREATE VIEW late_twice AS SELECT due AS id, day, dom, at FROM late_seen
    """,
}


def refusal(host: HostProcess, name: str) -> str:
    """The error of a sync that must fail."""
    response = host.request("POST", f"/data-replication/sync/{name}")
    assert response.status_code == 502, response.text
    return str(response.json()["error"])


def test_random_numbers_are_refused(source_database: TestDatabase, tmp_path: Path) -> None:
    database = source_database
    database.execute(TABLES[database.dialect])
    with running(tmp_path) as host:
        for table in ("r", "f", "seen"):
            body: dict[str, Any] = {"name": table, "sourceTable": table, "targetTable": table}
            body |= {"sourceConfig": database.source_config, "isActive": False, "keyColumns": ["id"]}
            host.configure(**body)
            said = refusal(host, table)
            assert f"{table}.id has random values by default" in said
            assert "set trackingColumn to at (" in said
            fixes: list[dict[str, Any]] = [{"trackingColumn": "at"}, {"mode": "full"}]
            for fix in fixes:
                host.configure(**{**body, **fix})
                assert host.sync(table)["status"] == "success"


def test_times_with_a_random_part_are_refused(source_database: TestDatabase, tmp_path: Path) -> None:
    database = source_database
    database.execute(TABLES[database.dialect])
    tried = [("late", "id"), ("late", "day"), ("late", "dom"), ("late_seen", "due"), ("late_twice", "id")]
    with running(tmp_path) as host:
        for number, (table, column) in enumerate(tried):
            body: dict[str, Any] = {"name": f"r{number}", "sourceTable": table, "targetTable": f"r{number}"}
            body |= {"sourceConfig": database.source_config, "isActive": False, "trackingColumn": column}
            body |= {"keyColumns": ["due" if table == "late_seen" else "id"]}
            host.configure(**body)
            said = refusal(host, f"r{number}")
            assert f"{table}.{column} has times with a random part by default (rand" in said
            assert "at (timestamp" in said
            host.configure(**{**body, "trackingColumn": "at"})
            assert host.sync(f"r{number}")["status"] == "success"


@pytest.mark.parametrize(
    ("default", "rises", "function"),
    [
        ("((random() * (1e15)::double precision))::bigint", "number", "random()"),
        ("floor((rand() * 1e15))", "number", "rand()"),
        ("conv(substr(md5(uuid()),1,15),16,10)", "number", "uuid()"),
        ("(((EXTRACT(epoch FROM now()) * 1e3))::bigint << 20) | ((random() * 1e6))::bigint", "number", None),
        ("nextval('brand_id_seq'::regclass)", "number", None),
        ("gen_random_uuid()", "uuid", None),
        ("(now() + (random() * '1 day'::interval))", "time", "random()"),
        ("(now(6) + interval (rand() * 100) second)", "time", "rand()"),
        ("now()", "time", None),
        ("uuid_extract_timestamp(uuidv7())", "time", None),
        (None, "number", None),
        ("0", "number", None),
    ],
)
def test_a_default_that_draws_by_chance(default: str | None, rises: str, function: str | None) -> None:
    assert random_function(default, rises) == function

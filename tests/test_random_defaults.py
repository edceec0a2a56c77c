"""A tracking column to which the source gives random numbers is refused: new rows would lie below the floor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from starbase_data_replication.sources.origins import drawn
from tests.hosts import running
from tests.servers import TestDatabase

TABLES = {
    "postgresql": """
        CREATE TABLE r (id bigint PRIMARY KEY DEFAULT (random() * 1e15)::bigint, at timestamptz DEFAULT now());
        CREATE VIEW seen AS SELECT id, at FROM r;
        CREATE TABLE f (id float8 PRIMARY KEY DEFAULT random(), at timestamptz DEFAULT now())
    """,
    "mysql": """
        CREATE TABLE r (id bigint PRIMARY KEY DEFAULT (floor(rand() * 1e15)), at timestamp(6) DEFAULT now(6));
        CREATE VIEW seen AS SELECT id, at FROM r;
        CREATE TABLE f (id double PRIMARY KEY DEFAULT (rand()), at timestamp(6) DEFAULT now(6))
    """,
}


def test_random_numbers_are_refused(source_database: TestDatabase, tmp_path: Path) -> None:
    database = source_database
    database.execute(TABLES[database.dialect])
    with running(tmp_path) as host:
        for table in ("r", "f", "seen"):
            body: dict[str, Any] = {"name": table, "sourceTable": table, "targetTable": table}
            body |= {"sourceConfig": database.source_config, "isActive": False, "keyColumns": ["id"]}
            host.configure(**body)
            response = host.request("POST", f"/data-replication/sync/{table}")
            assert response.status_code == 502, response.text
            said = str(response.json()["error"])
            assert f"{table}.id has random values by default" in said
            assert "set trackingColumn to at (" in said
            fixes: list[dict[str, Any]] = [{"trackingColumn": "at"}, {"mode": "full"}]
            for fix in fixes:
                host.configure(**{**body, **fix})
                assert host.sync(table)["status"] == "success"


@pytest.mark.parametrize(
    ("default", "rises", "function"),
    [
        ("((random() * (1e15)::double precision))::bigint", "number", "random()"),
        ("floor((rand() * 1e15))", "number", "rand()"),
        ("conv(substr(md5(uuid()),1,15),16,10)", "number", "uuid()"),
        ("(((EXTRACT(epoch FROM now()) * 1e3))::bigint << 20) | ((random() * 1e6))::bigint", "number", None),
        ("nextval('brand_id_seq'::regclass)", "number", None),
        ("gen_random_uuid()", "uuid", None),
        (None, "number", None),
        ("0", "number", None),
    ],
)
def test_a_default_that_draws_by_chance(default: str | None, rises: str, function: str | None) -> None:
    assert drawn(default, rises) == function

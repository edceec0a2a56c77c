"""Parents by inheritance on PostgreSQL: what their key covers, and hypertables, whose key covers their chunks."""

from __future__ import annotations

from pathlib import Path

from tests.support.hosts import HostProcess, running
from tests.support.servers import TestDatabase

# As TimescaleDB lays them out: an empty parent, and chunks in a schema of their own.
CHUNKED = """
    CREATE SCHEMA _timescaledb_internal; CREATE TABLE {table} (id int, at timestamptz, v int, PRIMARY KEY (id, at));
    CREATE TABLE _timescaledb_internal.chunk_1 (PRIMARY KEY (id, at)) INHERITS ({table});
    INSERT INTO _timescaledb_internal.chunk_1 VALUES (1, now() - interval '1 day', 1), (2, now() - interval '1 day', 2)
"""
CATALOGUE = """
    CREATE SCHEMA _timescaledb_catalog;
    CREATE TABLE _timescaledb_catalog.hypertable (id int, schema_name name, table_name name);
    INSERT INTO _timescaledb_catalog.hypertable VALUES (1, 'public', '{table}')
"""


def configure(host: HostProcess, database: TestDatabase, table: str, **more: object) -> None:
    quoted = '"' + table + '"'
    body = {"name": "t", "sourceConfig": database.source_config, "sourceTable": quoted, "targetTable": "t"}
    host.configure(**{**body, "isActive": False, "trackingColumn": "at", "lookbackSeconds": 0, **more})


def test_a_parents_key_is_offered(either_postgres: TestDatabase, tmp_path: Path) -> None:
    either_postgres.execute(CHUNKED.format(table="t"))
    # Its catalogue names another table.
    either_postgres.execute(CATALOGUE.format(table="other"))
    with running(tmp_path) as host:
        configure(host, either_postgres, "t")
        (warning,) = host.sync("t")["warnings"]
        assert "children by inheritance" in warning
        assert warning.endswith('set keyColumns to ["id", "at"]')
        configure(host, either_postgres, "t", keyColumns=["id", "at"])
        assert host.sync("t")["warnings"] == []
        assert host.sync("t")["rows_read"] == 0


def test_a_hypertable_is_known_by_its_catalogue(either_postgres: TestDatabase, tmp_path: Path) -> None:
    name = "it's %s"
    either_postgres.execute(CHUNKED.format(table=f'"{name}"') + ";" + CATALOGUE.format(table=name.replace("'", "''")))
    with running(tmp_path) as host:
        configure(host, either_postgres, name)
        host.sync("t")
        assert host.sync("t")["rows_read"] == 0
        either_postgres.execute("INSERT INTO _timescaledb_internal.chunk_1 VALUES (3, now() - interval '1 hour', 3)")
        run = host.sync("t")
        assert (run["records_processed"], run["warnings"]) == (1, [])
        assert host.query("SELECT id, v FROM t ORDER BY id") == [[1, 1], [2, 2], [3, 3]]
        found = host.result("POST", "/data-replication/verify/t", {})
        assert (found["missing"], found["extra"], found["different"]) == (0, 0, 0)

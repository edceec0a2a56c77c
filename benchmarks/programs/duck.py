"""DuckDB: a table of PostgreSQL or MariaDB into an SQLite file, whole, or what is above the highest updated_at.

    duck.py load|follow postgresql|mysql HOST PORT USER PASSWORD DATABASE FILE

`follow` loads at first, and then takes in what is above the highest updated_at it has seen. Run by the peers' own
Python. The table in SQLite is the one that the product makes: the same types, the same key.
"""

import importlib
import sqlite3
import sys
from pathlib import Path

import duckdb

CREATE = """
CREATE TABLE IF NOT EXISTS {name} (id INTEGER PRIMARY KEY, customer_id INTEGER, status TEXT, amount TEXT, note TEXT,
  payload TEXT, created_at TEXT, updated_at TEXT)
"""
COLUMNS = "id, customer_id, status, amount::VARCHAR, note, payload::VARCHAR, created_at::VARCHAR, updated_at::VARCHAR"


def extension(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    module = importlib.import_module(f"duckdb_extension_{name}")
    assert module.__file__ is not None
    (found,) = Path(module.__file__).parent.rglob(f"{name}.duckdb_extension")
    connection.execute(f"LOAD '{found}'")


def main(mode: str, dialect: str, host: str, port: str, user: str, password: str, database: str, path: str) -> None:
    with sqlite3.connect(path) as target:
        target.execute("PRAGMA journal_mode = WAL")
        target.execute("CREATE TABLE IF NOT EXISTS read_until (updated_at TEXT)")
        for name in ("orders", "changed"):
            target.execute(CREATE.format(name=name))
        target.execute("DELETE FROM changed")
        last = target.execute("SELECT max(updated_at) FROM read_until").fetchone()[0]
    target.close()
    connection = duckdb.connect()
    extension(connection, "sqlite_scanner")
    connection.execute("SET TimeZone = 'UTC'")
    if dialect == "postgresql":
        extension(connection, "postgres_scanner")
        words, kind, table = (
            f"host={host} port={port} user={user} password={password} dbname={database}",
            "postgres",
            ("source.public.orders"),
        )
    else:
        extension(connection, "mysql_scanner")
        words, kind, table = (
            f"host={host} port={port} user={user} password={password} database={database}",
            "mysql",
            (f"source.{database}.orders"),
        )
    connection.execute(f"ATTACH '{words}' AS source (TYPE {kind}, READ_ONLY)")
    connection.execute(f"ATTACH '{path}' AS target (TYPE sqlite)")
    if last is None:
        connection.execute(f"INSERT INTO target.orders SELECT {COLUMNS} FROM {table}")
    else:
        # Its SQLite tables know no ON CONFLICT: into a table beside, then SQLite itself.
        where = f"WHERE updated_at > '{last}'"
        connection.execute(f"INSERT INTO target.changed SELECT {COLUMNS} FROM {table} {where}")
    connection.close()
    with sqlite3.connect(path) as target:
        if last is not None:
            target.execute("INSERT OR REPLACE INTO orders SELECT * FROM changed")
            target.execute("INSERT INTO read_until SELECT max(updated_at) FROM changed")
        elif mode == "follow":
            target.execute("INSERT INTO read_until SELECT max(updated_at) FROM orders")
    target.close()


main(*sys.argv[1:])

"""A schema as people have them syncs without a warning that the documentation does not have, and verifies equal."""

from __future__ import annotations

from pathlib import Path

from starbase_data_replication.model.casts import NOT_EXACT
from tests.support.hosts import running
from tests.support.schemas import load, mirror_all
from tests.support.servers import TestDatabase

TABLES = {
    "language": "last_update", "film": "last_update", "actor": "last_update", "film_actor": "last_update",
    "staff": "last_update", "payment": "payment_date", "payment_01": "payment_date",
}  # fmt: skip
# What has no key in the catalogue is loaded whole, and says so.
VIEWS = {"film_list": "last_update", "takings": "day"}


def test_a_film_rental_shop(postgres_database: TestDatabase, tmp_path: Path) -> None:
    load(postgres_database, "film_shop")
    with running(tmp_path) as host:
        runs = mirror_all(host, postgres_database, TABLES)
        # A quotient has more digits than a number of SQLite's, and no scale says how many of them count.
        expected = [f"column minutes_an_euro: of the values read, 300 {NOT_EXACT}"]
        assert [warning for run in runs.values() for warning in run["warnings"]] == expected
        for table, run in mirror_all(host, postgres_database, VIEWS).items():
            whole = "has no primary key and no unique index without NULLs: every sync loads it whole"
            assert run["warnings"] == [f"public.{table} {whole}"]
        assert host.query("SELECT special_features, rating, release_year, rental_rate FROM film WHERE film_id = 3") == [
            ['["Other",null]', "R", 1904, 1.29]
        ]
        postgres_database.execute("UPDATE film SET rental_rate = 0.5, rating = 'G' WHERE film_id = 3")
        postgres_database.execute("INSERT INTO payment (amount, payment_date) VALUES (1, '2026-02-28 12:00+00')")
        runs = mirror_all(host, postgres_database, TABLES)
        assert {table: run["records_processed"] for table, run in runs.items() if run["records_processed"]} == {
            "film": 1, "payment": 1,
        }  # fmt: skip
        assert host.query("SELECT rating, rental_rate, minutes_an_euro FROM film WHERE film_id = 3") == [
            ["G", 0.5, 86.0]
        ]

"""dlt: `orders` into an SQLite file through its sql_table and pyarrow, merged by key, incremental by updated_at.

    dlt_load.py SOURCE_URL FILE DIRECTORY

The first run loads everything, a later one with the same directory what has changed. Run by the peers' own Python.
"""

import sys

import dlt
from dlt.sources.sql_database import sql_table


def main(url: str, path: str, directory: str) -> None:
    pipeline = dlt.pipeline(
        "orders",
        pipelines_dir=directory,
        # Without keys, which is the default, a merge of 20,000 rows into a million does not end within minutes.
        destination=dlt.destinations.sqlalchemy(f"sqlite:///{path}", create_primary_keys=True),
        dataset_name="main",
    )
    table = sql_table(
        url, table="orders", backend="pyarrow", chunk_size=50_000, reflection_level="full_with_precision",
        incremental=dlt.sources.incremental("updated_at"),
    )  # fmt: skip
    table.apply_hints(primary_key="id", write_disposition="merge")
    pipeline.run(table).raise_on_failed_jobs()


main(*sys.argv[1:])

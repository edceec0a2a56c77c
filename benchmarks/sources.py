"""The servers that everybody reads from, with default durability and buffers, and the `orders` table in them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import psutil
from tests.support.servers import DistroPostgres, TestDatabase, ThrowawayMariaDB, fresh_database

Dialect = Literal["postgresql", "mysql"]
NAMES: dict[Dialect, str] = {"postgresql": "PostgreSQL", "mysql": "MariaDB"}

CREATE: dict[Dialect, str] = {
    "postgresql": "CREATE TABLE {table} (id bigint PRIMARY KEY, customer_id int NOT NULL, status varchar(16) NOT NULL, "
    "amount numeric(12,2) NOT NULL, note text, payload jsonb, created_at timestamptz NOT NULL, "
    "updated_at timestamptz NOT NULL)",
    "mysql": "CREATE TABLE {table} (id bigint PRIMARY KEY, customer_id int NOT NULL, status varchar(16) NOT NULL, "
    "amount decimal(12,2) NOT NULL, note text, payload json, created_at datetime(6) NOT NULL, "
    "updated_at datetime(6) NOT NULL)",
}
# 60 characters of note, about 120 bytes of payload, times that rise with the key over two days in the past.
ROW: dict[Dialect, str] = {
    "postgresql": "n, n * 7 % 50000, (ARRAY['new','paid','packed','sent'])[1 + n % 4], (n % 1000000) / 7.0, "
    "md5(n::text) || substr(md5((n + 1)::text), 1, 28), "
    "jsonb_build_object('sku', n, 'tags', jsonb_build_array('a', 'b'), 'text', md5(n::text) || md5((-n)::text)), "
    "{time} - interval '1 day', {time}",
    "mysql": "n, n * 7 % 50000, elt(1 + n % 4, 'new', 'paid', 'packed', 'sent'), (n % 1000000) / 7.0, "
    "concat(md5(n), substr(md5(n + 1), 1, 28)), "
    "json_object('sku', n, 'tags', json_array('a', 'b'), 'text', concat(md5(n), md5(-n))), "
    "{time} - interval 1 day, {time}",
}
TIME: dict[Dialect, str] = {
    "postgresql": "date_trunc('day', now()) - interval '3 days' + n * interval '{step} microseconds'",
    "mysql": "cast(utc_date() as datetime(6)) - interval 3 day + interval n * {step} microsecond",
}
ROUND_TIME: dict[Dialect, str] = {
    "postgresql": "date_trunc('day', now()) - interval '1 day' + {minutes} * interval '1 minute' "
    "+ {n} * interval '{step} microseconds'",
    "mysql": "cast(utc_date() as datetime(6)) - interval 1 day + interval {minutes} minute "
    "+ interval {n} * {step} microsecond",
}
SERIES: dict[Dialect, str] = {
    "postgresql": "generate_series({first}, {last}) AS series (n)",
    "mysql": "(SELECT seq AS n FROM seq_{first}_to_{last}) AS series",
}


class BenchPostgres(DistroPostgres):
    """The distribution's PostgreSQL as it comes: fsync on, 128 MB of shared buffers."""

    password = "benchmark"

    def settings(self) -> Mapping[str, str]:
        return {"listen_addresses": self.host, "timezone": "UTC"}


class BenchMariaDB(ThrowawayMariaDB):
    """The distribution's MariaDB as it comes, in UTC."""

    password = "benchmark"

    def command(self) -> Sequence[str | Path]:
        kept = ("--datadir", "--tmpdir", "--socket", "--pid-file", "--init-file", "--bind-address", "--port")
        words = [word for word in super().command()[2:] if str(word).startswith(kept)]
        return [self.daemon, "--no-defaults", *words, "--skip-name-resolve", "--default-time-zone=+00:00"]


class Source:
    """One running server with one database in it."""

    def __init__(self, dialect: Dialect, server: BenchPostgres | BenchMariaDB, database: TestDatabase) -> None:
        self.dialect = dialect
        self.name = NAMES[dialect]
        self.server = server
        self.database = database
        self.rows = 0

    def fill(self, rows: int, table: str = "orders") -> None:
        """Recreate the table, with an index on updated_at, and update its statistics."""
        self.database.execute(f"DROP TABLE IF EXISTS {table}")
        self.database.execute(CREATE[self.dialect].format(table=table))
        step = 2 * 86_400_000_000 // rows
        self._insert(table, 1, rows, TIME[self.dialect].format(step=step))
        self.database.execute(f"CREATE INDEX {table}_updated_at ON {table} (updated_at)")
        self.database.execute(f"VACUUM ANALYZE {table}" if self.dialect == "postgresql" else f"ANALYZE TABLE {table}")
        if table == "orders":
            self.rows = rows

    def change(self, number: int, count: int) -> None:
        """Update `count` rows all over `orders`, and insert as many behind its end.

        Each round's times are spread over the ten minutes after the last one's, as between two syncs of a schedule.
        """
        time = partial(ROUND_TIME[self.dialect].format, minutes=10 * number, step=600_000_000 // count)
        step = max(1, self.rows // count)
        self.database.execute(
            f"UPDATE orders SET status = 'round {number}', "
            f"updated_at = {time(n=f'(id % {count})')} "
            f"WHERE id <= {self.rows} AND id % {step} = {number % step}"
        )
        first = self.database.fetch("SELECT max(id) FROM orders")[0][0] + 1
        self._insert("orders", first, first + count - 1, time(n=f"(n - {first})"))

    def _insert(self, table: str, first: int, last: int, time: str) -> None:
        row = ROW[self.dialect].format(time=time)
        for begin in range(first, last + 1, 500_000):
            series = SERIES[self.dialect].format(first=begin, last=min(last, begin + 499_999))
            self.database.execute(f"INSERT INTO {table} SELECT {row} FROM {series}")

    def cpu_seconds(self) -> float:
        """User and system time of the server so far, its processes that have ended included. In steps of 10 ms."""
        assert self.server.pid is not None
        process = psutil.Process(self.server.pid)
        times = process.cpu_times()
        total = times.user + times.system + times.children_user + times.children_system
        for child in process.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                part = child.cpu_times()
                total += part.user + part.system
        return total

    def url(self, scheme: str) -> str:
        password = quote(self.server.password, safe="")
        server = self.server
        return f"{scheme}://{server.user}:{password}@{server.host}:{server.port}/{self.database.name}"


@contextlib.contextmanager
def running(dialect: Dialect) -> Iterator[Source]:
    """A server of its own inside this context."""
    server = BenchPostgres() if dialect == "postgresql" else BenchMariaDB()
    with server, fresh_database(dialect, server) as database:
        yield Source(dialect, server, database)

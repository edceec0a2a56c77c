"""A streaming standby as source: it works, protected by the lookback, since a standby does not tell who writes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.hosts import running, until
from tests.support.servers import DistroPostgres, TestDatabase, fresh_database, open_session


class Primary(DistroPostgres):
    """One that a standby may follow."""

    def settings(self) -> Mapping[str, str]:
        return {**super().settings(), "wal_level": "replica", "max_wal_senders": "4"}


class Standby(DistroPostgres):
    """A copy of a primary that follows it, and only reads."""

    def __init__(self, primary: DistroPostgres) -> None:
        super().__init__()
        self.primary = primary

    def prepare(self) -> None:
        self.binaries = self.install()
        data = self.directory / "data"
        self.run(
            self.binaries / "pg_basebackup", "-D", data, "-h", self.primary.socket_dir, "-p", str(self.primary.port),
            "-U", self.primary.user, "-R", "-X", "stream", "-c", "fast",
        )  # fmt: skip

    def settings(self) -> Mapping[str, str]:
        return {**super().settings(), "hot_standby": "on"}

    def is_ready(self, pid: int) -> bool:
        """The state file says `standby` where a primary's says `ready`."""
        lines = self.directory / "data" / "postmaster.pid"
        return (lines.exists() and "standby" in lines.read_text()) or super().is_ready(pid)


@pytest.fixture(name="pair")
def _pair() -> Iterator[tuple[DistroPostgres, Standby]]:
    with Primary() as primary:
        if primary.account is not None:
            # The standby's programs run as the same account, and must reach the primary's socket.
            os.chmod(primary.directory, 0o711)
        with Standby(primary) as standby:
            yield primary, standby


@pytest.mark.prove
def test_a_streaming_standby(pair: tuple[DistroPostgres, Standby], tmp_path: Path) -> None:
    primary, standby = pair
    with fresh_database("postgresql", primary) as database, running(tmp_path) as host:
        database.execute("CREATE TABLE t (id bigserial PRIMARY KEY, note text)")
        database.execute("INSERT INTO t (note) SELECT md5(n::text) FROM generate_series(1, 2000) n")
        config = {**database.source_config, "port": standby.port}
        caught_up(standby, database)
        body = {"sourceConfig": config, "sourceTable": "t", "targetTable": "t", "isActive": False}
        host.configure(name="t", lookbackSeconds=300, **body)
        assert host.sync("t")["records_processed"] == 2000
        assert host.status("t")["protection"].startswith("lookback: the source is a standby")
        # A transaction that is open across two syncs, with an id below those that they have seen.
        late = database.connect()
        late.execute("BEGIN")
        late.execute("INSERT INTO t (note) VALUES ('late')")
        database.execute("INSERT INTO t (note) VALUES ('early')")
        caught_up(standby, database)
        assert host.sync("t")["records_processed"] == 1
        host.sync("t")
        late.execute("COMMIT")
        late.close()
        caught_up(standby, database)
        assert host.sync("t")["records_processed"] == 1
        found = host.result("POST", "/data-replication/verify/t")
        assert [found[kind] for kind in ("missing", "extra", "different")] == [0, 0, 0]


def caught_up(standby: Standby, database: TestDatabase) -> None:
    (position,) = database.fetch("SELECT pg_current_wal_lsn()::text")[0]
    with open_session("postgresql", standby, standby.database) as session:
        sql = f"SELECT pg_last_wal_replay_lsn() >= '{position}'::pg_lsn"
        until(lambda: session.fetch(sql)[0][0], what="the standby to catch up")

"""The one thread that writes, on a real file: when the WAL is written back, and that it goes on if that fails."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import apsw
import pytest

from starbase_host.database import Database, connect
from starbase_host.errors import Unavailable
from starbase_host.writer import CHECKPOINT_PAGES, FULL_PAGES, IDLE_PAGES, PRIORITY_STEPS, Checkpointer, Writer
from tests.support.filling import CREATE, PAGE, fill
from tests.support.hosts import running, until


async def write(database: Database, *statements: str) -> None:
    """All at once, so that the writer always has a next one."""
    await asyncio.gather(*(database.write(partial(_execute, sql=sql)) for sql in statements))


def _execute(connection: apsw.Connection, sql: str) -> None:
    connection.execute(sql)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "one.db")
    database.open()
    yield database
    database.close()


@pytest.mark.anyio
async def test_the_wal_is_written_back_when_writes_pause(database: Database) -> None:
    await write(database, CREATE, fill(IDLE_PAGES))
    until(lambda: database.path.stat().st_size >= IDLE_PAGES * PAGE, what="writing back")


@pytest.mark.anyio
async def test_the_wal_is_bounded_during_constant_writes(database: Database) -> None:
    each = 2_000
    await write(database, CREATE, *[fill(each)] * (2 * FULL_PAGES // each))
    # A frame of the WAL is a page and 24 bytes; a job writes a few pages more than its rows.
    size = database.path.with_name("one.db-wal").stat().st_size
    assert size < (FULL_PAGES + 2 * each) * (PAGE + 24)


@pytest.mark.anyio
async def test_an_emptied_wal_is_empty_even_if_another_connection_writes_it_back(database: Database) -> None:
    await write(database, CREATE)
    for _ in range(3):
        await database.write(partial(_execute, sql=fill(CHECKPOINT_PAGES)))
        await database.truncate_wal()
        assert database.path.with_name("one.db-wal").stat().st_size == 0


@pytest.mark.anyio
async def test_a_wal_that_a_reader_uses_is_not_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("starbase_host.database.BUSY_TIMEOUT_MS", 10)
    database = Database(tmp_path / "one.db")
    database.open()
    await write(database, CREATE)
    reader = connect(database.path, readonly=True)
    reader.execute("BEGIN; SELECT * FROM filled").fetchall()
    await write(database, fill(1))
    with pytest.raises(Unavailable):
        await database.truncate_wal()
    reader.close()
    database.close()


def test_what_a_reader_holds_up_is_written_back_once_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without another write: on a full disk none is possible."""
    monkeypatch.setattr("starbase_host.writer.RETRY_SECONDS", 0.01)
    path = tmp_path / "one.db"
    connection = connect(path, readonly=False)
    connection.execute(CREATE)
    reader = connect(path, readonly=True)
    reader.execute("BEGIN; SELECT * FROM filled").fetchall()
    checkpointer = Checkpointer(connect(path, readonly=False))
    connection.set_wal_hook(checkpointer.on_commit)
    connection.execute(fill(IDLE_PAGES))
    until(lambda: checkpointer.held_up, what="writing back in vain")
    assert path.stat().st_size < IDLE_PAGES * PAGE
    reader.close()
    until(lambda: path.stat().st_size >= IDLE_PAGES * PAGE, what="writing back")
    until(lambda: not checkpointer.held_up, what="the end of it")
    checkpointer.close()
    connection.close()


def test_a_wal_that_cannot_be_written_back_does_not_end_the_writer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged once."""
    monkeypatch.setattr("starbase_host.writer.RETRY_SECONDS", 0.01)
    path = tmp_path / "one.db"
    connection, beside = connect(path, readonly=False), connect(path, readonly=False)
    writer = Writer(connection, beside)

    def broken(connection: apsw.Connection) -> None:
        beside.close()
        connection.execute(f"{CREATE}; {fill(IDLE_PAGES)}")

    writer.put(broken)
    until(lambda: "cannot be checkpointed" in caplog.text, what="the warning")
    ran = threading.Event()
    for _ in range(3):
        writer.put(partial(_execute, sql=fill(FULL_PAGES // 2)))
    writer.put(lambda _: ran.set())
    assert ran.wait(30)
    writer.close()
    assert caplog.text.count("cannot be checkpointed") == 1
    assert not path.with_name("one.db-wal").exists()


def test_those_who_write_let_those_go_first_who_answer(tmp_path: Path) -> None:
    with running(tmp_path) as host:
        threads = [(task / "stat").read_text().rpartition(")")[2] for task in Path(f"/proc/{host.pid}/task").iterdir()]
        # The nineteenth field, https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html; two are before the bracket.
        steps = sorted(int(fields.split()[16]) for fields in threads)
        assert steps[-2:] == [steps[0] + PRIORITY_STEPS] * 2
        assert steps[-3] == steps[0]

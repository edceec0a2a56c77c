"""The host's own machine fails: its disk, its database file, its clock; it is suspended, killed, or has much to do."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from tests.support.fault_plugins import STEPPER
from tests.support.faults import OPTIONS, Rig, rig
from tests.support.hosts import CONFIG, LISTENER, HostProcess, events_of, running, until
from tests.support.servers import Server, TestDatabase, fresh_database


@pytest.fixture(name="own")
def _own(tmp_path: Path, postgres_database: TestDatabase) -> Iterator[Rig]:
    with rig(tmp_path, postgres_database) as made:
        yield made


@contextlib.contextmanager
def full_disk(host: HostProcess, directory: Path) -> Iterator[None]:
    """Nothing more fits. A file that fills a small disk, where there is one; else the process may not write more."""
    if os.path.ismount(directory):
        ballast = directory / "ballast"
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        try:
            yield
        finally:
            ballast.unlink()
        return
    before = resource.prlimit(host.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(host.pid, resource.RLIMIT_FSIZE, (host.database.stat().st_size, before[1]))
    try:
        yield
    finally:
        resource.prlimit(host.pid, resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def small_disk(directory: Path) -> Iterator[None]:
    """A disk of a few megabytes on this directory, where mounting is allowed; else nothing."""
    mounted = (
        os.geteuid() == 0
        and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=4m", "starbase-test", directory], check=False, capture_output=True
        ).returncode
        == 0
    )
    try:
        yield
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", directory], check=True)


def test_a_full_disk(tmp_path: Path, postgres_database: TestDatabase) -> None:
    directory = tmp_path / "disk"
    directory.mkdir()
    with small_disk(directory), rig(directory, postgres_database) as own:
        name = own.table(rows=50)
        own.replicate(name, isActive=False)
        own.host.sync(name)
        own.write(name, rows=5000, width=2)
        own.proxy.begin(bytes_per_second=400_000)
        own.host.request("POST", f"/data-replication/sync/{name}", wait="false")
        with full_disk(own.host, directory):
            state = until(
                lambda: own.host.status(name)["state"] == "degraded" and own.host.status(name), what="the run"
            )
            assert "could not be recorded, and is tried again" in state["last_error"]
            own.proxy.heal()
            answer = own.host.request("POST", f"/data-replication/sync/{name}")
            assert not answer.is_success
            assert answer.status_code == 409
            answer = own.host.request("POST", "/data-replication/start/steady")
            assert answer.status_code == 503
            assert "disk is full" in answer.text, answer.text
            assert own.host.request("GET", "/health").status_code == 200
            rows = own.host.query(f"SELECT count(*) FROM {name}")[0][0]
            assert rows == 50, "half a batch was applied"
        until(lambda: not own.host.status(name)["is_running"], what="the record of that run")
        assert own.host.sync(name)["status"] == "success"
        assert own.equal(name)
        assert "full" in str(own.failure(name)), "the run that failed is in the log"
        until(lambda: own.host.status("steady")["degraded_since"] is None, what="the other replication")
        own.steady_goes_on_again()


@pytest.mark.prove
def test_a_database_that_another_process_has_locked(own: Rig) -> None:
    name = own.table()
    own.replicate(name)
    until(lambda: own.host.status(name)["last_success_at"], what="the first sync")
    other = apsw.Connection(str(own.host.database))
    other.execute("BEGIN IMMEDIATE")
    own.write(name)
    answer = own.host.request("POST", f"/data-replication/stop/{name}")
    assert answer.status_code == 503
    assert "locked by another process" in answer.text
    other.execute("ROLLBACK")
    other.close()
    until(lambda: own.equal(name), what="the syncs that go on")


def test_a_database_file_that_is_deleted(own: Rig) -> None:
    """The host says so and writes nothing more, instead of writing into what is gone at its end."""
    moved = own.host.database.with_name("moved")
    own.host.database.rename(moved)
    answer = own.host.request("POST", "/data-replication/start/steady")
    assert answer.status_code == 503
    assert "put the file back" in answer.text
    moved.rename(own.host.database)
    assert own.host.request("POST", "/data-replication/start/steady").status_code == 200
    own.steady_goes_on_again()


@pytest.mark.parametrize("damage", ["header", "a directory", "read only"])
def test_a_database_that_cannot_be_used_stops_the_start(tmp_path: Path, damage: str) -> None:
    """With one line that names the file, and no traceback; the file stays as it is."""
    host = HostProcess(tmp_path)
    with host:
        pass
    data = host.database.parent
    assert not list(data.glob("*-wal")), "a host that was stopped leaves one file, which may be copied"
    with contextlib.ExitStack() as stack:
        if damage == "header":
            with host.database.open("r+b") as file:
                file.write(b"garbage instead of a header")
        elif damage == "a directory":
            host.database.unlink()
            host.database.mkdir()
        else:
            stack.enter_context(read_only(data))
        before = host.database.stat()
        done = host.command("serve")
        assert done.returncode != 0
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert str(data) in done.stderr
        assert host.database.stat().st_size == before.st_size


@contextlib.contextmanager
def read_only(directory: Path) -> Iterator[None]:
    """Root may write in spite of the modes, but not to a disk that is mounted read-only."""
    if os.geteuid() == 0:
        subprocess.run(["mount", "--bind", "-o", "ro", directory, directory], check=True)
    else:
        for path in (*directory.iterdir(), directory):
            path.chmod(0o500 if path.is_dir() else 0o400)
    try:
        yield
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", directory], check=True)
        else:
            directory.chmod(0o700)


@pytest.mark.parametrize("before", [False, True], ids=["a first start", "a later start"])
def test_a_full_disk_stops_the_start(tmp_path: Path, before: bool) -> None:
    """One line names the file, the cause and the fix."""
    with small_disk(tmp_path):
        if not os.path.ismount(tmp_path):
            pytest.skip("needs a small disk, which only root may mount")
        host = HostProcess(tmp_path)
        if before:
            with host:
                pass
        else:
            host.database.parent.mkdir()
        with full_disk(host, tmp_path):
            for words in (("serve",), ("replication", "list")):
                answer = host.command(*words)
                lock = host.database.with_name(host.database.name + ".lock")
                why = f"{lock} cannot be written: No space left on device; free some space"
                assert (answer.returncode, answer.stderr) == (2, f"starbase: plugin.toml: host.database: {why}\n")
            # Room for the lock file, and none for SQLite's.
            os.truncate(tmp_path / "ballast", (tmp_path / "ballast").stat().st_size - 4096)
            answer = host.command("serve")
            assert answer.returncode == 2
            assert f"{host.database}: the disk of the database " in answer.stderr
            assert "full" in answer.stderr
            assert answer.stderr.count("\n") == 1
        with host:
            assert host.request("GET", "/health").status_code == 200


def test_a_second_host_on_one_database(own: Rig) -> None:
    done = own.host.command("serve")
    assert done.returncode != 0
    assert f"another host (pid {own.host.pid})" in done.stderr
    own.steady_goes_on()


def test_a_second_host_whose_lock_file_was_removed(own: Rig) -> None:
    """Nor does a command run beside the first one; which goes on, and ends and starts as ever."""
    lock = own.host.database.with_name(own.host.database.name + ".lock")
    lock.unlink()
    for words in (("serve",), ("replication", "list"), ("replication", "sync", "steady")):
        done = own.host.command(*words)
        assert done.returncode == 4, done.stderr
        assert f"has {own.host.database} open, although its lock file does not say so" in done.stderr
        assert "start this one again" in done.stderr
    own.steady_goes_on()
    assert own.host.stop() == 0
    assert own.host.command("replication", "list").returncode == 0
    own.host.start()
    assert own.host.command("replication", "list").returncode == 0
    own.steady_goes_on()


def test_a_clock_that_is_set_back_and_forward(tmp_path: Path, postgres_database: TestDatabase) -> None:
    """Alarms are times of the clock: one that is an hour away after a step is brought back."""
    (tmp_path / "stepper.py").write_text(STEPPER)
    offset = tmp_path / "offset"
    offset.write_text("0")
    options = OPTIONS + '\n[plugins.stepper]\nmodule = "stepper"\n'
    with rig(tmp_path, postgres_database, options=options) as own:
        name = own.table()
        own.replicate(name)
        until(lambda: own.host.status(name)["last_success_at"], what="the first sync")
        for step in ("-3600", "0", "3600", "-90000"):
            offset.write_text(step)
            own.write(name)
            until(lambda: own.equal(name), seconds=8, what=f"a sync after a step to {step}")
            own.steady_goes_on()
        assert own.failure(name) is None
        assert own.events(name) == []


@pytest.mark.prove
def test_a_machine_that_was_suspended(own: Rig) -> None:
    """For longer than the limit of silence, in the middle of a read: that is not taken for silence of the source."""
    name = own.table(rows=40000)
    own.proxy.begin(bytes_per_second=2_000_000)
    own.replicate(name)
    until(lambda: (own.host.status(name)["progress"] or {}).get("rows", 0) > 0, what="the read")
    os.kill(own.host.pid, signal.SIGSTOP)
    try:
        time.sleep(6)
    finally:
        os.kill(own.host.pid, signal.SIGCONT)
    own.proxy.heal()
    until(lambda: own.equal(name), what="the end of the load")
    assert own.failure(name) is None
    own.steady_goes_on()


@pytest.mark.prove
def test_sigterm_while_many_are_running(tmp_path: Path, source_database: TestDatabase) -> None:
    with rig(tmp_path, source_database) as own:
        table = own.table(rows=4000)
        own.proxy.begin(bytes_per_second=200_000)
        names = [f"many{number}" for number in range(8)]
        for name in names:
            own.replicate(name, table=table)
        until(lambda: sum(own.host.status(name)["is_running"] for name in names) >= 3, what="many runs")
        began = time.monotonic()
        assert own.host.stop() == 0
        assert time.monotonic() - began < 5
        own.proxy.heal()
        own.host.start()
        until(lambda: all(own.equal(name, table) for name in names), seconds=60, what="equality of all")
        assert "Traceback" not in own.host.log


@pytest.mark.prove
def test_an_event_outlives_a_crash(tmp_path: Path, postgres_database: TestDatabase) -> None:
    """Killed between the record of the failure and its event: the event goes out at the next start, once."""
    (tmp_path / "crasher.py").write_text(
        "import os, pathlib, signal\n"
        "from starbase_data_replication.runs import events\n"
        "MARK = pathlib.Path(__file__).with_name('crashed')\n"
        "post = events.Events.post\n"
        "def crash(self):\n"
        "    if MARK.with_name('armed').exists() and not MARK.exists():\n"
        "        MARK.touch()\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    post(self)\n"
        "events.Events.post = crash\n"
        "def plugin(options):\n    return object()\n"
    )
    with rig(tmp_path, postgres_database, options=OPTIONS + '\n[plugins.crasher]\nmodule = "crasher"\n') as own:
        name = own.table()
        own.replicate(name)
        until(lambda: own.host.status(name)["last_success_at"], what="the first sync")
        own.host.result("POST", "/data-replication/stop/steady")
        (tmp_path / "armed").touch()
        own.proxy.refuse()
        until(lambda: (tmp_path / "crashed").exists(), what="the crash")
        own.host.kill()
        own.host.start()
        until(lambda: own.events(name) == ["degraded"], what="the event of before the crash")
        own.host.stop()
        own.host.start()
        own.proxy.heal()
        until(lambda: own.events(name) == ["degraded", "recovered"], what="the recovery")


EVIL = """
import asyncio, time
from starbase_host import hookimpl
def plugin(options):
    return Evil(options["deed"])
class Evil:
    def __init__(self, deed):
        self.deed = deed
    @hookimpl(optionalhook=True)
    def replication_event(self, event):
        if self.deed == "raise":
            raise RuntimeError("a bug")
        if self.deed == "exit":
            raise SystemExit(3)
        if self.deed == "block":
            time.sleep(3600)
        if self.deed == "slow":
            time.sleep(0.3)
"""


@pytest.mark.prove
def test_plugins_whose_hooks_misbehave(tmp_path: Path, postgres_database: TestDatabase) -> None:
    """They hear of every run, and raise, end the process, block or are slow; replications and other plugins go on."""
    (tmp_path / "evil.py").write_text(EVIL)
    deeds = ("raise", "exit", "block", "slow")
    more = "".join(f'\n[plugins.{deed}]\nmodule = "evil"\ndeed = "{deed}"\n' for deed in deeds)
    config = OPTIONS + more
    with rig(tmp_path, postgres_database, options=config) as own:
        for _ in range(4):
            own.steady_goes_on()
        until(lambda: (tmp_path / "events.jsonl").exists(), what="the events of a plugin that behaves")
        assert own.host.request("GET", "/health").status_code == 200


FLOOD = """
import asyncio, contextlib, itertools
from starbase_host import hookimpl
def plugin(options):
    return Flood()
class Flood:
    numbers = itertools.count()
    @hookimpl
    def plugin_lifespan(self, host):
        return self._lifespan(host)
    @contextlib.asynccontextmanager
    async def _lifespan(self, host):
        self.host = host
        await host.alarms.set("flood", host.clock.now())
        yield
    @hookimpl
    async def on_alarm(self, alarm):
        for number in itertools.islice(self.numbers, 20):
            if number < 3000:
                await self.host.alarms.set(f"flood {number}", self.host.clock.now())
    @hookimpl(optionalhook=True)
    async def replication_event(self, event):
        self.host.log.info("%s", "x" * 100_000)
"""


@pytest.mark.prove
def test_a_plugin_that_floods(tmp_path: Path, postgres_database: TestDatabase) -> None:
    """Each of its alarms sets twenty that are due at once, and each event is answered with much to log."""
    (tmp_path / "flood.py").write_text(FLOOD)
    with rig(tmp_path, postgres_database, options=OPTIONS + '\n[plugins.flood]\nmodule = "flood"\n') as own:
        for _ in range(4):
            own.steady_goes_on(seconds=15)
        assert own.host.request("GET", "/health").status_code == 200
        assert own.host.query("SELECT count(*) FROM tmp_alarms")[0][0] > 0


@pytest.mark.prove
def test_a_thousand_replications_due_at_once(tmp_path: Path, postgres_server: Server) -> None:
    with fresh_database("postgresql", postgres_server) as database:
        database.execute("CREATE TABLE t (id int PRIMARY KEY, note text)")
        database.execute("INSERT INTO t SELECT n, md5(n::text) FROM generate_series(1, 20) n")
        with running(tmp_path) as host:
            for number in range(1000):
                host.configure(
                    name=f"r{number}", sourceConfig=database.source_config, sourceTable="t", targetTable=f"r{number}",
                    syncIntervalMinutes=60, lookbackSeconds=0,
                )  # fmt: skip
            slowest = 0.0
            deadline = time.monotonic() + 600
            while any(not each["last_success_at"] for each in configs(host)):
                began = time.monotonic()
                assert host.request("GET", "/health").status_code == 200
                slowest = max(slowest, time.monotonic() - began)
                assert time.monotonic() < deadline
                time.sleep(3)
            assert slowest < 2
            until(lambda: {each["row_count"] for each in configs(host)} == {20}, what="every replica's count")
            assert {each["consecutive_failures"] for each in configs(host)} == {0}


def configs(host: HostProcess) -> list[dict[str, object]]:
    found: list[dict[str, object]] = host.result("GET", "/data-replication/status")["configs"]
    return found


@pytest.mark.prove
@pytest.mark.parametrize("rows", [1_000_000, 10_000_000])
def test_a_log_of_many_rows(tmp_path: Path, postgres_database: TestDatabase, rows: int) -> None:
    """Start, status, log and syncs take what they take with an empty one; pruning takes small transactions."""
    postgres_database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    host = HostProcess(tmp_path, CONFIG + "log_max_runs_per_replication = 10000000\n")
    with host:
        host.configure(name="t", sourceConfig=postgres_database.source_config, sourceTable="t", targetTable="t")
        until(lambda: host.status("t")["last_success_at"], what="the first sync")
    database = apsw.Connection(str(host.database))
    database.execute(
        "INSERT INTO tmp_replication_logs (config_name, status, created_at, run_id, kind, started_at, finished_at) "
        "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?) "
        "SELECT 'other' || (n % 100), 'success', '2020-01-01T00:00:00.000Z', n, 'scheduled', "
        "'2020-01-01T00:00:00.000Z', '2020-01-01T00:00:00.000Z' FROM n",
        (rows,),
    )
    database.close()
    began = time.monotonic()
    with host:
        assert time.monotonic() - began < 15
        for work in (lambda: host.status("t"), lambda: host.logs("t"), host.logs, lambda: host.sync("t")):
            began = time.monotonic()
            work()
            assert time.monotonic() - began < 2


CREATE_HUGE = {
    "postgresql": "CREATE TABLE huge (id int PRIMARY KEY, note text)",
    "mysql": "CREATE TABLE huge (id int PRIMARY KEY, note longtext)",
}


@pytest.mark.prove
def test_a_row_of_a_hundred_megabytes(source_database: TestDatabase, tmp_path: Path) -> None:
    source_database.execute(CREATE_HUGE[source_database.dialect])
    if source_database.dialect == "mysql":
        source_database.execute("SET GLOBAL max_allowed_packet = 1073741824")
    try:
        source_database.execute(
            "INSERT INTO huge SELECT 1, repeat('0123456789', 10485760) UNION ALL SELECT 2, 'a small one'"
        )
        with running(tmp_path) as host:
            host.configure(
                name="huge", sourceConfig=source_database.source_config, sourceTable="huge", targetTable="huge",
                isActive=False,
            )  # fmt: skip
            assert host.sync("huge")["records_processed"] == 2
            found = host.result("POST", "/data-replication/verify/huge")
            assert [found[kind] for kind in ("missing", "extra", "different")] == [0, 0, 0]
        # A query answers no value of this size; the file holds it.
        with contextlib.closing(apsw.Connection(str(host.database))) as file:
            rows = file.execute("SELECT id, length(note) FROM huge ORDER BY id").fetchall()
        assert rows == [(1, 104857600), (2, 11)]
    finally:
        if source_database.dialect == "mysql":
            source_database.execute("SET GLOBAL max_allowed_packet = 16777216")


HANGING = """
import threading
from starbase_host import hookimpl
def plugin(options):
    return Hanging()
class Hanging:
    @hookimpl(optionalhook=True)
    def replication_event(self, event):
        threading.Event().wait()
"""


def test_a_subscriber_that_hangs_does_not_make_the_others_receive_an_event_twice(tmp_path: Path) -> None:
    """Events from before the start are delivered by an alarm, which may take no longer than one of its subscribers."""
    (tmp_path / "hanging.py").write_text(HANGING)
    (tmp_path / "listener.py").write_text(LISTENER)
    plugins = '\n[plugins.hanging]\nmodule = "hanging"\n\n[plugins.listener]\nmodule = "listener"\n'
    config = CONFIG.replace("[host]\n", "[host]\nhook_timeout_seconds = 1.0\n") + plugins

    def waiting(host: HostProcess) -> int:
        with contextlib.closing(apsw.Connection(str(host.database), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
            return int(connection.execute("SELECT count(*) FROM tmp_replication_outbox").get)

    def degraded() -> list[str]:
        return [event["id"] for event in events_of(tmp_path) if event["type"] == "degraded"]

    with running(tmp_path, config) as host:
        unreachable = {"dialect": "mysql", "host": "127.0.0.1", "port": 1, "user": "u", "database": "d"}
        host.configure(name="t", sourceConfig=unreachable, sourceTable="t", targetTable="t", isActive=False)
        assert host.request("POST", "/data-replication/sync/t").status_code == 502
        host.kill()
        assert waiting(host) == 1
        (tmp_path / "events.jsonl").write_text("")
        host.start()
        until(lambda: waiting(host) == 0, what="the end of its telling")
        assert len(degraded()) == 1
        assert "alarm post" not in host.log
        # The next event is delivered as well.
        host.configure(name="u", sourceConfig=unreachable, sourceTable="t", targetTable="u", isActive=False)
        assert host.request("POST", "/data-replication/sync/u").status_code == 502
        until(lambda: len(degraded()) == 2, what="the next event")
        assert len(set(degraded())) == 2

"""Who holds the database: a host, a host that starts, a command; and whom a command trusts with the admin token."""

from __future__ import annotations

import contextlib
import fcntl
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from starbase_host import client, config
from starbase_host.client import CommandFailed, CommandHost
from starbase_host.errors import Conflict
from starbase_host.lock import Holder, Lock, holder_of
from tests.support.hosts import CONFIG, HostProcess, running, until

# A command that holds the database until its standard input ends; a start and an end that last while a file is there.
SLOW = """
import asyncio, contextlib, pathlib, sys
import click
from starbase_host import hookimpl

HERE = pathlib.Path(__file__).parent

class Slow:
    @hookimpl
    def register_commands(self, host):
        def hold():
            with host.client():
                click.echo("holding")
                sys.stdin.read()
        return [click.Command("hold", callback=hold)]

    @hookimpl
    @contextlib.asynccontextmanager
    async def plugin_lifespan(self, host):
        (HERE / "starting").touch()
        while (HERE / "wait").exists():
            await asyncio.sleep(0.01)
        yield
        while (HERE / "linger").exists():
            await asyncio.sleep(0.01)

def plugin(options):
    return Slow()
"""
SLOW_CONFIG = CONFIG + '\n[plugins.slow]\nmodule = "slow"\n'


class Stranger(http.server.BaseHTTPRequestHandler):
    """Answers everything, and keeps the headers that it was sent."""

    heard: list[str]

    def do_GET(self) -> None:
        self.heard.append(str(self.headers))
        body = json.dumps({"result": {"configs": []}}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def stranger() -> Iterator[tuple[int, list[str]]]:
    """Somebody else's server: its port, and what it has heard."""
    heard: list[str] = []
    handler = type("Handler", (Stranger,), {"heard": heard})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port, heard
        server.shutdown()
        thread.join()


def slow_host(directory: Path, port: int) -> HostProcess:
    (directory / "slow.py").write_text(SLOW)
    return HostProcess(directory, SLOW_CONFIG.replace("127.0.0.1:0", f"127.0.0.1:{port}"))


@contextlib.contextmanager
def begun(host: HostProcess, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A `starbase` command that runs inside this context, or until its standard input is closed."""
    command = [sys.executable, "-m", "starbase_host.cli", "--config", str(host.config_path), *words]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_command_beside_another_command_does_not_send_its_token(
    tmp_path: Path, stranger: tuple[int, list[str]]
) -> None:
    port, heard = stranger
    host = slow_host(tmp_path, port)
    with begun(host, "hold") as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "holding\n"
        for words in (("replication", "list"), ("serve",)):
            second = host.command(*words)
            assert second.returncode == 4, second.stderr
            assert f"another `starbase` command (pid {first.pid})" in second.stderr
            assert second.stderr.count("\n") == 1
        first.communicate("", timeout=30)
        assert first.returncode == 0
    assert host.command("replication", "list").returncode == 0
    assert heard == []


def waits_then_lists(host: HostProcess, why: str, let_go: Callable[[], None]) -> None:
    """A command says why it waits, and does its work once what holds the host up has let it go."""
    with begun(host, "replication", "list", "--json") as command:
        assert command.stderr is not None
        assert why in command.stderr.readline()
        let_go()
        out, err = command.communicate(timeout=30)
        assert (command.returncode, out) == (0, "[]\n"), err


def test_a_command_waits_for_a_host_that_starts(tmp_path: Path) -> None:
    host = slow_host(tmp_path, 0)
    wait = tmp_path / "wait"
    wait.touch()
    with begun(host, "serve"):
        until((tmp_path / "starting").exists, what="the start")
        waits_then_lists(host, "is starting", wait.unlink)


def test_a_host_that_stops_has_no_address_any_more(tmp_path: Path) -> None:
    """It gives its address up before its lock: who listens there next would get the token."""
    with slow_host(tmp_path, 0) as host:
        linger = tmp_path / "linger"
        linger.touch()
        os.kill(host.pid, signal.SIGTERM)
        stopping = Holder(pid=host.pid, serves=True, url=None)
        until(lambda: holder_of(lock_of(host)) == stopping, what="the stop")
        linger.unlink()
        until(lambda: holder_of(lock_of(host)) is None, what="the end")
        # What the lock holds then, for as long as a command needs to start: a host stops within five seconds.
        lock = Lock(lock_of(host))
        lock.acquire(serves=True)
        waits_then_lists(host, "stopping", lock.release)


def lock_of(host: HostProcess) -> Path:
    return host.database.with_name(host.database.name + ".lock")


def test_a_host_that_does_not_say_where_it_is_gets_no_token(tmp_path: Path, stranger: tuple[int, list[str]]) -> None:
    port, heard = stranger
    host = HostProcess(tmp_path, CONFIG.replace("127.0.0.1:0", f"127.0.0.1:{port}"))
    with held(Lock(lock_of(host)), serves=True):
        command = host.command("replication", "list")
    assert command.returncode == 6, command.stderr
    assert f"the host (pid {os.getpid()}) that holds {lock_of(host)} has not written its address" in command.stderr
    assert "try again" in command.stderr
    assert heard == []


def test_a_host_that_does_not_answer_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "READ_TIMEOUT_SECONDS", 0.2)
    with running(tmp_path) as host, CommandHost(config.load(host.config_path)).client() as asked:
        assert asked.request("GET", "/data-replication/status")["configs"] == []
        os.kill(host.pid, signal.SIGSTOP)
        try:
            with pytest.raises(CommandFailed, match=r"has not answered within 0.2 s; look at its log, or restart it"):
                asked.request("GET", "/data-replication/status")
        finally:
            os.kill(host.pid, signal.SIGCONT)
        assert asked.request("GET", "/data-replication/status")["configs"] == []


# Shortens the patience of each command.
HASTY = """
from starbase_host import client
client.READ_TIMEOUT_SECONDS = 0.5
def plugin(options):
    return object()
"""


def test_a_command_that_runs_nothing_does_not_wait_without_end(tmp_path: Path) -> None:
    """It says that what was asked may still be done; one that runs something goes on waiting."""
    (tmp_path / "hasty.py").write_text(HASTY)
    (tmp_path / "one.json").write_text('{"name": "none"}')
    (tmp_path / "list.json").write_text('[{"name": "none"}]')
    configure = ("replication", "configure")
    with (
        running(tmp_path, CONFIG + '\n[plugins.hasty]\nmodule = "hasty"\n') as host,
        contextlib.ExitStack() as stack,
    ):
        os.kill(host.pid, signal.SIGSTOP)
        try:
            runs = ("sync", "reset", "verify", "reconcile")
            patient = [stack.enter_context(begun(host, "replication", verb, "none")) for verb in runs]
            bounded = [
                stack.enter_context(begun(host, *words))
                for words in (
                    *(("replication", verb, "none") for verb in ("start", "stop", "delete")),
                    (*configure, str(tmp_path / "one.json")),
                    (*configure, str(tmp_path / "list.json")),
                )
            ]
            for command in bounded:
                _, err = command.communicate(timeout=30)
                assert (command.returncode, err.count("\n")) == (6, 1), err
                assert f"the host at {host.url} has not answered within 0.5 s; " in err
                assert "it may still do what you asked" in err
            assert err.startswith("starbase: [0] none: ")
            assert err.endswith("; nothing was applied before it\n")
            assert [command.poll() for command in patient] == [None] * len(patient)
        finally:
            os.kill(host.pid, signal.SIGCONT)
        for command in patient:
            _, err = command.communicate(timeout=30)
            assert command.returncode == 3, err


INVALID = [
    '{"pid": 1e999, "serves": true, "url": null}',
    "[" * 4096,
    '{"pid": 1, "serves": true, "url": "\\ud800"}',
    '{"pid": 1, "serves": true, "url": "http://[bad"}',
    '{"pid": 1, "serves": true, "url": 7}',
    '{"pid": "1", "serves": "yes", "url": null}',
    "[]",
]


def test_commands_ignore_invalid_text_in_the_lock_file_of_a_host(tmp_path: Path) -> None:
    with running(tmp_path) as host, contextlib.ExitStack() as stack:
        said = lock_of(host).read_text()
        for invalid in INVALID:
            lock_of(host).write_text(invalid)
            assert holder_of(lock_of(host)) == Holder()
        # Each waits some seconds for a host that may be starting.
        asked = [stack.enter_context(begun(host, *words)) for words in (("serve",), ("replication", "list"))]
        answers = [command.communicate(timeout=60)[1] for command in asked]
        assert f"another process holds {lock_of(host)} and has not written its pid" in answers[0]
        assert f"the host (pid unknown) that holds {lock_of(host)} has not written its address" in answers[1]
        lock_of(host).write_text(said)
        assert host.command("replication", "list").returncode == 0


def link(path: Path) -> None:
    path.with_name("precious").write_text("kept")
    path.symlink_to("precious")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, link], ids=["a pipe", "a directory", "a link"])
def test_a_lock_file_that_is_not_a_regular_file_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    host = HostProcess(tmp_path)
    lock_of(host).parent.mkdir()
    make(lock_of(host))
    for words in (("serve",), ("replication", "list")):
        answer = host.command(*words)
        why = f"{lock_of(host)} is where the lock file belongs, but is not a regular file; remove it"
        assert (answer.returncode, answer.stderr) == (2, f"starbase: plugin.toml: host.database: {why}\n")
    if make is link:
        assert lock_of(host).read_text() == "kept"


@contextlib.contextmanager
def held(lock: Lock, *, serves: bool) -> Iterator[None]:
    lock.acquire(serves=serves)
    try:
        yield
    finally:
        lock.release()


def test_the_lock_file_names_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert holder_of(path) is None
    for serves in (True, False):
        lock = Lock(path)
        with held(lock, serves=serves):
            assert holder_of(path) == Holder(pid=os.getpid(), serves=serves, url=None)
            lock.describe("http://127.0.0.1:1")
            assert holder_of(path) == Holder(pid=os.getpid(), serves=serves, url="http://127.0.0.1:1")
            with pytest.raises(Conflict, match=f"pid {os.getpid()}"):
                Lock(path).acquire(serves=True)
        assert holder_of(path) is None


def test_a_reader_of_the_lock_does_not_keep_a_host_from_it(tmp_path: Path) -> None:
    """Nor is what a killed holder has left there taken for what the next one says."""
    path = tmp_path / "lock"
    path.write_text(json.dumps({"pid": 1, "serves": True, "url": "http://127.0.0.1:1"}))
    lock = Lock(path)
    failed: list[BaseException] = []

    def acquire() -> None:
        try:
            lock.acquire(serves=True)
        except BaseException as error:
            failed.append(error)

    with path.open() as inspector:
        fcntl.flock(inspector, fcntl.LOCK_SH)
        host = threading.Thread(target=acquire)
        host.start()
        until(lambda: path.stat().st_size == 0 or failed, what="the host's first try")
    host.join(30)
    assert failed == []
    assert holder_of(path) == Holder(pid=os.getpid(), serves=True, url=None)
    lock.release()


def test_many_readers_of_the_lock_do_not_keep_a_host_from_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            holder_of(path)

    lookers = [threading.Thread(target=look) for _ in range(3)]
    for inspector in lookers:
        inspector.start()
    try:
        for _ in range(300):
            with held(Lock(path), serves=True):
                pass
    finally:
        ended.set()
        for inspector in lookers:
            inspector.join()


def test_a_second_host_on_the_same_port_names_the_first(tmp_path: Path) -> None:
    with running(tmp_path) as host:
        port = host.url.rpartition(":")[2]
        host.config_path.write_text(CONFIG.replace("127.0.0.1:0", f"127.0.0.1:{port}"))
        second = host.command("serve")
        assert second.returncode == 4, second.stderr
        assert f"another host (pid {host.pid})" in second.stderr


@pytest.mark.parametrize(
    ("bind", "fix"),
    [
        ("no-such-name.invalid:8000", "use an address of this machine"),
        ("192.0.2.1:8000", "use an address of this machine"),
        ("http://127.0.0.1:8000", "must be ADDRESS:PORT, such as 127.0.0.1:8000"),
        ("127.0.0.1:8000/", "must be ADDRESS:PORT, such as 127.0.0.1:8000"),
        ("a\\u0000b:8000", "must be ADDRESS:PORT, such as 127.0.0.1:8000"),
        (f"{'a' * 70}:8000", "use an address of this machine"),
    ],
)
def test_an_invalid_bind_address_stops_the_start_without_advice_on_the_port(
    tmp_path: Path, bind: str, fix: str
) -> None:
    answer = HostProcess(tmp_path, CONFIG.replace("127.0.0.1:0", bind)).command("serve")
    assert answer.returncode == 2, answer.stderr
    assert answer.stderr.startswith("starbase: plugin.toml: host.bind ")
    assert fix in answer.stderr
    assert "port;" not in answer.stderr
    assert "another port" not in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        host = HostProcess(tmp_path, CONFIG.replace("127.0.0.1:0", f"127.0.0.1:{port}"))
        answer = host.command("serve")
        assert answer.returncode == 2, answer.stderr
        assert f"host.bind cannot listen on 127.0.0.1:{port}: " in answer.stderr
        assert "choose another port" in answer.stderr
    host.start()
    assert host.stop() == 0

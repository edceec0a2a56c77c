"""Starts `starbase` commands as forks of one process that has imported everything already.

To import the host and the drivers takes the better part of a second, and a thousand tests start one. A fork is a
process like another: it has its own id, its own end, and can be killed. `make soak` and `make bench` start
each as users do, by the interpreter (STARBASE_TESTS_SPAWN=1), and so does a test that sets PYTHON… variables.

Must not import the host in the test's process; this module runs as a program for that.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

# Another one is not forked: a test sets it, to start commands from another environment.
interpreter = sys.executable
PACKAGES = ("starbase_host", "starbase_data_replication")
# What servers and drivers import only when they are first used.
LAZY = (
    "cryptography.fernet",
    "databases.backends.mysql",
    "databases.backends.postgres",
    "encodings.idna",
    "httpx",
    "uvicorn.lifespan.on",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.h11_impl",
)


def spawn(
    words: Sequence[str], *, stdout: Path, stderr: Path, environ: Mapping[str, str], stdin: Path = Path(os.devnull)
) -> subprocess.Popen[bytes] | Fork:
    """Start `starbase WORDS…` with this environment added; what it writes to stderr is put behind what the file has."""
    usual = interpreter == sys.executable and not any(name.startswith("PYTHON") for name in environ)
    if os.environ.get("STARBASE_TESTS_SPAWN") or not usual:
        with stdin.open("rb") as source, stdout.open("wb") as out, stderr.open("ab") as err:
            return subprocess.Popen(
                [interpreter, "-m", "starbase_host.cli", *words],
                stdin=source, stdout=out, stderr=err, env={**os.environ, **environ},
            )  # fmt: skip
    order = {"words": list(words), "environ": {**os.environ, **environ}}
    return Fork(_parent().ask({**order, "stdin": str(stdin), "stdout": str(stdout), "stderr": str(stderr)}))


def run(words: Sequence[str], *, environ: Mapping[str, str], stdin: str | None) -> subprocess.CompletedProcess[str]:
    """Run `starbase WORDS…` to its end, as subprocess.run does. Raises subprocess.TimeoutExpired after two minutes."""
    with tempfile.TemporaryDirectory() as directory:
        source, out, err = (Path(directory, name) for name in ("in", "out", "err"))
        source.write_text(stdin or "")
        process = spawn(words, stdin=source, stdout=out, stderr=err, environ=environ)
        try:
            status = process.wait(120)
        except BaseException:
            process.kill()
            process.wait()
            raise
        return subprocess.CompletedProcess(["starbase", *words], status, out.read_text(), err.read_text())


class Fork:
    """The part of subprocess.Popen that tests use, of a process whose parent is another one."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        # As long as its parent has not waited for it, the id is its own.
        self._descriptor = os.pidfd_open(pid)

    def poll(self) -> int | None:
        return self._reap(0)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, negative for a signal. Raises subprocess.TimeoutExpired."""
        status = self._reap(timeout)
        if status is None:
            raise subprocess.TimeoutExpired("starbase", timeout or 0)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            signal.pidfd_send_signal(self._descriptor, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _reap(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._descriptor], [], [], timeout)[0]:
            self.returncode = _parent().ask({"wait": self.pid})
            os.close(self._descriptor)
        return self.returncode


class _Parent:
    """The process that forks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.forks"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        atexit.register(self.close)

    def ask(self, order: dict[str, Any]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
            return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


@functools.cache
def _parent() -> _Parent:
    return _Parent()


def _import_all() -> None:
    for package in PACKAGES:
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if not module.name.endswith("__main__") and ".demo" not in module.name:
                importlib.import_module(module.name)
    for name in LAZY:
        importlib.import_module(name)
    # What the forks never change need not be copied for them.
    gc.collect()
    gc.freeze()


def _serve() -> list[str]:
    """Fork and wait as the test's process asks; in a fork, return the words of its command."""
    for line in sys.stdin.buffer:
        order = json.loads(line)
        if "wait" in order:
            answer = os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1])
        elif not (answer := os.fork()):
            _become(order)
            return list(order["words"])
        sys.stdout.buffer.write(b"%d\n" % answer)
        sys.stdout.buffer.flush()
    sys.exit()


def _become(order: Mapping[str, Any]) -> None:
    """Have the streams and the environment that a process started by the interpreter would have."""
    streams = [
        os.open(order["stdin"], os.O_RDONLY),
        os.open(order["stdout"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666),
        os.open(order["stderr"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666),
    ]
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(order["environ"])
    sys.argv[:] = ["starbase", *order["words"]]


def _run(words: Sequence[str]) -> NoReturn:
    """Do what the interpreter does with the command, but for taking every module apart, which takes half a second."""
    from starbase_host.cli import main

    status: Any = 0
    try:
        main(words)
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status or 0)


if __name__ == "__main__":
    _import_all()
    _run(_serve())

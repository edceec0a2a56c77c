"""A host as a user runs it: `starbase serve` in its own process, spoken to over HTTP, ended by signals."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx

from tests.support.forks import Fork, run, spawn

T = TypeVar("T")

ADMIN = "admin-token-of-the-tests"
CLIENT = "client-token-of-the-tests"
START_SECONDS = 30.0

CONFIG = f"""\
[host]
bind = "127.0.0.1:0"
database = "data/starbase.db"
admin_token = "{ADMIN}"
client_token = "{CLIENT}"

[plugins.data_replication]
"""


# A plugin that writes the events of runs that succeed or fail to a file: how a test sees events from outside.
LISTENER = """
import json, pathlib
from starbase_host import hookimpl

def plugin(options):
    return Listener()

class Listener:
    @hookimpl(optionalhook=True)
    def replication_event(self, event):
        if event.status not in ("success", "error"):
            return
        with open(pathlib.Path(__file__).with_name("events.jsonl"), "a") as file:
            file.write(json.dumps(event.as_dict()) + "\\n")
"""


def until(condition: Callable[[], T], *, seconds: float = 30.0, what: str = "the condition") -> T:
    """Ask again and again until the answer is true, and answer that; fail when the time is over."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"{what} did not come true within {seconds:g} s"
        time.sleep(0.02)
    return answer


def events_of(directory: Path) -> list[dict[str, Any]]:
    """What LISTENER has written so far; a line without its end is still being written."""
    path = directory / "events.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


class HostProcess:
    """One host on a directory that holds its plugin.toml and its database; may be started again and again."""

    def __init__(self, directory: Path, config: str = CONFIG, *, environ: dict[str, str] | None = None) -> None:
        self.directory = directory
        self.config_path = directory / "plugin.toml"
        self.config_path.write_text(config)
        self.config_path.chmod(0o600)
        self.environ = environ or {}
        self.url = ""
        self._process: subprocess.Popen[bytes] | Fork | None = None
        self._client: httpx.Client | None = None

    @property
    def database(self) -> Path:
        return self.directory / "data" / "starbase.db"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        return (self.directory / "host.log").read_text(errors="replace")

    def command(self, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run another `starbase` command on the same configuration."""
        return run(("--config", str(self.config_path), *words), environ=self.environ, stdin=stdin)

    def start(self) -> Self:
        """Start, and wait until it answers."""
        out, err = self.directory / "host.out", self.directory / "host.log"
        words = ("serve", "--json", "--config", str(self.config_path))
        out.unlink(missing_ok=True)
        self._process = spawn(words, stdout=out, stderr=err, environ=self.environ)

        def ready() -> str:
            assert self._process is not None
            assert self._process.poll() is None, f"the host ended while it started: {self.log}"
            with contextlib.suppress(ValueError, FileNotFoundError):
                return str(json.loads(out.read_text())["url"])
            return ""

        try:
            self.url = until(ready, seconds=START_SECONDS, what="the host's start")
        except BaseException:
            self.kill()
            raise
        self._client = httpx.Client(base_url=self.url, timeout=120)
        return self

    def stop(self, number: int = signal.SIGTERM, *, seconds: float = 20.0) -> int:
        """Send a signal and wait for the end; its exit status."""
        process, self._process = self._process, None
        if self._client is not None:
            self._client.close()
            self._client = None
        if process is None:
            return 0
        process.send_signal(number)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"the host did not end within {seconds:g} s: {self.log[-2000:]}") from None

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.stop()

    def request(
        self, method: str, path: str, body: Any = None, *, token: str | None = ADMIN, **params: Any
    ) -> httpx.Response:
        assert self._client is not None
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        content = body if isinstance(body, bytes) or body is None else json.dumps(body)
        return self._client.request(method, path, content=content, headers=headers, params=params or None)

    def result(self, method: str, path: str, body: Any = None, **params: Any) -> Any:
        """The `result` of an answer that must be a success."""
        response = self.request(method, path, body, **params)
        assert response.is_success, f"{method} {path}: {response.status_code} {response.text}"
        return response.json()["result"]

    def query(self, sql: str, *params: Any) -> list[list[Any]]:
        """Rows of a query, as admin."""
        rows: list[list[Any]] = self.result("POST", "/query/raw", {"sql": sql, "params": list(params)})["rows"]
        return rows

    def configure(self, **body: Any) -> Any:
        return self.result("POST", "/data-replication/configure", body)

    def sync(self, name: str) -> dict[str, Any]:
        """Sync now; the run."""
        run: dict[str, Any] = self.result("POST", f"/data-replication/sync/{name}")["run"]
        return run

    def status(self, name: str) -> dict[str, Any]:
        configs = self.result("GET", "/data-replication/status")["configs"]
        return next(each for each in configs if each["name"] == name)

    def logs(self, name: str | None = None, limit: int = 1000) -> list[dict[str, Any]]:
        params = {"limit": limit, **({"name": name} if name is not None else {})}
        logs: list[dict[str, Any]] = self.result("GET", "/data-replication/logs", **params)["logs"]
        return logs


@contextlib.contextmanager
def running(directory: Path, config: str = CONFIG, *, environ: dict[str, str] | None = None) -> Iterator[HostProcess]:
    """A host that runs inside this context."""
    with HostProcess(directory, config, environ=environ) as host:
        yield host

"""The answers to callers who wait for an interrupted run, and to those who ask for a run that may not start."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.hosts import CONFIG, LISTENER, HostProcess, events_of, running, until

PREFIX = "/data-replication"


@contextlib.contextmanager
def silent_source() -> Iterator[dict[str, Any]]:
    """The sourceConfig of a server that takes connections and says nothing: a run that reads from it goes on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield {"dialect": "postgresql", "host": "127.0.0.1", "port": server.getsockname()[1], "user": "u"}


def configure(host: HostProcess, source: dict[str, Any], **more: Any) -> None:
    host.configure(name="t", sourceConfig=source, sourceTable="t", targetTable="t", isActive=False, **more)


def awaited(host: HostProcess, verb: str, interrupt: Callable[[], object]) -> str:
    """The error of a run that is interrupted while somebody waits for it."""
    answers: list[Any] = []

    def ask() -> None:
        answers.append(host.request("POST", f"{PREFIX}/{verb}/t"))

    client = threading.Thread(target=ask)
    client.start()
    until(lambda: host.status("t")["is_running"], what="the run")
    interrupt()
    client.join()
    assert answers[0].status_code == 503, answers[0].text
    return str(answers[0].json()["error"])


GOES_ON = "the next sync goes on from what was committed"


@pytest.mark.parametrize(
    ("verb", "by", "error"),
    [
        ("sync", "stop", "Sync of t was interrupted: the replication was stopped; "
         "started again, or synced by hand, it goes on from what was committed"),
        ("sync", "delete", "Sync of t was interrupted: the replication was deleted; it does not go on"),
        ("sync", "change", "Sync of t was interrupted: the configuration changed; the next sync uses the new one"),
        ("sync", "reset", "Sync of t was interrupted: the replication was reset; the reload takes its place"),
        ("reset", "delete", "Reset of t was interrupted: the replication was deleted; it does not go on"),
        ("reset", "end", f"the host is stopping; reset of t is interrupted; {GOES_ON}"),
        ("sync", "end", f"the host is stopping; sync of t is interrupted; {GOES_ON}"),
        ("verify", "stop", "Verification of t was interrupted: the replication was stopped; ask for it again"),
        ("verify", "delete", "Verification of t was interrupted: the replication was deleted; it does not go on"),
        ("verify", "end", "the host is stopping; verification of t is interrupted; ask for it again"),
    ],
)  # fmt: skip
def test_what_becomes_of_it_is_said(tmp_path: Path, verb: str, by: str, error: str) -> None:
    with silent_source() as source, running(tmp_path) as host:
        configure(host, source)
        interrupt: dict[str, Callable[[], object]] = {
            "stop": lambda: host.result("POST", f"{PREFIX}/stop/t"),
            "delete": lambda: host.result("DELETE", f"{PREFIX}/configure/t"),
            "change": lambda: host.configure(name="t", trackingColumn="other"),
            "reset": lambda: host.result("POST", f"{PREFIX}/reset/t", wait="false"),
            "end": lambda: os.kill(host.pid, signal.SIGTERM),
        }
        assert awaited(host, verb, interrupt[by]) == error


def test_a_reset_is_called_one(tmp_path: Path) -> None:
    with silent_source() as source, running(tmp_path) as host:
        configure(host, source)
        begun = host.result("POST", f"{PREFIX}/reset/t", wait="false")
        assert begun["message"] == "Reset of t begun"
        configure(host, {**source, "port": 1})
        failed = host.request("POST", f"{PREFIX}/reset/t")
        assert failed.json()["error"].startswith("Reset of t failed: ")
        command = host.command("replication", "reset", "t")
        assert command.stderr.startswith("starbase: Reset of t failed: ")


def test_a_mistake_of_the_caller_leaves_no_trace(tmp_path: Path) -> None:
    """What may not be done is refused before a run begins: no record, no last_error, no event."""
    (tmp_path / "listener.py").write_text(LISTENER)
    with silent_source() as source, running(tmp_path, CONFIG + '\n[plugins.listener]\nmodule = "listener"\n') as host:
        configure(host, source)
        mistakes: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
            ("reconcile", {}, {}, "deletes is not reconcile or mark"),
            ("reconcile", {"deletes": {"sourceColumn": "gone"}}, {"force": True}, "deletes is not reconcile or mark"),
            ("verify", {"group": "g"}, {"repair": True}, "repair would show this table at another moment"),
        ]
        for verb, change, body, error in mistakes:
            host.configure(name="t", **change)
            for wait in ("true", "false"):
                answer = host.request("POST", f"{PREFIX}/{verb}/t", body, wait=wait)
                assert answer.status_code == 400, answer.text
                assert answer.json()["error"].startswith(error)
                status = host.status("t")
                assert (status["last_error"], status["is_running"]) == (None, False)
        assert host.logs() == []
        # A separate run is next, so that its event would come after theirs.
        host.configure(name="t", sourceConfig={**source, "port": 1}, group=None)
        assert host.request("POST", f"{PREFIX}/sync/t").status_code == 502
        until(lambda: len(events_of(tmp_path)) >= 2, what="the events of the sync")
        assert {event["type"] for event in events_of(tmp_path)} == {"sync", "degraded"}

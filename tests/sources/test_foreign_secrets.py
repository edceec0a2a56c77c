"""What the dialect of another plugin hides of its settings appears nowhere, with any name of the setting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.hosts import HostProcess
from tests.support.odd_dialect import answering, odd_host

KEY, SIGNATURE, PIN = "qzx7-ring-Kf93jd8", "sgn8Zk4QpWv2", 90817263
SHOWN = """
def shown(settings):
    ring = {**settings["ring"], "bell": "***"}
    return {**settings, "ring": ring, "pin": "***", "url": settings["url"].partition("sig=")[0] + "sig=***&v=1"}
"""
SETTINGS = {
    "dialect": "odd",
    "ring": {"bell": KEY, "name": "first"},
    "pin": PIN,
    "url": f"https://api.example.com/t?sig={SIGNATURE}&v=1",
}
ALL = "f\"{settings['ring']['bell']} and {settings['url']} and {settings['pin']}\""
PLAIN = f"'{KEY} and {SIGNATURE} and {PIN}'"
# What an author may do with a text that has the secrets.
LEAKS = {
    "check": f"def check(settings):\n    return {{'sourceConfig.ring': 'must not be ' + {ALL}}}",
    "check raises": f"def check(settings):\n    raise ValueError({ALL})",
    "check rejects": f"def check(settings):\n    raise SourceRejected({ALL})",
    "open raises": f"def opening(settings):\n    raise ValueError({ALL})",
    "open rejects": f"def opening(settings):\n    raise SourceUnavailable({ALL})",
    "a read raises": f"if name == 'batches':\n    raise ValueError({PLAIN})",
    "a read rejects": f"if name == 'batches':\n    raise SourceRejected({PLAIN})",
    "warnings": f"schema = lambda s: __import__('dataclasses').replace(s, warnings=({PLAIN},))",
    "protection": f"schema = lambda s: __import__('dataclasses').replace(s, unprotected={PLAIN})",
    "a type": f"schema = lambda s: __import__('dataclasses').replace(s, key=({PLAIN},))",
}


@pytest.fixture(scope="module", name="host")
def _host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    with odd_host(tmp_path_factory.mktemp("secrets")) as host:
        yield host


def body(name: str, settings: Any = None) -> dict[str, Any]:
    found = {**SETTINGS, "of": name} if settings is None else settings
    return {"name": name, "sourceConfig": found, "sourceTable": name, "targetTable": name, "isActive": False}


def pieces(text: str) -> list[str]:
    return [secret for secret in (KEY, SIGNATURE, str(PIN)) if secret in text]


@pytest.mark.parametrize("leak", LEAKS)
def test_what_a_dialect_hides_is_scrubbed_everywhere(host: HostProcess, leak: str) -> None:
    """A token was hidden in the status, and appeared in an answer, in the log and in the record."""
    name = f"leak{list(LEAKS).index(leak)}"
    answering(host, SHOWN)
    host.configure(**body(name))
    answering(host, f"{SHOWN}{LEAKS[leak]}")
    # With the secrets as they are stored, of which the caller sends only what is shown.
    shown = host.status(name)["source_config"]
    assert pieces(str(shown)) == []
    said = [host.request("POST", "/data-replication/configure", body(name, {**shown, "more": 1}))]
    said += [host.request("POST", "/data-replication/configure", body(f"{name}new"))]
    said += [host.request("POST", f"/data-replication/sync/{name}")]
    # Of an exception that the host does not define, an answer shows only the class.
    assert leak.endswith("raises") or leak in ("warnings", "protection") or any("***" in each.text for each in said)
    said += [host.request("GET", path) for path in ("/data-replication/status", "/data-replication/logs", "/plugins")]
    assert [pieces(each.text) for each in said] == [[]] * len(said)
    assert pieces(host.log) == []


def test_what_a_dialect_hides_if_it_does_not_say_it(host: HostProcess) -> None:
    """Then everything counts as hidden."""
    answering(host, f"shown = 7\n{LEAKS['check rejects']}")
    answer = host.request("POST", "/data-replication/configure", body("unsaid"))
    assert answer.status_code == 502, answer.text
    assert pieces(answer.text) + pieces(host.log) == []

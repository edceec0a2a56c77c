"""`starbase replication …` as a script uses it: one line that says what is wrong and where, and what was done."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hosts import HostProcess, running

SOURCE = {"dialect": "postgresql", "host": "127.0.0.1", "port": 1, "user": "u"}


def entry(name: str, **more: Any) -> dict[str, Any]:
    """A replication that configure takes."""
    fields = {"name": name, "sourceConfig": SOURCE, "sourceTable": "t", "targetTable": name, "isActive": False}
    return {**fields, **more}


def without(name: str, field: str) -> dict[str, Any]:
    return {key: value for key, value in entry(name).items() if key != field}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    with running(tmp_path_factory.mktemp("commands")) as host:
        yield host


def configure(host: HostProcess, body: Any, *words: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of configuring what a file holds."""
    file = host.directory / "list.json"
    file.write_text(body if isinstance(body, str) else json.dumps(body))
    run = host.command("replication", "configure", str(file), *words)
    assert run.stderr.count("\n") == (0 if run.returncode == 0 else 1), run.stderr
    return run.returncode, run.stdout, run.stderr.strip()


def names(host: HostProcess) -> list[str]:
    return [each["name"] for each in host.result("GET", "/data-replication/status")["configs"]]


@pytest.mark.parametrize(
    ("entries", "begins", "ends", "applied"),
    [
        ([entry("a1"), without("b1", "targetTable"), entry("c1")], "[1] b1: targetTable: is required",
         "; applied before it: [0] a1", ["a1"]),
        ([without("a2", "sourceTable"), entry("b2")], "[0] a2: sourceTable: is required",
         "; nothing was applied before it", []),
        ([entry("a3"), entry("b3"), entry("c3", targetTable="a3")], "[2] c3: targetTable: a3 is already the target",
         "; applied before it: [0] a3, [1] b3", ["a3", "b3"]),
        ([entry("a4"), {}], "[1]: name: is required", "; applied before it: [0] a4", ["a4"]),
        ([entry("a5"), entry("\n")], "[1]: name: ", "; applied before it: [0] a5", ["a5"]),
        ([entry("a6"), "x", None], "[1] must be an object; [2] must be an object", "; nothing was applied", []),
        ([entry("a7"), [entry("b7")]], "[1] must be an object", "; nothing was applied", []),
    ],
)  # fmt: skip
def test_a_list_that_is_wrong_somewhere(
    host: HostProcess, entries: list[Any], begins: str, ends: str, applied: list[str]
) -> None:
    before = names(host)
    status, out, line = configure(host, entries)
    assert (status, out) == (4 if "already" in begins else 2, "")
    assert line.startswith(f"starbase: {begins}")
    assert line.endswith(ends)
    assert [name for name in names(host) if name not in before] == applied
    # Once more, for a program: what is there already is configured again.
    assert json.loads(configure(host, entries, "--json")[2])["error"] == line.removeprefix("starbase: ")


def test_a_list_and_one_alone(host: HostProcess) -> None:
    message = "Replication configured successfully"
    one = {"success": True, "message": message}
    assert configure(host, [entry("l1"), entry("l2")])[:2] == (0, message + "\n")
    assert json.loads(configure(host, [entry("l1"), entry("l2")], "--json")[1]) == [one, one]
    assert json.loads(configure(host, entry("l3"), "--json")[1]) == one
    assert configure(host, without("l4", "targetTable"))[2].startswith("starbase: targetTable: is required")
    assert {"l1", "l2", "l3"} <= set(names(host))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{", "list.json is not JSON: "),
        ("", "list.json is not JSON: "),
        ('{"name": NaN}', "list.json is not JSON: NaN"),
        ("[" * 100 + "]" * 100, "list.json is nested more than 64 deep"),
        ('[{"name": "x", "name": "y"}]', "name: stands twice in one object of "),
        ('{"syncIntervalMinutes": ' + "9" * 5000 + "}", "list.json holds a number of more than 4300 digits"),
    ],
)
def test_a_file_that_is_no_json(host: HostProcess, text: str, error: str) -> None:
    status, out, line = configure(host, text)
    assert (status, out) == (2, "")
    assert error in line
    assert "list.json" in line


def test_from_standard_input(host: HostProcess, tmp_path: Path) -> None:
    run = host.command("replication", "configure", "-", stdin=json.dumps(entry("s1")))
    assert run.returncode == 0, run.stderr
    assert "s1" in names(host)
    wrong = host.command("replication", "configure", "-", stdin="{")
    assert wrong.stderr.startswith("starbase: standard input is not JSON")

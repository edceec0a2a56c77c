"""`starbase replication …` as a script uses it: one line that says what is wrong and where, and what was done."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tests.support.hosts import ADMIN, CONFIG, HostProcess, running
from tests.support.servers import TestDatabase

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
        ([entry("a1"), without("b1", "targetTable"), entry("c1")], "[1] b1: targetTable is required",
         "; applied before it: [0] a1", ["a1"]),
        ([without("a2", "sourceTable"), entry("b2")], "[0] a2: sourceTable is required",
         "; nothing was applied before it", []),
        ([entry("a3"), entry("b3"), entry("c3", targetTable="a3")], "[2] c3: targetTable a3 is already the target",
         "; applied before it: [0] a3, [1] b3", ["a3", "b3"]),
        ([entry("a4"), {}], "[1]: name is required", "; applied before it: [0] a4", ["a4"]),
        ([entry("a5"), entry("\n")], "[1]: name must not be empty", "; applied before it: [0] a5", ["a5"]),
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
    assert configure(host, without("l4", "targetTable"))[2].startswith("starbase: targetTable is required")
    assert {"l1", "l2", "l3"} <= set(names(host))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{", "list.json is not JSON: "),
        ("", "list.json is not JSON: "),
        ('{"name": NaN}', "list.json is not JSON: NaN"),
        ("[" * 100 + "]" * 100, "list.json is nested more than 64 levels deep"),
        ('[{"name": "x", "name": "y"}]', "name occurs twice in one object of "),
        ('{"syncIntervalMinutes": ' + "9" * 5000 + "}", "list.json has a number with more than 400 digits"),
    ],
)
def test_a_file_that_is_not_json_is_refused(host: HostProcess, text: str, error: str) -> None:
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


# What a user may have in plugin.toml: (its text, a word of what is wrong, whether the plugins are known all the same).
BROKEN = {
    "unset token": ('[host]\nadmin_token = "${SURELY_NOT_SET}"\n[plugins.data_replication]\n', "SURELY_NOT_SET", True),
    "unset address": ('[host]\nbind = "${SURELY_NOT_SET}"\n[plugins.data_replication]\n', "SURELY_NOT_SET", True),
    "unset option": (
        '[plugins.data_replication]\nallowed_env = ["${SURELY_NOT_SET}"]\n', "SURELY_NOT_SET", False,
    ),
    "unknown key": ("[host]\nprot = 1\n[plugins.data_replication]\n", "unknown key", True),
    "no plugin of that name": ("[plugins.nowhere]\n", "nowhere", False),
    "wrong option": ("[plugins.data_replication]\nmax_concurrent_syncs = 0\n", "max_concurrent_syncs", False),
    "no TOML": ("[host\n", "is not TOML", False),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_help_works_even_if_plugin_toml_is_invalid(tmp_path: Path, case: str) -> None:
    text, word, known = BROKEN[case]
    host = HostProcess(tmp_path, text)
    for line in ("", "--help", "serve --help"):
        shown = host.command(*line.split())
        assert "Usage: starbase" in shown.stdout + shown.stderr, shown.stderr
        assert shown.returncode == (0 if line else shown.returncode)
    overview = host.command("--help")
    assert "serve" in overview.stdout
    assert ("replication" in overview.stdout) == known
    without = [line for line in overview.stderr.splitlines() if "the commands of plugin" in line]
    assert (len(without), overview.stderr.count("\n")) == ((0, 0) if known else (1, 1))
    assert known or word in without[0]
    # What needs the configuration is refused as ever.
    refused = [host.command("plugins"), host.command("serve")]
    if known:
        for line in ("replication --help", "replication sync --help", "demo --help"):
            shown = host.command(*line.split())
            assert (shown.returncode, shown.stderr) == (0, ""), line
        refused.append(host.command("replication", "list"))
    for each in refused:
        assert (each.returncode, each.stderr.count("\n")) == (2, 1), each.stderr
        assert word in each.stderr


def test_help_without_the_file_that_config_names(tmp_path: Path) -> None:
    host = HostProcess(tmp_path)
    host.config_path.unlink()
    shown = host.command("--help")
    assert (shown.returncode, "serve" in shown.stdout) == (0, True)
    assert "does not exist" in shown.stderr


def test_version(tmp_path: Path) -> None:
    host = HostProcess(tmp_path, "[host\n")
    number = version("starbase-host")
    assert host.command("--version").stdout == f"starbase {number}\n"
    assert json.loads(host.command("--version", "--json").stdout) == {"version": number}


OFFLINE = "no host is running; nothing is scheduled until `starbase serve` runs\n"


def test_without_a_host_commands_say_that_nothing_is_scheduled(tmp_path: Path, host: HostProcess) -> None:
    alone = HostProcess(tmp_path)
    file = tmp_path / "body.json"
    file.write_text(json.dumps([entry("o1")]))
    for words in (("configure", str(file)), ("start", "o1"), ("list",), ("list", "--json")):
        ran = alone.command("replication", *words)
        # Nothing of STARBASE_SECRET_KEY either: no password is stored.
        assert (ran.returncode, ran.stderr) == (0, OFFLINE), words
    assert "idle" in alone.command("replication", "list").stdout
    assert alone.command("replication", "logs").stderr == ""
    assert host.command("replication", "list").stderr == ""
    file.write_text(json.dumps(entry("o2", sourceConfig={**SOURCE, "password": "in plain"})))
    assert alone.command("replication", "configure", str(file)).stderr == OFFLINE
    (warning, offline) = alone.command("replication", "list").stderr.splitlines()
    assert "STARBASE_SECRET_KEY is not set" in warning
    assert "(1 now)" in warning
    assert offline + "\n" == OFFLINE


def test_a_token_that_is_not_the_hosts(host: HostProcess, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text(CONFIG.replace(ADMIN, "another-token").replace("data/starbase.db", str(host.database)))
    ran = host.command("--config", str(other), "replication", "list")
    assert (ran.returncode, ran.stdout) == (5, "")
    assert "has another admin token than" in ran.stderr
    assert f"admin_token in {other}" in ran.stderr
    assert "another-token" not in ran.stderr


@pytest.mark.parametrize("verb", ["delete", "start", "stop", "sync", "reset", "verify", "reconcile"])
def test_a_name_that_is_not_there(host: HostProcess, verb: str) -> None:
    ran = host.command("replication", verb, "nobody")
    assert (ran.returncode, ran.stdout) == (3, "")
    assert ran.stderr == "starbase: no replication is named nobody\n"


def test_what_runs_say(host: HostProcess, postgres_database: TestDatabase) -> None:
    """Counts, warnings, kinds, and an error only until a sync succeeds again."""
    execute = postgres_database.execute
    execute("CREATE TABLE w (id int PRIMARY KEY, n int, t text); INSERT INTO w VALUES (1, NULL, 'x')")
    options = {"sourceConfig": postgres_database.source_config, "sourceTable": "w", "nullTracking": "ignore"}
    host.configure(**entry("w", **options, trackingColumn="n", deletes="reconcile"))

    def run(verb: str, *words: str) -> subprocess.CompletedProcess[str]:
        return host.command("replication", verb, "w", *words)

    def listed() -> str:
        (line,) = [line for line in host.command("replication", "list").stdout.splitlines() if line.startswith("w ")]
        return line

    warning = "warning: 1 row has no n and is ignored, as nullTracking says\n"
    execute("ALTER TABLE w RENAME TO away")
    assert run("sync").returncode != 0
    assert host.status("w")["last_error"] in listed()
    execute("ALTER TABLE away RENAME TO w")
    synced = run("sync")
    assert (synced.returncode, synced.stderr) == (0, warning)
    assert synced.stdout.startswith("w: 0 rows in ")
    assert host.status("w")["last_error"]
    assert host.status("w")["last_error"] not in listed()
    assert listed().endswith("  1")
    execute("INSERT INTO w VALUES (2, 2, 'y')")
    assert run("sync").stdout.startswith("w: 1 row in ")
    assert json.loads(run("sync", "--json").stdout)["run"]["warnings"] == [warning.removeprefix("warning: ").strip()]
    assert run("sync", "--json").stderr == ""
    reset = run("reset")
    assert reset.stdout.startswith("w: reset, 1 row loaded in ")
    assert reset.stderr == warning
    execute("DELETE FROM w WHERE id = 2; INSERT INTO w VALUES (3, 3, 'z')")
    assert run("sync").stdout.startswith("w: 1 row in ")
    gone = run("reconcile", "--force")
    assert gone.stdout.endswith("1 row removed\n"), gone
    host.configure(name="w", deletes={"mark": "gone_at"})
    assert run("sync").returncode == 0
    execute("DELETE FROM w WHERE id = 3")
    marked = run("reconcile", "--force")
    assert marked.stdout.endswith("1 row marked as deleted\n"), marked
    assert " compared, 0 missing, 0 extra, 0 different; 0 repaired" in run("verify").stdout
    head, *lines = run("logs").stdout.splitlines()
    column = head.split().index("kind")
    assert {line.split()[column] for line in lines} == {"sync", "reset", "reconcile", "verify"}

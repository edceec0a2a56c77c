"""A new plugin works as it is written: its tests pass, its types are right, and it can be installed."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.hosts import HostProcess
from tests.support.packages import ROOT


def pytest_in(directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"],
        cwd=directory, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "hooks"),
    [
        (["new-plugin"], "on_alarm, plugin_lifespan, register_routes"),
        (["replication", "new-dialect"], "replication_dialects"),
    ],
    ids=["plugin", "dialect"],
)
def test_what_is_written_passes_its_tests_and_mypy(words: list[str], hooks: str, tmp_path: Path) -> None:
    made = tmp_path / "my_plugin"
    written = subprocess.run(
        [sys.executable, "-m", "starbase_host.cli", *words, "my_plugin"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert written.returncode == 0, written.stderr
    assert "my_plugin.py, test_my_plugin.py" in written.stdout
    done = pytest_in(made)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
    project = tomllib.loads((made / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["starbase.plugins"] == {"my_plugin": "my_plugin:plugin"}
    checked = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--follow-imports", "silent", "--no-error-summary"),
            *("--cache-dir", str(ROOT / ".mypy_cache" / "hooks"), "my_plugin.py"),
        ],
        cwd=made, env={"MYPYPATH": f"{ROOT}/host:{ROOT}/plugins/data_replication", "PATH": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout
    shown = HostProcess(made, (made / "plugin.toml").read_text()).command("plugins")
    assert f"my_plugin  (my_plugin)  {hooks}\n" in shown.stdout


COMMANDS = pytest.mark.parametrize("words", [["new-plugin"], ["replication", "new-dialect"]], ids=["plugin", "dialect"])
SYNTAX = "NAME must be a lowercase letter, then lowercase letters, digits and underscores"


def refusal(directory: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "starbase_host.cli", *words],
        cwd=directory, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert list(directory.iterdir()) == []
    return done.stderr


@COMMANDS
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("my-hook", f"{SYNTAX}, such as my_hook; it is 'my-hook'"),
        ("MyPlugin", f"{SYNTAX}, such as myplugin; it is 'MyPlugin'"),
        ("../x", f"{SYNTAX}, such as x; it is '../x'"),
        ("1x", f"{SYNTAX}; it is '1x'"),
        ("", f"{SYNTAX}; it is ''"),
        ("test_x", "must not be test_x: pytest would take the module"),
        ("class", "must not be class: it is a word of Python's own syntax; take another name, such as my_class"),
        ("json", "must not be json: Python or pytest would import another module of that name"),
        ("pytest", "must not be pytest: Python or pytest would import another module of that name"),
        ("conftest", "must not be conftest: Python or pytest would import another module of that name"),
        ("starbase_host", "must not be starbase_host: Python or pytest would import another module of that name"),
        ("data_replication", "must not be data_replication: a plugin of that name is installed already"),
        ("none", "must not be none: its class would be None, a name that is taken"),
    ],
    ids=[
        *("hyphen", "capitals", "path", "digit", "empty", "test", "keyword", "json", "pytest", "conftest", "host"),
        *("installed", "none"),
    ],
)
def test_a_name_that_cannot_be_a_plugins(words: list[str], name: str, why: str, tmp_path: Path) -> None:
    assert why in refusal(tmp_path, *words, name)


@pytest.mark.parametrize(
    ("words", "name", "why"),
    [
        (["new-plugin"], "alarm", "its class would be Alarm, a name that is taken"),
        (["replication", "new-dialect"], "postgresql", "that dialect is built in"),
    ],
    ids=["plugin", "dialect"],
)
def test_a_name_that_one_template_cannot_have(words: list[str], name: str, why: str, tmp_path: Path) -> None:
    assert f"NAME must not be {name}: {why}" in refusal(tmp_path, *words, name)


def test_what_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "starbase_host.cli", "new-plugin", "mine"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (4, "starbase: mine exists already; choose another name, or remove it\n")
    assert list((tmp_path / "mine").iterdir()) == []

"""Are the pages for authors of plugins true and complete? Their examples are run, and no hook may be missing."""

from __future__ import annotations

import ast
import contextlib
import inspect
import re
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import pytest

import starbase_data_replication
import starbase_host
from starbase_data_replication import dialect_kit
from starbase_data_replication import hookspecs as replication_hookspecs
from starbase_data_replication.conformance import check_all
from starbase_host import hookspecs
from tests.support.dialect_samples import sqlite_sample
from tests.support.hosts import CLIENT, CONFIG, HostProcess, running, until
from tests.support.packages import ROOT

# In the order in which their examples build on one another.
PAGES = [ROOT / "docs" / page for page in ("howto/write-a-plugin.md", "reference/hooks.md", "howto/add-a-dialect.md")]
TRANSFORM = ROOT / "docs" / "howto" / "transform-values.md"
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
# What other plugins may import, by its name.
PUBLIC: dict[str, Any] = {module.__name__: module for module in (starbase_data_replication, dialect_kit)}
HOOKS: dict[str, Callable[..., Any]] = {
    name: item
    for module in (hookspecs, replication_hookspecs)
    for name, item in vars(module).items()
    if hasattr(item, "starbase_spec")
}


def blocks(language: str) -> list[tuple[str, str]]:
    """The pages' code blocks: what stands in the comment of the first line, and the rest."""
    found = re.findall(rf"^```{language}\n# ([^\n]+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert len(found) == TEXT.count(f"```{language}\n"), "each block begins with a comment that says where it belongs"
    return found


def files() -> dict[str, str]:
    """The files of the pages: blocks that begin with a file's name, and those that go on with one."""
    found: dict[str, str] = {}
    for place, code in blocks("python"):
        if place.startswith("in class "):
            owner = next(name for name, text in found.items() if f"class {place.removeprefix('in class ')}:" in text)
            found[owner] += "\n" + textwrap.indent(code, "    ")
        elif not place.startswith("in "):
            assert place not in found
            found[place] = code
    for place, code in blocks("python"):
        if place.startswith("in ") and not place.startswith("in class "):
            found[place.removeprefix("in ")] += "\n\n" + code
    return found


def section(hook: str) -> str:
    found = re.search(rf"^### `{hook}`\n(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found is not None, f"docs/reference/hooks.md has no section ### `{hook}`"
    return found[1]


def write_files(directory: Path) -> None:
    for name, text in files().items():
        (directory / name).write_text(text, encoding="utf-8")


def test_every_hook_is_known_here() -> None:
    assert len(HOOKS) == 12
    assert set(hookspecs.names()) < set(HOOKS)


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_taught(hook: str) -> None:
    """A docstring, a section with the hook's own signature, a line in the table, and an example."""
    assert inspect.getdoc(HOOKS[hook]), f"{hook} has no docstring"
    arguments = ", ".join(inspect.signature(HOOKS[hook]).parameters)
    assert f"\n    {hook}({arguments})" in section(hook)
    assert f"[`{hook}`](#{hook})" in TEXT
    assert re.search(rf"@hookimpl.*\n(.*@.*\n)?.*def {hook}\(", TEXT), (
        f"docs/reference/hooks.md has no example of {hook}"
    )


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_tried(hook: str) -> None:
    """In a test or an example, by a function that is marked, under its own name."""
    implemented = set()
    for path in [*(ROOT / "tests").rglob("*.py"), *(ROOT / "examples").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                marks = [ast.unparse(decorator) for decorator in node.decorator_list]
                if any(mark.startswith("hookimpl") for mark in marks):
                    implemented.add(node.name)
    assert hook in implemented


def test_every_name_that_the_host_exports_is_documented() -> None:
    missing = [name for name in starbase_host.__all__ if f"`{name}`" not in TEXT]
    assert missing == []


def test_every_name_that_data_replication_exports_is_documented() -> None:
    missing = [name for module in PUBLIC.values() for name in module.__all__ if f"`{name}`" not in TEXT]
    assert missing == []


def third_parties() -> Iterator[tuple[str, str]]:
    """Modules as others write them: in the documentation, in the examples, and the dialects in texts of tests."""
    yield from files().items()
    for path in (ROOT / "examples").rglob("*.py"):
        yield path.name, path.read_text(encoding="utf-8")
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
            if "\ndef plugin(" in text and "def replication_dialects(" in text:
                yield path.name, text


def test_others_import_what_data_replication_exports() -> None:
    """Its modules may move; what `starbase_data_replication` itself exports stays."""
    seen = set()
    for name, text in third_parties():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("starbase_data_replication."):
                assert node.module in PUBLIC, f"{name} imports {node.module}"
                # A star imports what is exported, and no more.
                assert {alias.name for alias in node.names} <= {"*", *PUBLIC[node.module].__all__}, name
                seen.add(name)
            if isinstance(node, ast.Import):
                assert not any("starbase_data_replication." in alias.name for alias in node.names), name
    assert {"sqlite_files.py", "test_acme.py", "test_secrets_canary.py", "test_dialect_isolation.py"} <= seen


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.name)
def test_no_page_imports_a_module_of_data_replication(page: Path) -> None:
    assert (
        re.findall(
            r"(?:from|import) starbase_data_replication\.(?!dialect_kit import)\w+", page.read_text(encoding="utf-8")
        )
        == []
    )


@pytest.mark.parametrize("name", files())
def test_the_examples_compile(name: str) -> None:
    compile(files()[name], name, "exec")


def test_the_packages_table() -> None:
    pyproject = next(tomllib.loads(code) for place, code in blocks("toml") if place == "pyproject.toml")
    module, _, factory = pyproject["project"]["entry-points"]["starbase.plugins"]["guestbook"].partition(":")
    assert f"def {factory}(options)" in files()[f"{module}.py"]


def test_hello(tmp_path: Path) -> None:
    write_files(tmp_path)
    config = next(code for place, code in blocks("toml") if place == "plugin.toml")
    with running(tmp_path, config.replace("[host]\n", '[host]\nbind = "127.0.0.1:0"\n')) as host:
        answer = host.request("GET", "/hello/world", token=None)
        assert answer.text == '{"result":{"greeting":"Hello, world!"}}'
        assert answer.text in TEXT


PLUGINS = """
[plugins.counting]
module = "counting"

[plugins.guestbook]
module = "guestbook"

[plugins.moods]
module = "moods"

[plugins.sqlite_files]
module = "sqlite_files"
"""


def test_the_plugins_of_the_page(tmp_path: Path) -> None:
    write_files(tmp_path)
    with running(tmp_path, CONFIG + PLUGINS) as host:
        assert all(plugin["failed"] is None for plugin in host.result("GET", "/plugins"))
        _the_guestbook(host)
        _queries(host)
        _replication(host, tmp_path)
        _the_alarm(host)
        assert host.stop() == 0
    assert "guestbook: answered" in host.log


def _signed(host: HostProcess) -> list[str]:
    return [entry["name"] for entry in host.result("GET", "/guestbook/entries")]


def _the_guestbook(host: HostProcess) -> None:
    answer = host.request("POST", "/guestbook/entries", {"name": "Bea"}, token=None)
    assert (answer.status_code, answer.text) == (201, '{"result":{"greeting":"Welcome"}}')
    assert answer.text in TEXT
    answer = host.request("POST", "/guestbook/entries", {"name": "Ada"}, token=None)
    assert answer.json() == {"result": {"greeting": "Welcome Ada, what a fine day!"}}
    bodies: list[Any] = [{}, [], {"name": ""}]
    for wrong in bodies:
        assert host.request("POST", "/guestbook/entries", wrong, token=None).status_code == 400
    assert host.request("GET", "/guestbook/entries", token=None).status_code == 401
    assert _signed(host) == ["Bea", "Ada"]
    listed = host.command("guestbook")
    assert re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z  (Bea|Ada)\n){2}", listed.stdout), listed


def _queries(host: HostProcess) -> None:
    def rows(sql: str, token: str) -> int:
        return len(host.request("POST", "/query/raw", {"sql": sql}, token=token).json()["result"]["rows"])

    assert host.query("SELECT 1 ; ") == [[1]]
    many = "WITH n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200) SELECT i FROM n"
    assert (rows(many, CLIENT), len(host.query(many))) == (1000, 1200)
    long = {"sql": f"SELECT '{'x' * 10_000}'"}
    refused = host.request("POST", "/query", long, token=CLIENT)
    assert refused.status_code == 403
    assert refused.json()["error"] in TEXT
    assert host.request("POST", "/query", long).status_code == 200


def _replication(host: HostProcess, directory: Path) -> None:
    people = directory / "people.db"
    file = apsw.Connection(str(people))
    file.execute("CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT, updated_at DATETIME)")
    file.execute("INSERT INTO people VALUES (1, 'Ada', '2026-01-01 10:00:00'), (2, 'Bea', '2026-01-01 11:00:00')")
    body = {
        "name": "people", "sourceTable": "people", "targetTable": "people", "trackingColumn": "updated_at",
        "isActive": False, "deletes": "reconcile", "deletesMaxShare": 1,
    }  # fmt: skip
    wrong = host.request(
        "POST", "/data-replication/configure", {**body, "sourceConfig": {"dialect": "sqlite", "host": "x"}}
    )
    assert wrong.status_code == 400
    for field in ("sourceConfig.file", "sourceConfig.host"):
        assert field in wrong.json()["error"]
    host.configure(**body, sourceConfig={"dialect": "sqlite", "file": str(people)})
    assert host.sync("people")["records_processed"] == 2
    file.execute("UPDATE people SET name = 'Béa', updated_at = '2026-01-01 12:00:00' WHERE id = 2")
    file.execute("INSERT INTO people VALUES (3, 'Cleo', '2026-01-01 12:00:01')")
    assert host.sync("people")["status"] == "success"
    assert host.query("SELECT id, name FROM people") == [[1, "Ada"], [2, "Béa"], [3, "Cleo"]]

    # What no sync sees is found by reading the source.
    file.execute("UPDATE people SET name = 'Ida' WHERE id = 1; DELETE FROM people WHERE id = 2")
    found = host.result("POST", "/data-replication/verify/people", {"repair": True})
    assert (found["missing"], found["extra"], found["different"], found["changed"]) == (0, 1, 1, 2)
    assert host.query("SELECT id, name FROM people") == [[1, "Ida"], [3, "Cleo"]]
    file.execute("DELETE FROM people WHERE id = 3")
    assert host.result("POST", "/data-replication/reconcile/people")["changed"] == 1
    assert host.query("SELECT id FROM people") == [[1]]
    until(lambda: host.result("GET", "/counting") >= 2, what="the events of the syncs")

    file.execute("DROP TABLE people")
    file.close()
    assert host.request("POST", "/data-replication/sync/people").status_code == 502
    until(lambda: "people has failed" in _signed(host), what="the event of the failure")


def _the_alarm(host: HostProcess) -> None:
    # /query writes to no table of a plugin's; another process may.
    with contextlib.closing(apsw.Connection(str(host.database))) as connection:
        connection.set_busy_timeout(5000)
        connection.execute("UPDATE tmp_guestbook SET at = 0 WHERE name = 'Bea'")
        connection.execute("UPDATE tmp_alarms SET at = 1 WHERE plugin = 'guestbook' AND name = 'forget'")
    until(lambda: "Bea" not in _signed(host), what="the alarm")
    assert "Ada" in _signed(host)
    again = "SELECT at > 1000 FROM tmp_alarms WHERE plugin = 'guestbook'"
    until(lambda: host.query(again) == [[1]], what="the next alarm")


@pytest.mark.anyio
async def test_the_dialect_of_the_page_conforms(tmp_path: Path) -> None:
    module: dict[str, Any] = {}
    exec(compile(files()["sqlite_files.py"], "sqlite_files.py", "exec"), module)
    right = sqlite_sample(tmp_path)
    file = str(right.settings["file"])
    # Its source has one writer, so no transaction holds a lower value, and its settings have no secret.
    await check_all(
        replace(
            right,
            dialect=module["SqliteDialect"](),
            settings={"dialect": "sqlite", "file": file},
            secrets=(),
            hold=None,
            elsewhere={"dialect": "sqlite", "file": "/other.db"},
            connections=None,
            broken={"file": {"dialect": "sqlite", "file": "/none.db"}},
        )
    )


def test_the_test_of_the_page(tmp_path: Path) -> None:
    write_files(tmp_path)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"),
            *("test_guestbook.py", "test_receipts.py"),
        ],
        cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout


def test_a_column_is_hidden_from_clients_alone(tmp_path: Path) -> None:
    page = TRANSFORM.read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n# hide_emails\.py\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    config = re.findall(r"^```toml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[-1]
    (tmp_path / "hide_emails.py").write_text(code, encoding="utf-8")
    with running(tmp_path, CONFIG + config) as host:
        host.query("CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT)")
        host.query("INSERT INTO users VALUES (1, 'ada@example.com')")
        assert host.query("SELECT email FROM users") == [["ada@example.com"]]
        sql = "SELECT id, email FROM users"
        answer = host.request("POST", "/query/raw", {"sql": sql}, token=CLIENT)
        assert answer.json()["result"]["rows"] == [[1, None]]


def test_the_error_of_the_page(tmp_path: Path) -> None:
    write_files(tmp_path)
    answer = HostProcess(tmp_path, '[plugins.guestbook]\nmodule = "guestbook"\ngreting = "x"\n').command("serve")
    assert answer.returncode == 2
    assert answer.stderr in textwrap.dedent(TEXT[TEXT.index("    starbase: plugin.toml") :])

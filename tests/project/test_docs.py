"""The pages held to the code: keys, defaults and bounds; examples that work; routes, commands and links that exist."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
import xml.etree.ElementTree
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
from scripts import reference

from starbase_data_replication.cli import commands
from starbase_data_replication.config import parse as config
from starbase_data_replication.config.fields import FIELDS
from starbase_data_replication.plugin import OPTIONS
from starbase_data_replication.sources.mysql import settings as mysql
from starbase_data_replication.sources.mysql.dialect import MysqlDialect
from starbase_data_replication.sources.postgresql import settings as postgresql
from starbase_data_replication.sources.postgresql.dialect import PostgresqlDialect
from starbase_data_replication.sources.protocols import Dialect
from starbase_data_replication.sources.settings.allowed_variables import DEFAULT, Variables
from starbase_host import CommandHost, sandbox_rules
from starbase_host.config import HOST_KEYS, HostConfig
from starbase_host.config import parse as parse_toml
from tests.support.hosts import ADMIN, CONFIG, running, until
from tests.support.packages import ROOT
from tests.support.servers import TestDatabase

README = ROOT / "README.md"
QUICKSTART = ROOT / "docs" / "quickstart.md"
HTTP = ROOT / "docs" / "reference" / "http.md"
COMMAND_LINE = ROOT / "docs" / "reference" / "command-line.md"
STATUS = ROOT / "docs" / "reference" / "status-and-events.md"
TABLES = ROOT / "docs" / "reference" / "tables.md"
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("plugins/*/*.md"), *ROOT.glob("examples/*/*.md")]
)
README_WORDS = 700
DIALECTS: dict[str, Dialect] = {"postgresql": PostgresqlDialect(), "mysql": MysqlDialect()}
Table = dict[str, dict[str, str]]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def tables(page: Path) -> dict[str, Table]:
    """Heading to its table: the name in the first cell, to the row's other cells by their column's name."""
    found: dict[str, Table] = {}
    heading, columns = "", [""]
    for line in page.read_text().splitlines():
        if line.startswith("#"):
            heading = line.strip("# ").replace("`", "")
        elif line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if heading not in found:
                found[heading], columns = {}, cells
            elif not cells[0].startswith("---"):
                found[heading][cells[0].strip("`")] = dict(zip(columns, cells, strict=True))
    return found


CONFIGURATION = tables(ROOT / "docs" / "reference" / "configuration.md")


def bounds(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.13g} to {high:.13g}"


def test_every_key_of_the_host_is_documented() -> None:
    table = CONFIGURATION["[host]"]
    assert set(table) == set(HOST_KEYS)
    for key, (_, low, high) in HOST_KEYS.items():
        default = getattr(HostConfig, key)
        expected = "none" if default is None else f"`{default:g}`" if isinstance(default, float) else f"`{default}`"
        assert (table[key]["Default"], table[key]["Bounds"]) == (expected, bounds(low, high)), key


LENGTHS = {"64 MiB": 64 << 20, "4 MiB": 4 << 20, "1 MiB": 1 << 20, "64 KiB": 64 << 10}


def test_what_a_query_may_do_is_documented() -> None:
    functions = {
        length: set(re.findall("`([^`]+)`", row["Functions"]))
        for length, row in CONFIGURATION["Functions of a query"].items()
    }
    expected = {
        length: {name for name, limit in sandbox_rules.CLIENT_FUNCTIONS.items() if limit == number}
        for length, number in LENGTHS.items()
    }
    assert functions == {**expected, "admin alone": set(sandbox_rules._ADMIN.split())}
    client = {name: row["Client"] for name, row in CONFIGURATION["Limits of a query"].items()}
    assert client["Characters of `sql"] == f"{sandbox_rules.CLIENT_SQL_CHARACTERS:,}"
    assert client["Bytes of a pattern of LIKE or GLOB"] == str(sandbox_rules.CLIENT_PATTERN_BYTES)
    assert client["Steps of its program"] == f"{sandbox_rules.CLIENT_PROGRAM_STEPS:,}"


def test_every_field_of_the_status_is_documented(tmp_path: Path) -> None:
    (section,) = re.findall(r"^## Status\n(.*?)^## ", STATUS.read_text(), re.DOTALL | re.MULTILINE)
    said = set(re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in section.splitlines() if "|" in line)))
    source = {"dialect": "postgresql", "host": "127.0.0.1", "port": 1, "user": "u"}
    with running(tmp_path) as host:
        host.configure(name="t", sourceConfig=source, sourceTable="t", targetTable="t", isActive=False)
        assert set(host.status("t")) == said
        # The tables behind it, the ones that exist only during a run apart.
        pages = tables(TABLES)
        for name in ("tmp_replication_configs", "tmp_replication_logs"):
            listed = {column.strip("`") for cell in pages[name] for column in cell.split(", ")}
            assert listed == {row[0] for row in host.query(f"SELECT name FROM pragma_table_info('{name}')")}
        others = {name for name in pages["The others"] if not name.endswith("_<id>")}
        found = host.query("SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE 'tmp_replication_%'")
        assert {row[0] for row in found} == {*others, "tmp_replication_configs", "tmp_replication_logs"}


def test_every_option_of_the_plugin_is_documented() -> None:
    table = CONFIGURATION["[plugins.data_replication]"]
    assert set(table) == {*OPTIONS, "allowed_source_hosts", "allowed_env"}
    assert re.findall("`([^`]+)`", table["allowed_env"]["Default"]) == list(DEFAULT)
    for key, (_, default, low, high) in OPTIONS.items():
        assert (table[key]["Default"], table[key]["Bounds"]) == (f"`{default:g}`", bounds(low, high)), key


def test_the_table_of_configure_is_written_from_its_declarations() -> None:
    page = reference.PAGE.read_text(encoding="utf-8")
    assert reference.BEGIN in page
    assert reference.END in page
    assert page == reference.page(page), "run python scripts/reference.py"
    assert set(CONFIGURATION["A replication"]) == set(reference.NOTES) == {field.json for field in FIELDS}


POSTGRESQL_DEFAULTS = {
    "port": postgresql.DEFAULT_PORT,
    **{one.name: one.default for one in fields(postgresql.PostgresqlSettings)},
    "defaultSchema": postgresql.DEFAULT_SCHEMA,
}
MYSQL_DEFAULTS = {
    **{one.name: one.default for one in fields(mysql.MysqlSettings)},
    "port": mysql.DEFAULT_PORT,
    "sslMode": mysql.MysqlSettings.ssl_mode,
}


@pytest.mark.parametrize(
    ("heading", "names", "defaults"),
    [
        ("sourceConfig: postgresql", {*postgresql.KEYS, "connectionString"}, POSTGRESQL_DEFAULTS),
        ("postgresql: connection string", set(postgresql.PARAMETERS), POSTGRESQL_DEFAULTS),
        ("sourceConfig: mysql", {*mysql.KEYS, "connectionString"}, MYSQL_DEFAULTS),
        ("mysql: connection string", set(mysql.PARAMETERS), MYSQL_DEFAULTS),
    ],
)
def test_every_key_and_parameter_of_a_dialect_is_documented(
    heading: str, names: set[str], defaults: dict[str, Any]
) -> None:
    table = CONFIGURATION[heading]
    # Other spellings of a parameter stand in the meaning of the first.
    said = set(table) | {word for row in table.values() for word in re.findall("`([^`]+)`", row["Meaning"])}
    assert set(table) <= names <= said
    for name, row in table.items():
        if row["Default"].startswith("`"):
            assert row["Default"] == f"`{defaults[name]}`", name
        elif row["Default"] == "" and "As the key" not in row["Meaning"]:
            pytest.fail(f"{name} has neither a default nor a key that it stands for")


@pytest.mark.parametrize(
    ("heading", "key", "choices"),
    [
        ("sourceConfig: postgresql", "sslmode", postgresql.SSL_MODES),
        ("postgresql: connection string", "target_session_attrs", postgresql.SESSION_ATTRIBUTES),
        ("sourceConfig: mysql", "sslMode", mysql.SSL_MODES),
    ],
)
def test_every_choice_is_documented(heading: str, key: str, choices: tuple[str, ...]) -> None:
    for choice in choices:
        assert f"`{choice}`" in CONFIGURATION[heading][key]["Meaning"]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("heading", "key", "url"),
    [
        ("sourceConfig: {}", "port", "{}://u:p@h:{{}}/d"),
        ("{}: connection string", "connect_timeout", "{}://u:p@h/d?connect_timeout={{}}"),
    ],
)
def test_the_bounds_of_a_dialect_are_the_documented_ones(dialect: str, heading: str, key: str, url: str) -> None:
    low, high = map(int, CONFIGURATION[heading.format(dialect)][key]["Bounds"].split(" to "))
    for value, accepted in ((low - 1, False), (low, True), (high, True), (high + 1, False)):
        settings = {"dialect": dialect, "connectionString": url.format(dialect).format(value)}
        assert (not DIALECTS[dialect].check(settings, "t")) == accepted, value


def bodies() -> Iterator[tuple[Path, Any]]:
    """Every JSON text of the pages, those in curl commands too."""
    for page in PAGES:
        for block in blocks(page, "json"):
            yield page, json.loads(block)
        for _, _, body in curls(page):
            if body is not None:
                yield page, json.loads(body)


def curls(page: Path) -> Iterator[tuple[str, str, str | None]]:
    """Method, path and body of every curl command of a page; its address begins with $URL."""
    for block in blocks(page, "sh"):
        if "curl" not in block:
            continue
        words = shlex.split(block, comments=True)
        starts = [index for index, word in enumerate(words) if word == "curl"]
        for start, end in zip(starts, [*starts[1:], len(words)], strict=True):
            options = words[start:end]
            body = options[options.index("-d") + 1] if "-d" in options else None
            method = options[options.index("-X") + 1] if "-X" in options else "GET" if body is None else "POST"
            yield from ((method, word.removeprefix("$URL"), body) for word in options if word.startswith("$URL/"))


def test_every_json_text_parses_and_every_configuration_is_accepted() -> None:
    configured = 0
    first = json.loads(next(body for _, _, body in curls(QUICKSTART) if body is not None))
    existing = config.parse(first, existing=None, dialects=DIALECTS, variables=Variables())
    for page, body in bodies():
        if isinstance(body, dict) and "name" in body and "sourceConfig" not in body:
            # A change of what is there.
            config.parse({**body, "name": existing.name}, existing=existing, dialects=DIALECTS)
        elif isinstance(body, dict) and "sourceConfig" in body:
            config.parse(body, existing=None, dialects=DIALECTS, variables=Variables())
            configured += 1
        elif isinstance(body, dict) and "dialect" in body:
            assert DIALECTS[body["dialect"]].check(body, "t") == {}, page
            configured += 1
    assert configured >= 10


def test_every_toml_text_is_accepted() -> None:
    class Everything(dict[str, str]):
        """An environment in which every variable is set, to its own name."""

        def __contains__(self, name: object) -> bool:
            return True

        def __missing__(self, name: str) -> str:
            return name

    for page in PAGES:
        for block in blocks(page, "toml"):
            document = tomllib.loads(block)
            if "project" not in document:
                parse_toml(document, path=page, environ=Everything())


def test_every_python_text_compiles() -> None:
    for page in PAGES:
        for block in blocks(page, "python"):
            compile(block, page.name, "exec")


def test_every_curl_reaches_a_route_and_the_examples_in_python_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (plugin,) = blocks(STATUS, "python")
    (tmp_path / "notify.py").write_text(plugin)
    (client,) = blocks(HTTP, "python")
    requests = [(method, path) for page in PAGES for method, path, _ in curls(page)]
    assert len(requests) >= 25
    with running(tmp_path, CONFIG + '\n[plugins.notify]\nmodule = "notify"\n') as host:
        for method, path in requests:
            # Without a token every route but two refuses; what is not a route is not found even so.
            assert host.request(method, path, token=None).status_code == (
                200 if path in ("/health", "/openapi.json") else 401
            ), path
        assert [each["failed"] for each in host.result("GET", "/plugins")] == [None, None]
        monkeypatch.setenv("ADMIN_AUTHORIZATION_TOKEN", ADMIN)
        exec(client.replace("http://127.0.0.1:8000", host.url), {})
        assert host.status("product-catalog")["source_table"] == "products"


def test_the_readme_replicates_a_table_with_one_command_and_queries_it(
    tmp_path: Path, postgres_database: TestDatabase
) -> None:
    """What the README shows, on a real database: only the addresses and the user are others."""
    postgres_database.execute("CREATE TABLE orders (id int PRIMARY KEY, updated_at timestamptz NOT NULL DEFAULT now())")
    postgres_database.execute("INSERT INTO orders SELECT number FROM generate_series(1, 5005) AS number")
    shell = blocks(README, "sh")
    (configure,) = (block for block in shell if "replication configure" in block)
    (query,) = (block for block in shell if "/query" in block)
    (answer,) = (json.loads(block) for block in blocks(README, "json"))
    server = postgres_database.server
    here = f"{server.user}:${{PG_PASSWORD}}@{server.host}:{server.port}/{postgres_database.name}"
    assert "reader:${PG_PASSWORD}@db.example.com/shop" in configure
    configure = configure.replace("reader:${PG_PASSWORD}@db.example.com/shop", here)
    config = '[host]\nbind = "127.0.0.1:0"\n\n[plugins.data_replication]\n'
    with running(tmp_path, config, environ={"PG_PASSWORD": server.password}) as host:
        command = f'starbase() {{ {shlex.quote(sys.executable)} -m starbase_host.cli "$@"; }}\n{configure}'
        done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, "Replication configured successfully\n"), done.stderr
        # The token stands in the file that the README names.
        (token_file,) = re.findall(r"^TOKEN=\$\(cat (\S+)\)$", query, re.MULTILINE)
        words = shlex.split(query.partition("\n")[2])
        assert words[:3] == ["curl", "-H", "Authorization: Bearer $TOKEN"]
        headers = {"authorization": f"Bearer {(tmp_path / token_file).read_text().strip()}"}
        url = words[3].replace("http://127.0.0.1:8000", host.url)
        body = words[words.index("-d") + 1]
        # The first sync is under way: until it has made the table, the query is wrong.
        until(lambda: httpx.post(url, headers=headers, content=body).json() == answer, what="the README's answer")


def test_the_readme_is_short_and_begins_with_the_two_commands() -> None:
    lines = README.read_text().splitlines()
    assert len(README.read_text().split()) <= README_WORDS
    assert [line.split(" #")[0].strip() for line in lines[:12] if line.startswith("make ")] == ["make run", "make test"]


@pytest.mark.parametrize("picture", sorted(ROOT.glob("docs/**/*.svg")), ids=lambda picture: picture.name)
def test_every_picture_is_described_and_has_colours_for_dark(picture: Path) -> None:
    text = picture.read_text()
    root = xml.etree.ElementTree.fromstring(text)
    names = [child.tag.rpartition("}")[2] for child in root]
    assert names[:2] == ["title", "desc"]
    assert "@media (prefers-color-scheme: dark)" in text
    # Each text lies on a ground of the picture, whose colour changes with the text's.
    assert 'class="page"' in text


def test_every_command_of_replications_is_documented() -> None:
    host = CommandHost(HostConfig(), json_output=False)
    (group,) = (each for each in commands(host) if isinstance(each, click.Group))
    (block,) = blocks(COMMAND_LINE, "sh")
    assert set(re.findall(r"^starbase replication ([\w-]+)", block, re.MULTILINE)) == set(group.commands)
    options = {option for each in group.commands.values() for one in each.params for option in one.opts}
    assert set(re.findall(r"--\w+", block)) - {"--json"} == {name for name in options if name.startswith("--")}


def test_every_page_is_reached_from_the_readme() -> None:
    reached, waiting = set(), [README]
    while waiting:
        page = waiting.pop()
        page = page / "README.md" if page.is_dir() else page
        if page in reached or page.suffix != ".md" or not page.exists():
            continue
        reached.add(page)
        links = re.findall(r"\]\(([^)#\s]+)", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL))
        waiting += [(page.parent / link).resolve() for link in links if ":" not in link]
    assert set(PAGES) - reached == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_resolves(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def anchors(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_test_that_is_named_exists() -> None:
    page = (ROOT / "docs" / "explanation" / "reliability.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", page)
    assert len(named) >= 40
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(), f"{file}::{test}"


def test_every_claim_of_protection_names_what_shows_it() -> None:
    page = (ROOT / "docs" / "explanation" / "consistency.md").read_text()
    rows = page.partition("| the source | needs | protection | shown by |")[2].partition("\n\n")[0].splitlines()[2:]
    assert len(rows) >= 10
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+/test_\w+\.py)`", row.split(" | ")[-1])
        assert named, row
        assert all((ROOT / path).exists() for path in named), row


def test_nothing_is_left_undone() -> None:
    words = re.compile(rb"\b(%s)\b" % b"|".join((b"TO" + b"DO", b"FIX" + b"ME")))
    caches = {"__pycache__", "build", "dist", "data"}
    for path in ROOT.rglob("*"):
        parts = path.relative_to(ROOT).parts
        hidden = any(part in caches or (part.startswith(".") and part != ".ci") for part in parts)
        if not hidden and path.is_file():
            assert words.search(path.read_bytes()) is None, path

"""The example of a third party's plugin, as a third party has it: installed, found by its entry point, and used."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

from tests.support import forks
from tests.support.hosts import CLIENT, CONFIG, HostProcess, running, until
from tests.support.packages import ROOT
from tests.support.servers import TestDatabase

# One environment serves them all, so they run in one process.
pytestmark = pytest.mark.xdist_group("example_plugin")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment with two packages: the host and the example.

    What they depend on it sees where this process has it, so that nothing is downloaded. Not installed there
    are the checkout itself, however this process finds it, and any plugin.
    """
    directory = tmp_path_factory.mktemp("venv")
    venv.create(directory, with_pip=False)
    fresh = directory / "bin" / "python"
    (site,) = directory.glob("lib/python*/site-packages")
    (site / "shared.pth").write_text("".join(f"{path}\n" for path in sys.path if path.endswith("-packages")))
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(fresh), "install", "--quiet"),
            *("--no-index", "--no-deps", "--no-build-isolation", "--ignore-installed"),
            *(str(ROOT), str(ROOT / "examples" / "audit_plugin")),
        ],
        check=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    where = [str(fresh), "-c", "import starbase_host, starbase_audit; print(starbase_host.__file__)"]
    found = subprocess.run(where, check=True, capture_output=True, text=True).stdout
    assert Path(found).is_relative_to(directory), "the host is not the one that was installed"
    return fresh


@pytest.fixture
def installed(python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts are started from the fresh environment."""
    monkeypatch.setattr(forks, "interpreter", str(python))


def entries(host: HostProcess) -> list[tuple[str, str]]:
    found: list[dict[str, Any]] = host.result("GET", "/audit/entries")
    assert all(set(entry) == {"at", "what", "detail"} for entry in found)
    return [(entry["what"], entry["detail"]) for entry in found]


@pytest.mark.usefixtures("installed")
def test_the_audit_plugin(python: Path, embedded_database: TestDatabase, tmp_path: Path) -> None:
    embedded_database.execute("CREATE TABLE orders (id int PRIMARY KEY, note text)")
    embedded_database.execute("INSERT INTO orders VALUES (1, 'one'), (2, 'two')")
    config = CONFIG + "\n[plugins.audit]\nkeep_days = 1\n"
    with running(tmp_path, config) as host:
        plugins = {plugin["name"]: plugin for plugin in host.result("GET", "/plugins")}
        assert plugins["audit"]["origin"] == "entry point audit"
        assert plugins["audit"]["prefix"] == "/audit"
        assert {"after_query", "on_alarm", "replication_event"} < set(plugins["audit"]["hooks"])

        # replication_event
        host.configure(
            name="shop", sourceConfig=embedded_database.source_config, sourceTable="orders", targetTable="orders",
            isActive=False,
        )  # fmt: skip
        assert host.sync("shop")["records_processed"] == 2
        until(lambda: entries(host) == [("sync success", "shop: 2 rows")], what="the trail of the sync")
        embedded_database.execute("DROP TABLE orders")
        assert host.request("POST", "/data-replication/sync/shop").status_code == 502
        until(lambda: entries(host)[0] == ("sync error", "shop: 0 rows"), what="the trail of the failure")

        # after_query
        assert host.query("SELECT note FROM orders ORDER BY id") == [["one"], ["two"]]
        host.request("POST", "/query", {"sql": "SELECT 1"}, token=CLIENT)
        assert host.request("POST", "/query", {"sql": "SELECT wrong"}).status_code == 400
        assert entries(host)[:2] == [
            ("query by client", "SELECT 1: 1 rows"),
            ("query by admin", "SELECT note FROM orders ORDER BY id: 2 rows"),
        ]

        # The route is an admin's, and the table nothing that a client sees.
        assert host.request("GET", "/audit/entries", token=CLIENT).status_code == 403
        assert host.request("GET", "/audit/entries", token=None).status_code == 401
        select = {"sql": "SELECT * FROM tmp_audit"}
        assert host.request("POST", "/query", select, token=CLIENT).status_code == 403

        # The alarm has fired at start, and is set again.
        ((due,),) = host.query("SELECT at FROM tmp_alarms WHERE plugin = 'audit' AND name = 'prune'")
        assert host.stop() == 0

    # on_alarm: what is older than it may be is gone after the next start.
    with running(tmp_path, config.replace("keep_days = 1", "keep_days = 1e-9")) as host:
        until(lambda: entries(host) == [], what="the pruning")
        ((again,),) = host.query("SELECT at FROM tmp_alarms WHERE plugin = 'audit' AND name = 'prune'")
        assert again > due
        assert host.stop() == 0


@pytest.mark.usefixtures("installed")
def test_it_starts_without_the_data_replication_plugin(tmp_path: Path) -> None:
    config = CONFIG.replace("[plugins.data_replication]", "[plugins.audit]")
    with running(tmp_path, config) as host:
        assert host.query("SELECT 1") == [[1]]
        assert entries(host) == [("query by admin", "SELECT 1: 1 rows")]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ("keep_day = 1", "plugin.toml: plugins.audit.keep_day: unknown option; known: keep_days"),
        ("keep_days = 0", "plugin.toml: plugins.audit.keep_days must be a number above 0"),
        ("keep_days = true", "plugin.toml: plugins.audit.keep_days must be a number above 0"),
    ],
)
def test_its_options(options: str, error: str, tmp_path: Path) -> None:
    answer = HostProcess(tmp_path, f"{CONFIG}\n[plugins.audit]\n{options}\n").command("serve")
    assert answer.returncode == 2
    assert answer.stderr == f"starbase: {error}\n"

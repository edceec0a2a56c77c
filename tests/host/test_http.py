"""The host over HTTP: the one envelope, bodies, CORS, the lock, the token it makes."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from starbase_host import ConfigError
from starbase_host.modes import remove_other_access
from tests.support.hosts import ADMIN, CLIENT, CONFIG, HostProcess, running


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    with running(tmp_path_factory.mktemp("host")) as host:
        yield host


ALLOWED = "access-control-allow-origin"


def asked(host: HostProcess, path: str, method: str, origin: str = "https://page.example") -> dict[str, str]:
    """What a browser is answered that asks leave for a page; and the answer without asking says the same of origins."""
    before = {"origin": origin, "access-control-request-method": method}
    response = httpx.request("OPTIONS", f"{host.url}{path}", headers=before)
    assert (response.status_code, response.content) == (204, b"")
    answer = httpx.request(method, f"{host.url}{path}", headers={"origin": origin})
    assert answer.headers.get(ALLOWED) == response.headers.get(ALLOWED), path
    return dict(response.headers)


def test_pages_of_any_origin_may_call_what_a_client_may(host: HostProcess) -> None:
    for path, method in (("/query", "POST"), ("/query/raw", "POST"), ("/tables", "GET"), ("/health", "GET")):
        headers = asked(host, path, method)
        assert headers[ALLOWED] == "*", path
        for name in ("Authorization", "Content-Type", "X-Starbase-Source", "X-Data-Source"):
            assert name in headers["access-control-allow-headers"]
        assert "DELETE" in headers["access-control-allow-methods"]


def test_pages_may_not_call_what_is_an_admins(host: HostProcess) -> None:
    for path, method in (
        ("/status", "GET"), ("/plugins", "GET"), ("/data-replication/configure", "POST"),
        ("/data-replication/configure/x", "DELETE"), ("/data-replication/status", "GET"),
    ):  # fmt: skip
        assert not {ALLOWED, "access-control-allow-headers"} & set(asked(host, path, method)), path


def test_only_pages_of_the_origins_that_are_named(tmp_path: Path) -> None:
    origins = 'cors_origins = ["https://app.example.com", "http://localhost:3000"]\n'
    with running(tmp_path, CONFIG.replace("[plugins", origins + "\n[plugins", 1)) as host:
        for path, method in (("/query", "POST"), ("/status", "GET"), ("/data-replication/configure", "POST")):
            for origin in ("https://app.example.com", "http://localhost:3000"):
                headers = asked(host, path, method, origin)
                assert (headers[ALLOWED], headers["vary"]) == (origin, "Origin")
            for origin in ("https://app.example.com.evil", "https://app.example.com:444", "null", "*"):
                assert ALLOWED not in asked(host, path, method, origin)


@pytest.mark.parametrize(
    "origin", ['"app.example.com"', '"https://a/"', '"https://A.example"', "7", '"https://a, https://b"']
)
def test_an_invalid_origin_stops_the_start(origin: str, tmp_path: Path) -> None:
    changed = CONFIG.replace("[plugins", f"cors_origins = [{origin}]\n[plugins", 1)
    done = HostProcess(tmp_path, changed).command("plugins")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "host.cors_origins[0] must be an origin" in done.stderr


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("GET", "/query", 405), ("DELETE", "/health", 405), ("GET", "/data-replication/x", 404)],
)
def test_unknown_routes_and_wrong_methods(host: HostProcess, method: str, path: str, status: int) -> None:
    response = host.request(method, path)
    assert response.status_code == status
    assert set(response.json()) == {"error"}


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[1", b"nonsense", b'{"sql": NaN}', b"\xff\xfe", b"[" * 100_000, b'{"sql": "SELECT 1", "sql2": 1}',
        b"[]", b"1", b'"x"', b"null", b'{"sql": 1}', b'{"sql": ""}', b'{"transaction": []}', b'{"transaction": [1]}',
        b'{"sql": "SELECT 1", "params": 3}', b'{"sql": "SELECT 1", "params": [1]}', b'{"sql": "SELECT ?"}',
        b'{"sql": "SELECT ?", "params": [' + b"9" * 10_000 + b"]}", b'{"transaction": [{}], "sql": "SELECT 1"}',
    ],
)  # fmt: skip
def test_a_body_that_is_wrong_is_a_400(host: HostProcess, body: bytes) -> None:
    response = host.request("POST", "/query", body)
    assert response.status_code == 400, response.text
    assert isinstance(response.json()["error"], str)


def test_a_body_that_is_too_large_is_a_413(host: HostProcess) -> None:
    assert host.request("POST", "/query", b" " * (4 * 1024 * 1024 + 1)).status_code == 413


def test_query_answers_objects_and_raw_answers_rows(host: HostProcess) -> None:
    sql = "SELECT 1 AS a, 2 AS a, :x AS b"
    assert host.result("POST", "/query", {"sql": sql, "params": {"x": "é"}}) == [{"a": 2, "b": "é"}]
    raw = host.result("POST", "/query/raw", {"sql": sql, "params": {"x": None}})
    assert raw["columns"] == ["a", "a", "b"]
    assert raw["rows"] == [[1, 2, None]]
    assert set(raw["meta"]) == {"rows_read", "rows_written"}


def test_a_transaction_is_atomic(host: HostProcess) -> None:
    host.result("POST", "/query", {"sql": "CREATE TABLE IF NOT EXISTS account (id INTEGER PRIMARY KEY, n INTEGER)"})
    good = [{"sql": "INSERT INTO account (n) VALUES (?)", "params": [1]}, {"sql": "SELECT count(*) AS n FROM account"}]
    assert host.result("POST", "/query", {"transaction": good}) == [[], [{"n": 1}]]
    bad = [{"sql": "DELETE FROM account"}, {"sql": "SELECT nonsense"}]
    assert host.request("POST", "/query", {"transaction": bad}).status_code == 400
    assert host.query("SELECT count(*) FROM account") == [[1]]


def test_health_and_status_show_no_secret(host: HostProcess) -> None:
    assert host.request("GET", "/health", token=None).json() == {"result": {"status": "ready"}}
    status = host.request("GET", "/status").text
    assert ADMIN not in status
    assert CLIENT not in status


def test_a_second_host_is_kept_off_the_database(tmp_path: Path) -> None:
    with running(tmp_path) as host:
        second = host.command("serve")
        assert second.returncode == 4
        assert second.stderr.count("\n") == 1
        assert str(host.pid) in second.stderr
        assert host.request("GET", "/health", token=None).status_code == 200
    # The lock of a host that was killed does not outlive it.
    again = HostProcess(tmp_path).start()
    again.kill()
    again.start()
    assert again.stop() == 0


def test_without_an_admin_token_the_host_makes_one(tmp_path: Path) -> None:
    config = CONFIG.replace(f'admin_token = "{ADMIN}"\n', "")
    with running(tmp_path, config) as host:
        file = tmp_path / "data" / "starbase.db.admin-token"
        token = file.read_text().strip()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert len(token) >= 32
        assert str(file) in (tmp_path / "host.out").read_text()
        assert token not in host.log + (tmp_path / "host.out").read_text()
        assert host.request("GET", "/status", token=token).status_code == 200
        host.stop()
        host.start()
        assert file.read_text().strip() == token


WRONG_CONFIGS = {
    "no table": ("host = 1", "host must be a table"),
    "not toml": ("[host", "is not TOML"),
    "unknown key": ("[host]\nbindd = 'x'", "host.bindd: unknown key; did you mean bind?"),
    "unknown table": ("[hosts]", "hosts: unknown key; did you mean host?"),
    "bad bind": ("[host]\nbind = 'x'", "host.bind must be ADDRESS:PORT"),
    "bad type": ("[host]\nmax_query_rows = true", "host.max_query_rows must be a whole number"),
    "no string": ("[host]\nbind = 8000", "host.bind must be a string"),
    "no number": ("[host]\nmax_query_seconds = 'x'", "host.max_query_seconds must be a number"),
    "no boolean": (
        "[plugins.data_replication]\nenabled = 1",
        "plugins.data_replication.enabled must be true or false",
    ),
    "large bounds": ("[host]\nmax_query_rows = 0", "must be between 1 and 10000000"),
    "large bounds of a plugin": (
        "[plugins.data_replication]\nlog_max_runs_per_replication = 0",
        "must be a whole number from 1 to 10000000",
    ),
    "out of bounds": ("[host]\nmax_query_rows = 0", "host.max_query_rows must be between"),
    "unset variable": ("[host]\nadmin_token = '${SURELY_NOT_SET}'", "SURELY_NOT_SET is not set"),
    "no reference": (
        "[host]\nadmin_token = '${ADMIN-TOKEN}'",
        "admin_token contains a ${ that is not part of a ${NAME}",
    ),
    "open reference": (
        "[host]\nadmin_token = 'x${TOK'",
        "admin_token contains a ${ that is not part of a ${NAME}",
    ),
    "empty reference": ("[plugins.data_replication]\nx = ['${}']", "plugins.data_replication.x[0] contains a ${"),
    "no database": ("[host]\ndatabase = ''", "host.database must name a file, such as data/starbase.db"),
    "NUL in a path": ('[host]\ndatabase = "a\\u0000b"', "host.database must name a file"),
    "a directory as database": ("[host]\ndatabase = '.'", "host.database: "),
    "a file of something else": ("[host]\ndatabase = 'plugin.toml'", "is not a usable SQLite database: "),
    "a file as directory": ("[host]\ndatabase = 'plugin.toml/x.db'", "host.database: "),
    "a name that is too long": (f"[host]\ndatabase = '{'x' * 300}'", "host.database: "),
    "no module": (
        "[plugins.a]\nmodule = ''",
        "a.module must be the name of a module, such as my_package.audit",
    ),
    "a script as module": ("[plugins.a]\nmodule = 'x.py'", "plugins.a.module must be the name of a module, such as"),
    "a file as module": ("[plugins.a]\nmodule = './x.py'", "plugins.a.module must be the name of a module, such as"),
    "same tokens": ("[host]\nadmin_token = 'a'\nclient_token = 'a'", "host.client_token is the same"),
    "missing plugin": ("[plugins.nothing]", "plugins.nothing: this plugin is not installed"),
    "unknown option": ("[plugins.data_replication]\nmax_concurrent_sync = 1", "did you mean max_concurrent_syncs?"),
    "wrong option": ("[plugins.data_replication]\nmax_concurrent_syncs = 0", "must be a whole number from 1"),
}


@pytest.mark.parametrize("case", WRONG_CONFIGS)
def test_a_wrong_configuration_is_one_line(tmp_path: Path, case: str) -> None:
    text, expected = WRONG_CONFIGS[case]
    (tmp_path / "plugin.toml").write_text(text)
    run = subprocess.run(
        [sys.executable, "-m", "starbase_host.cli", "serve"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 2, run.stderr
    assert run.stderr.startswith("starbase: plugin.toml")
    assert expected in run.stderr
    assert run.stderr.count("\n") == 1
    if "database" in run.stderr:
        assert re.match("starbase: plugin.toml: host.database:? ", run.stderr)
        assert re.search("name (another|a) file|must name a file", run.stderr)


def test_a_database_that_is_a_link_to_itself_is_one_line(tmp_path: Path) -> None:
    host = HostProcess(tmp_path)
    host.database.parent.mkdir()
    host.database.symlink_to(host.database)
    for words in (("serve",), ("replication", "list")):
        answer = host.command(*words)
        assert answer.returncode == 2, answer.stderr
        assert answer.stderr.startswith(f"starbase: plugin.toml: host.database: {host.database}")
        assert "name a file" in answer.stderr
        assert answer.stderr.count("\n") == 1


def test_a_plugin_toml_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    host = HostProcess(tmp_path)
    host.config_path.write_bytes(b"\xff")
    for words, error in (((), "is not UTF-8; save it as UTF-8"), (("--config", "/"), "Is a directory; name another")):
        answer = host.command("serve", *words)
        assert answer.returncode == 2, answer.stderr
        assert error in answer.stderr
        assert "Errno" not in answer.stderr
        assert answer.stderr.count("\n") == 1


def test_a_byte_order_mark_in_a_file_is_ignored(tmp_path: Path) -> None:
    """Some editors put one before every file that they save as UTF-8."""
    host = HostProcess(tmp_path)
    host.config_path.write_text("\ufeff" + CONFIG, encoding="utf-8")
    body = "\ufeff[]"
    (tmp_path / "body.json").write_text(body, encoding="utf-8")
    assert host.command("replication", "configure", str(tmp_path / "body.json"), "--json").stdout == "[]\n"
    assert host.command("replication", "configure", "-", "--json", stdin=body).stdout == "[]\n"


def test_a_command_needs_no_certificates(tmp_path: Path) -> None:
    """It speaks plain HTTP to its own host, even if the machine's certificates are broken."""
    with running(tmp_path) as host:
        host.environ["SSL_CERT_FILE"] = str(tmp_path / "nowhere")
        answer = host.command("replication", "list", "--json")
        assert (answer.returncode, answer.stdout) == (0, "[]\n"), answer.stderr


def test_the_standard_sqlite_module_is_refused_on_the_hosts_file(tmp_path: Path) -> None:
    """Two copies of SQLite in one process drop each other's locks; another file is not affected."""
    program = """
import importlib, pathlib, sys
from starbase_host.database import Database
database = Database(pathlib.Path("one.db"))
database.open()
other = importlib.import_module("sqlite3")
other.connect("two.db").close()
for name in ("one.db", "./one.db", "file:one.db?mode=ro"):
    try:
        other.connect(name, uri=name.startswith("file:")).close()
    except RuntimeError as error:
        assert "host.database" in str(error)
    else:
        sys.exit(f"{name} was opened")
database.close()
"""
    run = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_a_link_does_not_lead_past_the_lock(tmp_path: Path) -> None:
    with running(tmp_path) as host:
        link = tmp_path / "data" / "link.db"
        link.symlink_to(host.database)
        other = tmp_path / "other.toml"
        other.write_text(CONFIG.replace("data/starbase.db", "data/link.db"))
        second = host.command("serve", "--config", str(other))
        assert second.returncode == 4, second.stderr
        host.stop()
        link.unlink()
        link.hardlink_to(host.database)
        third = host.command("serve", "--config", str(other))
        assert third.returncode == 2
        assert "hard link" in third.stderr
        link.unlink()
        host.start()


def test_a_path_with_an_extra_slash_is_not_redirected(host: HostProcess) -> None:
    response = host.request("GET", "/data-replication/status/")
    assert response.status_code == 404
    assert set(response.json()) == {"error"}


def test_files_with_secrets_become_unreadable_for_others(tmp_path: Path) -> None:
    with running(tmp_path) as host:
        # A host that is killed leaves the files beside its database.
        host.kill()
    beside = [host.database.with_name(host.database.name + suffix) for suffix in ("", "-wal", "-shm")]
    for path, mode in zip([*beside, host.config_path], (0o666, 0o644, 0o644, 0o644), strict=True):
        path.chmod(mode)
    with host:
        assert [stat.S_IMODE(path.stat().st_mode) for path in beside] == [0o660, 0o640, 0o640]
        assert stat.S_IMODE(host.config_path.stat().st_mode) == 0o640
        assert host.log.count("any user could read or write") == 4
        assert ADMIN not in host.log


def test_a_plugin_toml_without_a_token_may_be_read(tmp_path: Path) -> None:
    config = CONFIG.replace(ADMIN, "${OF_ADMIN}").replace(CLIENT, "${OF_CLIENT}")
    host = HostProcess(tmp_path, config, environ={"OF_ADMIN": ADMIN, "OF_CLIENT": CLIENT})
    host.config_path.chmod(0o644)
    with host:
        assert stat.S_IMODE(host.config_path.stat().st_mode) == 0o644
        assert "everybody" not in host.log


def test_files_that_stay_readable_by_others_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system that keeps no modes."""
    monkeypatch.setattr(Path, "chmod", lambda *_: None)
    open_to_all = tmp_path / "starbase.db"
    open_to_all.touch()
    os.chmod(open_to_all, 0o644)
    with pytest.raises(ConfigError, match=r"can be read by any user .* give it the mode 0600"):
        remove_other_access(open_to_all, "host.database")
    remove_other_access(tmp_path / "not there")

"""A password with odd characters is planted, errors are caused, and all that comes out is searched for it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import threading
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import httpx
import pytest
from cryptography.fernet import Fernet

from starbase_data_replication.model.options import Replication
from starbase_data_replication.sources.mysql import settings as mysql
from starbase_data_replication.sources.postgresql import settings as postgresql
from starbase_data_replication.sources.settings.scrubbing import scrub
from tests.support.canary import PASSWORD, PIECES, files_with, forms, leaks
from tests.support.hosts import CLIENT, CONFIG, LISTENER, HostProcess, until
from tests.support.servers import TestDatabase

# A plugin whose dialect tells everything it knows in what it raises.
GOSSIP = """
from starbase_host import hookimpl

class Gossip:
    features = frozenset()

    def check(self, settings, source_table):
        if settings.get("check"):
            raise RuntimeError(f"cannot check {settings!r}")
        return {}
    def identity(self, settings, source_table):
        return ("gossip", source_table)
    def secret_parts(self, settings):
        return {**settings, "password": "***"}
    def hosts(self, settings):
        return ()
    def table_name(self, settings, source_table):
        from starbase_data_replication import TableName
        return TableName(schema=None, name=source_table)
    def open(self, settings, *, max_connections):
        try:
            raise ValueError(f"inner {settings['password']!a}")
        except ValueError as error:
            raise RuntimeError(f"cannot open {settings!r}") from error

class Plugin:
    @hookimpl(optionalhook=True)
    def replication_dialects(self):
        return {"gossip": Gossip()}

def plugin(options):
    return Plugin()
"""

PLUGINS = 'allowed_env = ["*"]\n[plugins.listener]\nmodule = "listener"\n[plugins.gossip]\nmodule = "gossip"\n'


class RecordedHost(HostProcess):
    """A host that keeps everything it has said."""

    said: str = ""

    def request(self, *words: Any, **options: Any) -> httpx.Response:
        response = super().request(*words, **options)
        self.said += f"{words[:2]} {dict(response.headers)} {response.text}\n"
        return response


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RecordedHost]:
    directory = tmp_path_factory.mktemp("canary")
    (directory / "listener.py").write_text(LISTENER)
    (directory / "gossip.py").write_text(GOSSIP)
    environ = {"STARBASE_SECRET_KEY": Fernet.generate_key().decode(), "CANARY": PASSWORD}
    with RecordedHost(directory, CONFIG + PLUGINS, environ=environ) as host:
        yield host


@pytest.fixture
def seen(source_database: TestDatabase) -> TestDatabase:
    """A database with a table, and a user who logs in with the canary."""
    user = f"canary_{source_database.name[-8:]}"
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    source_database.execute("INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    if source_database.dialect == "postgresql":
        literal = PASSWORD.replace("'", "''")
        source_database.execute(f"CREATE ROLE {user} LOGIN PASSWORD '{literal}'; GRANT SELECT ON t TO {user}")
    else:
        source_database.execute(f"CREATE USER {user}@'%%' IDENTIFIED BY %s", PASSWORD)
        source_database.execute(f"GRANT SELECT ON {source_database.name}.* TO {user}@'%'")
    config = {**source_database.source_config, "user": user, "password": PASSWORD}
    return dataclasses.replace(source_database, source_config=config)


@contextlib.contextmanager
def not_a_database() -> Iterator[int]:
    """A server that answers every client with bytes of no database's protocol; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                for number in range(1000):
                    connection, _ = listener.accept()
                    with connection:
                        connection.sendall([b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"\xff" * 50][number % 3])

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]


def url_of(config: dict[str, Any], **change: Any) -> dict[str, Any]:
    """The same source as a connection string, the password encoded."""
    parts = {**config, **change}
    url = "{dialect}://{user}:{password}@{host}:{port}/{database}".format(
        **{**parts, "password": quote(str(parts["password"]), safe="")}
    )
    return {"dialect": config["dialect"], "connectionString": url}


def wrong_sources(config: dict[str, Any], port: int) -> Iterator[tuple[dict[str, Any], str]]:
    """Sources that configure takes, and that fail when they are read: (sourceConfig, sourceTable)."""
    tls = {"sslmode": "verify-full"} if config["dialect"] == "postgresql" else {"sslMode": "VERIFY_IDENTITY"}
    forced = {"sslmode": "require"} if config["dialect"] == "postgresql" else {"sslMode": "REQUIRED"}
    key = "sslcert" if config["dialect"] == "postgresql" else "sslCert"
    for change in (
        {"user": "nobody_of_that_name"},
        {"host": "nowhere.invalid"},
        {"port": 1},
        {"port": port},
        {"port": port, **forced},
        {"database": "no_such_database"},
        {"password": PASSWORD + "x"},
        {"password": PASSWORD[:-1]},
        {"password": "${CANARY}", "database": "no_such_database"},
        {"password": "${CANARY}", "user": "${CANARY}"},
        {"database": "${CANARY}"},
        {"host": "${CANARY}"},
        {"password": "${NOT_SET_AT_ALL}"},
        tls,
        {**forced, key: "/nowhere.pem"},
    ):
        yield {**config, **change}, "t"
        if not {"sslmode", "sslMode"} & change.keys() and "${" not in str(change):
            yield url_of(config, **change), "t"
    yield config, "no_such_table"


def wrong_bodies(config: dict[str, Any]) -> Iterator[Any]:
    """Bodies of configure that are refused; each holds the password where somebody may have put it by mistake."""
    dialect = config["dialect"]
    for url in (
        f"{dialect}://u:{PASSWORD}@h/d", f"{dialect}://u:{PASSWORD}", f"host=h password={PASSWORD}", PASSWORD,
        f"{dialect}://u:{quote(PASSWORD, safe='')}@h:port/d", f"{dialect}://{quote(PASSWORD, safe='')}@[h/d",
        f"{dialect}://u:{quote(PASSWORD, safe='')}@h/d?{quote(PASSWORD, safe='')}=1",
        f"{dialect}://u@h/d?password={PASSWORD}&nothing=1", f"{dialect}://u@h/d?sslpassword={PASSWORD}",
        f"{dialect}://u:{quote(PASSWORD, safe='')}@h/d?connect_timeout={quote(PASSWORD, safe='')}",
        f"nothing://u:{quote(PASSWORD, safe='')}@h/d", f"{dialect}://u:%ff{quote(PASSWORD, safe='')}@h/d",
    ):  # fmt: skip
        yield {"sourceConfig": {"dialect": dialect, "connectionString": url}}
    for change in (
        {"pasword": PASSWORD}, {"password": [PASSWORD]}, {"password": {"a": PASSWORD}}, {"password": PASSWORD + "\0"},
        {"port": PASSWORD}, {"port": [PASSWORD]}, {"sslmode": PASSWORD}, {"sslMode": PASSWORD}, {"ssl": PASSWORD},
        {"dialect": PASSWORD}, {"dialect": [PASSWORD]}, {"host": ""}, {"host": [PASSWORD]}, {"user": {"a": PASSWORD}},
        {"connectionString": url_of(config)["connectionString"]}, {"password": PASSWORD, "extra": PASSWORD},
        {"password": "\ud800" + PASSWORD}, {"deep": [[[[[[[[[[PASSWORD]]]]]]]]]]},
    ):  # fmt: skip
        yield {"sourceConfig": {**config, **change}}
    yield {"sourceConfig": PASSWORD}
    yield {"sourceConfig": [config]}
    yield {"sourceConfig": config, "syncIntervalMinutes": PASSWORD, "isActive": PASSWORD, "mode": PASSWORD}
    yield {"sourceConfig": config, "deletes": {"mark": [PASSWORD]}, "trackingTimeZone": PASSWORD}
    yield {"sourceConfig": config, "targetTable": "tmp_x"}


def test_no_error_contains_a_password(host: RecordedHost, seen: TestDatabase) -> None:
    config, name = seen.source_config, seen.dialect
    table = {"sourceTable": "t", "targetTable": name, "isActive": False}
    for good in (config, url_of(config), {**config, "password": "${CANARY}"}):
        host.configure(name=name, sourceConfig=good, **table)
        assert host.sync(name)["status"] == "success"
    with not_a_database() as port:
        for number, (source, source_table) in enumerate(wrong_sources(config, port)):
            body = {**table, "name": f"{name}-wrong", "sourceConfig": source, "sourceTable": source_table}
            host.configure(**{**body, "targetTable": f"{name}_wrong"})
            failed = host.request("POST", f"/data-replication/sync/{name}-wrong")
            assert failed.status_code in (400, 502), (number, failed.text)
    for body in wrong_bodies(config):
        text = json.dumps({"name": f"{name}-new", "sourceTable": "t", "targetTable": "new", **body})
        refused = host.request("POST", "/data-replication/configure", text.encode())
        assert refused.status_code == 400, (body, refused.text)
    host.configure(name=name, sourceConfig=config, **table)
    elsewhere = {**config, "password": "***", "host": "127.0.0.2"}
    refused = host.request("POST", "/data-replication/configure", {"name": name, "sourceConfig": elsewhere})
    assert refused.status_code == 400
    gossip(host, config)
    raw_bodies(host)
    _everything_is_searched(host, seen)


def gossip(host: RecordedHost, config: dict[str, Any]) -> None:
    """An unforeseen leak: a third party's dialect that raises with its settings in the message."""
    body = {"name": "gossip", "sourceTable": "t", "targetTable": "gossip", "isActive": False}
    source = {**config, "dialect": "gossip"}
    host.configure(**body, sourceConfig=source)
    before = len(host.log)
    assert host.request("POST", "/data-replication/sync/gossip").status_code == 502
    until(lambda: "Traceback" in host.log[before:], what="the traceback")
    assert "cannot open" in host.log[before:]
    before = len(host.log)
    refused = host.request("POST", "/data-replication/configure", {**body, "sourceConfig": {**source, "check": True}})
    assert refused.status_code == 502
    assert "cannot check" in host.log[before:]


def raw_bodies(host: RecordedHost) -> None:
    for route in ("/query", "/query/raw", "/data-replication/configure", "/data-replication/verify/x"):
        for body in (f'{{"password": "{PASSWORD}', f"{PASSWORD}", f'["{PASSWORD}'):
            assert host.request("POST", route, body.encode()).status_code == 400


def _everything_is_searched(host: RecordedHost, seen: TestDatabase) -> None:
    tables = [row[0] for row in host.query("SELECT name FROM sqlite_master WHERE type = 'table'")]
    for table in tables:
        for token in (CLIENT, None):
            options = {"token": token} if token else {}
            host.request("POST", "/query", {"sql": f'SELECT * FROM "{table}"'}, **options)
            host.request("POST", "/query", {"sql": f'SELECT max(quote(source_config)) FROM "{table}"'}, **options)
    for path in ("/status", "/plugins", "/health", "/data-replication/status", "/data-replication/logs?limit=1000"):
        host.request("GET", path)
    listed = host.command("replication", "list", "--json")
    host.said += listed.stdout + listed.stderr
    until(lambda: (host.directory / "events.jsonl").exists(), what="an event")
    for source in (host.said, host.log, (host.directory / "host.out").read_text()):
        assert leaks(source) == []
    assert list(files_with(host.directory, but=("plugin.toml",))) == []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            assert leaks((process / "cmdline").read_bytes()) == [], process
    activity = {"postgresql": "SELECT * FROM pg_stat_activity", "mysql": "SHOW FULL PROCESSLIST"}[seen.dialect]
    assert leaks(repr(seen.fetch(activity))) == []
    assert "success" in host.said, "the search has searched something"


def test_the_search_finds_every_form() -> None:
    for form in forms(PASSWORD):
        assert leaks(b"before " + form + b" after")
    for piece in PIECES:
        assert leaks(f"a {piece} b")
    assert leaks("nothing of the kind: postgresql://u:***@h") == []


def test_a_text_is_scrubbed_of_what_drivers_may_write_and_a_value_shows_nothing() -> None:
    written = (
        PASSWORD,
        quote(PASSWORD),
        quote(PASSWORD, safe=""),
        quote_plus(PASSWORD),
        repr(PASSWORD),
        ascii(PASSWORD),
    )
    for text in (*written, json.dumps(PASSWORD), b64encode(PASSWORD.encode()).decode(), PASSWORD.replace("'", "''")):
        assert leaks(f"before {text} after")
        assert leaks(scrub(f"before {text} after", [PASSWORD])) == []
    settings = {"dialect": "postgresql", "host": "h", "user": "u", "password": PASSWORD, "database": "d"}
    replication = Replication(name="n", source_config=settings, source_table="t", target_table="t")
    values = (replication, postgresql.read(settings), mysql.read({**settings, "dialect": "mysql"}))
    assert leaks(repr(values) + str(values)) == []

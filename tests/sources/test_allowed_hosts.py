"""Where a source may be: the rules, and that both drivers connect to nothing but the address that was judged."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from starbase_data_replication.errors import SourceRejected
from starbase_data_replication.plugin import plugin
from starbase_data_replication.sources.mysql.dialect import MysqlDialect
from starbase_data_replication.sources.network.allowed_hosts import HostPolicy
from starbase_data_replication.sources.postgresql.dialect import PostgresqlDialect
from starbase_data_replication.sources.settings.env_references import partial_hosts, resolve
from starbase_host import ConfigError, InvalidRequest
from tests.support.dialects import described
from tests.support.hosts import CONFIG, HostProcess, running
from tests.support.servers import TestDatabase, free_port

PUBLIC = "203.0.113.7"


def judged(host: str, *resolved: str, allowed: list[str] | None = None) -> list[str]:
    """The addresses of a host that may be used, when it resolves to these."""

    def getaddrinfo(*_: Any, **__: Any) -> Any:
        return [(0, 0, 0, "", (address, 5432)) for address in resolved]

    with pytest.MonkeyPatch.context() as patch:
        if resolved:
            patch.setattr(socket, "getaddrinfo", getaddrinfo)
        return asyncio.run(HostPolicy(allowed).addresses(host))


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254", "169.254.0.1", "169.254.170.2", "0xa9fea9fe", "2852039166", "0251.0376.0251.0376", "fe80::1",
        "169.254.43518", "fd00:ec2::254", "::ffff:169.254.169.254", "::ffff:a9fe:a9fe", "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1", "100.100.100.200", "192.0.0.192", "168.63.129.16", "metadata.google.internal", "METADATA",
        "metadata.google.internal.", "instance-data", "fd20:ce::254", "fd00:42::42", "::ffff:0:169.254.169.254",
        "64:ff9b:1::1", "64:ff9b:1:ffff::a9fe:a9fe", "::169.254.169.254",
    ],
)  # fmt: skip
def test_no_source_is_where_clouds_hand_out_credentials(host: str) -> None:
    with pytest.raises(SourceRejected):
        judged(host)


def test_a_name_is_judged_by_what_it_means() -> None:
    for hidden in ("169.254.169.254", "fe80::1%eth0", "::ffff:169.254.169.254"):
        with pytest.raises(SourceRejected, match=r"db\.example\.com"):
            judged("db.example.com", hidden)
        assert judged("db.example.com", hidden, PUBLIC, "2001:db8::1") == [PUBLIC, "2001:db8::1"]
    # A pattern of names does not allow every address that a name may get; an address does.
    with pytest.raises(SourceRejected):
        judged("db.example.com", "169.254.169.254", allowed=["*.example.com"])
    assert judged("db.example.com", "169.254.1.1", allowed=["169.254.1.0/24"]) == ["169.254.1.1"]


def test_what_is_listed_and_nothing_else() -> None:
    allowed = ["*.example.com", "10.0.0.0/8", "2001:db8::/32", "192.168.1.1", "DB.internal"]
    assert judged("a.EXAMPLE.com.", PUBLIC, allowed=allowed) == [PUBLIC]
    assert judged("db.internal", PUBLIC, allowed=allowed) == [PUBLIC]
    assert judged("other", "10.1.2.3", PUBLIC, "2001:db8::5", allowed=allowed) == ["10.1.2.3", "2001:db8::5"]
    assert judged("192.168.1.1", allowed=allowed) == ["192.168.1.1"]
    for host, address in (("example.com", PUBLIC), ("a.example.com.evil", PUBLIC), ("192.168.1.2", "192.168.1.2")):
        with pytest.raises(SourceRejected, match="allowed_source_hosts"):
            judged(host, address, allowed=allowed)
    with pytest.raises(SourceRejected):
        judged("127.0.0.1", allowed=[])
    assert judged("127.0.0.1") == ["127.0.0.1"]
    assert judged("10.0.0.1") == ["10.0.0.1"]


def test_a_name_that_no_rule_allows_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server that answers for a name receives it."""
    with rebinding(monkeypatch, PUBLIC) as asked:
        for allowed in ([], ["*.internal", "db.example.com"], ["/run/*"]):
            with pytest.raises(SourceRejected, match="not in allowed_source_hosts"):
                judged("rebound.example.com", allowed=allowed)
        assert asked == []
        for allowed in (["*.example.com"], ["203.0.113.0/24"]):
            assert judged("rebound.example.com", allowed=allowed) == [PUBLIC]
        assert len(asked) == 2


@pytest.mark.parametrize(
    "config",
    [
        {"host": "${SECRET}.evil.example"},
        {"host": "db,x${SECRET}"},
        {"host": "${SECRET}${SECRET}"},
        {"connectionString": "postgresql://u:${PG}@${SECRET}.evil.example:5432/d"},
        {"connectionString": "postgresql://u@db1,a-${SECRET}/d"},
        {"connectionString": "postgresql://u@/d?host=${SECRET}.evil.example"},
    ],
)
def test_a_variable_is_a_whole_host_or_none_of_it(config: dict[str, str], tmp_path: Path) -> None:
    settings = {"user": "u", **config} if "host" in config else config
    key = next(iter(config))
    assert partial_hosts(settings) == {
        f"sourceConfig.{key}": "a ${NAME} must be a host's whole name, and not a part of it"
    }
    # One that an older version has stored, too.
    with pytest.raises(InvalidRequest, match="whole name"):
        resolve(settings, {"SECRET": "s", "PG": "p"})


@pytest.mark.parametrize(
    "config",
    [
        {"host": "${HOST}"}, {"host": "${HOST},db2"}, {"connectionString": "${URL}"},
        {"connectionString": "postgresql://u:${PG}@${HOST}:${PORT}/d"},
        {"connectionString": "postgresql://${U}:x${PG}@[${HOST}]:5432,b/d${PG}?sslrootcert=${PG}.pem"},
    ],
)  # fmt: skip
def test_a_variable_that_is_a_whole_host(config: dict[str, str]) -> None:
    assert partial_hosts(config) == {}


def test_configure_refuses_a_variable_within_a_host(tmp_path: Path) -> None:
    with running(tmp_path, environ={"SECRET": "s3cret"}) as host:
        for dialect, more in (("postgresql", {}), ("mysql", {"database": "d"})):
            source = {"dialect": dialect, "host": "${SECRET}.evil.example", "user": "u", **more}
            body = {"name": "t", "sourceConfig": source, "sourceTable": "t", "targetTable": "t"}
            answer = host.request("POST", "/data-replication/configure", body)
            assert answer.status_code == 400
            assert "sourceConfig.host: a ${NAME} must be a host's whole name" in answer.json()["error"]


def test_sockets_are_allowed_unless_there_is_a_list_without_them() -> None:
    HostPolicy().check_socket("/var/run/postgresql/.s.PGSQL.5432")
    for path in ("/var/run/postgresql/*", "/var/run/postgresql/.s.PGSQL.5432", "*/.s.PGSQL.*"):
        HostPolicy([path]).check_socket("/var/run/postgresql/.s.PGSQL.5432")
    for allowed in ([], ["*.example.com"], ["/run/other/*"]):
        with pytest.raises(SourceRejected, match="allowed_source_hosts"):
            HostPolicy(allowed).check_socket("/var/run/postgresql/.s.PGSQL.5432")


@pytest.mark.parametrize("path", ["/run/mine/../other/.s.PGSQL.5432", "/run/mine/a/../../other/x", "/run/mine/.."])
def test_a_sockets_path_does_not_leave_the_folder_of_a_pattern(path: str) -> None:
    HostPolicy(["/run/mine/*"]).check_socket("/run/mine/a..b/.s.PGSQL.5432")
    with pytest.raises(SourceRejected, match="allowed_source_hosts"):
        HostPolicy(["/run/mine/*"]).check_socket(path)


@pytest.mark.parametrize("hosts", ["db", [1], [""], {"a": 1}])
def test_a_wrong_list_stops_the_start(hosts: object) -> None:
    with pytest.raises(ConfigError, match="allowed_source_hosts"):
        plugin({"allowed_source_hosts": hosts})


@pytest.mark.parametrize(
    ("entry", "fix"),
    [
        ("127.0.0.0/99", "is not a valid network; write one such as 10.0.0.0/8"),
        ("10.0.0.0/33", "is not a valid network"),
        ("db.example.com/24", "is not a valid network"),
        ("::/129", "is not a valid network"),
        ("127.0.0.1/8", "has bits after its prefix; write 127.0.0.0/8, or 127.0.0.1 for that one address"),
        ("2001:db8::1/32", "write 2001:db8::/32, or 2001:db8::1 for"),
        ("http://127.0.0.1:55439", "is a URL; write its host alone: 127.0.0.1"),
        ("postgresql://u:secret@db.example.com/shop", "is a URL; write its host alone: db.example.com"),
        ("http://[::1]:80/x", "write its host alone: ::1"),
        ("127.0.0.1:55439", "has a port, which is not checked; write 127.0.0.1"),
        ("db.example.com:5432", "has a port, which is not checked; write db.example.com"),
        ("*.example.com:5432", "write *.example.com"),
        ("[::1]:5432", "write ::1"),
        ("[::1]", "has brackets; write ::1"),
        ("fe80::1%eth0", "has a zone; write fe80::1"),
        (" 127.0.0.1 ", "contains a space; remove it"),
        ("db.example.com\n", "contains a space"),
        ("a.example.com b.example.com", "contains a space"),
        ("a.example.com,b.example.com", "contains several; make each a separate entry"),
        ("u@db.example.com", "contains a user; write db.example.com"),
        ("10.0.0.*", "is a pattern, which a name could match too; write a network such as 10.0.0.0/24"),
        ("10.1.*", "write a network such as 10.1.0.0/16"),
        ("192.*.*.*", "write a network such as 192.0.0.0/8"),
        ("10.0.[0-3].1", "write a network such as 10.0.0.0/8"),
        ("10.0.0.?", "write a network such as"),
        ("10.0.0.256", "is not an address; each part must be a number from 0 to 255, without leading zeros"),
        (".", "must be a name, a pattern, an address, a network or the path of a socket"),
        ("", "must be a name"),
        (7, "must be a name"),
    ],
)
def test_an_entry_that_never_matches_stops_the_start(entry: object, fix: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        plugin({"allowed_source_hosts": ["db.example.com", entry]})
    assert caught.value.field == "allowed_source_hosts[1]"
    assert fix in caught.value.reason
    assert "secret" not in str(caught.value)


def test_the_line_that_stops_the_start(tmp_path: Path) -> None:
    host = HostProcess(tmp_path, CONFIG + 'allowed_source_hosts = ["127.0.0.1", "10.0.0.1/8"]\n')
    done = host.command("plugins")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    where = "starbase: plugin.toml: plugins.data_replication.allowed_source_hosts[1] has bits after its prefix; "
    assert done.stderr.startswith(where), done.stderr


@pytest.mark.parametrize(
    "entry",
    [
        "127.0.0.1", "10.0.0.0/8", "0.0.0.0/0", "::/0", "::1", "2001:db8::/32", "db", "db.example.com.",
        "*.example.com", "db[12].example.com", "*", "1.example.*", "127.1", "/run/postgresql/.s.PGSQL.5432",
        "/var/run/my sockets/*", "*/.s.PGSQL.5432", "b\u00fccher.example", "db_1-a.internal",
    ],
)  # fmt: skip
def test_an_entry_that_may_match(entry: str) -> None:
    plugin({"allowed_source_hosts": [entry]})


@contextlib.contextmanager
def rebinding(monkeypatch: pytest.MonkeyPatch, *answers: str) -> Iterator[list[str]]:
    """A name that has another address at each lookup, and then keeps the last. Yields the answers."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host in ("rebound.example.com", b"rebound.example.com"):
            host = answers[min(len(asked), len(answers) - 1)]
            asked.append(host)
        return real(host, port, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        yield asked


DIALECTS: dict[str, Any] = {"postgresql": PostgresqlDialect, "mysql": MysqlDialect}


def test_the_address_that_was_judged_is_the_one_that_is_used(
    source_database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a name that means a public address when it is judged, and an inner one a moment later."""
    config = source_database.source_config
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    server = str(source_database.server.host)
    settings = {**config, "host": "rebound.example.com", "defaultSchema": "public"}
    if source_database.dialect == "mysql":
        del settings["defaultSchema"]
    make = DIALECTS[source_database.dialect]
    with rebinding(monkeypatch, server, "169.254.169.254") as asked:
        assert described(make(HostPolicy(["127.0.0.1", server])), settings) == "connected"
        assert asked == [server], "looked up once for one connection"
    with rebinding(monkeypatch, "169.254.169.254"):
        assert "may not be used as a source" in described(make(HostPolicy()), settings)
    # A name of several addresses: the next one is tried if no server listens on the first.
    with rebinding(monkeypatch, server) as asked:
        closed = {**settings, "port": free_port()}
        assert "nothing listens at" in described(make(HostPolicy()), closed)


@pytest.mark.elsewhere_in_prove
def test_the_option_holds_over_http(source_database: TestDatabase, tmp_path: Path) -> None:
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    body = {"name": "t", "sourceTable": "t", "targetTable": "t", "isActive": False}
    with running(tmp_path, CONFIG + 'allowed_source_hosts = ["*.example.com"]\n') as host:
        host.configure(**body, sourceConfig=source_database.source_config)
        failed = host.request("POST", "/data-replication/sync/t")
        assert failed.status_code == 502
        assert "is not in allowed_source_hosts" in failed.json()["error"]

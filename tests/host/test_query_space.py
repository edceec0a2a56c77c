"""What a query writes to temporary files, over HTTP: bounded by its role, one bound for each request, and freed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.hosts import CLIENT, CONFIG, HostProcess, running
from tests.support.servers import TestDatabase

LIMITS = {"client": 1024 * 1024, "admin": 4 * 1024 * 1024}
BOUNDED = CONFIG.replace(
    "[plugins", f"max_client_temp_bytes = {LIMITS['client']}\nmax_admin_temp_bytes = {LIMITS['admin']}\n\n[plugins", 1
)
# More than the 8 MiB that SQLite sorts in memory where it writes.
ROWS = 20_000
SPILLING = {
    "sort": "SELECT a FROM t ORDER BY a DESC LIMIT -1 OFFSET 19999",
    "materialized": "WITH m AS MATERIALIZED (SELECT id, a, a || 'b' AS b FROM t) SELECT count(*), max(b) FROM m",
    "recursive": "WITH RECURSIVE n(i, s) AS (SELECT 1, 'a' UNION SELECT i + 1, hex(i) || hex(zeroblob(250)) FROM n "
    "WHERE i < 20000) SELECT count(*), max(s) FROM n",
    "automatic index": "SELECT count(*) FROM (SELECT 'zz' AS a UNION ALL SELECT 'b') x "
    "JOIN (SELECT a || 'x' AS k, a || id AS v FROM t LIMIT 1000000) y ON x.a = y.k",
    "group by": "SELECT count(*) FROM (SELECT a || 'x' AS k, count(*) FROM t GROUP BY 1)",
    "distinct": "SELECT count(DISTINCT a || 'x') FROM t",
    "window": "SELECT max(n) FROM (SELECT sum(id) OVER (PARTITION BY substr(a, 1, 1) ORDER BY a) AS n FROM t)",
    "union": "SELECT count(*) FROM (SELECT a || '1' FROM t UNION SELECT a || '2' FROM t)",
    "except": "SELECT count(*) FROM (SELECT a || '1' FROM t EXCEPT SELECT a || '2' FROM t)",
    "in": "SELECT count(*) FROM t WHERE a IN (SELECT a || 'x' FROM t)",
    "group_concat": "SELECT length(group_concat(a, ',' ORDER BY a)) FROM t",
}
WRITING = {
    "sorted": "CREATE TABLE made AS SELECT a FROM t ORDER BY a || 'x'",
    "indexed": "CREATE INDEX made ON t (a, id)",
    "inserted": "INSERT INTO t SELECT id + 100000, a FROM t ORDER BY a",
    "in": "DELETE FROM t WHERE a IN (SELECT a || 'x' FROM t)",
}


@pytest.fixture(scope="module", name="host")
def _host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    with running(tmp_path_factory.mktemp("space"), BOUNDED) as host:
        host.result("POST", "/query", {"sql": "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT)"})
        # Without a sort, so that the bound of role admin does not matter.
        rows = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS}) "
        host.result("POST", "/query", {"sql": f"INSERT INTO t {rows} SELECT i, hex(randomblob(250)) FROM n"})
        yield host
        assert kept(host) == []


def kept(host: HostProcess) -> list[str]:
    """The temporary files that the host has open."""
    opened = [os.readlink(entry.path) for entry in os.scandir(f"/proc/{host.pid}/fd") if os.path.islink(entry.path)]
    return [name for name in opened if "etilqs" in name]


def refused(host: HostProcess, sql: str, role: str) -> None:
    token = {"token": CLIENT} if role == "client" else {}
    response = host.request("POST", "/query", {"sql": sql}, **token)
    assert response.status_code == 413, response.text
    error = response.json()["error"]
    size = f"{LIMITS[role] / 1024**2:.3g}"
    assert error.startswith(f"the query needs more than {size} MiB of temporary space, the limit of role {role}; ")


@pytest.mark.parametrize("role", LIMITS)
@pytest.mark.parametrize("sql", SPILLING.values(), ids=SPILLING)
def test_what_a_read_needs_is_bounded(host: HostProcess, sql: str, role: str) -> None:
    refused(host, sql, role)
    assert kept(host) == []
    # The connection serves on.
    assert host.query("SELECT count(*) FROM t") == [[ROWS]]


@pytest.mark.parametrize("sql", WRITING.values(), ids=WRITING)
def test_what_a_write_needs_is_bounded(host: HostProcess, sql: str) -> None:
    refused(host, sql, "admin")
    assert host.query("SELECT count(*) FROM t") == [[ROWS]]
    assert host.query("SELECT count(*) FROM sqlite_schema WHERE name = 'made'") == [[0]]
    host.result("POST", "/query", {"sql": "UPDATE t SET id = id WHERE id = 1"})


def test_a_transaction_is_one_request(host: HostProcess) -> None:
    for statements in (["SELECT 1", SPILLING["sort"]], ["UPDATE t SET id = id WHERE id = 1", WRITING["sorted"]]):
        response = host.request("POST", "/query", {"transaction": [{"sql": sql} for sql in statements]})
        assert response.status_code == 413, response.text


def test_each_request_has_a_bound_and_space_comes_back(host: HostProcess) -> None:
    """More than half of the bound, eight times at once, and again."""
    sql = "SELECT count(*) FROM (SELECT DISTINCT a FROM t WHERE id <= 5000)"

    def ask(_: int) -> int:
        return host.request("POST", "/query", {"sql": sql}).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(16))) == {200}
    refused(host, sql, "client")
    assert kept(host) == []


def test_the_hosts_own_writes_are_not_held_to_it(host: HostProcess, postgres_database: TestDatabase) -> None:
    """A swap builds an index again: more than any caller may have."""
    postgres_database.execute("CREATE TABLE s (id int PRIMARY KEY, a text)")
    source = {"sourceConfig": postgres_database.source_config, "sourceTable": "s"}
    host.configure(name="s", targetTable="s", isActive=False, mode="full", **source)
    host.sync("s")
    host.result("POST", "/query", {"sql": "CREATE INDEX by_a ON s (a, id)"})
    postgres_database.execute(
        f"INSERT INTO s SELECT i, repeat(md5(i::text), 16) FROM generate_series(1, {ROWS}) i ORDER BY random()"
    )
    run = host.sync("s")
    assert (run["status"], run["warnings"]) == ("success", [])
    assert host.query("SELECT count(*) FROM s INDEXED BY by_a WHERE a > ''") == [[ROWS]]
    refused(host, "CREATE INDEX again ON s (a, id)", "admin")

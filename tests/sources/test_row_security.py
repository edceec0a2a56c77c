"""A source that hides rows from its user: refused, or taken as filtered, and then nothing hidden is ever removed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.hosts import HostProcess, running
from tests.support.servers import TestDatabase

READER = "starbase_reader"
OWNER = "starbase_owner"
BYPASSING = "starbase_bypassing"
PASSWORD = "Secr3t!"


@pytest.fixture
def policed(postgres_database: TestDatabase) -> Iterator[TestDatabase]:
    """A table of ten rows, of which a policy shows four; a role that reads, and one that owns views."""
    drop = "DROP OWNED BY {0} CASCADE; DROP ROLE {0}"
    roles = {READER: "", OWNER: "", BYPASSING: "BYPASSRLS"}
    for role, more in roles.items():
        postgres_database.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}' {more}")
    postgres_database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, n int, mine bool); ALTER TABLE t ENABLE ROW LEVEL SECURITY;"
        "INSERT INTO t SELECT n, n, n <= 4 FROM generate_series(1, 10) AS n;"
        f"GRANT ALL ON SCHEMA public TO {', '.join(roles)}; GRANT SELECT ON t TO {', '.join(roles)}"
    )
    yield postgres_database
    for role in roles:
        postgres_database.execute(drop.format(role))


def configure(host: HostProcess, database: TestDatabase, *, role: str = READER, **more: Any) -> None:
    source = {**database.source_config, "user": role, "password": PASSWORD}
    body = {"name": "t", "sourceConfig": source, "sourceTable": "t", "targetTable": "t", "trackingColumn": "id"}
    host.configure(**{**body, "isActive": False, "lookbackSeconds": 0, "closeWaitSeconds": 0, **more})


def refusal(host: HostProcess, action: str = "sync", body: Any = None) -> str:
    response = host.request("POST", f"/data-replication/{action}/t", body)
    assert response.status_code == 502, response.text
    return str(response.json()["error"])


def rows(host: HostProcess) -> int:
    return int(host.query("SELECT count(*) FROM t")[0][0])


SHOWN = f"CREATE POLICY shown ON t FOR SELECT TO {READER} USING (mine)"


def test_a_policy_is_refused_by_default(policed: TestDatabase, tmp_path: Path) -> None:
    with running(tmp_path) as host:
        configure(host, policed)
        error = refusal(host)
        assert "rowSecurity: row level security of t applies to starbase_reader" in error
        assert "BYPASSRLS" in error
        policed.execute(SHOWN)
        assert "rowSecurity" in refusal(host)
        # A policy that shows every row hides none; one that restricts it does.
        policed.execute(f"CREATE POLICY everything ON t FOR SELECT TO {READER} USING (true)")
        assert host.sync("t")["warnings"] == []
        assert rows(host) == 10
        policed.execute("CREATE POLICY less ON t AS RESTRICTIVE USING (mine)")
        for action in ("sync", "reset", "verify", "sync"):
            assert "rowSecurity" in refusal(host, action, {"repair": True} if action == "verify" else None)
        assert rows(host) == 10
        policed.execute("DROP POLICY less ON t; DROP POLICY everything ON t")
        configure(host, policed, role=BYPASSING)
        assert host.sync("t")["status"] == "success"
        configure(host, policed, role=READER)
        assert "rowSecurity" in refusal(host)
        assert rows(host) == 10


@pytest.mark.parametrize("mode", ["incremental", "full"])
def test_what_is_filtered_never_removes_what_may_be_hidden(policed: TestDatabase, tmp_path: Path, mode: str) -> None:
    policed.execute(f"CREATE POLICY everything ON t FOR SELECT TO {READER} USING (true)")
    with running(tmp_path) as host:
        configure(host, policed, rowSecurity="filtered", deletes="reconcile", deletesMaxShare=1, mode=mode)
        host.sync("t")
        assert rows(host) == 10
        policed.execute(f"{SHOWN}; DROP POLICY everything ON t; UPDATE t SET n = -n")
        policed.execute("INSERT INTO t VALUES (11, 11, true), (12, 12, false)")
        host.sync("t")
        assert rows(host) == 11
        error = refusal(host, "reconcile")
        assert "rowSecurity: public.t does not show 6 rows of the replica" in error
        assert rows(host) == 11
        found = host.result("POST", "/data-replication/verify/t", {"repair": True})
        assert (found["missing"], found["extra"]) == (0, 6)
        assert "6 rows that public.t does not show were kept" in found["warnings"][0]
        assert host.query("SELECT id FROM t WHERE n < 0 ORDER BY id") == [[1], [2], [3], [4]]
        run = host.result("POST", "/data-replication/reset/t")["run"]
        assert "6 rows that public.t does not show were kept" in run["warnings"][-1]
        assert rows(host) == 11
        host.result("POST", "/data-replication/reset/t", {"force": True})
        assert host.query("SELECT id FROM t ORDER BY id") == [[1], [2], [3], [4], [11]]
        policed.execute("DELETE FROM t WHERE id = 11")
        if mode == "incremental":
            assert host.result("POST", "/data-replication/reconcile/t", {"force": True})["changed"] == 1
        else:
            host.sync("t")
            assert rows(host) == 5
            assert host.command("replication", "reset", "t", "--force").returncode == 0
        assert rows(host) == 4
        # Once nothing is hidden any more, deletes are followed as ever.
        policed.execute("DROP POLICY shown ON t; ALTER TABLE t DISABLE ROW LEVEL SECURITY; DELETE FROM t WHERE id = 1")
        host.result("POST", "/data-replication/reconcile/t")
        assert host.query("SELECT id FROM t WHERE id = 1") == []


def test_what_may_be_hidden_gets_no_mark(policed: TestDatabase, tmp_path: Path) -> None:
    policed.execute(f"CREATE POLICY everything ON t FOR SELECT TO {READER} USING (true)")
    with running(tmp_path) as host:
        configure(host, policed, rowSecurity="filtered", deletes={"mark": "gone_at"}, deletesMaxShare=1)
        host.sync("t")
        policed.execute("DELETE FROM t WHERE id = 10")
        host.result("POST", "/data-replication/reconcile/t")
        policed.execute(f"{SHOWN}; DROP POLICY everything ON t")
        assert "rowSecurity" in refusal(host, "reconcile")
        host.result("POST", "/data-replication/reset/t")
        assert host.query("SELECT id FROM t WHERE gone_at IS NOT NULL") == [[10]]
        assert rows(host) == 10


def test_a_group_keeps_what_may_be_hidden(policed: TestDatabase, tmp_path: Path) -> None:
    policed.execute(f"CREATE POLICY everything ON t FOR SELECT TO {READER} USING (true)")
    with running(tmp_path) as host:
        configure(host, policed, rowSecurity="filtered", mode="full", group="g")
        host.sync("t")
        policed.execute(f"{SHOWN}; DROP POLICY everything ON t; UPDATE t SET n = -n")
        assert "6 rows that public.t does not show were kept" in host.sync("t")["warnings"][-1]
        assert host.query("SELECT count(*), count(*) FILTER (WHERE n < 0) FROM t") == [[10, 4]]
        host.result("POST", "/data-replication/reset/t", {"force": True})
        assert rows(host) == 4


def test_a_table_without_a_key_needs_one_to_be_filtered(policed: TestDatabase, tmp_path: Path) -> None:
    policed.execute("ALTER TABLE t DROP CONSTRAINT t_pkey")
    with running(tmp_path) as host:
        configure(host, policed, rowSecurity="filtered")
        assert "name keyColumns" in refusal(host)
        configure(host, policed, rowSecurity="filtered", keyColumns=["id"])
        assert host.sync("t")["status"] == "success"


# Each a relation `v` over the table, and whether policies hide rows of it from the reader, or from its owner.
RELATIONS = {
    "view": ("CREATE VIEW v AS SELECT * FROM t", False),
    "view of a restricted owner": (f"CREATE VIEW v AS SELECT * FROM t; ALTER VIEW v OWNER TO {OWNER}", True),
    "view over it": (
        f"CREATE VIEW inner_v AS SELECT * FROM t; ALTER VIEW inner_v OWNER TO {OWNER};"
        "CREATE VIEW v AS SELECT * FROM inner_v",
        True,
    ),
    "invoker": ("CREATE VIEW v WITH (security_invoker) AS SELECT * FROM t", True),
    "invoker below": (
        f"CREATE VIEW inner_v WITH (security_invoker = on) AS SELECT * FROM t; GRANT SELECT ON inner_v TO {READER};"
        "CREATE VIEW v AS SELECT * FROM inner_v",
        True,
    ),
    "materialized": ("CREATE MATERIALIZED VIEW v AS SELECT * FROM t", False),
    "asking": ("CREATE VIEW v AS SELECT * FROM t WHERE current_user = 'postgres'", True),
    "tenant": ("CREATE VIEW v AS SELECT * FROM t WHERE mine::text = current_setting('app.mine', true)", True),
    "not asking": ("""CREATE VIEW v AS SELECT id, n, 'CURRENT_USER' AS "user" FROM t""", False),
    "partition's parent": (
        "CREATE TABLE v (id int PRIMARY KEY, n int, mine bool) PARTITION BY RANGE (id);"
        "CREATE TABLE part PARTITION OF v FOR VALUES FROM (0) TO (100); ALTER TABLE part ENABLE ROW LEVEL SECURITY;"
        "INSERT INTO v SELECT id, n, mine FROM t",
        False,
    ),
    "parent": (
        "CREATE TABLE v (LIKE t); CREATE TABLE child () INHERITS (v); ALTER TABLE v ENABLE ROW LEVEL SECURITY;"
        "INSERT INTO child SELECT id, n, mine FROM t",
        True,
    ),
    "an owner's, forced": (
        f"ALTER TABLE t OWNER TO {READER}; ALTER TABLE t FORCE ROW LEVEL SECURITY; CREATE VIEW v AS SELECT * FROM t;"
        f"ALTER VIEW v OWNER TO {READER}",
        True,
    ),
    "an owner's": (
        f"ALTER TABLE t OWNER TO {READER}; CREATE VIEW v WITH (security_invoker) AS SELECT * FROM t;"
        f"ALTER VIEW v OWNER TO {READER}",
        False,
    ),
}


def test_views_and_parents(policed: TestDatabase, tmp_path: Path) -> None:
    """Refused exactly where the reader sees fewer rows than there are."""
    with running(tmp_path) as host:
        for case, (sql, hides) in RELATIONS.items():
            policed.execute(f"{sql}; GRANT SELECT ON v TO {READER}")
            configure(host, policed, sourceTable="v", keyColumns=["id"], mode="full")
            if hides:
                assert "rowSecurity" in refusal(host), case
                configure(host, policed, sourceTable="v", rowSecurity="filtered")
                host.result("POST", "/data-replication/reset/t", {"force": True})
                assert rows(host) == 0, case
                configure(host, policed, rowSecurity="refuse")
            else:
                host.sync("t")
                assert rows(host) == 10, case
            host.result("DELETE", "/data-replication/configure/t")
            host.result("POST", "/query", {"sql": "DROP TABLE IF EXISTS t"})
            policed.execute(
                "DO $$ BEGIN EXECUTE (SELECT format('DROP %s IF EXISTS v CASCADE', CASE relkind WHEN 'v' THEN 'VIEW' "
                "WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'TABLE' END) FROM pg_class WHERE relname = 'v'); END $$;"
                "DROP VIEW IF EXISTS inner_v; ALTER TABLE t OWNER TO CURRENT_USER;"
                "ALTER TABLE t NO FORCE ROW LEVEL SECURITY"
            )


def test_a_policy_added_between_the_check_and_the_read_is_refused_by_the_server(
    policed: TestDatabase, tmp_path: Path
) -> None:
    """Through a function, which the catalogue does not show: the server refuses what it would filter."""
    policed.execute(
        "CREATE FUNCTION inside() RETURNS SETOF t LANGUAGE sql STABLE AS 'SELECT * FROM public.t';"
        f"CREATE VIEW v AS SELECT * FROM inside(); GRANT SELECT ON v TO {READER}"
    )
    with running(tmp_path) as host:
        configure(host, policed, sourceTable="v", keyColumns=["id"], mode="full")
        assert "row-level security" in refusal(host)


ASKING = {
    "current": ("CREATE SQL SECURITY INVOKER VIEW v AS SELECT * FROM t WHERE owner = CURRENT_USER()", True),
    "session": ("CREATE VIEW v AS SELECT * FROM t WHERE SUBSTRING_INDEX(SESSION_USER(), '@', 1) = owner", True),
    "below": (
        "CREATE VIEW inside AS SELECT * FROM t WHERE owner = USER(); CREATE VIEW v AS SELECT * FROM inside",
        True,
    ),
    "named so": ("CREATE VIEW v AS SELECT id, n, owner AS `user`, 'USER()' AS x FROM t", False),
    "plain": ("CREATE SQL SECURITY INVOKER VIEW v AS SELECT * FROM t", False),
}


def test_views_that_ask_who_reads_them(either_mysql: TestDatabase, tmp_path: Path) -> None:
    either_mysql.execute(
        "CREATE TABLE t (id int PRIMARY KEY, n int, owner varchar(90));"
        "INSERT INTO t VALUES (1, 1, 'nobody@%'), (2, 2, 'somebody@%'), (3, 3, substring_index(USER(), '@', 1))"
    )
    body = {"name": "t", "sourceConfig": either_mysql.source_config, "sourceTable": "v", "targetTable": "t"}
    with running(tmp_path) as host:
        for case, (sql, hides) in ASKING.items():
            either_mysql.execute(f"DROP VIEW IF EXISTS v, inside; {sql}")
            host.configure(**body, isActive=False, trackingColumn="id", keyColumns=["id"], rowSecurity="refuse")
            if hides:
                assert "depends on who reads it by" in refusal(host), case
                host.configure(name="t", rowSecurity="filtered")
            host.sync("t")
        assert rows(host) == 3
        # A view that comes to ask later hides rows, and removes none.
        either_mysql.execute(
            "DROP VIEW v; CREATE VIEW v AS SELECT * FROM t WHERE owner = SUBSTRING_INDEX(USER(), '@', 1)"
        )
        assert "rowSecurity" in refusal(host, "reset")
        host.configure(name="t", rowSecurity="filtered")
        run = host.result("POST", "/data-replication/reset/t")["run"]
        assert "2 rows" in run["warnings"][-1]
        assert rows(host) == 3

"""What protection is claimed for a PostgreSQL table: only where the facts about this very table allow it."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starbase_data_replication.model import TableName
from starbase_data_replication.model.options import Options
from starbase_data_replication.sources.postgresql.dialect import PostgresqlDialect
from starbase_data_replication.sources.postgresql.protection_facts import parse_protection_facts
from tests.support.hosts import HostProcess, running, until
from tests.support.servers import DistroPostgres, TestDatabase, fresh_database


def configure(host: HostProcess, database: TestDatabase, table: str, **more: Any) -> None:
    body = {"name": table, "sourceConfig": database.source_config, "sourceTable": table, "targetTable": table}
    host.configure(
        **{**body, "trackingColumn": "id", "isActive": False, "closeWaitSeconds": 0, "settleSeconds": 0, **more}
    )


def protection(host: HostProcess, database: TestDatabase, table: str, **more: Any) -> str:
    """What the status says protects the table, after a sync."""
    configure(host, database, table, **more)
    run = host.sync(table)
    assert run["status"] == "success", run
    return str(host.status(table)["protection"])


def refusal(host: HostProcess, name: str) -> str:
    response = host.request("POST", f"/data-replication/sync/{name}")
    assert response.status_code == 502, response.text
    return str(response.json()["error"])


def ids(host: HostProcess, table: str) -> list[int]:
    return [row[0] for row in host.query(f"SELECT id FROM {table} ORDER BY id")]


MATERIALIZED = """
    CREATE TABLE base (id bigserial PRIMARY KEY, v text);
    INSERT INTO base (v) VALUES ('one');
    CREATE MATERIALIZED VIEW mv AS SELECT id, v FROM base;
    CREATE UNIQUE INDEX ON mv (id);
    CREATE VIEW above AS SELECT id AS number, v FROM (SELECT * FROM mv WHERE v <> '') AS m
"""


def test_a_materialized_view_is_not_followed(either_postgres: TestDatabase, tmp_path: Path) -> None:
    """Its rows appear at a REFRESH: one whose transaction was open around it would be lost for ever."""
    database = either_postgres
    database.execute(MATERIALIZED)
    with running(tmp_path) as host:
        configure(host, database, "mv", keyColumns=["id"])
        configure(host, database, "above", keyColumns=["number"], trackingColumn="number")
        for name in ("mv", "above"):
            said = refusal(host, name)
            assert "mode" in said
            assert "full" in said
            assert "REFRESH" in said
            assert "mv" in said
            assert host.logs(name)[0]["status"] == "error"
        configure(host, database, "mv", keyColumns=["id"], mode="full")
        configure(host, database, "above", keyColumns=["number"], trackingColumn="number", mode="full")
        host.sync("mv")
        late = database.connect()
        late.execute("BEGIN; INSERT INTO base (v) VALUES ('late')")
        database.execute("INSERT INTO base (v) VALUES ('three'); REFRESH MATERIALIZED VIEW CONCURRENTLY mv")
        host.sync("mv")
        late.execute("COMMIT")
        host.sync("mv")
        database.execute("REFRESH MATERIALIZED VIEW CONCURRENTLY mv")
        host.sync("mv")
        host.sync("above")
        assert ids(host, "mv") == [1, 2, 3]
        assert host.query("SELECT number FROM above ORDER BY number") == [[1], [2], [3]]
        assert host.status("mv")["protection"].startswith("full")


def test_a_materialized_view_without_a_key_is_loaded_whole_as_ever(
    postgres_database: TestDatabase, tmp_path: Path
) -> None:
    postgres_database.execute(MATERIALIZED)
    with running(tmp_path) as host:
        assert protection(host, postgres_database, "mv").startswith("full")


BELOW = """
    CREATE SEQUENCE cached START 1000 CACHE 50; CREATE SEQUENCE plain; CREATE SEQUENCE down INCREMENT -1;
    CREATE SEQUENCE wraps MAXVALUE 100 CYCLE;
    CREATE TABLE ahead (
        id bigint DEFAULT nextval('cached') PRIMARY KEY, v int, at timestamptz DEFAULT clock_timestamp());
    CREATE TABLE quiet (id bigserial PRIMARY KEY, v int, at timestamptz DEFAULT clock_timestamp());
    CREATE VIEW of_quiet AS SELECT id, v FROM quiet WHERE v > 0;
    CREATE VIEW of_ahead AS SELECT v, id AS number, at FROM ahead;
    CREATE VIEW twice_above AS SELECT number AS id, at FROM of_ahead;
    CREATE VIEW joined AS SELECT q.id, a.v, q.at FROM quiet q JOIN ahead a ON a.v = q.v;
    CREATE VIEW "Odd name" AS SELECT id AS "the id" FROM ahead;
    CREATE VIEW computed AS SELECT id * 2 AS id FROM ahead;
    CREATE VIEW both_of AS SELECT id, v FROM quiet UNION ALL SELECT id, v FROM ahead;
    CREATE VIEW with_cte AS WITH c AS (SELECT id AS n FROM ahead) SELECT n AS id FROM c;
    CREATE TABLE parted (id bigint DEFAULT nextval('plain'), k int) PARTITION BY RANGE (k);
    CREATE TABLE part_one PARTITION OF parted FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (k);
    CREATE TABLE part_low PARTITION OF part_one FOR VALUES FROM (0) TO (5);
    CREATE TABLE owned (id bigint DEFAULT nextval('plain'), k int) PARTITION BY RANGE (k);
    CREATE TABLE owned_one PARTITION OF owned FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (k);
    CREATE TABLE owned_low PARTITION OF owned_one FOR VALUES FROM (0) TO (5);
    ALTER TABLE owned_low ALTER id SET DEFAULT nextval('cached');
    CREATE TABLE parent (id bigint NOT NULL DEFAULT nextval('plain'), v int);
    CREATE TABLE child (LIKE parent INCLUDING DEFAULTS) INHERITS (parent);
    CREATE TABLE elder (id bigint NOT NULL DEFAULT nextval('plain'), v int);
    CREATE TABLE younger (id bigint NOT NULL DEFAULT nextval('cached')) INHERITS (elder);
    CREATE VIEW of_elder AS SELECT id FROM elder;
    CREATE FUNCTION rows_of() RETURNS SETOF quiet LANGUAGE sql STABLE AS 'SELECT * FROM quiet';
    CREATE FUNCTION tenant() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1';
    CREATE FUNCTION doubled(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
    CREATE VIEW called AS SELECT id FROM rows_of();
    CREATE VIEW for_tenant AS SELECT id FROM quiet WHERE v = tenant();
    CREATE VIEW harmless AS SELECT id, doubled(v) AS v FROM quiet;
    CREATE VIEW made AS SELECT g AS id FROM generate_series(1, 3) AS g;
    CREATE VIEW of_catalog AS SELECT oid::bigint AS id, relname FROM pg_class WHERE relname = 'quiet';
    CREATE DOMAIN number AS bigint DEFAULT nextval('cached'); CREATE DOMAIN bare AS bigint;
    CREATE TABLE of_domain (id number PRIMARY KEY); CREATE TABLE of_bare (id bare PRIMARY KEY DEFAULT nextval('plain'));
    CREATE TABLE made_of (n bigint DEFAULT nextval('cached'), id bigint GENERATED ALWAYS AS (n * 2) STORED);
    CREATE TABLE made_plain (n bigint DEFAULT nextval('plain'), id bigint GENERATED ALWAYS AS (n * 2) STORED);
    CREATE FUNCTION next_id() RETURNS bigint LANGUAGE sql AS $$SELECT nextval('cached')$$;
    CREATE TABLE by_function (id bigint DEFAULT next_id() PRIMARY KEY, at timestamptz DEFAULT clock_timestamp());
    CREATE FUNCTION named() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.id := nextval('cached'); RETURN NEW; END$$;
    CREATE FUNCTION steady() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.id := nextval('plain'); RETURN NEW; END$$;
    CREATE FUNCTION built() RETURNS trigger LANGUAGE plpgsql
        AS $$BEGIN NEW.id := nextval(TG_ARGV[0]); RETURN NEW; END$$;
    CREATE TABLE by_named (id bigint PRIMARY KEY); CREATE TABLE by_steady (id bigint PRIMARY KEY);
    CREATE TABLE by_built (id bigint PRIMARY KEY); CREATE VIEW of_named AS SELECT id FROM by_named;
    CREATE TRIGGER a BEFORE INSERT ON by_named FOR EACH ROW EXECUTE PROCEDURE named();
    CREATE TRIGGER a BEFORE INSERT ON by_steady FOR EACH ROW EXECUTE PROCEDURE steady();
    CREATE TRIGGER a BEFORE INSERT ON by_built FOR EACH ROW EXECUTE PROCEDURE built('plain');
    CREATE VIEW falling AS SELECT id AS k, -id AS id, v FROM quiet;
    CREATE VIEW under_falling AS SELECT f.k, f.id FROM falling f;
    CREATE VIEW besides_falling AS SELECT k AS id, id AS k FROM falling;
    CREATE VIEW ranked AS SELECT id AS k, rank() OVER (ORDER BY id DESC) AS id FROM quiet;
    CREATE VIEW subtracted AS SELECT q.id AS k, 10000000 - q.id AS id FROM quiet q;
    CREATE VIEW smallest AS SELECT id AS k, least(id, 3) AS id FROM quiet;
    CREATE VIEW hashed AS SELECT id AS k, hashint4(id::int)::bigint AS id FROM quiet;
    CREATE VIEW reversed AS SELECT id AS k, reverse(id::text)::bigint AS id FROM quiet;
    CREATE VIEW inner_falling AS SELECT s.n AS id FROM (SELECT -id AS n FROM quiet) AS s;
    CREATE VIEW either_time AS SELECT id, coalesce(at, '2000-01-01') AS at FROM quiet;
    CREATE VIEW "both (falling)" AS SELECT id AS "the id", -id AS "fell \\ (id)" FROM quiet;
    CREATE VIEW half_falling AS SELECT id FROM quiet UNION ALL SELECT -id AS other FROM quiet;
    CREATE VIEW half_falling_above AS SELECT id FROM half_falling;
    CREATE TABLE opposite (id bigserial PRIMARY KEY, v int, g bigint GENERATED ALWAYS AS (-v) STORED);
    CREATE VIEW of_opposite AS SELECT id, g FROM opposite; INSERT INTO opposite (v) VALUES (1);
    CREATE VIEW least_of AS SELECT v, min(id) AS id FROM quiet GROUP BY v;
    CREATE VIEW once AS SELECT DISTINCT ON (v) v, id FROM quiet ORDER BY v, id;
    CREATE VIEW first_ones AS SELECT id, v FROM quiet ORDER BY id LIMIT 150;
    CREATE VIEW skipped AS SELECT id, v FROM (SELECT * FROM quiet ORDER BY id OFFSET 0) AS s;
    CREATE VIEW numbered_rows AS SELECT id, row_number() OVER (ORDER BY v) AS n FROM quiet;
    CREATE VIEW without AS SELECT id FROM quiet WHERE id NOT IN (SELECT id FROM quiet WHERE v = 7);
    CREATE VIEW except_of AS SELECT id FROM quiet EXCEPT SELECT id FROM quiet WHERE v = 7;
    CREATE VIEW with_one AS SELECT id FROM quiet WHERE EXISTS (SELECT 1) AND v IN (SELECT 1 UNION ALL SELECT 2);
    CREATE TABLE by_text (id bigint DEFAULT nextval(('cached'::text)::regclass) PRIMARY KEY);
    CREATE SEQUENCE "it's"; CREATE TABLE odd_name (id bigint DEFAULT nextval('"it''s"') * 1 PRIMARY KEY);
    INSERT INTO odd_name DEFAULT VALUES;
    CREATE TABLE by_update (k bigserial PRIMARY KEY, id bigint DEFAULT nextval('plain'));
    CREATE TRIGGER a BEFORE UPDATE ON by_update FOR EACH ROW EXECUTE PROCEDURE named();
    CREATE FUNCTION helped() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.id := next_id (); RETURN NEW; END$$;
    CREATE TABLE by_helper (id bigint PRIMARY KEY);
    CREATE TRIGGER a BEFORE INSERT OR UPDATE ON by_helper FOR EACH ROW EXECUTE PROCEDURE helped();
    CREATE FUNCTION touched() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.at := now(); RETURN NEW; END$$;
    CREATE TABLE touching (id bigserial PRIMARY KEY, at timestamptz DEFAULT now());
    CREATE TRIGGER a BEFORE INSERT OR UPDATE ON touching FOR EACH ROW EXECUTE PROCEDURE touched();
    CREATE VIEW published AS SELECT id FROM touching WHERE at <= now();
    CREATE VIEW published_too AS SELECT id FROM touching WHERE at <= current_timestamp;
    INSERT INTO by_text DEFAULT VALUES; INSERT INTO by_update DEFAULT VALUES; INSERT INTO by_helper VALUES (1);
    INSERT INTO touching DEFAULT VALUES;
    INSERT INTO of_domain DEFAULT VALUES; INSERT INTO of_bare DEFAULT VALUES; INSERT INTO made_of DEFAULT VALUES;
    INSERT INTO made_plain DEFAULT VALUES; INSERT INTO by_function DEFAULT VALUES; INSERT INTO by_named DEFAULT VALUES;
    INSERT INTO by_steady DEFAULT VALUES; INSERT INTO by_built DEFAULT VALUES;
    CREATE TABLE wrapping (id bigint DEFAULT nextval('wraps') PRIMARY KEY);
    CREATE TABLE pooled (id bigint PRIMARY KEY, v int); CREATE SEQUENCE pooled_seq INCREMENT 50;
    CREATE TABLE stepped (id bigserial PRIMARY KEY); ALTER SEQUENCE stepped_id_seq INCREMENT 50;
    CREATE TABLE sinking (id bigint DEFAULT nextval('down') PRIMARY KEY);
    INSERT INTO quiet (v) VALUES (1), (2); INSERT INTO ahead (v) VALUES (1), (2); INSERT INTO parted VALUES (1, 1);
    INSERT INTO owned VALUES (1, 1); INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2);
    INSERT INTO elder VALUES (1); INSERT INTO wrapping DEFAULT VALUES; INSERT INTO pooled VALUES (1);
    INSERT INTO stepped DEFAULT VALUES; INSERT INTO sinking DEFAULT VALUES
"""
# Of each table what its protection begins with, and what it names.
EXPECTED = [
    ("quiet", "id", "transactions", ""),
    ("quiet", "at", "transactions", ""),
    ("of_quiet", "id", "transactions", ""),
    ("ahead", "id", "lookback", "CACHE 50"),
    ("ahead", "at", "transactions", ""),
    ("of_ahead", "number", "lookback", "CACHE 50"),
    ("of_ahead", "at", "transactions", ""),
    ("twice_above", "id", "lookback", "CACHE 50"),
    ("joined", "id", "lookback", "joined joins several tables"),
    ("joined", "at", "lookback", "joined joins several tables"),
    ("Odd name", "the id", "lookback", "CACHE 50"),
    ("computed", "id", "lookback", "CACHE 50"),
    ("both_of", "id", "lookback", "several sequences"),
    ("with_cte", "id", "lookback", "CACHE 50"),
    ("parted", "id", "transactions", ""),
    ("part_low", "id", "transactions", ""),
    ("owned", "id", "lookback", "CACHE 50"),
    ("owned_low", "id", "lookback", "CACHE 50"),
    ("parent", "id", "transactions", ""),
    ("elder", "id", "lookback", "CACHE 50"),
    ("of_elder", "id", "lookback", "CACHE 50"),
    ("called", "id", "lookback", "rows_of"),
    ("for_tenant", "id", "lookback", "tenant"),
    ("harmless", "id", "transactions", ""),
    ("made", "id", "lookback", "no table"),
    ("of_catalog", "id", "lookback", "no table"),
    ("of_domain", "id", "lookback", "CACHE 50"),
    ("of_bare", "id", "transactions", ""),
    ("made_of", "id", "lookback", "CACHE 50"),
    ("made_plain", "id", "lookback", "(made_plain.id)"),
    ("falling", "id", "lookback", "(falling.id)"),
    ("falling", "k", "transactions", ""),
    ("under_falling", "id", "lookback", "(falling.id)"),
    ("besides_falling", "id", "transactions", ""),
    ("ranked", "id", "lookback", "(ranked.id)"),
    ("subtracted", "id", "lookback", "(subtracted.id)"),
    ("smallest", "id", "lookback", "(smallest.id)"),
    ("hashed", "id", "lookback", "(hashed.id)"),
    ("reversed", "id", "lookback", "(reversed.id)"),
    ("inner_falling", "id", "lookback", "(inner_falling.id)"),
    ("either_time", "at", "lookback", "(either_time.at)"),
    ("both (falling)", "the id", "transactions", ""),
    ("both (falling)", "fell \\ (id)", "lookback", 'is computed ("both (falling)"."fell'),
    ("half_falling", "id", "lookback", "(half_falling.id)"),
    ("half_falling_above", "id", "lookback", "(half_falling.id)"),
    ("opposite", "g", "lookback", "(opposite.g)"),
    ("opposite", "id", "transactions", ""),
    ("of_opposite", "g", "lookback", "(opposite.g)"),
    ("of_opposite", "id", "transactions", ""),
    ("least_of", "id", "lookback", "groups rows"),
    ("once", "id", "lookback", "one of several equal rows"),
    ("first_ones", "id", "lookback", "limits its rows"),
    ("skipped", "id", "lookback", "limits its rows"),
    ("numbered_rows", "id", "lookback", "window function"),
    ("without", "id", "lookback", "reads a table more than once"),
    ("except_of", "id", "lookback", "EXCEPT"),
    ("by_function", "id", "lookback", "next_id"),
    ("by_function", "at", "transactions", ""),
    ("by_named", "id", "lookback", "CACHE 50"),
    ("of_named", "id", "lookback", "CACHE 50"),
    ("by_steady", "id", "transactions", ""),
    ("by_built", "id", "lookback", "built"),
    ("by_text", "id", "lookback", "nextval by a text"),
    ("odd_name", "id", "transactions", ""),
    ("by_update", "id", "lookback", "CACHE 50"),
    ("by_helper", "id", "lookback", "helped"),
    ("touching", "id", "transactions", ""),
    ("touching", "at", "transactions", ""),
    ("published", "id", "lookback", "depends on the current time"),
    ("published_too", "id", "lookback", "depends on the current time"),
    ("wrapping", "id", "lookback", "CYCLE"),
    ("pooled", "id", "lookback", "pooled_seq steps by 50"),
    ("stepped", "id", "lookback", "stepped_id_seq steps by 50"),
]


def test_the_tables_below_a_table_decide_what_protects_it(either_postgres: TestDatabase, tmp_path: Path) -> None:
    database = either_postgres
    database.execute(BELOW)
    with running(tmp_path) as host:
        found: list[str] = []
        for table, column, *_ in EXPECTED:
            target = f"r{len(found)}"
            configure(
                host, database, table, name=target, targetTable=target, trackingColumn=column, keyColumns=[column]
            )
            run = host.sync(target)
            assert run["status"] == "success", (table, run)
            found.append(str(host.status(target)["protection"]))
            assert ("is computed" in "".join(run["warnings"])) == ("is computed" in found[-1]), (table, run)
            assert ("several sequences" in "".join(run["warnings"])) == (
                table in ("both_of", "owned", "elder", "of_elder", "by_update")
            )
        wrong = [
            (*expected, said)
            for expected, said in zip(EXPECTED, found, strict=True)
            if not said.startswith(expected[2]) or expected[3] not in said
        ]
        assert wrong == []


def test_an_ordinary_role_is_enough_to_trace_a_view(postgres_database: TestDatabase, tmp_path: Path) -> None:
    """SELECT on the view, and nothing on what is below it."""
    database = postgres_database
    role = f"reader_{database.name[-8:]}"
    database.execute(BELOW)
    database.execute(
        f"CREATE ROLE {role} LOGIN PASSWORD 'a password'; GRANT SELECT ON of_quiet, of_ahead, parted TO {role}"
    )
    config = {**database.source_config, "user": role, "password": "a password"}
    try:
        with running(tmp_path) as host:
            wanted = {"of_quiet": ("id", "transactions"), "of_ahead": ("number", "lookback"), "parted": ("id", "trans")}
            for table, (column, kind) in wanted.items():
                more = {"sourceConfig": config, "trackingColumn": column, "keyColumns": [column]}
                assert protection(host, database, table, **more).startswith(kind), table
    finally:
        database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_what_is_not_protected_waits_for_the_transactions_all_the_same(
    postgres_database: TestDatabase, tmp_path: Path
) -> None:
    """The lookback comes beside them: a transaction that is open for longer loses nothing."""
    postgres_database.execute(BELOW)
    with running(tmp_path) as host:
        configure(host, postgres_database, "ahead", lookbackSeconds=0)
        host.sync("ahead")
        late = postgres_database.connect()
        late.execute("BEGIN; INSERT INTO ahead (v) VALUES (100)")
        for number in range(3):
            postgres_database.execute(f"INSERT INTO ahead (v) VALUES ({number})")
            host.sync("ahead")
        late.execute("COMMIT")
        host.sync("ahead")
        assert host.status("ahead")["protection"].startswith("lookback")
        assert host.query("SELECT count(*) FROM ahead WHERE v = 100") == [[1]]


def test_a_row_of_a_view_that_another_tables_row_lets_in(postgres_database: TestDatabase, tmp_path: Path) -> None:
    """Its own value was taken, and read past, before the other was there."""
    database = postgres_database
    database.execute(
        "CREATE TABLE orders (id bigserial PRIMARY KEY); CREATE TABLE paid (id bigint PRIMARY KEY);"
        "CREATE VIEW v AS SELECT o.id FROM orders o JOIN paid p USING (id);"
        "INSERT INTO orders DEFAULT VALUES; INSERT INTO orders DEFAULT VALUES; INSERT INTO paid VALUES (2)"
    )
    with running(tmp_path) as host:
        assert protection(host, database, "v", keyColumns=["id"]).startswith("lookback")
        host.sync("v")
        database.execute("INSERT INTO paid VALUES (1)")
        host.sync("v")
        assert ids(host, "v") == [1, 2]


def test_a_sequence_that_counts_down_is_not_followed(postgres_database: TestDatabase, tmp_path: Path) -> None:
    """Each new row lies below the floor."""
    postgres_database.execute(BELOW)
    with running(tmp_path) as host:
        configure(host, postgres_database, "sinking")
        said = refusal(host, "sinking")
        assert "counts down" in said
        assert "full" in said
        configure(host, postgres_database, "sinking", mode="full")
        postgres_database.execute("INSERT INTO sinking DEFAULT VALUES")
        host.sync("sinking")
        assert ids(host, "sinking") == [-2, -1]


FOREIGN = """
    CREATE TABLE home (id bigserial PRIMARY KEY, v int); INSERT INTO home (v) VALUES (1);
    CREATE EXTENSION postgres_fdw; CREATE EXTENSION dblink;
    CREATE SERVER self FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{host}', port '{port}', dbname '{database}');
    CREATE USER MAPPING FOR CURRENT_USER SERVER self OPTIONS (user '{user}', password '{password}');
    CREATE FOREIGN TABLE far (id bigint NOT NULL, v int) SERVER self OPTIONS (table_name 'home');
    CREATE VIEW of_far AS SELECT id, v FROM far WHERE v > 0;
    CREATE VIEW mixed AS SELECT h.id, f.v FROM home h JOIN far f USING (id);
    CREATE TABLE parted (id bigint, v int) PARTITION BY RANGE (id);
    CREATE TABLE near PARTITION OF parted FOR VALUES FROM (100) TO (200);
    CREATE FOREIGN TABLE away PARTITION OF parted FOR VALUES FROM (0) TO (100) SERVER self OPTIONS (table_name 'home');
    CREATE VIEW of_parted AS SELECT * FROM parted; INSERT INTO near VALUES (100, 1);
    CREATE VIEW linked AS SELECT id FROM dblink('host={host} port={port} dbname={database} user={user}'
        ' password=''{connstr}''', 'SELECT id FROM home') AS t (id bigint)
"""


def test_a_view_of_a_foreign_table_is_not_protected(postgres_database: TestDatabase, tmp_path: Path) -> None:
    config = postgres_database.source_config
    connstr = config["password"].replace("'", "\\''")
    postgres_database.execute(FOREIGN.format(**{**config, "password": config["password"]}, connstr=connstr))
    with running(tmp_path) as host:
        for table, named in (
            ("far", "a foreign table"), ("of_far", "far"), ("mixed", "far"), ("parted", "away"), ("of_parted", "away"),
            ("linked", "dblink"),
        ):  # fmt: skip
            said = protection(host, postgres_database, table, keyColumns=["id"])
            assert said.startswith("lookback"), (table, said)
            assert named in said
            assert 1 in ids(host, table)
        assert protection(host, postgres_database, "near", keyColumns=["id"]).startswith("transactions")


class Logical(DistroPostgres):
    """One that publishes, and subscribes to itself."""

    def settings(self) -> dict[str, str]:
        return {**super().settings(), "wal_level": "logical"}


@pytest.fixture(name="subscriber", scope="module")
def _subscriber() -> Iterator[tuple[TestDatabase, TestDatabase]]:
    with Logical() as server, contextlib.ExitStack() as stack:
        publisher, subscriber = (stack.enter_context(fresh_database("postgresql", server)) for _ in range(2))
        name = f"sub_{uuid.uuid4().hex[:8]}"
        table = "id bigserial PRIMARY KEY, v text, at timestamptz DEFAULT now()"
        publisher.execute(
            f"CREATE TABLE t ({table}); CREATE TABLE parted ({table}); CREATE PUBLICATION p FOR ALL TABLES;"
            "INSERT INTO t DEFAULT VALUES; INSERT INTO parted DEFAULT VALUES"
        )
        publisher.execute(f"SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')")
        subscriber.execute(
            f"CREATE TABLE t ({table}); CREATE TABLE mine ({table}); CREATE VIEW v AS SELECT * FROM t;"
            "INSERT INTO mine DEFAULT VALUES;"
            "CREATE TABLE parted (id bigint PRIMARY KEY, v text, at timestamptz) PARTITION BY RANGE (id);"
            "CREATE TABLE low PARTITION OF parted FOR VALUES FROM (0) TO (1000);"
            "CREATE VIEW of_low AS SELECT * FROM low"
        )
        subscriber.execute(
            f"CREATE SUBSCRIPTION {name} CONNECTION 'host={server.socket_dir} port={server.port} user={server.user} "
            f"dbname={publisher.name}' PUBLICATION p WITH (create_slot = false, slot_name = '{name}')"
        )
        yield publisher, subscriber
        subscriber.execute(f"DROP SUBSCRIPTION {name}")


def test_a_subscriber_does_not_know_its_writers(subscriber: tuple[TestDatabase, TestDatabase], tmp_path: Path) -> None:
    """An id that the publisher gave out early arrives late; no transaction here could have shown it."""
    publisher, database = subscriber
    for table in ("t", "parted"):
        until(lambda name=table: database.fetch(f"SELECT 1 FROM {name}"), what="the first copy")  # type: ignore[misc]
    with running(tmp_path) as host:
        for table in ("t", "v", "parted", "low", "of_low"):
            said = protection(host, database, table, keyColumns=["id"])
            assert said.startswith("lookback"), table
            assert "subscription" in said
        assert protection(host, database, "mine").startswith("transactions")
        late = publisher.connect()
        late.execute("BEGIN; INSERT INTO t (v) VALUES ('late')")
        publisher.execute("INSERT INTO t (v) VALUES ('early')")
        until(lambda: database.fetch("SELECT 1 FROM t WHERE id = 3"), what="the replication")
        host.sync("t")
        host.sync("t")
        late.execute("COMMIT")
        until(lambda: database.fetch("SELECT 1 FROM t WHERE id = 2"), what="the replication")
        host.sync("t")
        assert ids(host, "t") == [1, 2, 3]


# What a look at who is writing needs: taken from PUBLIC, and given back by what the status says.
NEEDED = {
    "pg_locks": ("TABLE pg_catalog.pg_locks", "SELECT"),
    "pg_stat_activity": ("TABLE pg_catalog.pg_stat_activity", "SELECT"),
    "pg_prepared_xacts": ("TABLE pg_catalog.pg_prepared_xacts", "SELECT"),
    "pg_is_in_recovery": ("FUNCTION pg_catalog.pg_is_in_recovery()", "EXECUTE"),
    "pg_postmaster_start_time": ("FUNCTION pg_catalog.pg_postmaster_start_time()", "EXECUTE"),
    "pg_lock_status": ("FUNCTION pg_catalog.pg_lock_status()", "EXECUTE"),
    "pg_stat_clear_snapshot": ("FUNCTION pg_catalog.pg_stat_clear_snapshot()", "EXECUTE"),
}


def test_a_catalogue_that_is_closed_leaves_the_lookback(postgres_database: TestDatabase, tmp_path: Path) -> None:
    """The sync goes on without, says why and by which GRANT it is put right; and that takes effect at once."""
    database = postgres_database
    role = f"reader_{database.name[-8:]}"
    database.execute(
        "CREATE TABLE t (id bigserial PRIMARY KEY, at timestamptz DEFAULT now()); INSERT INTO t DEFAULT VALUES;"
        f"CREATE ROLE {role} LOGIN PASSWORD 'a password'; GRANT SELECT ON t TO {role}"
    )
    config = {**database.source_config, "user": role, "password": "a password"}
    rows = 1
    try:
        with running(tmp_path) as host:
            configure(host, database, "t", sourceConfig=config, trackingColumn="at", lookbackSeconds=None)
            host.sync("t")
            for taken in (*([name] for name in NEEDED), list(NEEDED)):
                late = database.connect()
                late.execute("BEGIN; INSERT INTO t DEFAULT VALUES")
                database.execute("INSERT INTO t DEFAULT VALUES")
                assert protection_of(host) == "transactions"
                for name in taken:
                    what, privilege = NEEDED[name]
                    database.execute(f"REVOKE {privilege} ON {what} FROM PUBLIC, {role}")
                database.execute("INSERT INTO t DEFAULT VALUES")
                said = protection_of(host)
                assert said.startswith("lookback")
                assert all(name in said for name in taken)
                late.execute("COMMIT")
                rows += 3
                host.sync("t")
                assert ids(host, "t") == list(range(1, rows + 1))
                # What is said is what helps.
                for statement in said.partition(": run ")[2].split("; "):
                    assert statement.startswith("GRANT ")
                    database.execute(statement)
                assert protection_of(host) == "transactions"
    finally:
        for what, privilege in NEEDED.values():
            database.execute(f"GRANT {privilege} ON {what} TO PUBLIC")
        database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


# What a description of a table needs.
DESCRIBING = (
    "TABLE pg_catalog.pg_sequence",
    "TABLE pg_catalog.pg_depend",
    "TABLE pg_catalog.pg_subscription_rel",
    "FUNCTION pg_catalog.row_security_active(oid)",
)


@pytest.mark.anyio
async def test_a_refused_catalogue_query_continues_in_a_marked_transaction(postgres_database: TestDatabase) -> None:
    """With the mark by which other readers know it, and with every setting: rows may still be read in it."""
    database = postgres_database
    role = f"reader_{database.name[-8:]}"
    database.execute(
        "CREATE TABLE t (id bigserial PRIMARY KEY); INSERT INTO t DEFAULT VALUES;"
        f"CREATE ROLE {role} LOGIN PASSWORD 'a password'; GRANT SELECT ON t TO {role}"
    )
    # The mark's lock, and what only a statement of that very transaction can say.
    marked = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 1937006962 AND objid = 1650553701"
    setting = "SELECT current_setting('IntervalStyle'), current_setting('row_security')"
    table = TableName(schema="public", name="t")
    config = {**database.source_config, "user": role, "password": "a password"}
    source = PostgresqlDialect().open(config, max_connections=1)
    try:
        async with source.inspect(table) as inspector:  # type: ignore[attr-defined]
            schema = await inspector.describe(table, "id")
            await asyncio.to_thread(database.execute, "REVOKE SELECT ON pg_catalog.pg_locks FROM PUBLIC")
            noted = await inspector.read_high_watermark(schema, Options(), noted_at=0.0)
            assert not noted.candidate.open_transactions.known
            assert await asyncio.to_thread(database.fetch, marked) == [(1,)]
            assert tuple(await inspector._inspecting.fetchrow(setting)) == ("iso_8601", "off")
    finally:
        await source.close()
        database.execute(f"GRANT SELECT ON pg_catalog.pg_locks TO PUBLIC; DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_catalogue_that_describes_no_table_is_refused_with_the_grant(
    postgres_database: TestDatabase, tmp_path: Path
) -> None:
    database = postgres_database
    role = f"reader_{database.name[-8:]}"
    database.execute(
        "CREATE TABLE t (id bigserial PRIMARY KEY); INSERT INTO t DEFAULT VALUES;"
        f"CREATE ROLE {role} LOGIN PASSWORD 'a password'; GRANT SELECT ON t TO {role}"
    )
    config = {**database.source_config, "user": role, "password": "a password"}
    try:
        with running(tmp_path) as host:
            configure(host, database, "t", sourceConfig=config)
            host.sync("t")
            for what in DESCRIBING:
                privilege = "EXECUTE" if what.startswith("FUNCTION") else "SELECT"
                database.execute(f"REVOKE {privilege} ON {what} FROM PUBLIC")
                answer = host.request("POST", "/data-replication/sync/t")
                assert answer.status_code == 502, answer.text
                grant = answer.json()["error"].partition(": run ")[2]
                assert grant == f"GRANT {privilege} ON {what} TO {role}"
                # What is said is what helps.
                database.execute(grant)
                run = host.sync("t")
                assert (run["status"], run["warnings"]) == ("success", [])
    finally:
        for what in DESCRIBING:
            privilege = "EXECUTE" if what.startswith("FUNCTION") else "SELECT"
            database.execute(f"GRANT {privilege} ON {what} TO PUBLIC")
        database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def protection_of(host: HostProcess) -> str:
    """What protects t, after one more sync: the kind alone where the transactions do."""
    assert host.sync("t")["status"] == "success"
    said = str(host.status("t")["protection"])
    return "transactions" if said == "transactions: pg_locks" else said


KINDS = (
    "foreign",
    "materialized",
    "method",
    "subscribed",
    "applied",
    "distributed",
    "bottomless",
    "function",
    "joined",
)
OF_NUMBERS = ("default", "trigger", "pool")
FACTS = st.fixed_dictionaries(
    {
        "kind": st.sampled_from((*KINDS, *OF_NUMBERS, "sequence", "file")),
        "name": st.sampled_from(("t", "public.t", "a", "b")),
        "cache": st.integers(1, 3),
        "increment": st.integers(-2, 2).filter(bool),
        "cycles": st.booleans(),
    }
)


@given(found=st.lists(FACTS, max_size=6), kind=st.sampled_from(("int8", "text", "timestamptz", "date", "uuid")))
def test_no_fact_that_speaks_against_a_claim_is_lost(found: list[dict[str, Any]], kind: str) -> None:
    """With any other finding beside it; and a column that no sequence can feed is not blamed for one."""
    judged_ = parse_protection_facts(found, TableName(schema="public", name="t"), "id", kind)
    numbered = kind in ("int8", "text")
    kinds = {fact["kind"] for fact in found}
    sequences = [fact for fact in found if fact["kind"] == "sequence"] if numbered else []
    down = any(fact["increment"] < 0 for fact in sequences)
    ahead = any(fact["cache"] > 1 or fact["increment"] > 1 or fact["cycles"] for fact in sequences)
    assert (judged_.unfollowable is not None) == ("materialized" in kinds or down)
    against = bool(kinds & (set(KINDS) - {"materialized"})) or (numbered and bool(kinds & set(OF_NUMBERS)))
    if against or (ahead and not down) or len(sequences) > 1:
        assert judged_.unprotected is not None
    if not against and not sequences:
        assert judged_.unprotected is None

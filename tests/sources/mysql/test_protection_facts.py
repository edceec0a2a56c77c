"""What protection is claimed for a MySQL or MariaDB table: only where the facts about this very table allow it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest
from hypothesis import given
from hypothesis import strategies as st

from starbase_data_replication.sources.mysql.view_text import origin, parse_view
from tests.support.hosts import HostProcess, running, until
from tests.support.servers import TestDatabase


def configure(host: HostProcess, database: TestDatabase, table: str, **more: Any) -> None:
    body = {"name": table, "sourceConfig": database.source_config, "sourceTable": table, "targetTable": table}
    defaults = {"trackingColumn": "id", "isActive": False, "closeWaitSeconds": 0, "settleSeconds": 0}
    host.configure(**{**body, **defaults, **more})


def protection(host: HostProcess, name: str) -> str:
    """What the status says protects it, after a sync."""
    run = host.sync(name)
    assert run["status"] == "success", run
    return str(host.status(name)["protection"])


BELOW = """
    CREATE TABLE quiet (id int AUTO_INCREMENT PRIMARY KEY, v varchar(20), at timestamp(6) DEFAULT now(6));
    CREATE TABLE more (id int AUTO_INCREMENT PRIMARY KEY, v varchar(20), at timestamp(6) DEFAULT now(6));
    CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY HASH (id) PARTITIONS 3;
    CREATE TABLE isam (id int AUTO_INCREMENT PRIMARY KEY, v varchar(20)) ENGINE = MyISAM;
    CREATE TABLE memory_ (id int PRIMARY KEY) ENGINE = MEMORY;
    CREATE TABLE csv_ (id int NOT NULL) ENGINE = CSV;
    CREATE TABLE one (id int PRIMARY KEY) ENGINE = MyISAM; CREATE TABLE two (id int PRIMARY KEY) ENGINE = MyISAM;
    CREATE TABLE merged (id int PRIMARY KEY) ENGINE = MERGE UNION = (one, two);
    CREATE VIEW plain AS SELECT id, v FROM quiet WHERE v <> 'it''s from `test`.`isam` \\\\';
    CREATE VIEW of_plain AS SELECT p.id FROM plain AS p JOIN more AS m ON m.id = p.id;
    CREATE VIEW of_isam AS SELECT id FROM isam;
    CREATE VIEW deep AS SELECT q.id FROM quiet AS q LEFT JOIN of_isam AS o ON o.id = q.id;
    CREATE VIEW nested AS SELECT s.id FROM (SELECT id FROM quiet) AS s WHERE EXISTS (SELECT 1 FROM isam);
    CREATE VIEW in_cte AS WITH `c` AS (SELECT id FROM isam) SELECT c.id FROM c JOIN quiet USING (id);
    CREATE VIEW good_cte AS WITH `c` AS (SELECT id FROM more) SELECT c.id FROM c JOIN quiet USING (id);
    CREATE VIEW of_cte AS WITH `c` AS (SELECT id FROM more) SELECT id FROM c;
    CREATE VIEW taken AS SELECT id, extract(year FROM at) AS y, trim(LEADING 'a' FROM v) AS w FROM quiet;
    CREATE VIEW both_of AS SELECT id, v, at FROM quiet UNION ALL SELECT id + 100, v, at FROM more;
    CREATE VIEW nothing AS SELECT 1 AS id;
    CREATE VIEW sessions AS SELECT id FROM information_schema.processlist WHERE id = CONNECTION_ID();
    CREATE VIEW falling AS SELECT id AS k, -id AS id, v FROM quiet;
    CREATE VIEW under_falling AS SELECT f.k, f.id FROM falling AS f;
    CREATE VIEW besides_falling AS SELECT k AS id, id AS k FROM falling;
    CREATE VIEW ranked AS SELECT id AS k, rank() OVER (ORDER BY quiet.id DESC) AS id FROM quiet;
    CREATE VIEW subtracted AS SELECT q.id AS k, 10000000 - q.id AS id FROM quiet AS q;
    CREATE VIEW smallest AS SELECT id AS k, least(id, 3) AS id FROM quiet;
    CREATE VIEW hashed AS SELECT id AS k, crc32(id) AS id FROM quiet;
    CREATE VIEW reversed AS SELECT id AS k, CAST(reverse(CAST(id AS char)) AS signed) AS id FROM quiet;
    CREATE VIEW inner_falling AS SELECT s.v, s.n AS id FROM (SELECT v, -id AS n FROM quiet) AS s;
    CREATE VIEW either_time AS SELECT id, coalesce(at, '2000-01-01') AS at FROM quiet;
    CREATE VIEW renamed (`the id`, w) AS SELECT s.`n ``m` AS k, s.v FROM (SELECT id AS `n ``m`, v FROM quiet) AS s;
    CREATE TABLE made (
        id int AUTO_INCREMENT PRIMARY KEY, v int, g bigint AS (-v) STORED, w bigint AS (v + 1) VIRTUAL,
        d int DEFAULT (1));
    CREATE VIEW of_made AS SELECT id, g FROM made; INSERT INTO made (v) VALUES (1);
    CREATE VIEW least_of AS SELECT v, min(id) AS id FROM quiet GROUP BY v;
    CREATE VIEW once AS SELECT DISTINCT id, v FROM quiet;
    CREATE VIEW first_ones AS SELECT id, v FROM quiet ORDER BY id LIMIT 150;
    CREATE VIEW numbered_rows AS SELECT id, row_number() OVER (ORDER BY quiet.v) AS n FROM quiet;
    CREATE VIEW without AS SELECT id FROM quiet WHERE id NOT IN (SELECT id FROM quiet WHERE v = 'x');
    CREATE VIEW united AS SELECT id FROM quiet UNION SELECT id FROM quiet;
    CREATE VIEW later AS SELECT id FROM quiet WHERE at < now(6) - INTERVAL 0 SECOND;
    CREATE VIEW later_date AS SELECT id FROM quiet WHERE at <= sysdate();
    CREATE VIEW later_unix AS SELECT id FROM quiet WHERE unix_timestamp(at) <= unix_timestamp();
    CREATE VIEW as_number AS SELECT id FROM quiet WHERE unix_timestamp(at) > 1;
    CREATE FUNCTION highest() RETURNS int READS SQL DATA RETURN (SELECT max(id) FROM isam);
    CREATE VIEW calls AS SELECT id FROM quiet WHERE id <= highest();
    INSERT INTO quiet (v) VALUES ('a'); INSERT INTO more (v) VALUES ('a'); INSERT INTO parted VALUES (1);
    INSERT INTO isam (v) VALUES ('a'); INSERT INTO memory_ VALUES (1); INSERT INTO csv_ VALUES (1);
    INSERT INTO one VALUES (1);
    CREATE TABLE orders (id bigint PRIMARY KEY, at timestamp(6) DEFAULT now(6)); INSERT INTO orders (id) VALUES (1);
    CREATE TABLE orders_seq (next_val bigint); CREATE TABLE quiet_seq (next_val bigint)
"""
OF_MARIADB = """;
    CREATE TABLE aria_ (id int PRIMARY KEY) ENGINE = Aria;
    CREATE TABLE old_parted (id int PRIMARY KEY) ENGINE = MyISAM PARTITION BY HASH (id) PARTITIONS 2;
    CREATE TABLE versioned (id int PRIMARY KEY) WITH SYSTEM VERSIONING;
    CREATE VIEW of_versioned AS SELECT id FROM versioned;
    CREATE SEQUENCE numbers; CREATE SEQUENCE fifties INCREMENT 50; CREATE SEQUENCE down INCREMENT -1;
    CREATE SEQUENCE round CYCLE;
    CREATE TABLE numbered (id bigint DEFAULT nextval(numbers) PRIMARY KEY);
    CREATE TABLE pooled (id bigint DEFAULT nextval(fifties) PRIMARY KEY);
    CREATE TABLE wrapping (id bigint DEFAULT nextval(round) PRIMARY KEY);
    CREATE TABLE sinking (id bigint DEFAULT nextval(down) PRIMARY KEY);
    CREATE TABLE set_up (id bigint PRIMARY KEY, v bigint, at timestamp(6) NULL); CREATE TABLE set_down LIKE set_up;
    CREATE TABLE set_by_two LIKE set_up; CREATE TABLE set_by_fifties LIKE set_up; CREATE TABLE set_beside LIKE set_up;
    CREATE TRIGGER up BEFORE INSERT ON set_up FOR EACH ROW SET NEW.v = NEXTVAL(numbers), NEW.at = now(6);
    CREATE TRIGGER two BEFORE INSERT ON set_by_two FOR EACH ROW
        SET NEW.v = IF(NEW.id > 1, NEXTVAL(numbers), NEXTVAL(fifties)), NEW.at = now(6);
    CREATE TRIGGER fifty BEFORE INSERT ON set_by_fifties FOR EACH ROW
        BEGIN SET NEW.`v` = next value  FOR `fifties`; SET NEW.at = now(6); END;
    CREATE TRIGGER down BEFORE INSERT ON set_down FOR EACH ROW SET NEW.v = NEXTVAL ( down );
    CREATE TRIGGER beside BEFORE INSERT ON set_beside FOR EACH ROW SET NEW.id = NEXTVAL(fifties);
    INSERT INTO set_up (id) VALUES (1); INSERT INTO set_down (id) VALUES (1); INSERT INTO set_by_two (id) VALUES (1);
    INSERT INTO set_by_fifties (id) VALUES (1); INSERT INTO set_beside (id, v) VALUES (1, 1);
    INSERT INTO aria_ VALUES (1); INSERT INTO old_parted VALUES (1); INSERT INTO versioned VALUES (1);
    INSERT INTO numbered VALUES (DEFAULT); INSERT INTO pooled VALUES (DEFAULT); INSERT INTO wrapping VALUES (DEFAULT);
    INSERT INTO sinking VALUES (DEFAULT)
"""
# Of each table what its protection begins with, and what it names.
EXPECTED = [
    ("quiet", "id", "transactions", ""),
    ("parted", "id", "transactions", ""),
    ("orders", "id", "lookback", "orders_seq"),
    ("orders", "at", "transactions", ""),
    ("isam", "id", "lookback", "MyISAM"),
    ("memory_", "id", "lookback", "MEMORY"),
    ("csv_", "id", "lookback", "CSV"),
    ("merged", "id", "lookback", "MRG"),
    ("plain", "id", "transactions", ""),
    ("of_plain", "id", "lookback", "of_plain joins several tables"),
    ("of_isam", "id", "lookback", ".isam is stored by MyISAM"),
    ("deep", "id", "lookback", ".isam is stored by MyISAM"),
    ("nested", "id", "lookback", ".isam is stored by MyISAM"),
    ("in_cte", "id", "lookback", ".isam is stored by MyISAM"),
    ("good_cte", "id", "lookback", "good_cte joins several tables"),
    ("of_cte", "id", "transactions", ""),
    ("taken", "id", "transactions", ""),
    ("both_of", "id", "lookback", "the AUTO_INCREMENT of several tables"),
    ("both_of", "at", "lookback", "joins several tables"),
    ("falling", "id", "lookback", "falling.id), and nothing"),
    ("falling", "k", "transactions", ""),
    ("under_falling", "id", "lookback", "falling.id), and nothing"),
    ("besides_falling", "id", "transactions", ""),
    ("ranked", "id", "lookback", "ranked.id), and nothing"),
    ("subtracted", "id", "lookback", "subtracted.id), and nothing"),
    ("smallest", "id", "lookback", "smallest.id), and nothing"),
    ("hashed", "id", "lookback", "hashed.id), and nothing"),
    ("reversed", "id", "lookback", "reversed.id), and nothing"),
    ("inner_falling", "id", "lookback", "inner_falling.id), and nothing"),
    ("either_time", "at", "lookback", "either_time.at)"),
    ("renamed", "the id", "transactions", ""),
    ("made", "g", "lookback", "made.g)"),
    ("made", "w", "lookback", "made.w)"),
    ("made", "id", "transactions", ""),
    ("made", "d", "transactions", ""),
    ("of_made", "g", "lookback", "made.g)"),
    ("of_made", "id", "transactions", ""),
    ("least_of", "id", "lookback", "groups rows"),
    ("once", "id", "lookback", "one of several equal rows"),
    ("first_ones", "id", "lookback", "limits its rows"),
    ("numbered_rows", "id", "lookback", "window function"),
    ("without", "id", "lookback", "reads a table more than once"),
    ("united", "id", "lookback", "UNION"),
    ("later", "id", "lookback", "later calls"),
    ("later_date", "id", "lookback", "sysdate()"),
    ("later_unix", "id", "lookback", "unix_timestamp()"),
    ("as_number", "id", "transactions", ""),
    ("nothing", "id", "lookback", "no table"),
    ("sessions", "id", "lookback", "catalogue"),
    ("calls", "id", "lookback", "highest"),
]
EXPECTED_OF_MARIADB = [
    ("aria_", "id", "lookback", "Aria"),
    ("old_parted", "id", "lookback", "MyISAM"),
    ("versioned", "id", "transactions", ""),
    ("of_versioned", "id", "transactions", ""),
    ("numbers", "start_value", "lookback", "sequence"),
    ("numbered", "id", "transactions", ""),
    ("pooled", "id", "lookback", "steps by 50"),
    ("wrapping", "id", "lookback", "NOCYCLE"),
    ("set_up", "v", "transactions", ""),
    ("set_up", "at", "transactions", ""),
    ("set_by_two", "v", "lookback", "cannot be traced"),
    ("set_by_two", "at", "transactions", ""),
    ("set_by_fifties", "v", "lookback", "steps by 50"),
    ("set_beside", "v", "transactions", ""),
]


def test_the_tables_below_a_table_decide_what_protects_it(
    either_mysql: TestDatabase, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    database = either_mysql
    mariadb = "mariadb" in request.node.name
    database.execute(BELOW + (OF_MARIADB if mariadb else ""))
    with running(tmp_path) as host:
        wrong = []
        for number, (table, column, kind, named) in enumerate(EXPECTED + (EXPECTED_OF_MARIADB if mariadb else [])):
            name = f"r{number}"
            key = ["id"] if column in ("id", "at", "v") else [column]
            configure(host, database, table, name=name, targetTable=name, trackingColumn=column, keyColumns=key)
            said = protection(host, name)
            if not said.startswith(kind) or named not in said:
                wrong.append((table, column, kind, named, said))
            several = any(
                "the AUTO_INCREMENT of several tables" in warning for warning in host.logs(name)[0]["warnings"]
            )
            assert several == ("AUTO_INCREMENT of several" in named)
            computed = any(f"{column} is computed" in warning for warning in host.logs(name)[0]["warnings"])
            assert computed == (f"{column} is computed" in said), table
        assert wrong == []
        if mariadb:
            for table, column in (("sinking", "id"), ("set_down", "v")):
                configure(host, database, table, trackingColumn=column)
                response = host.request("POST", f"/data-replication/sync/{table}")
                assert response.status_code == 502
                assert "counts down" in response.json()["error"]
                assert "set mode to full" in response.json()["error"]


@pytest.fixture(name="reader")
def _reader(either_mysql: TestDatabase) -> Iterator[str]:
    """A user who may do nothing yet."""
    name = f"reader_{either_mysql.name[-8:]}"
    either_mysql.execute(f"CREATE USER {name}@'%' IDENTIFIED BY 'a password'")
    yield name
    either_mysql.execute(f"DROP USER {name}@'%'")


def read_by(database: TestDatabase, reader: str) -> dict[str, Any]:
    return {"sourceConfig": {**database.source_config, "user": reader, "password": "a password"}}


def test_a_granted_privilege_is_seen_without_a_restart(
    either_mysql: TestDatabase, reader: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """A session keeps the privileges with which it began, and the host's last as long as the host."""
    database, role = either_mysql, f"role_{reader[-8:]}"
    database.execute(
        "CREATE TABLE t (id int AUTO_INCREMENT PRIMARY KEY); INSERT INTO t VALUES (); INSERT INTO t VALUES ();"
        f"GRANT SELECT ON t TO {reader}@'%'; CREATE ROLE {role}; GRANT PROCESS ON *.* TO {role}; "
        f"GRANT {role} TO {reader}@'%'"
    )
    default = f"SET DEFAULT ROLE {{}} {'FOR' if 'mariadb' in request.node.name else 'TO'} {reader}@'%'"
    try:
        with running(tmp_path) as host:
            configure(host, database, "t", **read_by(database, reader))
            for _ in range(3):
                said = protection(host, "t")
                assert said.startswith("lookback")
                assert "GRANT PROCESS" in said
            for grant, revoke in (
                (f"GRANT PROCESS ON *.* TO {reader}@'%'", f"REVOKE PROCESS ON *.* FROM {reader}@'%'"),
                (default.format(role), default.format("NONE")),
            ):
                database.execute(grant)
                for _ in range(2):
                    assert protection(host, "t").startswith("transactions")
                database.execute(revoke)
                # Our session still sees what it saw, so the claim holds; one that begins now does not.
                assert protection(host, "t").startswith("transactions")
                cut(database, reader)
                assert protection(host, "t").startswith("lookback")
    finally:
        database.execute(f"DROP ROLE {role}")


def cut(database: TestDatabase, user: str) -> None:
    """End the user's sessions."""
    for (thread,) in database.fetch("SELECT id FROM information_schema.processlist WHERE user = %s", user):
        with contextlib.suppress(pymysql.err.OperationalError):
            database.execute(f"KILL {thread}")
    until(
        lambda: not database.fetch("SELECT 1 FROM information_schema.processlist WHERE user = %s", user),
        what="the end of the sessions",
    )


def test_tables_that_this_user_may_not_read_are_not_protected(
    either_mysql: TestDatabase, reader: str, tmp_path: Path
) -> None:
    """And each thing that is said helps: SHOW VIEW, then SELECT on what is below."""
    database = either_mysql
    database.execute(
        "CREATE TABLE t (id int AUTO_INCREMENT PRIMARY KEY); INSERT INTO t VALUES ();"
        "CREATE VIEW below AS SELECT id FROM t; CREATE VIEW v AS SELECT id FROM below;"
        f"GRANT SELECT ON v TO {reader}@'%'; GRANT PROCESS ON *.* TO {reader}@'%'"
    )
    with running(tmp_path) as host:
        configure(host, database, "v", keyColumns=["id"], **read_by(database, reader))
        grants = []
        while not (said := protection(host, "v")).startswith("transactions"):
            assert said.startswith("lookback")
            grant = re.search(r"GRANT (?:SHOW VIEW|SELECT) ON `[^`]+`.`[^`]+`", said)
            assert grant is not None, said
            assert grant[0] not in grants
            grants.append(grant[0])
            database.execute(f"{grant[0]} TO {reader}@'%'")
        assert [grant.partition(" ON ")[0].removeprefix("GRANT ") + grant[-3:] for grant in grants] == [
            "SHOW VIEW`v`", "SELECTow`", "SHOW VIEWow`", "SELECT`t`",
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "tables", "function", "unknown"),
    [
        ("select `d`.`t`.`id` AS `id` from `d`.`t`", [("d", "t")], None, False),
        ("select `a`.`id` AS `id` from ((`d`.`t` `a` join `e`.`u` `b`) left join `f`.`v` on(1))",
         [("d", "t"), ("e", "u"), ("f", "v")], None, False),
        ("select 1 AS `x` from `d`.`t` straight_join `d`.`u`", [("d", "t"), ("d", "u")], None, False),
        ("with c as (select 1 AS `x` from `d`.`t`)select `c`.`x` AS `x` from (`c` join `d`.`u`)",
         [("d", "t"), ("d", "u")], None, False),
        ("with recursive `c` (`n`) as (select 1 union all select `c`.`n` + 1 from `c`) select `c`.`n` from `c`",
         [], None, False),
        ("select extract(year from `t`.`at`) AS `y`,trim(both 'x' from concat(`t`.`v`,'y')) AS `v` from `d`.`t`",
         [("d", "t")], None, False),
        ("select `x`.`id` from (select `d`.`t`.`id` from `d`.`t`) `x` join lateral (select 1 from `d`.`u`) `l`",
         [("d", "t"), ("d", "u")], None, False),
        ("select `j`.`id` from JSON_TABLE('[1]', '$[*]' COLUMNS (`id` int PATH '$')) `j`", [], None, False),
        ("select 'a from `d`.`no`' AS `s`,'it\\'s','it''s from `d`.`no`' from `d`.`odd ``name`",
         [("d", "odd `name")], None, False),
        ("select `fn`(`d`.`t`.`id`) AS `id` from `d`.`t`", [("d", "t")], "fn", False),
        ("select `e`.`fn`() AS `id` from `d`.`t`", [("d", "t")], "fn", False),
        ("select nextval(`d`.`s`) AS `id` from `d`.`t`", [("d", "t")], None, True),
        ("select id from t", [], None, True),
        ("select `id` from `t`", [], None, True),
        ("select 1 from `d`.`t` PARTITION (`p0`) where `d`.`t`.`id` in (select `u`.`id` from `e`.`u` `u`)",
         [("d", "t"), ("e", "u")], None, False),
    ],
)  # fmt: skip
def test_a_view_is_traced_by_its_text(
    text: str, tables: list[tuple[str, str]], function: str | None, unknown: bool
) -> None:
    found = parse_view(text)
    assert (list(found.tables), found.function, found.unknown) == (tables, function, unknown)


NAMES = st.text(min_size=1, max_size=8).filter(lambda name: "\0" not in name)


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("select `d`.`t`.`a` AS `id` from `d`.`t`", "a"),
        ("select `d`.`t`.`a` AS `ID`,-`d`.`t`.`id` AS `k` from `d`.`t`", "a"),
        ("select distinct `t`.`a ``,b` AS `id` from `d`.`t`", "a `,b"),
        ("select -`t`.`id` AS `id` from `d`.`t`", None),
        ("select cast(`t`.`id` as signed) AS `id` from `d`.`t`", None),
        ("select (select `u`.`id` from `d`.`u`) AS `id` from `d`.`t`", None),
        ("select `t`.`z` AS `id`,'from' AS `x`,extract(year from `t`.`at`) AS `y` from `d`.`t`", "z"),
        ("select `s`.`n` AS `id` from (select `t`.`m` AS `n`,-`t`.`m` AS `m` from `d`.`t`) `s`", None),
        ("select `s`.`n` AS `id` from (select `t`.`m` AS `n` from `d`.`t`) `s`", "m"),
        ("select `s`.`id` AS `id` from (select `t`.`id` AS `id` from `d`.`t`) `s`", "id"),
        ("select `s`.`id` AS `id` from (select -`t`.`id` AS `id` from `d`.`t`) `s`", None),
        ("with `c` as (select -`t`.`id` AS `n` from `d`.`t`) select `c`.`n` AS `id` from `c`", None),
        ("with `c` as (select `t`.`id` AS `n` from `d`.`t`) select `c`.`n` AS `id` from `c`", "id"),
        ("select `t`.`id` AS `id` from `d`.`t` union all select `u`.`id` AS `other` from `d`.`u`", "id"),
        ("select `t`.`id` AS `id` from `d`.`t` union all select -`u`.`id` AS `-id` from `d`.`u`", None),
        ("(select `t`.`id` AS `id` from `d`.`t`) union all (select -`u`.`id` AS `-id` from `d`.`u`)", None),
        ("select `s`.`id` AS `id` from (select `t`.`id` AS `id` from `t` union all select -`t`.`id`) `s`", None),
        ("select `t`.`a` AS `other`,`t`.`id` AS `id` from `d`.`t`", "a"),
        ("select `s`.`id` AS `id` from (select -`t`.`id` AS `-id` from `d`.`t`) `s` (`id`)", None),
        ("with `c` (`id`) as (select -`t`.`id` AS `n` from `d`.`t`) select `c`.`id` AS `id` from `c`", None),
        ("", None),
    ],
)  # fmt: skip
def test_the_origin_of_a_column_is_found_in_a_views_text(text: str, column: str | None) -> None:
    assert origin(parse_view(text).words, 0) == column


@given(names=st.lists(st.tuples(NAMES, NAMES), min_size=1, max_size=4, unique=True), literal=st.text(max_size=20))
def test_no_name_and_no_literal_hides_a_table(names: list[tuple[str, str]], literal: str) -> None:
    """With any table names, and any texts in a view, each table is found, and nothing else."""
    quoted = [".".join("`" + part.replace("`", "``") + "`" for part in pair) for pair in names]
    text = "'" + literal.replace("\\", "\\\\").replace("'", "\\'") + "'"
    sources = f" join {text_of_subquery(quoted[-1], text)} `s` join ".join(quoted)
    found = parse_view(f"select {text} AS `a`,{quoted[0]}.`id` AS `b` from {sources} where {quoted[0]}.`id` <> {text}")
    assert set(found.tables) == set(names)
    assert not found.unknown
    assert found.function is None


def text_of_subquery(table: str, text: str) -> str:
    return f"(select {table}.`x` AS `x` from {table} where {table}.`y` = {text})"


def test_a_stopped_replica_of_mariadb_is_not_taken_for_a_primary(
    mariadb_database: TestDatabase, tmp_path: Path
) -> None:
    """What it has still to apply comes in below every floor; whether it has, an ordinary user may not see."""
    mariadb_database.execute(
        "CREATE TABLE t (id int PRIMARY KEY) SELECT 1 AS id; CREATE USER who@'%' IDENTIFIED BY 'p'"
    )
    mariadb_database.execute(f"GRANT PROCESS ON *.* TO who@'%'; GRANT SELECT ON {mariadb_database.name}.* TO who@'%'")
    with running(tmp_path) as host:
        config = {**mariadb_database.source_config, "user": "who", "password": "p"}
        configure(host, mariadb_database, "t", sourceConfig=config)
        try:
            assert protection(host, "t").startswith("transactions")
            mariadb_database.execute(
                "SET GLOBAL gtid_slave_pos = '0-99-1'; CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = 1"
            )
            found = protection(host, "t")
            assert found.startswith("lookback")
            assert "GRANT REPLICA MONITOR ON *.* to it" in found
            mariadb_database.execute("GRANT REPLICA MONITOR ON *.* TO who@'%'")
            assert "is set up to apply the transactions of another server" in protection(host, "t")
            mariadb_database.execute("RESET SLAVE ALL")
            until(lambda: protection(host, "t").startswith("transactions"))
        finally:
            mariadb_database.execute("RESET SLAVE ALL; SET GLOBAL gtid_slave_pos = ''; DROP USER who@'%'")

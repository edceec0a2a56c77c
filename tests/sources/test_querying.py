"""What a query answers over a replica and at its source: the tables of docs/howto/query-a-replica.md come from this.

With WRITE_QUERYING=1 in the environment a run writes what it finds into the page.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.hosts import HostProcess, running
from tests.support.packages import ROOT
from tests.support.servers import TestDatabase
from tests.support.sessions import Session

PAGE = ROOT / "docs" / "howto" / "query-a-replica.md"

# Each answers rows of ids, of counts or of numbers, which both sides write alike. {c} is the column.
OPERATIONS = {
    "=": "SELECT id FROM t WHERE {c} = {a} ORDER BY id",
    "<": "SELECT id FROM t WHERE {c} < {a} ORDER BY id",
    "BETWEEN": "SELECT id FROM t WHERE {c} BETWEEN {a} AND {b} ORDER BY id",
    "ORDER BY": "SELECT id FROM t WHERE {c} IS NOT NULL ORDER BY {c}, id",
    "min": "SELECT id FROM t WHERE {c} = (SELECT min({c}) FROM t) ORDER BY id",
    "max": "SELECT id FROM t WHERE {c} = (SELECT max({c}) FROM t) ORDER BY id",
    "sum": "SELECT sum({c}) FROM t",
    "/": "SELECT id, {c} / 2 FROM t WHERE {c} IS NOT NULL ORDER BY id",
    "GROUP BY": "SELECT count(*) AS n FROM t WHERE {c} IS NOT NULL GROUP BY {c} ORDER BY n",
    "LIKE": "SELECT id FROM t WHERE {c} LIKE {pattern} ORDER BY id",
    "time": "",
    "JSON": "",
}
NUMBERS = ("=", "<", "BETWEEN", "ORDER BY", "min", "max", "sum", "/", "GROUP BY")
ORDERED = ("=", "<", "BETWEEN", "ORDER BY", "min", "max", "GROUP BY")
GROUPED = ("=", "GROUP BY")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A type of a source: its values, and what is asked. a, b, pattern: as they are written on both sides.

    asked: an operation to the source's SQL and the replica's, where they are others than of OPERATIONS.
    instead: an operation to how the replica is asked where the same does not answer the same. otherwise: what the page
    says of those that have none. types: what the column is kept as, where that is asked for.
    """

    sql: str
    values: tuple[str, ...]
    operations: tuple[str, ...] = ORDERED
    a: str = ""
    b: str = ""
    pattern: str = "''"
    asked: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    instead: Mapping[str, str] = field(default_factory=dict)
    types: str = ""
    otherwise: str = "nothing: SQLite has no such order"


def where(condition: str) -> str:
    return f"SELECT id FROM t WHERE {condition} ORDER BY id"


def halves(expression: str) -> str:
    return f"SELECT id, {expression} / 2 FROM t WHERE {{c}} IS NOT NULL ORDER BY id"


WORDS = ("'a'", "'B'", "'b'", "'A'", "'é'", "'É'", "'z_x'", "'zzx'", "'10'", "'9'", "''")
DAYS = ("'2026-11-22'", "'2026-11-23'", "'2026-02-28'", "'1999-12-31'", "'2026-11-22'")
MOMENTS = (
    "'2026-11-22 15:59:59.5'", "'2026-11-22 16:00:00'", "'2026-11-22 16:00:00.25'", "'2026-11-23 00:00:00'",
    "'2026-11-21 23:59:59'", "'2026-11-22 16:00:00'",
)  # fmt: skip
A_MOMENT, B_MOMENT = "'2026-11-22 16:00:00'", "'2026-11-22 23:00:00'"


def moments(sql: str, zone: str, plus_a_day: str, *, types: str = "") -> Kind:
    at, until = f"'2026-11-22T16:00:00.000000{zone}'", f"'2026-11-22T23:00:00.000000{zone}'"
    return Kind(
        sql=sql,
        values=MOMENTS,
        operations=(*ORDERED, "time"),
        a=A_MOMENT,
        b=B_MOMENT,
        types=types,
        asked={
            "time": (
                where(f"{{c}} < {plus_a_day}"),
                where("{c} < datetime('2026-11-21 16:00:00', '+1 day')"),
            )
        },
        instead={
            "=": where(f"{{c}} = {at}"),
            "<": where(f"{{c}} < {at}"),
            "BETWEEN": where(f"{{c}} BETWEEN {at} AND {until}"),
            "time": where(f"{{c}} < strftime('%Y-%m-%dT%H:%M:%f000{zone}', '2026-11-21 16:00:00', '+1 day')"),
        },
    )


def kinds(dialect: str, *, maria: bool = False) -> dict[str, Kind]:
    postgres = dialect == "postgresql"
    halved = {"/": halves("{c} * 1.0")}
    next_day = "timestamp '2026-11-21 16:00:00' + interval '1' day"
    wide = ("1.10", "12345678901234567890.5", "-3", "100", "99.5", "NULL", "-12345678901234567891.25")
    found = {
        "`bigint`": Kind(sql="bigint", values=("1", "10", "9", "-5", "NULL", "9"), operations=NUMBERS, a="9", b="10",
                         instead=halved),
        "`numeric(12,2)`": Kind(sql="numeric(12,2)", values=("99.90", "100.00", "1000.50", "-5.25", "NULL", "100"),
                                operations=NUMBERS, a="100", b="500.5"),
        "`numeric(18,0)`": Kind(sql="numeric(18,0)", values=("99", "100", "1001", "-5", "NULL", "100"),
                                operations=NUMBERS, a="100", b="500.5", instead=halved),
        "`numeric(30,10)`, some of over 15 digits": Kind(
            sql="numeric(30,10)", values=wide, operations=NUMBERS, a="99.5", b="100",
            instead={
                "ORDER BY": "SELECT id FROM t WHERE {c} IS NOT NULL ORDER BY CAST({c} AS REAL), id",
                "min": where("CAST({c} AS REAL) = (SELECT min(CAST({c} AS REAL)) FROM t)"),
                "<": where("CAST({c} AS REAL) < 99.5"),
            },
            otherwise="nothing: a sum of doubles has some 15 digits; add them up outside of SQLite",
        ),
        "`double precision`": Kind(sql="double precision", values=("0.1", "0.3", "-1e300", "5", "NULL", "0.3"),
                                   operations=NUMBERS, a="0.3", b="5"),
        "`date`": Kind(
            sql="date", values=DAYS, operations=(*ORDERED, "time"), a="'2026-11-22'", b="'2026-12-31'",
            asked={"time": (where("{c} < date '2026-11-20' + interval '3' day"),
                            where("{c} < date('2026-11-20', '+3 days')"))},
        ),
        "`time`": Kind(sql="time(6)", values=("'16:00:00'", "'15:59:59.5'", "'09:30:00'", "'16:00:00.5'"),
                       a="'16:00:00'",
                       b="'16:00:01'", instead={"=": where("{c} = '16:00:00.000000'")}),
        "`json`": Kind(
            sql="jsonb" if postgres else "json", operations=("JSON",),
            values=("'{\"a\": {\"b\": \"x\"}, \"n\": 5}'", "'{\"a\": null}'", "'[1, 2]'", "NULL"),
            asked={"JSON": (
                where("{c} -> 'a' ->> 'b' = 'x'" if postgres else "JSON_UNQUOTE(JSON_EXTRACT({c}, '$.a.b')) = 'x'"),
                where("{c} -> 'a' ->> 'b' = 'x'" if postgres else "json_extract({c}, '$.a.b') = 'x'"),
            )},
        ),
    }  # fmt: skip
    if postgres:
        return found | {
            "`boolean`": Kind(sql="boolean", values=("true", "false", "NULL", "true"), a="true", b="true",
                              operations=("=", "<", "ORDER BY", "GROUP BY")),
            "`numeric`": Kind(sql="numeric", values=("1.10", "1.1", "99.50", "100", "NULL"), operations=NUMBERS,
                              a="100",
                              b="1000"),
            "`text`": Kind(
                sql='text COLLATE "en-x-icu"', values=WORDS, operations=(*ORDERED, "LIKE"), a="'b'", b="'z'",
                pattern="'A%'", instead={"LIKE": where("{c} GLOB 'A*'")},
            ),
            '`text COLLATE "C"`': Kind(
                sql='text COLLATE "C"', values=WORDS, operations=(*ORDERED, "LIKE"), a="'b'", b="'z'", pattern="'A%'",
                instead={"LIKE": where("{c} GLOB 'A*'")},
            ),
            "`timestamp`": moments("timestamp", "", next_day),
            "`timestamp with time zone`": moments("timestamptz", "Z", f"({next_day}) AT TIME ZONE 'UTC'"),
            "`timestamp` as `datetime`": moments("timestamp", "", next_day, types="datetime"),
            "`timestamp with time zone` as `datetime`": moments(
                "timestamptz", "Z", f"({next_day}) AT TIME ZONE 'UTC'", types="datetime"
            ),
            "`uuid`": Kind(
                sql="uuid", operations=("=", "<", "BETWEEN", "ORDER BY", "GROUP BY"),
                a="'A0000000-0000-0000-0000-000000000001'", b="'b0000000-0000-0000-0000-000000000001'",
                values=("'a0000000-0000-0000-0000-000000000001'", "'10000000-0000-0000-0000-000000000001'"),
                instead={
                    "=": where("{c} = lower('A0000000-0000-0000-0000-000000000001')"),
                    "<": where("{c} < lower('A0000000-0000-0000-0000-000000000001')"),
                    "BETWEEN": where("{c} BETWEEN lower('A0000000-0000-0000-0000-000000000001') AND "
                                     "lower('b0000000-0000-0000-0000-000000000001')"),
                },
            ),
            "`interval`": Kind(
                sql="interval", values=("'1 day'", "'24 hours'", "'2 hours'", "'1 month'"), operations=("ORDER BY",),
            ),
            "`int[]`": Kind(
                sql="int[]", values=("'{1,2}'", "'{3}'", "NULL"), operations=("JSON",),
                asked={"JSON": (where("2 = ANY ({c})"),
                                where("EXISTS (SELECT 1 FROM json_each({c}) WHERE value = 2)"))},
            ),
        }  # fmt: skip
    return found | {
        "`varchar` in a `_ci` collation": Kind(
            sql="varchar(20) COLLATE utf8mb4_general_ci", values=WORDS, operations=(*ORDERED, "LIKE"), a="'b'", b="'z'",
            pattern="'A%'",
            instead={"=": where("{c} = 'b' COLLATE NOCASE"), "<": where("{c} < 'b' COLLATE NOCASE")},
            otherwise="for ASCII, `COLLATE NOCASE` after the column, or `collations`; SQLite cannot do more",
        ),
        "`varchar` in a `_bin` collation": Kind(
            sql="varchar(20) COLLATE utf8mb4_bin", values=WORDS, operations=(*ORDERED, "LIKE"), a="'b'", b="'z'",
            pattern="'A%'", instead={"LIKE": where("{c} GLOB 'A*'")},
        ),
        "`datetime`": moments("datetime(6)", "", next_day),
        "`timestamp`": moments("timestamp(6) NULL", "Z", next_day),
        "`datetime` as `datetime`": moments("datetime(6)", "", next_day, types="datetime"),
        "`timestamp` as `datetime`": moments("timestamp(6) NULL", "Z", next_day, types="datetime"),
        "`bigint unsigned`": Kind(
            sql="bigint unsigned", values=("1", "10", "18446744073709551615", "9223372036854775808", "NULL"),
            operations=("=", "<", "BETWEEN", "ORDER BY", "min", "max"), a="10", b="11",
            instead={
                "ORDER BY": "SELECT id FROM t WHERE {c} IS NOT NULL ORDER BY length({c}), {c}, id",
                "max": "SELECT id FROM t ORDER BY length({c}) DESC, {c} DESC LIMIT 1",
            },
        ),
        "`enum`": Kind(sql="enum('new', 'done', 'Also')", values=("'new'", "'done'", "'Also'", "'done'"), a="'done'",
                       operations=("=", "ORDER BY", "GROUP BY"),
                       instead={"ORDER BY": "SELECT id FROM t WHERE {c} IS NOT NULL ORDER BY "
                                "CASE {c} WHEN 'new' THEN 1 WHEN 'done' THEN 2 ELSE 3 END, id"}),
    }  # fmt: skip


def alike(rows: Any) -> list[list[Any]]:
    """Numbers as doubles: one side has decimals, and adds them in another order."""
    return [[None if value is None else float(f"{float(value):.12g}") for value in row] for row in rows]


def asked(kind: Kind, operation: str, column: str) -> tuple[str, str]:
    """The source's SQL and the replica's."""
    pair = kind.asked.get(operation) or (OPERATIONS[operation],) * 2
    theirs, ours = (
        sql.replace("{c}", column).replace("{a}", kind.a).replace("{b}", kind.b).replace("{pattern}", kind.pattern)
        for sql in pair
    )
    return theirs, ours


def compared(session: Session, host: HostProcess, found: dict[str, Kind]) -> dict[str, dict[str, bool]]:
    """Whether each operation over each type answers the same; what is written instead has to."""
    answers: dict[str, dict[str, bool]] = {}
    for number, (name, kind) in enumerate(found.items()):
        for operation in kind.operations:
            theirs, ours = asked(kind, operation, f"c{number}")
            want = alike(session.fetch(theirs))
            same = alike(host.query(ours)) == want
            answers.setdefault(name, {})[operation] = same
            if not same and operation in kind.instead:
                instead = kind.instead[operation].replace("{c}", f"c{number}")
                assert alike(host.query(instead)) == want, (name, operation, instead)
    return answers


def short(sql: str) -> str:
    """What a reader has to see of a statement."""
    sql = re.sub(r"^SELECT id FROM t WHERE (.*) ORDER BY id$", r"WHERE \1", sql)
    return sql.replace("WHERE c IS NOT NULL ", "").removeprefix("SELECT id FROM t ")


def table(found: dict[str, Kind], answers: dict[str, dict[str, bool]]) -> str:
    heads = [*OPERATIONS]
    lines = [f"| Type | {' | '.join(f'`{head}`' if head not in ('time', 'JSON') else head for head in heads)} |"]
    lines.append("|---" * (len(heads) + 1) + "|")
    instead = []
    for name, kind in found.items():
        cells = []
        for head in heads:
            same = answers[name].get(head)
            cells.append("" if same is None else "same" if same else "**other**")
            if same is False:
                how = kind.instead.get(head)
                shown = kind.otherwise if how is None else f"`{short(how.replace('{c}', 'c'))}`"
                instead.append(f"| {name} | `{short(asked(kind, head, 'c')[1])}` | {shown} |")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    beside = ["", "| Type | Query that differs | Write instead |", "|---|---|---|", *instead]
    return "\n".join(lines + beside if instead else lines) + "\n"


def test_what_agrees_is_what_the_page_says(source_database: TestDatabase, tmp_path: Path) -> None:
    postgres = source_database.dialect == "postgresql"
    found = kinds(source_database.dialect)
    columns = ", ".join(f"c{number} {kind.sql}" for number, kind in enumerate(found.values()))
    source_database.execute(f"CREATE TABLE t (id int PRIMARY KEY, {columns})")
    session = source_database.connect()
    session.execute("SET TIME ZONE 'UTC'" if postgres else "SET time_zone = '+00:00'")
    for row in range(max(len(kind.values) for kind in found.values())):
        values = ", ".join(kind.values[row] if row < len(kind.values) else "NULL" for kind in found.values())
        session.execute(f"INSERT INTO t VALUES ({row}, {values})")
    with running(tmp_path) as host:
        body = {"name": "t", "sourceConfig": source_database.source_config, "sourceTable": "t", "targetTable": "t"}
        types = {f"c{number}": kind.types for number, kind in enumerate(found.values()) if kind.types}
        host.configure(**body, isActive=False, trackingColumn="id", types=types)
        assert host.sync("t")["status"] == "success"
        verified = host.result("POST", "/data-replication/verify/t", {})
        assert (verified["missing"], verified["extra"], verified["different"]) == (0, 0, 0)
        made = table(found, compared(session, host, found))
    heading = "PostgreSQL" if postgres else "MySQL and MariaDB"
    part = re.compile(rf"(<!-- {heading}: made by tests/sources/test_querying.py -->\n).*?(<!-- end -->)", re.DOTALL)
    page = PAGE.read_text(encoding="utf-8")
    if os.environ.get("WRITE_QUERYING"):
        page = part.sub(lambda match: f"{match[1]}\n{made}\n{match[2]}", page)
        PAGE.write_text(page, encoding="utf-8")
    (written,) = (match.group().split("-->\n", 1)[1].rsplit("<!--", 1)[0] for match in part.finditer(page))
    assert written.strip() == made.strip(), "run it with WRITE_QUERYING=1"


def test_a_moment_in_sqlites_form_is_tracked_and_a_key(source_database: TestDatabase, tmp_path: Path) -> None:
    """Rows are followed by it, found by it, compared and repaired; and what is not a time is refused."""
    kind = "timestamptz" if source_database.dialect == "postgresql" else "timestamp(6)"
    source_database.execute(f"CREATE TABLE t (at {kind} NOT NULL PRIMARY KEY, id int, v int)")
    session = source_database.connect()
    session.execute("SET TIME ZONE 'UTC'" if kind == "timestamptz" else "SET time_zone = '+00:00'")
    session.execute(f"INSERT INTO t VALUES {', '.join(f'({moment}, {n}, 0)' for n, moment in enumerate(MOMENTS[:5]))}")
    with running(tmp_path) as host:
        body = {"name": "t", "sourceConfig": source_database.source_config, "sourceTable": "t", "targetTable": "t"}
        host.configure(**body, isActive=False, trackingColumn="at", lookbackSeconds=0, types={"at": "datetime"})
        assert host.sync("t")["status"] == "success"
        assert host.query("SELECT at FROM t WHERE id < 2 ORDER BY id") == [
            ["2026-11-22 15:59:59.5"], ["2026-11-22 16:00:00"],
        ]  # fmt: skip
        session.execute("INSERT INTO t VALUES ('2026-11-23 01:00:00.000001', 9, 0)")
        assert host.sync("t")["status"] == "success"
        assert host.query("SELECT at FROM t WHERE id = 9") == [["2026-11-23 01:00:00.000001"]]
        session.execute("UPDATE t SET v = 1")
        host.query("DELETE FROM t WHERE id = 3")
        found = host.result("POST", "/data-replication/verify/t", {"repair": True})
        assert (found["missing"], found["extra"], found["different"]) in ((1, 0, 5), (0, 0, 5), (0, 0, 4)), found
        found = host.result("POST", "/data-replication/verify/t", {})
        assert (found["missing"], found["extra"], found["different"]) == (0, 0, 0), found
        assert host.query("SELECT count(*), sum(v) FROM t") == [[6, 6]]
        host.configure(name="t", types={"id": "datetime"})
        answer = host.request("POST", "/data-replication/sync/t")
        assert "only a date with a time as datetime" in answer.json()["error"]

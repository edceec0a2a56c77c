"""What to pull: columns, a filter, other names, a key for a view, several replicas of one table, transforms."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from starbase_data_replication.errors import SchemaMismatch
from starbase_data_replication.model import Column, TableName, TableSchema
from starbase_data_replication.model.casts import Cast
from starbase_data_replication.model.options import Options
from starbase_data_replication.sync.selection import selected
from tests.support.hosts import ADMIN, CONFIG, HostProcess, until
from tests.support.packages import ROOT
from tests.support.servers import TestDatabase

pytestmark = pytest.mark.elsewhere_in_prove

TRANSFORMER = """
import asyncio
from starbase_host import hookimpl

def plugin(options):
    return Transformer()

def answers(error):
    class Answer(dict):
        def __getitem__(self, name):
            raise error
    return Answer()

class Longer(list):
    def __iter__(self):
        yield from [*list.__iter__(self), "SHOWN"]

class Nameless(type):
    @property
    def __name__(self):
        raise SystemExit(9)

class Unnamed(Exception, metaclass=Nameless):
    pass

class Transformer:
    @hookimpl(optionalhook=True)
    def transform_batch(self, replication, columns):
        if replication.endswith("raises"):
            raise ValueError(f"cannot: {columns}")
        if replication.endswith("short"):
            return {name: values[1:] for name, values in columns.items()}
        if replication.endswith("pops"):
            for values in columns.values():
                values.pop()
            return columns
        if replication.endswith("appends"):
            for values in columns.values():
                values.append("SHOWN")
            return columns
        if replication.endswith("longer"):
            return {name: Longer(values) for name, values in columns.items()}
        if replication.endswith("exits"):
            return answers(SystemExit(3))
        if replication.endswith("interrupts"):
            return answers(KeyboardInterrupt())
        if replication.endswith("cancels"):
            return answers(asyncio.CancelledError())
        if replication.endswith("unnamed"):
            raise Unnamed("SHOWN")
        if replication.endswith("hostile"):
            class Hostile(str):
                def isascii(self):
                    raise ValueError(f"SHOWN {columns}")
            return {name: [Hostile("x") for _ in values] for name, values in columns.items()}
        if replication.endswith("text"):
            return {name: ["SHOWN-11" for _ in values] for name, values in columns.items()}
        if replication.endswith("nan"):
            return {name: [float("nan") for _ in values] for name, values in columns.items()}
        if replication.endswith("odd"):
            return {name: [2**70 for _ in values] for name, values in columns.items()}
        return {name: [value * 2 for value in values] for name, values in columns.items()}
"""
PLUGINS = '[plugins.mask_emails]\nmodule = "starbase_mask"\n[plugins.transformer]\nmodule = "transformer"\n'
CREATE = {
    "postgresql": 'CREATE TABLE people (id int PRIMARY KEY, "Name" text, email text, n int, at timestamptz)',
    "mysql": "CREATE TABLE people (id int PRIMARY KEY, `Name` text, email text, n int, at timestamp(6) NULL)",
}
FILL = (
    "INSERT INTO people VALUES (1, 'Ada', 'ada@example.com', 1, '2024-01-01'), "
    "(2, 'Bob', 'bob@example.com', 2, '2024-01-02'), (3, 'Cid', NULL, 3, '2024-01-03')"
)


@pytest.fixture(scope="module", name="host")
def _host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    directory = tmp_path_factory.mktemp("selection")
    (directory / "transformer.py").write_text(TRANSFORMER)
    (directory / "starbase_mask.py").write_text((ROOT / "examples/mask_plugin/starbase_mask.py").read_text())
    with HostProcess(directory, f"{CONFIG}\n{PLUGINS}") as host:
        yield host


@pytest.fixture(name="people")
def _people(source_database: TestDatabase) -> TestDatabase:
    source_database.execute(CREATE[source_database.dialect])
    source_database.execute(FILL)
    return source_database


def configure(host: HostProcess, database: TestDatabase, name: str = "", **more: Any) -> str:
    name = f"{database.name}{name}"
    body = {"sourceConfig": database.source_config, "sourceTable": "people", "trackingColumn": "at"}
    options = {"isActive": False, "lookbackSeconds": 0, "settleSeconds": 0}
    host.configure(**{"name": name, "targetTable": name, **body, **options, **more})
    return name


def table(host: HostProcess, name: str) -> tuple[list[str], list[list[Any]]]:
    """The names of a replica's columns, and its rows."""
    answer = host.result("POST", "/query/raw", {"sql": f'SELECT * FROM "{name}" ORDER BY 1'})
    return answer["columns"], answer["rows"]


def differences(host: HostProcess, name: str) -> list[int]:
    verified = host.result("POST", f"/data-replication/verify/{name}")
    return [verified[kind] for kind in ("missing", "extra", "different")]


def error(host: HostProcess, name: str) -> str:
    answer = host.request("POST", f"/data-replication/sync/{name}")
    assert answer.status_code == 502, answer.text
    return str(answer.json()["error"])


def test_columns_and_other_names(host: HostProcess, people: TestDatabase) -> None:
    name = configure(host, people, columns=["id", "Name", "n"], rename={"Name": "label", "id": "key"})
    host.sync(name)
    assert table(host, name) == (["key", "label", "n"], [[1, "Ada", 1], [2, "Bob", 2], [3, "Cid", 3]])
    people.execute("UPDATE people SET n = 20, at = '2024-02-01' WHERE id = 2")
    host.sync(name)
    assert differences(host, name) == [0, 0, 0]
    # Columns that are left out later leave the replica, in one step with what is there instead.
    configure(host, people, columns=None, excludeColumns=["email", "n"], rename={})
    host.sync(name)
    assert table(host, name)[0] == ["id", "Name", "at"]
    assert differences(host, name) == [0, 0, 0]


def test_several_replicas_of_one_table(host: HostProcess, people: TestDatabase) -> None:
    names = [configure(host, people, f".{n}", where=f"n = {n}", columns=["id", "n"]) for n in (1, 2)]
    for name in names:
        host.sync(name)
    assert [table(host, name)[1] for name in names] == [[[1, 1]], [[2, 2]]]


def test_a_row_that_leaves_the_filter_leaves_the_replica(host: HostProcess, people: TestDatabase) -> None:
    name = configure(host, people, where="n < 3 -- and nothing else")
    host.sync(name)
    assert [row[0] for row in table(host, name)[1]] == [1, 2]
    people.execute("UPDATE people SET n = 9, at = '2024-02-01' WHERE id = 1")
    people.execute("UPDATE people SET n = NULL, at = '2024-02-02' WHERE id = 2")
    people.execute("UPDATE people SET n = 0, at = '2024-02-03' WHERE id = 3")
    assert host.sync(name)["records_processed"] == 3
    assert [row[0] for row in table(host, name)[1]] == [3]
    assert differences(host, name) == [0, 0, 0]
    # Another filter is another replica: what the old one let in does not stay.
    configure(host, people, where="id = 1")
    host.sync(name)
    assert [row[0] for row in table(host, name)[1]] == [1]


@pytest.mark.parametrize(
    "where",
    ["nonsense", "n <", "n = 1) OR (1 = 1", "true) UNION SELECT * FROM people WHERE (true", "1; DELETE FROM people"],
)
def test_a_filter_that_is_not_a_condition_is_refused(host: HostProcess, people: TestDatabase, where: str) -> None:
    name = configure(host, people, where=where)
    said = error(host, name)
    assert "where: " in said
    assert "Error" not in said
    assert people.fetch("SELECT count(*) FROM people") == [(3,)]


def test_a_filter_with_a_parameter(host: HostProcess, postgres_database: TestDatabase) -> None:
    postgres_database.execute(CREATE["postgresql"])
    said = error(host, configure(host, postgres_database, where="$1 = 1"))
    assert "where: contains a parameter such as $1, which has no value; write the value itself" in said
    assert "HINT" not in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"columns": ["id", "nonsense"]}, "columns: "),
        ({"columns": ["Name"]}, "columns: id"),
        ({"excludeColumns": ["id"]}, "excludeColumns: id"),
        ({"excludeColumns": ["NAME"]}, "excludeColumns: "),
        ({"rename": {"name": "x"}}, "rename: "),
        ({"rename": {"email": "NAME"}}, '"rename": {"email": "NAME_2"}'),
        ({"keyColumns": ["nonsense"]}, "keyColumns: "),
        ({"keyColumns": ["email"]}, "keyColumns: two rows"),
        ({"transforms": {"transformer": ["id"]}}, "transforms: id"),
        ({"transforms": {"transformer": ["nonsense"]}}, "transforms: "),
    ],
)
def test_what_does_not_fit_the_table_names_its_field(
    host: HostProcess, people: TestDatabase, options: dict[str, Any], said: str
) -> None:
    assert said in error(host, configure(host, people, **options))


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"], ids=["nul", "surrogate"])
def test_a_name_that_no_statement_can_hold_is_refused_by_name(name: str) -> None:
    cast = Cast(select="{}", declared="INTEGER", form="a number", example="1")
    columns = tuple(Column(name=each, source_type="integer", nullable=False, cast=cast) for each in ("id", name))
    schema = TableSchema(table=TableName(schema="public", name="t"), columns=columns, key=("id",), tracking_column="id")
    with pytest.raises(SchemaMismatch, match=r"the name of column 'a.*b' of public.t .*; rename it at the source"):
        selected(schema, Options())
    selected(schema, Options(columns=["id"]))


def test_names_that_sqlite_cannot_tell_apart(host: HostProcess, postgres_database: TestDatabase) -> None:
    postgres_database.execute('CREATE TABLE people (id int PRIMARY KEY, "Id" int, at timestamptz)')
    postgres_database.execute("INSERT INTO people VALUES (1, 7, now())")
    name = configure(host, postgres_database)
    assert 'the columns id and Id, which SQLite cannot tell apart; give one another name in the replica, with "rename": {"Id": "Id_2"}' in error(host, name)  # fmt: skip  # noqa: E501
    configure(host, postgres_database, rename={"Id": "Id_2"})
    host.sync(name)
    assert table(host, name)[0] == ["id", "Id_2", "at"]


def test_a_view_is_followed_by_columns_that_identify_a_row(host: HostProcess, people: TestDatabase) -> None:
    people.execute("CREATE VIEW adults AS SELECT id AS person, n, at FROM people WHERE id < 10")
    name = configure(host, people, sourceTable="adults", keyColumns=["person"])
    host.sync(name)
    people.execute("UPDATE people SET n = 5, at = '2024-02-01' WHERE id = 1")
    assert host.sync(name)["rows_read"] == 1
    assert [row[:2] for row in table(host, name)[1]] == [[1, 5], [2, 2], [3, 3]]
    assert differences(host, name) == [0, 0, 0]


def test_a_row_of_a_view_that_loses_its_key_is_an_error(host: HostProcess, people: TestDatabase) -> None:
    people.execute("CREATE VIEW named AS SELECT n AS person, at FROM people")
    name = configure(host, people, sourceTable="named", keyColumns=["person"])
    host.sync(name)
    people.execute("UPDATE people SET n = NULL WHERE id = 1")
    answer = host.request("POST", f"/data-replication/verify/{name}")
    assert answer.status_code == 502
    assert "keyColumns: a row has NULL in a column that must identify it" in answer.text


def test_a_row_without_a_key_is_never_given_one(host: HostProcess, people: TestDatabase) -> None:
    name = configure(host, people, keyColumns=["n"], lookbackSeconds=600)
    host.sync(name)
    people.execute("INSERT INTO people (id, n, at) VALUES (5, NULL, '2024-03-01')")
    assert "keyColumns: a row of the source has NULL in a column that must identify it" in error(host, name)
    assert [row[0] for row in table(host, name)[1]] == [1, 2, 3]


def test_a_plugin_masks_values_on_their_way(host: HostProcess, people: TestDatabase) -> None:
    name = configure(host, people, transforms={"mask_emails": ["email"], "transformer": ["n"]})
    host.sync(name)
    assert [row[2:4] for row in table(host, name)[1]] == [["a***@example.com", 2], ["b***@example.com", 4], [None, 6]]
    # A verification compares the rest, and what it repairs is masked too.
    people.execute("UPDATE people SET email = 'x@example.org' WHERE id = 1")
    assert differences(host, name) == [0, 0, 0]
    host.query(f'DELETE FROM "{name}" WHERE id = 2')
    host.result("POST", f"/data-replication/verify/{name}", {"repair": True})
    assert table(host, name)[1][1][2:4] == ["b***@example.com", 4]


def test_without_a_key_and_with_every_column_transformed_nothing_can_be_compared(
    host: HostProcess, source_database: TestDatabase
) -> None:
    source_database.execute("CREATE TABLE people (v varchar(9), w varchar(9))")
    source_database.execute("INSERT INTO people VALUES ('a', 'b'), ('c', 'd')")
    name = configure(host, source_database, trackingColumn="v", transforms={"transformer": ["v", "w"]})
    host.sync(name)
    response = host.request("POST", f"/data-replication/verify/{name}")
    assert response.status_code == 502
    assert "transforms: " in response.json()["error"]
    configure(host, source_database, trackingColumn="v", transforms={"transformer": ["v"]})
    host.sync(name)
    assert differences(host, name) == [0, 0, 0]


COUNTS = ["short", "pops", "appends", "longer"]
IN_ITS_ANSWER = ["exits", "interrupts", "cancels", "unnamed"]


@pytest.mark.parametrize("how", ["raises", "odd", "hostile", *COUNTS, *IN_ITS_ANSWER])
def test_a_transform_that_fails_lets_nothing_through(host: HostProcess, people: TestDatabase, how: str) -> None:
    name = configure(host, people, f".{how}", transforms={"transformer": ["email"]})
    said = error(host, name)
    assert "transforms: plugin transformer has failed" in said
    assert "nothing of this batch was written" in said
    assert table(host, name)[1] == []
    everywhere = said + host.log + str(host.logs(name)) + str(host.status(name))
    assert "example.com" not in everywhere
    assert "SHOWN" not in everywhere


@pytest.mark.parametrize("how", COUNTS)
def test_a_transform_of_the_only_column_loses_no_row(host: HostProcess, people: TestDatabase, how: str) -> None:
    """Rows of one column would take any number of values for their own."""
    people.execute("CREATE TABLE notes (note varchar(9))")
    people.execute("INSERT INTO notes VALUES ('a'), ('b'), ('c')")
    notes = {"sourceTable": "notes", "trackingColumn": "note"}
    name = configure(host, people, f".{how}", **notes, transforms={"transformer": ["note"]})
    assert "transforms: plugin transformer has failed" in error(host, name)
    assert host.query("SELECT count(*) FROM sqlite_schema WHERE name = ?", name) == [[0]]


def test_what_one_transform_makes_another_may_not_take(host: HostProcess, people: TestDatabase) -> None:
    name = configure(host, people, ".text", transforms={"transformer": ["n"], "mask_emails": ["n"]})
    assert "transforms: plugin mask_emails has failed (ValueError)" in error(host, name)
    assert "SHOWN" not in host.log
    name = configure(host, people, ".nan", transforms={"transformer": ["n"]})
    host.sync(name)
    assert [row[3] for row in table(host, name)[1]] == ["NaN"] * 3


def test_what_says_that_a_row_is_deleted_is_not_transformed(host: HostProcess, people: TestDatabase) -> None:
    name = configure(host, people, deletes={"sourceColumn": "email"}, transforms={"transformer": ["email"]})
    assert "transforms: email" in error(host, name)


def test_a_transform_that_no_plugin_offers_is_refused(host: HostProcess, people: TestDatabase) -> None:
    body = {"name": "x", "sourceConfig": people.source_config, "sourceTable": "people", "targetTable": "x"}
    answer = host.request("POST", "/data-replication/configure", {**body, "transforms": {"nobody": ["email"]}})
    assert answer.status_code == 400
    assert "transforms" in answer.text
    assert "mask_emails" in answer.text


SLOW = """
import itertools, pathlib, threading
from starbase_host import hookimpl

HERE = pathlib.Path(__file__)

def plugin(options):
    return Slow()

def wait():
    HERE.with_name("reached").touch()
    while not HERE.with_name("released").exists():
        threading.Event().wait(0.01)

class Lazy(dict):
    def __getitem__(self, name):
        wait()
        return dict.__getitem__(self, name)

class Values(list):
    def __iter__(self):
        wait()
        return list.__iter__(self)

class Endless(list):
    def __iter__(self):
        return itertools.repeat(1)

ANSWERS = {
    "lazy": Lazy,
    "values": lambda columns: {name: Values(values) for name, values in columns.items()},
    "endless": lambda columns: {name: Endless(values) for name, values in columns.items()},
    "well": dict,
}

class Slow:
    @hookimpl(optionalhook=True)
    FORM transform_batch(self, columns):
        return ANSWERS[HERE.with_name("how").read_text()](columns)
"""


@pytest.mark.parametrize("form", ["def", "async def"])
@pytest.mark.parametrize("how", ["lazy", "values", "endless"])
def test_checking_the_answer_of_a_transform_does_not_delay_other_requests(
    how: str, form: str, postgres_database: TestDatabase, tmp_path: Path
) -> None:
    """And within the time of its hook: the run fails, the host goes on."""
    postgres_database.execute("CREATE TABLE t (id int PRIMARY KEY, v int)")
    postgres_database.execute("INSERT INTO t VALUES (1, 1), (2, 2)")
    (tmp_path / "slow.py").write_text(SLOW.replace("FORM", form))
    (tmp_path / "how").write_text(how)
    config = CONFIG.replace("[host]\n", "[host]\nhook_timeout_seconds = 1\n") + '\n[plugins.slow]\nmodule = "slow"\n'
    body = {"name": "t", "sourceConfig": postgres_database.source_config, "sourceTable": "t", "targetTable": "t"}
    with HostProcess(tmp_path, config) as host:
        host.configure(**body, trackingColumn="id", isActive=False, transforms={"slow": ["v"]})
        bearer = {"authorization": f"Bearer {ADMIN}"}
        answers: list[httpx.Response] = []
        sync = threading.Thread(
            target=lambda: answers.append(httpx.post(f"{host.url}/data-replication/sync/t", headers=bearer, timeout=60))
        )
        sync.start()
        try:
            if how != "endless":
                until((tmp_path / "reached").exists, what="a look at the answer")
            assert httpx.get(f"{host.url}/health", timeout=10).status_code == 200
            sync.join(20)
            (answer,) = answers
        finally:
            (tmp_path / "released").touch()
            sync.join()
        why = "its answer must be" if how == "endless" else "TimeoutError"
        assert answer.status_code == 502
        assert f"transforms: plugin slow has failed ({why}" in answer.json()["error"]
        (tmp_path / "how").write_text("well")
        host.sync("t")
        assert host.query("SELECT id, v FROM t ORDER BY id") == [[1, 1], [2, 2]]


def test_a_constraint_of_another_column_is_not_blamed_on_the_key(host: HostProcess, people: TestDatabase) -> None:
    people.execute("CREATE VIEW seen AS SELECT id AS person, NULLIF(n, 2) AS n, at FROM people")
    target = f"seen_{people.name}"
    columns = "person INT NOT NULL PRIMARY KEY, n INTEGER NOT NULL, at TEXT"
    host.result("POST", "/query", {"sql": f"CREATE TABLE {target} ({columns})"})
    said = error(host, configure(host, people, sourceTable="seen", targetTable=target, keyColumns=["person"]))
    assert f"table {target} refuses a row of the source (NOT NULL constraint failed: {target}.n)" in said
    assert "keyColumns" not in said

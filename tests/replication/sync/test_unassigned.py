"""A tracking column that nothing at the source fills: the status says what its protection rests on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hosts import HostProcess, running
from tests.support.servers import TestDatabase

pytestmark = pytest.mark.xdist_group("unassigned")
_names = itertools.count(1)

TRIGGER = """
    CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.at := now(); RETURN NEW; END $$;
    CREATE TRIGGER stamp BEFORE INSERT ON {name} FOR EACH ROW EXECUTE FUNCTION {name}()
"""
# By dialect: how the table is made, its tracking column, and whether an application has to give the values.
POSTGRESQL = [
    ("CREATE TABLE {name} (id int PRIMARY KEY, at timestamptz NOT NULL)", "at", True),
    ("CREATE TABLE {name} (id int PRIMARY KEY, at timestamptz)", "id", True),
    ("CREATE TABLE {name} (id int PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())", "at", False),
    ("CREATE TABLE {name} (id int PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp())", "at", False),
    ("CREATE TABLE {name} (id bigserial PRIMARY KEY, at timestamptz)", "id", False),
    ("CREATE TABLE {name} (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz)", "id", False),
    ("CREATE TABLE {name} (id int PRIMARY KEY, at timestamptz NOT NULL);" + TRIGGER, "at", False),
    # The triggers of a foreign key fill nothing.
    ("CREATE TABLE {name} (id int PRIMARY KEY, up int REFERENCES {name}, at timestamptz NOT NULL)", "at", True),
    ("CREATE TABLE {name} (id int PRIMARY KEY, at timestamptz) PARTITION BY RANGE (id);"
     "CREATE TABLE {name}_1 PARTITION OF {name} DEFAULT", "id", True),
    ("CREATE TABLE {name} (id bigserial PRIMARY KEY, at timestamptz) PARTITION BY RANGE (id);"
     "CREATE TABLE {name}_1 PARTITION OF {name} DEFAULT", "id", False),
    ("CREATE DOMAIN {name}_d AS timestamptz DEFAULT now();"
     "CREATE TABLE {name} (id int PRIMARY KEY, at {name}_d NOT NULL)", "at", False),
]  # fmt: skip
MYSQL = [
    ("CREATE TABLE {name} (id int PRIMARY KEY, at datetime(6) NOT NULL)", "at", True),
    ("CREATE TABLE {name} (id int PRIMARY KEY, at datetime(6) NULL)", "at", True),
    ("CREATE TABLE {name} (id int PRIMARY KEY, at datetime(6))", "id", True),
    ("CREATE TABLE {name} (id int PRIMARY KEY, at datetime(6) NOT NULL DEFAULT now(6))", "at", False),
    ("CREATE TABLE {name} (id int PRIMARY KEY, at timestamp(6) NOT NULL DEFAULT now(6) ON UPDATE now(6))", "at", False),
    ("CREATE TABLE {name} (id int AUTO_INCREMENT PRIMARY KEY, at datetime(6))", "id", False),
    ("CREATE TABLE {name} (id int PRIMARY KEY, at datetime(6) NOT NULL);"
     "CREATE TRIGGER {name}_stamp BEFORE INSERT ON {name} FOR EACH ROW SET NEW.at = now(6)", "at", False),
]  # fmt: skip


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    with running(Path(tmp_path_factory.mktemp("unassigned"))) as host:
        yield host


def test_the_status_says_what_a_protection_rests_on(host: HostProcess, source_database: TestDatabase) -> None:
    database = source_database
    for make, column, given in POSTGRESQL if database.dialect == "postgresql" else MYSQL:
        name = f"u{next(_names)}"
        database.execute(make.format(name=name))
        if column == "at":
            stamp = "now()" if database.dialect == "postgresql" else "now(6)"
            database.execute(f"INSERT INTO {name} (id, at) VALUES (1, {stamp})")
        else:
            database.execute(
                f"INSERT INTO {name} (at) VALUES (NULL)" if not given else f"INSERT INTO {name} (id) VALUES (1)"
            )
        host.configure(
            name=name, sourceConfig=database.source_config, sourceTable=name, targetTable=name, trackingColumn=column,
            isActive=False, settleSeconds=0,
        )  # fmt: skip
        assert host.sync(name)["status"] == "success"
        said = str(host.status(name)["protection"])
        assert said.startswith("transactions"), (make, said)
        assert (f"nothing at the source gives {column} its values" in said) == given, (make, said)
        assert ("lookbackSeconds" in said) == given

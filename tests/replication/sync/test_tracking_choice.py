"""The tracking column: one whose values do not rise is refused, and the error names those that would do."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.support.hosts import HostProcess, running
from tests.support.servers import TestDatabase

SEVEN = ["0190163d-8694-739b-aea5-966c26f8ad91", "0190163d-8694-739b-aea6-966c26f8ad91"]


def configure(host: HostProcess, database: TestDatabase, table: str, **more: Any) -> None:
    body = {"name": table, "sourceConfig": database.source_config, "sourceTable": table, "targetTable": table}
    host.configure(**{**body, "isActive": False, "lookbackSeconds": 0, "closeWaitSeconds": 0, **more})


def refusal(host: HostProcess, name: str) -> str:
    response = host.request("POST", f"/data-replication/sync/{name}")
    assert response.status_code == 502, response.text
    return str(response.json()["error"])


def rows(host: HostProcess, table: str) -> int:
    return int(host.query(f"SELECT count(*) FROM {table}")[0][0])


def uuid_forms(database: TestDatabase) -> dict[str, tuple[str, str]]:
    """Columns that hold uuids: of each its type, and what makes its value of a text."""
    forms = {"chars": ("char(36)", "{}"), "texts": ("varchar(50)", "{}")}
    if database.dialect == "postgresql":
        return {**forms, "uuids": ("uuid", "{}::text::uuid"), "bytes": ("bytea", "decode(replace({}, '-', ''), 'hex')")}
    forms["bytes"] = ("binary(16)", "unhex(replace({}, '-', ''))")
    return {**forms, "uuids": ("uuid", "{}")} if "mariadb" in version(database) else forms


def version(database: TestDatabase) -> str:
    return str(database.fetch("SELECT version()")[0][0]).lower()


def test_random_uuids_are_refused_in_every_form(source_database: TestDatabase, tmp_path: Path) -> None:
    forms = uuid_forms(source_database)
    with running(tmp_path) as host:
        for name, (kind, made) in forms.items():
            source_database.execute(f"CREATE TABLE {name} (id {kind} PRIMARY KEY, n int, updated_at timestamp NULL)")
            values = ", ".join(f"({made.format(repr(str(uuid.uuid4())))}, {n})" for n in range(20))
            source_database.execute(f"INSERT INTO {name} (id, n) VALUES {values}")
            for tracking in ("id", None):
                configure(host, source_database, name, trackingColumn=tracking)
                error = refusal(host, name)
                assert f"{name}.id holds random uuids (version 4), which do not rise" in error
                assert "set trackingColumn to updated_at (timestamp" in error
                assert rows(host, name) == 0
            # It is never followed: every sync loads the table whole.
            configure(host, source_database, name, trackingColumn=None, mode="full")
            host.sync(name)
            assert rows(host, name) == 20


@pytest.mark.elsewhere_in_prove
def test_uuids_that_begin_with_a_time_are_followed(source_database: TestDatabase, tmp_path: Path) -> None:
    forms = uuid_forms(source_database)
    with running(tmp_path) as host:
        for name, (kind, made) in forms.items():
            source_database.execute(f"CREATE TABLE {name} (id {kind} PRIMARY KEY, n int)")
            for number, value in enumerate(SEVEN, 1):
                source_database.execute(f"INSERT INTO {name} VALUES ({made.format(repr(value))}, {number})")
                configure(host, source_database, name)
                assert host.sync(name)["warnings"] == []
                assert rows(host, name) == number
            assert host.status(name)["protection"].startswith("lookback: id (")


def test_a_uuid_that_becomes_random_is_refused_at_the_next_sync(
    postgres_database: TestDatabase, tmp_path: Path
) -> None:
    """Also of a replication that was configured when nothing was refused: each sync notes the highest value anyway."""
    postgres_database.execute("CREATE TABLE t (id uuid PRIMARY KEY)")
    with running(tmp_path) as host:
        configure(host, postgres_database, "t", trackingColumn=None)
        assert "trackingColumn is left out, and public.t.id holds no value yet" in refusal(host, "t")
        configure(host, postgres_database, "t", trackingColumn="id")
        (warning,) = host.sync("t")["warnings"]
        assert "holds no value yet" in warning
        postgres_database.execute(f"INSERT INTO t VALUES ('{SEVEN[0]}')")
        assert host.sync("t")["warnings"] == []
        postgres_database.execute("INSERT INTO t VALUES ('f0000000-0000-4000-8000-000000000000')")
        assert "random uuids" in refusal(host, "t")


# Random ones: above all that begin with the time, and below.
HIGH, LOW = "f3bd5e5a-1111-4222-8333-444455556666", "000d5e5a-1111-4222-8333-044455556666"


@pytest.mark.elsewhere_in_prove
def test_random_uuids_among_those_that_rise_are_refused(source_database: TestDatabase, tmp_path: Path) -> None:
    """Old rows have one kind and new ones the other, or two programs write: also where the highest value rises."""
    forms = uuid_forms(source_database)
    forms["digits"] = ("char(32)", "replace({}, '-', '')")
    with running(tmp_path) as host:
        for name, (kind, made) in forms.items():
            source_database.execute(f"CREATE TABLE {name} (id {kind} PRIMARY KEY, n int, updated_at timestamp NULL)")
            for n, value in enumerate((*SEVEN, LOW)):
                source_database.execute(f"INSERT INTO {name} (id, n) VALUES ({made.format(repr(value))}, {n})")
            configure(host, source_database, name, trackingColumn="id")
            error = refusal(host, name)
            assert f"{name}.id holds random uuids (version 4)" in error
            assert "set trackingColumn to updated_at (timestamp" in error
            assert "random uuids" in refusal(host, name)
            # Without it the others are followed, until a random one comes.
            source_database.execute(f"DELETE FROM {name} WHERE n = 2")
            assert host.sync(name)["status"] == "success"
            assert rows(host, name) == 2
            source_database.execute(f"INSERT INTO {name} (id, n) VALUES ({made.format(repr(HIGH))}, 3)")
            assert f"{name}.id holds random uuids (version 4)" in refusal(host, name)
            assert host.status(name)["last_error"] is not None
            assert rows(host, name) == 2


def test_the_first_version_of_uuids(either_mysql: TestDatabase, tmp_path: Path) -> None:
    """Its text begins with the lowest part of the time; with the parts swapped it rises."""
    made = "concat(substr(u, 15, 4), substr(u, 10, 4), substr(u, 1, 8), substr(u, 20, 4), substr(u, 25))"
    either_mysql.execute(
        "CREATE TABLE plain (id char(36) PRIMARY KEY); CREATE TABLE swapped (id binary(16) PRIMARY KEY);"
        "INSERT INTO plain VALUES ('f81d4fae-7dec-11f0-a765-00a0c91e6bf6');"
        f"INSERT INTO swapped SELECT unhex({made}) FROM (SELECT id AS u FROM plain) AS p"
    )
    with running(tmp_path) as host:
        configure(host, either_mysql, "plain")
        assert "uuids of version 1, which begin with the lowest part of their time" in refusal(host, "plain")
        configure(host, either_mysql, "swapped")
        assert host.sync("swapped")["warnings"] == []


def test_without_a_name_id_is_taken_only_if_it_rises(source_database: TestDatabase, tmp_path: Path) -> None:
    enum = "mood" if source_database.dialect == "postgresql" else "enum('a', 'b')"
    serial = "bigserial" if source_database.dialect == "postgresql" else "bigint NOT NULL AUTO_INCREMENT UNIQUE"
    if source_database.dialect == "postgresql":
        source_database.execute("CREATE TYPE mood AS ENUM ('a', 'b')")
    source_database.execute(
        f"CREATE TABLE numbers (id int PRIMARY KEY); CREATE TABLE labels (k int PRIMARY KEY, id {enum});"
        f"CREATE TABLE others (k varchar(9) PRIMARY KEY, created_at timestamp NULL, n int, seq {serial}, changed date);"
        "CREATE TABLE codes (id varchar(9) PRIMARY KEY, n int);"
        "INSERT INTO numbers VALUES (1); INSERT INTO labels VALUES (1, 'a'); INSERT INTO codes VALUES ('zebra', 1);"
        "INSERT INTO others (k) VALUES ('a')"
    )
    with running(tmp_path) as host:
        configure(host, source_database, "numbers")
        assert host.sync("numbers")["warnings"] == []
        assert host.status("numbers")["tracking_column"] is None
        # To name it then changes nothing.
        configure(host, source_database, "numbers", trackingColumn="id")
        assert host.sync("numbers")["records_processed"] == 0
        configure(host, source_database, "labels")
        assert "labels.id is of type" in refusal(host, "labels")
        configure(host, source_database, "others")
        error = refusal(host, "others")
        assert "others has no column id" in error
        # Times of changes, then what the source counts up, then other times; an integer that nothing counts is not.
        offered = error.partition("set trackingColumn to ")[2].rpartition(", or mode")[0].split(" or ")
        assert [each.partition(" ")[0] for each in offered] == ["changed", "seq", "created_at"]
        configure(host, source_database, "others", trackingColumn="nothing")
        assert "others has no column nothing" in refusal(host, "others")
        configure(host, source_database, "codes")
        assert "nothing shows that they rise" in refusal(host, "codes")
        # Named, it is the user's word.
        for name in ("codes", "labels"):
            configure(host, source_database, name, trackingColumn="id")
            (warning,) = host.sync(name)["warnings"]
            assert "is not read" in warning
        assert "no column of it is known to rise" in warning or "set trackingColumn to k" in warning


@pytest.mark.elsewhere_in_prove
def test_a_table_that_is_loaded_whole_needs_no_tracking_column(source_database: TestDatabase, tmp_path: Path) -> None:
    source_database.execute("CREATE TABLE keyless (name varchar(9)); CREATE TABLE keyed (k varchar(9) PRIMARY KEY);")
    source_database.execute("INSERT INTO keyless VALUES (NULL), ('b'); INSERT INTO keyed VALUES ('a')")
    with running(tmp_path) as host:
        configure(host, source_database, "keyless")
        configure(host, source_database, "keyed", mode="full")
        for _ in range(2):
            host.sync("keyless")
            host.sync("keyed")
        assert (rows(host, "keyless"), rows(host, "keyed")) == (2, 1)
        # What the option is about, there is not.
        configure(host, source_database, "keyless", nullTracking="ignore")
        assert "has no column id" in refusal(host, "keyless")

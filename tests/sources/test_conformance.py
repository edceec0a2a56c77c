"""The dialects keep the contract, by the suite that third parties run; and it finds faults."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import SkipTest

import pytest

from starbase_data_replication.conformance import (
    CHECKS,
    Check,
    DialectSuite,
    NotConforming,
    Promise,
    Sample,
    SampleLacks,
)
from starbase_data_replication.conformance.loading import filters
from starbase_data_replication.conformance.sample import same
from starbase_data_replication.model import Cast, Column, Row, TableName, TableSchema
from starbase_data_replication.sources import Feature
from tests.support.dialect_samples import server_sample, sqlite_sample
from tests.support.mutants import BUGS, Bug, close_leaked
from tests.support.servers import TestDatabase


class TestSqliteFiles(DialectSuite):
    """The kit's sample dialect, as an author's test runs the suite."""

    @pytest.fixture(autouse=True)
    def _sample(self, tmp_path: Path) -> None:
        self.sample = sqlite_sample(tmp_path)


@pytest.mark.anyio
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_a_built_in_dialect_conforms(source_database: TestDatabase, check: Check) -> None:
    await check(server_sample(source_database))


# Those of a server that no bug of the kit's sample is like, or whose parts differ most between dialects.
ON_SERVERS = (
    "a filter leaks",
    "a look that misses a transaction",
    "positions that are not read back",
    "times settle at once",
    "two snapshots in one read",
)


async def finds(sample: Sample, bug: Bug, *, timeout_seconds: float) -> None:
    """The check of the bug fails, and names the promise that the bug breaks."""
    try:
        with pytest.raises(NotConforming) as caught:
            await bug.check(replace(sample, dialect=bug.make(sample.dialect), timeout_seconds=timeout_seconds))
    finally:
        await close_leaked()
    assert caught.value.promise is bug.promise, str(caught.value)
    assert bug.promise in str(caught.value)


@pytest.mark.anyio
@pytest.mark.parametrize("name", BUGS)
async def test_a_bug_is_found_and_named(tmp_path: Path, name: str) -> None:
    await finds(sqlite_sample(tmp_path), BUGS[name], timeout_seconds=2.0)


# A bug may leave MySQL's driver in the middle of an answer.
@pytest.mark.filterwarnings("ignore:Previous unbuffered result")
@pytest.mark.anyio
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in ON_SERVERS else pytest.mark.prove) for name in BUGS]
)
async def test_a_bug_of_a_built_in_dialect_is_found(source_database: TestDatabase, name: str) -> None:
    await finds(server_sample(source_database), BUGS[name], timeout_seconds=15.0)


def test_every_promise_has_a_bug() -> None:
    assert {bug.promise for bug in BUGS.values()} == set(Promise)
    assert len(BUGS) > 70
    assert set(ON_SERVERS) <= set(BUGS)


def test_the_suite_runs_every_check() -> None:
    tests = [name.removeprefix("test_") for name in vars(DialectSuite) if name.startswith("test_")]
    assert tests == [check.__name__ for check in CHECKS]
    assert all(check.__doc__ for check in CHECKS)


@pytest.mark.anyio
async def test_a_sample_is_asked_for_what_its_dialect_needs(tmp_path: Path) -> None:
    sample = sqlite_sample(tmp_path)
    with pytest.raises(SampleLacks, match="where, fits"):
        await filters(replace(sample, where=None))
    with pytest.raises(SampleLacks, match="not_where: "):
        await filters(replace(sample, not_where=()))


LEFT_OUT: dict[str, dict[str, Any]] = {
    "errors": {"broken": {}}, "open_transactions": {"hold": None}, "connections": {"connections": None},
    "times": {"stamp": None},
}  # fmt: skip
WITHOUT = {"filters": "where", "snapshots": "snapshot", "comparing": "compare"}


def skip_of(sample: Sample, check: str) -> str:
    suite = DialectSuite()
    suite.sample = sample
    with pytest.raises(SkipTest) as caught:
        getattr(suite, f"test_{check}")()
    return str(caught.value)


@pytest.mark.parametrize("check", LEFT_OUT)
def test_a_check_without_its_part_of_the_sample_is_skipped(tmp_path: Path, check: str) -> None:
    (attribute,) = LEFT_OUT[check]
    why = skip_of(replace(sqlite_sample(tmp_path), **LEFT_OUT[check]), check)
    assert why == f"the Sample has no `{attribute}`, so {check} checks nothing"


@pytest.mark.parametrize("check", WITHOUT)
def test_a_check_of_a_feature_that_the_dialect_lacks_is_skipped(tmp_path: Path, check: str) -> None:
    sample = sqlite_sample(tmp_path)
    features = frozenset(sample.dialect.features) - {Feature(WITHOUT[check])}

    class Without(type(sample.dialect)):  # type: ignore[misc]
        pass

    Without.features = features
    why = skip_of(replace(sample, dialect=Without()), check)
    assert why == f"the dialect does not have the feature {WITHOUT[check]}, so {check} checks nothing"


SCHEMA = TableSchema(
    table=TableName(schema=None, name="t"),
    columns=tuple(Column(name=name, source_type="x", nullable=True, cast=Cast(declared="")) for name in "ab"),
    key=("a",),
    tracking_column="b",
)
ROWS = [(number, "x" * 1000) for number in range(1000)]


@pytest.mark.parametrize(
    ("found", "expected", "how"),
    [
        ([*ROWS[:3], (3, "y"), *ROWS[4:]], ROWS, "1000 rows, and 1000 were expected; in row 4, b is 'y', not 'xxx"),
        ([*ROWS[:3], *ROWS[4:]], ROWS, "999 rows, and 1000 were expected; in row 4, a is 4, not 3"),
        (ROWS[:-1], ROWS, "999 rows, and 1000 were expected; row 1000 is missing: (999, 'xxx"),
        (ROWS, ROWS[:-1], "1000 rows, and 999 were expected; row 1000 is too much: (999, 'xxx"),
        (ROWS, [(0,), *ROWS[1:]], "1000 rows, and 1000 were expected; row 1 has 2 values, and in the sample 1"),
    ],
    ids=["value", "row", "last missing", "last too much", "width"],
)
def test_rows_that_differ_are_shown_briefly(found: list[Row], expected: list[Row], how: str) -> None:
    with pytest.raises(NotConforming) as caught:
        same(SCHEMA, Promise.VALUES, found, expected, "a first load")
    assert f"a first load gives {how}" in str(caught.value)
    assert len(str(caught.value)) < 1000

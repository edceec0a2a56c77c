"""All checks, in order, and the class with which pytest, or any test framework, runs them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starbase_data_replication.conformance.comparing import comparing
from starbase_data_replication.conformance.following import following, open_transactions, times
from starbase_data_replication.conformance.loading import filters, first_load, keys, snapshots
from starbase_data_replication.conformance.sample import Sample
from starbase_data_replication.conformance.settings import connections, description, errors, settings

Check = Callable[[Sample], Awaitable[None]]
# `times` is the last: what it inserts lies above what `add` does.
CHECKS: tuple[Check, ...] = (
    settings, description, errors, first_load, filters, keys, following, snapshots, open_transactions, comparing,
    connections, times,
)  # fmt: skip


async def check_all(sample: Sample) -> None:
    """Run every check, in order.

    Raises NotConforming at the first that fails, SampleLacks if the sample lacks what one needs, and TimeoutError after
    `sample.timeout_seconds` of one.
    """
    for check in CHECKS:
        await run(check, sample)


async def run(check: Check, sample: Sample) -> None:
    """Run one check, as `check_all` does."""
    async with asyncio.timeout(3 * sample.timeout_seconds):
        await check(sample)


class DialectSuite:
    """A class of tests, one for each check: `class TestAcme(DialectSuite): sample = Sample(…)`.

    sample: the same for all tests; `times` must run last. A fixture may set it instead: pytest makes an object for each
        test, and an autouse fixture of the class may set `self.sample`.
    """

    sample: Sample

    def _run(self, check: Check) -> None:
        asyncio.run(run(check, self.sample))

    def test_settings(self) -> None:
        self._run(settings)

    def test_description(self) -> None:
        self._run(description)

    def test_errors(self) -> None:
        self._run(errors)

    def test_first_load(self) -> None:
        self._run(first_load)

    def test_filters(self) -> None:
        self._run(filters)

    def test_keys(self) -> None:
        self._run(keys)

    def test_following(self) -> None:
        self._run(following)

    def test_snapshots(self) -> None:
        self._run(snapshots)

    def test_open_transactions(self) -> None:
        self._run(open_transactions)

    def test_comparing(self) -> None:
        self._run(comparing)

    def test_connections(self) -> None:
        self._run(connections)

    def test_times(self) -> None:
        self._run(times)

"""All checks, in order, and the class with which pytest, or any test framework, runs them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from unittest import SkipTest

from starbase_data_replication.conformance.comparing import comparing
from starbase_data_replication.conformance.following import following, open_transactions, times
from starbase_data_replication.conformance.loading import filters, first_load, keys, snapshots
from starbase_data_replication.conformance.sample import Sample
from starbase_data_replication.conformance.settings import connections, description, errors, settings
from starbase_data_replication.sources import Feature

Check = Callable[[Sample], Awaitable[None]]
# `times` is the last: what it inserts lies above what `add` does.
CHECKS: tuple[Check, ...] = (
    settings, description, errors, first_load, filters, keys, following, snapshots, open_transactions, comparing,
    connections, times,
)  # fmt: skip


# What a check needs to have anything to check: an attribute of the sample, or a feature of the dialect.
ATTRIBUTES: Mapping[Check, str] = {
    errors: "broken", open_transactions: "hold", connections: "connections", times: "stamp",
}  # fmt: skip
FEATURES: Mapping[Check, Feature] = {
    filters: Feature.WHERE, snapshots: Feature.SNAPSHOT, comparing: Feature.COMPARE,
}  # fmt: skip


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


def _nothing_to_check(check: Check, sample: Sample) -> str | None:
    """Why a check of this sample has nothing to check; None if it has."""
    attribute, feature = ATTRIBUTES.get(check), FEATURES.get(check)
    if attribute is not None and not getattr(sample, attribute):
        return f"the Sample has no `{attribute}`, so {check.__name__} checks nothing"
    if feature is not None and feature not in sample.dialect.features:
        return f"the dialect does not have the feature {feature.value}, so {check.__name__} checks nothing"
    return None


class DialectSuite:
    """A class of tests, one for each check: `class TestAcme(DialectSuite): sample = Sample(…)`.

    A test that has nothing to check is skipped: it raises unittest.SkipTest, which pytest knows too.

    sample: the same for all tests; `times` must run last. A fixture may set it instead: pytest makes an object for each
        test, and an autouse fixture of the class may set `self.sample`.
    """

    sample: Sample

    def _run(self, check: Check) -> None:
        reason = _nothing_to_check(check, self.sample)
        if reason is not None:
            raise SkipTest(reason)
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

"""Databases with a QueryRunner on them, for the tests of queries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.query_bench import Bench, a_bench


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """For tests that change nothing, or nothing that another one looks at."""
    with a_bench(tmp_path_factory.mktemp("sandbox"), max_bytes=8_000_000) as bench:
        yield bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with a_bench(tmp_path) as bench:
        yield bench

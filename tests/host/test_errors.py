"""Errors: what a message suggests instead of an unknown name."""

from __future__ import annotations

import pytest

from starbase_host import did_you_mean


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("bindd", "did you mean bind?"),
        ("BIND", "did you mean bind?"),
        ("maxqueryrows", "did you mean max_query_rows?"),
        ("max-query-row", "did you mean max_query_rows?"),
        ("colour", "known: bind, max_query_rows"),
        ("", "known: bind, max_query_rows"),
    ],
)
def test_an_unknown_name(name: str, fix: str) -> None:
    assert did_you_mean(name, ("max_query_rows", "bind")) == fix


def test_an_unknown_name_that_is_far_from_every_known_one() -> None:
    assert did_you_mean("colour", ("bind",), otherwise="remove it") == "remove it"
    assert did_you_mean("bin", ("bind",), otherwise="remove it") == "did you mean bind?"

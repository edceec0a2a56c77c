"""Texts that a source's server, or an admin, sends are gone through once, however they are made.

Each of these took hours while a search went back at what is not closed; the event loop stood still meanwhile.
"""

from __future__ import annotations

import pytest

from starbase_data_replication.sources.mysql import grounds, view_text
from starbase_data_replication.sources.postgresql import errors, source
from starbase_data_replication.sources.settings.env_references import LIKE_A_REFERENCE
from starbase_data_replication.sources.settings.scrubbing import LONGEST, scrub
from starbase_data_replication.storage.triggers import NO_CODE

VIEWS = {
    "a text with quotes": "'" + "\\'" * 32_000,
    "names": "`a" * 32_000,
    "brackets": "a(a" * 21_000,
    "selects": "select " * 15 + "x," * 32_000,
    "columns that come from each other": "select `a0` as `y` from (select "
    + ",".join(f"`a{number + 1}` as `a{number}`" for number in range(3000))
    + ") from `a`.`b`",
}


@pytest.mark.parametrize("what", VIEWS)
def test_the_definition_of_a_view(what: str) -> None:
    assert view_text.is_readable(VIEWS[what])
    view_text.origin(view_text.parse_view(VIEWS[what]).words, 0)


@pytest.mark.parametrize(
    "text",
    ["'" + "\\'" * 10_000_000, "select " * 9000, "select 1 from " + " join ".join(f"`a`.`{n}`" for n in range(3000))],
    ids=["long", "selects", "tables"],
)
def test_a_definition_that_is_not_taken_apart_protects_nothing(text: str) -> None:
    assert view_text.parse_view(text) == view_text.ViewText(unknown=True)


def test_other_texts() -> None:
    for text in ("nextval(`a" * 100_000, "nextval   " * 100_000, "next value for a.a" * 50_000):
        grounds.ASKED.findall(text)
    for text in ("e'a" * 1_000_000, "e'\\'" * 1_000_000):
        source.ESCAPED_TEXT.sub("", text)
    for text in ("[" * 1_000_000, "`a" * 500_000, '"a ' * 300_000):
        NO_CODE.sub("", text)
    LIKE_A_REFERENCE.match("${" * 1_000_000)
    errors.KNOWN.fullmatch("could not " + "a " * ((errors.LONGEST_KNOWN - 20) // 2) + ": ")


def test_of_a_long_message_the_beginning_is_kept() -> None:
    message = scrub("the password is some-secret, and " + "x" * 30_000_000, ["some-secret"])
    assert message.startswith("the password is ***, and x")
    assert len(message) < LONGEST + 10

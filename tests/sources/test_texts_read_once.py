"""Texts that a source's server, or an admin, sends are gone through once, however they are made.

Each of these took hours while a search went back at what is not closed; the event loop was blocked meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from starbase_data_replication.model import Cast, Column, TableName
from starbase_data_replication.sources.mysql import protection_facts, view_text, views
from starbase_data_replication.sources.postgresql import errors, source
from starbase_data_replication.sources.settings.env_references import LIKE_A_REFERENCE
from starbase_data_replication.sources.settings.scrubbing import LONGEST, scrub
from starbase_data_replication.storage.swap import _content
from starbase_data_replication.storage.triggers import NO_CODE
from starbase_host import mentioning
from starbase_host.full_text import over_hidden

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


class OneLevel:
    """A server whose view reads so many others, each of 62 KB."""

    def __init__(self, count: int) -> None:
        self.count = count

    async def fetch(self, sql: str, values: Sequence[str]) -> list[tuple[str, ...]]:
        long = f"select `d`.`t`.`id` AS `id` from `d`.`t` where `d`.`t`.`id` in ({'1,' * 31_000}1)"
        top = " union all ".join(
            f"select `d`.`v{number}`.`id` AS `id` from `d`.`v{number}`" for number in range(self.count)
        )
        names = values[1::9]
        return [
            (str(at), "VIEW", "", "1 ", "0", top if name == "top" else long)
            if name != "t"
            else (str(at), "BASE TABLE", "InnoDB", "1 auto_increment", "1", "")
            for at, name in enumerate(names)
        ]


@pytest.mark.anyio
async def test_the_views_below_a_view_are_parsed_off_the_loop_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """60 of them held the event loop for half a minute at each sync."""
    threads, parsed = set(), 0

    def parse(text: str) -> view_text.ViewText:
        nonlocal parsed
        if len(text) > view_text.SHORT:
            threads.add(threading.current_thread())
            parsed += len(text)
        return view_text.parse_view(text)

    monkeypatch.setattr(views, "parse_view", parse)
    connection: Any = OneLevel(60)
    tracking = Column(name="id", source_type="int", nullable=False, cast=Cast(), tracking_kind="int", rises="number")
    found = await views.view_protection_facts(connection, TableName(schema="d", name="top"), tracking)
    assert "cannot be traced" in str(found.unprotected)
    assert 0 < parsed <= views.LONGEST_WALK
    assert threading.main_thread() not in threads
    parsed = 0
    few: Any = OneLevel(3)
    found = await views.view_protection_facts(few, TableName(schema="d", name="top"), tracking)
    assert "cannot be traced" not in str(found.unprotected)
    below = await views.tables_below(connection, TableName(schema="d", name="top"))
    assert ("d", "t") in below
    assert parsed <= 2 * views.LONGEST_WALK


def test_other_texts() -> None:
    for text in ("nextval(`a" * 100_000, "nextval   " * 100_000, "next value for a.a" * 50_000):
        protection_facts.ASKED.findall(text)
    for text in ("e'a" * 1_000_000, "e'\\'" * 1_000_000):
        source.ESCAPED_TEXT.sub("", text)
    for text in ("[" * 1_000_000, "`a" * 500_000, '"a ' * 300_000):
        NO_CODE.sub("", text)
    LIKE_A_REFERENCE.match("${" * 1_000_000)
    for code in errors.KNOWN:
        errors.is_known("could not " + "a " * ((errors.LONGEST_KNOWN - 20) // 2) + ": ", code)


def test_of_a_long_message_the_beginning_is_kept() -> None:
    message = scrub("the password is some-secret, and " + "x" * 30_000_000, ["some-secret"])
    assert message.startswith("the password is ***, and x")
    assert len(message) < LONGEST + 10


OPTIONS = {
    "plain": ("fts5(a, content='t')", "t"),
    "spaces and another quote": ('fts5(a,  Content =  "t ""u""")', 't "u"'),
    "brackets": ("fts4(content=[t u], a)", "t u"),
    "backticks": ("fts5(a, content = `t`)", "t"),
    "a word": ("fts5(a, content = words, content_rowid = n)", "words"),
    "none": ("fts5(a, b)", ""),
    "a column of that name": ("fts5(content, b)", ""),
    "in a comment": ("fts5(a /* , content='no' */, content='t')", "t"),
    "in a text": ("fts5(a, prefix=', content=no', content='t')", "t"),
    "without content": ("fts5(a, content='')", ""),
}


@pytest.mark.parametrize("what", OPTIONS)
def test_the_content_of_a_full_text_table(what: str) -> None:
    arguments, content = OPTIONS[what]
    assert _content(f"CREATE VIRTUAL TABLE f USING {arguments}") == content


@pytest.mark.parametrize("mark", ["[", "'", '"', "`", "/*"])
def test_marks_that_are_not_closed(mark: str) -> None:
    assert _content("CREATE VIRTUAL TABLE f /* " + f",content={mark}" * 100_000 + " */ USING fts5(a)") in ("", "_")
    _content("CREATE VIRTUAL TABLE f USING fts5(a " + f",content={mark}" * 100_000)


def test_a_long_chain_of_views() -> None:
    chain = [(f"c{number}", f"CREATE VIEW c{number} AS SELECT * FROM c{number - 1}") for number in range(1, 20_000)]
    assert len(mentioning({"C0"}, chain)) == 20_000
    schema = [*reversed(chain), ("c0", "CREATE VIEW c0 AS SELECT name FROM tmp_x")]
    for quoted in ("c19999", '"C19999"', "[c19999]", "'c19999'"):
        index = ("f", f"CREATE VIRTUAL TABLE f USING fts5(a,content={quoted})")
        assert over_hidden([index, *schema], lambda sql: "tmp_" in sql) == {"f"}
    without = ("f", "CREATE VIRTUAL TABLE f USING fts5(c19999)")
    assert over_hidden([without, *schema], lambda sql: "tmp_" in sql) == set()


@pytest.mark.parametrize("name", ["a b", 'a"b', "é", "!", "a]b", "1"])
def test_a_view_of_any_name_is_found(name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    schema = [
        (name, f"CREATE VIEW {quoted} AS SELECT * FROM tmp_x"),
        ("over", f"CREATE VIEW over AS SELECT*FROM{quoted}JOIN t"),
        ("f", "CREATE VIRTUAL TABLE f USING fts5(a, content='over')"),
    ]
    assert over_hidden(schema, lambda sql: "tmp_" in sql) == {"f"}
    assert mentioning({name}, schema[1:2]) == {name, "over"}

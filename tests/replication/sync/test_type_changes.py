"""What a change of a type means for values that were copied before: pure functions over shapes."""

from __future__ import annotations

import pytest

from starbase_data_replication.model import SchemaFingerprint
from starbase_data_replication.sync.schema_changes import compare_fingerprints


def shape(source_type: str) -> SchemaFingerprint:
    return SchemaFingerprint(columns={"c": (source_type, "the same form", "c", "1")}, key=("id",))


@pytest.mark.parametrize(
    ("before", "now", "reload"),
    [
        ("integer", "bigint", False),
        ("bigint", "integer", True),
        ("int(11)", "bigint(20)", False),
        ("int(11)", "int(5)", False),
        ("int(11)", "int(11) unsigned", True),
        ("smallint", "integer", False),
        ("character varying(10)", "character varying(20)", False),
        ("character varying(20)", "character varying(10)", True),
        ("character varying(20)", "character varying", False),
        ("character varying", "character varying(20)", True),
        ("character varying(20)", "text", False),
        ("text", "character varying(20)", True),
        ("tinytext", "longtext", False),
        ("longtext", "text", True),
        ("varbinary(5)", "varbinary(9)", False),
        ("year", "int", True),
        ("domain of ours", "another domain", True),
    ],
)
def test_only_what_has_got_room_for_more_keeps_its_values(before: str, now: str, reload: bool) -> None:
    found = compare_fingerprints(shape(before), shape(now))
    assert found.texts == (f"column c was {before}, and is {now}",)
    assert found.reload is reload


def test_nothing_has_changed() -> None:
    found = compare_fingerprints(shape("text"), shape("text"))
    assert not found
    assert not found.reload

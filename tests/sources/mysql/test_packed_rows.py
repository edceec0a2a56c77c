"""Rows that the server sends as one value each: taken apart wherever the stream is cut, or else read plainly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymysql.err import InternalError, OperationalError

from starbase_data_replication.sources.mysql import packets
from starbase_data_replication.sources.mysql.packed_rows import PackedParser, Unpackable
from tests.support import hosts
from tests.support.mysql_packets import END, FIRST, Record, error_packet, length, packed, parsed_by, stream
from tests.support.servers import TestDatabase, sequence

WIDTH = 3
MIB = 1 << 20


def parsed(sent: bytes, cuts: Sequence[int]) -> list[Record]:
    return parsed_by(PackedParser(WIDTH, sequence=FIRST), sent, cuts)


# The characters that stand in for the separators while rows are split, and other characters of texts.
texts = st.text(max_size=8) | st.sampled_from(["é" * 130, "x" * 251, "x" * 70_000, "\x1f", "\x1e", "a\x1fb\x1e", "\\N"])
rows_sent = st.lists(st.tuples(st.none() | texts, texts, st.none() | texts), max_size=300)


@given(rows_sent, st.lists(st.integers(0, 3000)))
def test_rows_arrive_as_they_were_sent_wherever_the_stream_is_cut(rows: list[Record], cuts: list[int]) -> None:
    assert parsed(stream([*map(packed, rows), END]), cuts) == rows


def test_a_stream_may_be_cut_at_any_byte() -> None:
    rows: list[Record] = [
        ("a", "", None),
        (None, "é" * 200, None),
        ("", "x" * 300, "7"),
        ("", "", ""),
        ("\x1e", "b", "c"),
    ]
    sent = stream([*map(packed, rows), END])
    assert all(parsed(sent, [cut]) == rows for cut in range(len(sent)))
    assert parsed(sent, range(len(sent))) == rows


@given(st.lists(st.integers(0, 100), min_size=1, max_size=4), st.sets(st.integers(0, 600)))
def test_a_row_goes_on_in_the_next_packet(sizes: list[int], cuts: set[int]) -> None:
    rows: list[Record] = [("x" * size, "y" * size, None if size % 2 else "é" * size) for size in sizes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packets, "FULL_PACKET", 40)
        patch.setattr(packets, "LARGE_BYTES", 6)
        sent = stream([*map(packed, rows), END], full=40)
        assert parsed(sent, sorted(cuts)) == rows
        assert parsed(sent, range(len(sent))) == rows


@pytest.mark.parametrize("wanted", [249, 63_996, 63_999, 0x1F9FB, 0x1F9FF])
def test_a_packet_whose_header_looks_like_the_end_of_a_row(wanted: int) -> None:
    """Its length, or that of its value, holds those bytes; or its number does, in every 256th."""
    row: Record = ("a", "x" * (wanted - len(packed(("a", "", "c"))) + 1), "c")
    assert len(packed(row)) - len(length(wanted)) == wanted
    rows = [row] * (300 if wanted < 1000 else 4)
    sent = stream([*map(packed, rows), b"\xfe\xff\xf9\2\0"])
    size = len(sent) // len(rows)
    edges = [edge for number in range(len(rows) + 1) for edge in range(number * size - 12, number * size + 12)]
    for cut in edges if wanted > 1000 else edges[-24 * 260 :]:
        assert parsed(sent, [cut]) == rows


def test_bytes_that_are_not_valid_text_come_as_bytes() -> None:
    rows: list[Record] = [("a", b"\xed\xa0\x80", "\x1f"), (b"\xc3", "b", None), ("a", "b", "c")]
    assert parsed(stream([*map(packed, rows), END]), []) == rows
    rows = [("a", b"a\xfeb", None), ("a", "b", "c")]
    assert parsed(stream([*map(packed, rows), END]), []) == rows


GOOD = packed(("a", "b", "c"))


@pytest.mark.parametrize(
    ("sent", "kind", "text"),
    [
        (stream([GOOD, b"\xfb", GOOD, END]), Unpackable, None),
        (stream([b"\xfb", END]), Unpackable, None),
        (stream([GOOD, GOOD, packed(("a", b"b\xffb", "c")), END]), Unpackable, None),
        (stream([packed(("a", "b")), END]), Unpackable, None),
        (stream([GOOD, error_packet()]), OperationalError, "interrupted"),
        (stream([GOOD]) + stream([GOOD, GOOD, END])[2 * len(stream([GOOD])) :], InternalError, "sequence"),
    ],
)  # fmt: skip
def test_a_malformed_packed_row_is_an_error(sent: bytes, kind: type[Exception], text: str | None) -> None:
    for cut in range(len(sent)):
        with pytest.raises(kind, match=text):
            parsed(sent, [cut])


def test_a_row_larger_than_the_server_may_put_together_is_read_all_the_same(
    tmp_path: Path, either_mysql: TestDatabase
) -> None:
    """Two values fit into max_allowed_packet, and the row does not: the server answers NULL for it."""
    ((before,),) = either_mysql.fetch("SELECT @@GLOBAL.max_allowed_packet")
    either_mysql.execute(
        "CREATE TABLE t (id int PRIMARY KEY, a longtext NOT NULL, b longtext, c varbinary(9));"
        f"INSERT INTO t SELECT seq, 'a', NULL, X'FF00' FROM {sequence(3000)};"
        f"UPDATE t SET a = REPEAT('é', {MIB // 2 - 300}), b = REPEAT('b', {MIB - 300}) WHERE id = 2000"
    )
    either_mysql.execute(f"SET GLOBAL max_allowed_packet = {MIB}")
    try:
        with hosts.running(tmp_path) as host:
            host.configure(
                name="t",
                sourceConfig=either_mysql.source_config,
                sourceTable="t",
                targetTable="t",
                trackingColumn="id",
                isActive=False,
            )
            run = host.sync("t")
            assert (run["status"], run["records_processed"], run["warnings"]) == ("success", 3000, [])
            check = "SELECT count(*), sum(length(a)), sum(length(b)), sum(hex(c) = 'FF00'), sum(b IS NULL) FROM t"
            assert host.query(check) == [[3000, 2999 + MIB // 2 - 300, MIB - 300, 3000, 2999]]
    finally:
        either_mysql.execute(f"SET GLOBAL max_allowed_packet = {before}")


def test_a_group_of_tables_that_cannot_be_put_together(tmp_path: Path, either_mysql: TestDatabase) -> None:
    """Each is found in a separate attempt. Changed values are reported, and discarded rows are not counted."""
    ((before,),) = either_mysql.fetch("SELECT @@GLOBAL.max_allowed_packet")
    tables = ("t1", "t2", "t3")
    for table in tables:
        either_mysql.execute(
            f"CREATE TABLE {table} (id int PRIMARY KEY, a longtext NOT NULL, b longtext);"
            f"INSERT INTO {table} SELECT seq, 'a', NULL FROM {sequence(6000)}"
        )
    either_mysql.execute(f"SET GLOBAL max_allowed_packet = {MIB}")
    try:
        with hosts.running(tmp_path) as host:
            for table in tables:
                host.configure(
                    name=table, sourceConfig=either_mysql.source_config, sourceTable=table, targetTable=table,
                    trackingColumn="id", group="g", mode="full",
                )  # fmt: skip
            hosts.until(lambda: all(host.logs(table) for table in tables))
            host.sync("t1")
            for table in tables:
                large = f"a = REPEAT('é', {MIB // 2 - 300}), b = REPEAT('b', {MIB - 300})"
                either_mysql.execute(f"ALTER TABLE {table} ADD c int; UPDATE {table} SET {large} WHERE id = 5900")
            before_last = {table: len(host.logs(table)) for table in tables}
            host.sync("t1")
            hosts.until(lambda: all(len(host.logs(table)) > before_last[table] for table in tables))
            for table in tables:
                run = host.logs(table)[0]
                assert (run["status"], run["records_processed"]) == ("success", 6000)
                integer = "int(11)" if either_mysql.is_mariadb else "int"
                assert f"column c ({integer}) was added" in str(run["warnings"])
                assert host.query(f"SELECT count(*), sum(length(a)), sum(length(b)) FROM {table}") == [
                    [6000, 5999 + MIB // 2 - 300, MIB - 300]
                ]
    finally:
        either_mysql.execute(f"SET GLOBAL max_allowed_packet = {before}")

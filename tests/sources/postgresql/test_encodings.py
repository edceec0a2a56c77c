"""Databases whose encoding has bytes without a place in Unicode: no text is lost, and none stops its table."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starbase_data_replication.model import Column
from starbase_data_replication.model.casts import Cast
from starbase_data_replication.sources.postgresql.encodings import CODECS, Encoding
from starbase_data_replication.sources.postgresql.rows import CopyText
from tests.support.hosts import HostProcess, running, until
from tests.support.servers import TestDatabase

POLICY = "have no Unicode text of their own, and are kept as a BLOB of their bytes"
# Of each encoding, a text, and bytes that are none.
SAMPLES = {
    "WIN1252": ("é€", "81"), "WIN1250": ("ž", "81"), "WIN1251": ("я", "98"), "ISO_8859_7": ("ώ", "AE"),
    "EUC_JP": ("～①－語", "F4FE"), "EUC_KR": ("한㉾", "C9A1"),
    "WIN1253": ("ώ", "D2"), "WIN1254": ("ş", "81"), "WIN1255": ("ש", "D9"), "WIN1257": ("ž", "81"),
    "WIN1258": ("đ", "8A"), "WIN874": ("ก", "81"), "ISO_8859_6": ("ب", "A1"), "ISO_8859_8": ("ש", "A1"),
    "LATIN3": ("ħ", "A5"), "EUC_CN": ("中", "FEFE"), "EUC_JIS_2004": ("語—", "8FA2A1"),
}  # fmt: skip
OFTEN = ("WIN1250", "WIN1252", "ISO_8859_7", "EUC_JP")
WITHOUT_GAPS = {"LATIN1": "é", "LATIN9": "€", "KOI8R": "я", "WIN1256": "ب"}


@contextlib.contextmanager
def database_in(database: TestDatabase, encoding: str) -> Iterator[TestDatabase]:
    name = f"{database.name}_{encoding.lower()}"
    database.execute(
        f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LOCALE_PROVIDER libc "
        "LC_COLLATE 'C' LC_CTYPE 'C'"
    )
    inside = replace(database, source_config={**database.source_config, "database": name})
    try:
        yield inside
    finally:
        database.execute(f"DROP DATABASE {name} WITH (FORCE)")


def configure(host: HostProcess, database: TestDatabase, name: str, table: str, **more: Any) -> None:
    body = {"name": name, "sourceConfig": database.source_config, "sourceTable": table, "targetTable": name}
    host.configure(**body, trackingColumn="id", isActive=False, lookbackSeconds=0, **more)


def verified(host: HostProcess, name: str, **body: Any) -> tuple[int, int, int]:
    found = host.result("POST", f"/data-replication/verify/{name}", body)
    return found["missing"], found["extra"], found["different"]


@pytest.mark.parametrize("encodings", [OFTEN, pytest.param(tuple(SAMPLES), marks=pytest.mark.prove)])
def test_bytes_without_a_place_in_unicode_are_kept(
    postgres_database: TestDatabase, tmp_path: Path, encodings: tuple[str, ...]
) -> None:
    with running(tmp_path) as host:
        for encoding in encodings:
            with database_in(postgres_database, encoding) as database:
                check(host, database, encoding, *SAMPLES[encoding])


def test_the_same_on_postgresql_18(embedded_database: TestDatabase, tmp_path: Path) -> None:
    with running(tmp_path) as host, database_in(embedded_database, "WIN1252") as database:
        check(host, database, "WIN1252", *SAMPLES["WIN1252"])


def check(host: HostProcess, database: TestDatabase, encoding: str, text: str, odd: str) -> None:
    name = encoding.lower()
    kept = f"convert_from('\\x61{odd}09', '{encoding}')"
    with database.connect() as session:
        session.execute("CREATE TABLE t (id int PRIMARY KEY, v text, c char(4), a text[], n int, j json, b bytea)")
        plain = r"""n, 'a\b' || chr(9), 'b', '{c}', n, '{"d": 1}', '\x09'"""
        session.execute(f"INSERT INTO t SELECT {plain} FROM generate_series(10, 99) n")
        session.execute(f"INSERT INTO t VALUES (1, '{text}', '{text}', '{{{text}}}', 1, '\"{text}\"', NULL)")
        session.execute("INSERT INTO t (id) VALUES (3), (4)")
        session.execute(f"INSERT INTO t VALUES (2, {kept}, {kept}, ARRAY[{kept}], 2, NULL, '\\x81')")
        session.execute(f"CREATE TABLE k (k text PRIMARY KEY, id int); INSERT INTO k VALUES ('{text}', 1), ({kept}, 2)")
    for table in ("t", "k"):
        configure(host, database, f"{name}_{table}", table)
        run = host.sync(f"{name}_{table}")
        counted = {"t": "vca", "k": "k"}[table]
        assert run["warnings"] == [f"column {column}: of the values read, 1 {POLICY}" for column in counted]
        assert verified(host, f"{name}_{table}") == (0, 0, 0)
    rows = host.query(f"SELECT v, trim(c), json_extract(a, '$[0]'), j, hex(b) FROM {name}_t WHERE id = 1")
    assert rows == [[text, text, text, f'"{text}"', ""]]
    assert host.query(f"SELECT hex(v), typeof(c), typeof(a), hex(b) FROM {name}_t WHERE id = 2") == [
        [f"61{odd}09", "blob", "blob", "81"]
    ]
    assert host.query(f"SELECT count(*) FROM {name}_t WHERE v = 'a\\b' || char(9)") == [[90]]
    # What is damaged is found, and repaired by its key, with any bytes.
    until(lambda: host.sync(f"{name}_k") and host.status(f"{name}_k")["last_sync_value"])
    until(lambda: host.sync(f"{name}_t") and host.status(f"{name}_t")["last_sync_value"])
    host.result("POST", "/query", {"sql": f"UPDATE {name}_k SET id = 7"})
    host.result("POST", "/query", {"sql": f"UPDATE {name}_t SET v = v || 'x' WHERE id < 3"})
    for table in ("k", "t"):
        assert verified(host, f"{name}_{table}", repair=True) == (0, 0, 2)
        assert verified(host, f"{name}_{table}") == (0, 0, 0)
    assert host.query(f"SELECT hex(k), id FROM {name}_k WHERE typeof(k) = 'blob'") == [[f"61{odd}09", 2]]


def test_an_encoding_without_gaps(postgres_database: TestDatabase, tmp_path: Path) -> None:
    with running(tmp_path) as host:
        for encoding, text in WITHOUT_GAPS.items():
            with database_in(postgres_database, encoding) as database:
                database.execute(f"CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, '{text}')")
                configure(host, database, encoding.lower(), "t")
                assert host.sync(encoding.lower())["warnings"] == []
                assert host.query(f"SELECT v FROM {encoding.lower()}") == [[text]]
                assert verified(host, encoding.lower()) == (0, 0, 0)


def characters(encoding: str) -> list[bytes]:
    """Everything that could be a character beyond ASCII."""
    if not encoding.startswith("EUC_"):
        return [bytes([byte]) for byte in range(0x80, 0x100)]
    trails = range(0xA1, 0xFF)
    two = [bytes(pair) for pair in itertools.product((0x8E, *range(0xA1, 0xFF)), trails)]
    return two + [bytes((0x8F, *pair)) for pair in itertools.product(trails, trails) if encoding.startswith("EUC_J")]


def test_a_text_is_what_postgresql_makes_of_it(postgres_database: TestDatabase) -> None:
    """Every character of every encoding; but where several mean one, each keeps its bytes."""
    with postgres_database.connect() as session:
        session.execute(
            """CREATE FUNCTION pg_temp.read(value bytea, encoding text) RETURNS text LANGUAGE plpgsql AS $$
            BEGIN RETURN convert_from(value, encoding); EXCEPTION WHEN OTHERS THEN RETURN NULL; END $$"""
        )
        for name in CODECS:
            encoding = Encoding(name)
            read = session.fetch("SELECT v, pg_temp.read(v, $2) FROM unnest($1::bytea[]) v", characters(name), name)
            counts = Counter(text for _, text in read)
            for value, text in read:
                found = encoding.decoded(value)
                if isinstance(found, str):
                    assert (encoding.encoded(found), text in (None, found)) == (value, True)
                else:
                    assert text is None or counts[text] > 1, (name, value, text)


@pytest.mark.parametrize("name", list(CODECS))
@given(rows=st.lists(st.lists(st.binary(max_size=6) | st.none(), min_size=2, max_size=2), max_size=9), data=st.data())
def test_rows_in_an_encoding_arrive_wherever_the_stream_is_cut(
    name: str, rows: list[list[bytes | None]], data: st.DataObject
) -> None:
    encoding = Encoding(name)
    columns = [Column(name=each, source_type="text", nullable=True, cast=Cast()) for each in "ab"]
    text = CopyText(columns, width=2, encoding=encoding)
    stream = b"".join(b"\t".join(map(copied, row)) + b"\n" for row in rows)
    found: list[Any] = []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        text.feed(stream[:cut])
        stream = stream[cut:]
        while (length_and_rows := text.rows())[1].values:
            found += length_and_rows[1]
    assert found == [tuple(None if v is None else encoding.decoded(v) for v in row) for row in rows]


def copied(value: bytes | None) -> bytes:
    """A value as COPY writes it."""
    if value is None:
        return rb"\N"
    for plain, letter in ((b"\\", b"\\"), (b"\t", b"t"), (b"\n", b"n"), (b"\r", b"r")):
        value = value.replace(plain, b"\\" + letter)
    return value

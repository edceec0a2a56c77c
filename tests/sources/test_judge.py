"""What the dialect of another plugin gives is judged: a wrong answer fails the run by name, and nothing is written."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from starbase_data_replication import model
from starbase_data_replication.sources.judge import COPIES
from tests.support.hosts import HostProcess
from tests.support.odd_dialect import answering, answering_right, configure, error, odd_host


@pytest.fixture(scope="module", name="host")
def _host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    with odd_host(tmp_path_factory.mktemp("judged")) as host:
        yield host


@pytest.fixture(autouse=True)
def _right(host: HostProcess) -> Iterator[None]:
    yield
    answering_right(host)


BATCHES = {
    "a longer row": (
        "[Batch(rows=[('1', 'a', 'x'), ('2',)], bytes=4, last=True)]",
        "a row that does not have 2 values",
    ),
    "wide rows": ("[Batch(rows=Rows(['1', 'a', 'x'], 3), bytes=4, last=True)]", "a row that does not have 2 values"),
    "uneven rows": ("[Batch(rows=Rows(['1', 'a', 'x'], 2), bytes=4, last=True)]", "a row that does not have 2 values"),
    "no last": ("[Batch(rows=[('1', 'a')], bytes=4)]", "the rows ended without a last batch"),
    "no batch": ("[]", "the rows ended without a last batch"),
    "two last": ("[Batch(rows=[('1', 'a')], bytes=4, last=True)] * 2", "a batch after the last one"),
    "many rows": (
        "[Batch(rows=[(str(n), 'a') for n in range(5001)], bytes=4, last=True)]",
        "a batch of more than 5,000 rows",
    ),
    "endless rows": (
        "[Batch(rows=((str(n), 'a') for n in __import__('itertools').count()), bytes=4, last=True)]",
        "a batch of more than 5,000 rows",
    ),
    "no key": ("[Batch(rows=[('1', 'a'), (None, 'b')], bytes=4, last=True)]", "a row without a key (id)"),
    "one key twice": ("[Batch(rows=[('1', 'a'), ('1', 'b')], bytes=4, last=True)]", "two rows with the same key (id)"),
    "a long last_key": (
        "[Batch(rows=[('1', 'a')], bytes=4, last_key=('1', '2')), Batch(rows=[], bytes=0, last=True)]",
        "a last_key of 2 values, and the key has 1",
    ),
    "a huge last_key": (
        "[Batch(rows=[('1', 'a')], bytes=4, last_key=('1' * 2**21,)), Batch(rows=[], bytes=0, last=True)]",
        "a last_key with a text of more than 1,048,576 characters",
    ),
    "a last_key of numbers": (
        "[Batch(rows=[('1', 'a')], bytes=4, last_key=(1,)), Batch(rows=[], bytes=0, last=True)]",
        "received int, and str is needed",
    ),
    "a negative size": (
        "[Batch(rows=[('1', 'a')], bytes=-1, last=True)]",
        "a batch whose size is not a number of bytes",
    ),
    "a last of 1": ("[Batch(rows=[('1', 'a')], bytes=4, last=1)]", "received int, and bool is needed"),
    "a decimal": (
        "[Batch(rows=[('1', __import__('decimal').Decimal(1))], bytes=4, last=True)]",
        "v: received Decimal, which SQLite does not store",
    ),
    "NaN": ("[Batch(rows=[('1', float('nan'))], bytes=4, last=True)]", "v: received NaN, which SQLite takes for NULL"),
    "65 bits": ("[Batch(rows=[('1', 2**63)], bytes=4, last=True)]", "v: received a number of more than 64 bits"),
    "no Batch": ("[([('1', 'a')], 4, True)]", "received tuple, and Batch is needed"),
}


@pytest.mark.parametrize("case", BATCHES)
def test_batches_that_break_a_rule(host: HostProcess, case: str) -> None:
    """They were a success, with other rows or without some; or an error that blamed the server."""
    name = f"batch{list(BATCHES).index(case)}"
    batches, rule = BATCHES[case]
    # A first load, which reads in the order of the key.
    configure(host, name, **({"mode": "full"} if "last_key" not in case else {}))
    answering(host, f"batches = {batches}")
    why = f"the dialect odd of plugin odd broke a rule, reading {name}: "
    found = error(host, "sync", name)
    assert why in found
    assert rule in found
    assert host.query(f"SELECT * FROM {name}") == [["1", "a"], ["2", "b"]]


@pytest.mark.parametrize("rows", ["Rows(['1', '100', '1', '6', '600', '1'], 2)", "[('1', '100'), ('6', '600')]"])
def test_rows_without_the_value_of_left_filter(host: HostProcess, rows: str) -> None:
    """A dialect that does not know `left_filter`: [1,100,1] [6,600,1] became [1,100,2] [200,3,300]."""
    name = f"left{len(rows)}"
    configure(host, name, where="v > 0")
    host.sync(name)
    answering(host, f"batches = [Batch(rows={rows}, bytes=4, last=True)]")
    answer = host.request("POST", f"/data-replication/sync/{name}")
    assert answer.status_code == 502, answer.text
    why = f"the dialect odd of plugin odd broke a rule, reading {name}: received a row that does not have 3 values; "
    assert why in answer.json()["error"]
    answering(host, "batches = [Batch(rows=[('1', 'z', 2)], bytes=4, last=True)]")
    answer = host.request("POST", f"/data-replication/sync/{name}")
    assert "whose last value, whether it is in the filter, is not 0 or 1" in answer.json()["error"]
    assert host.query(f"SELECT * FROM {name}") == [["1", "a"], ["2", "b"]]


def test_a_run_fails_if_a_conversion_was_not_applied(host: HostProcess) -> None:
    """The replica kept the value as it was before the conversion."""
    configure(host, "converted")
    answering(host, "columns = (column('id'), column('v', cast=Cast(convert=str.upper)))")
    answer = host.request("POST", "/data-replication/sync/converted")
    assert "v: the convert of its cast was not applied" in answer.json()["error"]
    # What raises for a value that it has made, or leaves it, has been applied.
    casts = "columns = (column('id', cast=Cast(convert=text_or_bytes)), column('v', cast=Cast(convert=str.lower)))"
    answering(host, casts)
    assert host.sync("converted")["status"] == "success"


SCHEMAS = {
    "many files": ("files={str(n): 'x' for n in range(100001)}", "more than 100,000 files and parts"),
    "many parts": ("parts={str(n): 'x' for n in range(100001)}", "more than 100,000 files and parts"),
    "files of numbers": ("files={'a': 7}", "TableSchema.files: received int, and str is needed"),
    "a key of no column": ("key=('z',)", "the key or the tracking column is z, which is not among the columns"),
    "one column of a key twice": ("key=('id', 'id')", "the key names a column twice"),
    "a tracking column of no column": ("tracking_column='z'", "is z, which is not among the columns"),
    "a warning that is not text": ("warnings=(7,)", "TableSchema.warnings: received int, and str is needed"),
    "columns that are none": ("columns=('id', 'v')", "TableSchema.columns: received str, and Column is needed"),
}


@pytest.mark.parametrize("case", SCHEMAS)
def test_a_description_that_breaks_a_rule(host: HostProcess, case: str) -> None:
    name = f"schema{list(SCHEMAS).index(case)}"
    change, rule = SCHEMAS[case]
    configure(host, name)
    answering(host, f"schema = lambda s: __import__('dataclasses').replace(s, {change})")
    found = error(host, "sync", name)
    assert f"the dialect odd of plugin odd broke a rule, describing {name}: " in found
    assert rule in found


def test_a_context_that_lets_no_error_out(host: HostProcess) -> None:
    """The run was a success: what the host found wrong ended in the context."""
    configure(host, "swallowed")
    host.sync("swallowed")
    answering(host, "swallowed = (Exception,)\nbatches = [Batch(rows=[('9',)], bytes=4, last=True)]")
    assert "received a row that does not have 2 values" in error(host, "sync", "swallowed")


RAISING = {
    "hangs": "__import__('threading').Event().wait()",
    "raises": "1 / 0",
    "is not a number": "return 'seven'",
}


@pytest.mark.parametrize("status", RAISING)
def test_an_error_whose_status_runs_code(host: HostProcess, status: str) -> None:
    """It ran on the event loop when the run was recorded and answered, which was blocked."""
    name = f"status{list(RAISING).index(status)}"
    configure(host, name)
    evil = f"class Evil(SourceRejected):\n    @property\n    def status(self):\n        {RAISING[status]}\n"
    evil += "    @status.setter\n    def status(self, value):\n        pass\n"
    answering(host, f"{evil}if name == 'columns':\n    raise Evil('x is refused')")
    assert error(host, "sync", name).endswith("x is refused")
    assert host.result("GET", "/health") == {"status": "ready"}


def test_rows_that_hang(host: HostProcess) -> None:
    """They are read in a thread of their source, which the next run does not wait for."""
    configure(host, "hanging")
    rows = "type('Rows', (list,), {'__iter__': lambda self: __import__('threading').Event().wait()})([('1', 'a')])"
    answering(host, f"batches = [Batch(rows={rows}, bytes=2, last=True)]")
    why = "the dialect odd of plugin odd has not answered within 10 s"
    assert why in error(host, "sync", "hanging")


def test_every_field_of_the_model_has_a_copy() -> None:
    """A field of a new type would end each run of a foreign dialect."""
    values: list[Any] = [model.TableSchema, model.Column, model.Cast, model.TableName, model.HighWatermark]
    values += [model.Candidate, model.OpenTransactions, model.OpenTransaction]
    kinds = {str(field.type) for value in values for field in dataclasses.fields(value)}
    assert kinds <= set(COPIES)

"""A dialect of another plugin whose every answer a test can replace."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.hosts import CONFIG, HostProcess, running

# A dialect of a table of two rows. A file beside it holds Python that replaces one of its answers.
ODD = """
import contextlib, pathlib
from starbase_data_replication import *
from starbase_host import hookimpl

ANSWERS = pathlib.Path(__file__).with_name("answers")

def plugin(options):
    return Odd()

class Odd:
    @hookimpl(optionalhook=True)
    def replication_dialects(self):
        return {"odd": Dialect()}

def answer(name, right):
    found = {}
    if ANSWERS.exists():
        exec(ANSWERS.read_text(), {**globals(), "name": name, "right": right}, found)
    return found.get(name, right)

def column(name, **more):
    return Column(**{"name": name, "source_type": "text", "nullable": False, "cast": Cast(), **more})

class Dialect:
    features = frozenset(Feature)

    def check(self, settings, source_table):
        return answer("check", lambda settings: {})(settings)

    def identity(self, settings, source_table):
        return ("odd", source_table)

    def secret_parts(self, settings):
        return answer("shown", lambda settings: settings)(settings)

    def hosts(self, settings):
        return answer("hosts", ())

    def table_name(self, settings, source_table):
        return TableName(schema=None, name=source_table)

    def open(self, settings, *, max_connections):
        return answer("opening", lambda settings: Source())(settings)

class Source:
    async def describe(self, table, tracking_column):
        columns = answer("columns", (column("id"), column("v")))
        schema = TableSchema(table=table, columns=columns, key=("id",), tracking_column=tracking_column)
        return answer("schema", lambda schema: schema)(schema)

    async def check_filter_and_key(self, schema, *, key):
        pass

    async def count_nulls(self, schema, *, at_most):
        return 0

    async def read_high_watermark(self, schema, options, *, noted_at):
        return answer("watermark", HighWatermark())

    async def still_open(self, noted):
        return noted

    async def ping(self):
        pass

    def snapshot(self):
        return contextlib.nullcontext(self)

    @contextlib.asynccontextmanager
    async def read(self, plan):
        async def batches():
            for batch in answer("batches", [Batch(rows=[("1", "a"), ("2", "b")], bytes=4, last=True)]):
                yield batch

        # A context that lets no error out.
        with contextlib.suppress(*answer("swallowed", ())):
            yield batches()

    @contextlib.asynccontextmanager
    async def comparing(self, schema, columns, options):
        yield Comparing(schema)

    async def close(self):
        pass

class Comparing:
    forms, digests = {}, frozenset()

    def __init__(self, schema):
        self.order = schema.key

    async def summarise(self, parts):
        return answer("summaries", [{} for _ in parts])

    async def hashes(self, part):
        for rows in answer("hashes", [[]]):
            yield rows
"""


PLUGIN = '\n[plugins.odd]\nmodule = "odd"\n'


@contextlib.contextmanager
def odd_host(directory: Path, config: str = CONFIG) -> Iterator[HostProcess]:
    """A host with the dialect, which must end well."""
    (directory / "odd.py").write_text(ODD)
    with running(directory, config + PLUGIN) as host:
        yield host
        assert host.stop() == 0


def configure(host: HostProcess, name: str, **more: Any) -> None:
    """Configure a replication with a separate source."""
    source = {"dialect": "odd", "number": name}
    host.configure(name=name, sourceConfig=source, sourceTable=name, targetTable=name, isActive=False, **more)


def answering(host: HostProcess, answers: str) -> None:
    """Have the dialect give other answers: Python that assigns them by their names."""
    (host.directory / "answers").write_text(answers)


def answering_right(host: HostProcess) -> None:
    """Have the dialect give its own answers again."""
    (host.directory / "answers").unlink(missing_ok=True)


def error(host: HostProcess, verb: str, name: str) -> str:
    """The error of a run that fails; the next one succeeds, so that nothing of it has stayed."""
    answer = host.request("POST", f"/data-replication/{verb}/{name}")
    assert answer.status_code == 502, answer.text
    (host.directory / "answers").unlink()
    assert host.sync(name)["status"] == "success"
    return str(answer.json()["error"])

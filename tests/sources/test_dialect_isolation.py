"""A dialect of another plugin that raises, exits or hangs does not harm the others, and its run says so."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.hosts import CONFIG, LISTENER, HostProcess, events_of, running, until

# A dialect whose table is two rows, and which misbehaves where a file beside it says so: `describe exit`.
ODD = """
import asyncio, contextlib, pathlib, threading
from starbase_data_replication import Batch, Cast, Column, HighWatermark, TableName, TableSchema
from starbase_host import hookimpl

DEED = pathlib.Path(__file__).with_name("deed")

def plugin(options):
    return Odd()

class Odd:
    @hookimpl(optionalhook=True)
    def replication_dialects(self):
        return {"odd": Dialect()}

def answer(where, right):
    place, _, deed = DEED.read_text().partition(" ") if DEED.exists() else ("", "", "")
    return eval(deed.removeprefix("value ")) if place == where and deed.startswith("value ") else right

def misbehave(where):
    place, _, deed = DEED.read_text().partition(" ") if DEED.exists() else ("", "", "")
    if place == where:
        if deed == "exit":
            raise SystemExit(3)
        if deed == "interrupt":
            raise KeyboardInterrupt
        if deed == "cancel":
            raise asyncio.CancelledError
        if deed == "hang":
            DEED.with_name("reached").touch()
            while DEED.exists():
                threading.Event().wait(0.01)

class Rows(list):
    def __iter__(self):
        misbehave("rows")
        return list.__iter__(self)

class Dialect:
    features = frozenset({"keys", "snapshot", "compare", "resume"})

    def check(self, settings, source_table):
        misbehave("check")
        return answer("check", {})

    def identity(self, settings, source_table):
        misbehave("identity")
        return answer("identity", ("odd", source_table))

    def secret_parts(self, settings):
        misbehave("secret_parts")
        return answer("secret_parts", settings)

    def hosts(self, settings):
        return ()

    def table_name(self, settings, source_table):
        misbehave("table_name")
        return TableName(schema=None, name=source_table)

    def open(self, settings, *, max_connections):
        misbehave("open")
        return Source()

class Source:
    async def describe(self, table, tracking_column):
        misbehave("describe")
        columns = [Column(name=name, source_type="text", nullable=False, cast=Cast()) for name in ("id", "v")]
        return TableSchema(table=table, columns=tuple(columns), key=("id",), tracking_column=tracking_column)

    async def check_filter_and_key(self, schema, *, key):
        pass

    async def count_nulls(self, schema, *, at_most):
        return 0

    async def read_high_watermark(self, schema, options, *, noted_at):
        misbehave("note")
        return answer("note", HighWatermark())

    async def still_open(self, noted):
        return []

    async def ping(self):
        misbehave("answers")

    def snapshot(self):
        return contextlib.nullcontext(self)

    @contextlib.asynccontextmanager
    async def read(self, plan):
        misbehave("read")
        if DEED.exists() and DEED.read_text().startswith("answers"):
            await asyncio.sleep(3600)

        async def batches():
            misbehave("batches")
            yield Batch(rows=Rows([("1", "a"), ("2", "b")]), bytes=4, last=True)

        yield batches()

    @contextlib.asynccontextmanager
    async def comparing(self, schema, columns, options):
        yield Comparing(schema)

    async def close(self):
        misbehave("close")
        if DEED.exists() and DEED.read_text() == "close wait":
            await asyncio.sleep(3600)

class Comparing:
    forms, digests = {}, frozenset()

    def __init__(self, schema):
        self.order = schema.key

    async def summarise(self, parts):
        misbehave("summarise")
        return [{} for _ in parts]

    async def hashes(self, part):
        yield []
"""
PLUGINS = '\n[plugins.odd]\nmodule = "odd"\n\n[plugins.listener]\nmodule = "listener"\n'
SHORT = CONFIG.replace("[host]\n", "[host]\nhook_timeout_seconds = 0.5\n")
RAISED = {"exit": "SystemExit", "interrupt": "KeyboardInterrupt", "cancel": "CancelledError"}
OF_A_RUN = ["identity", "table_name", "open", "describe", "note", "read", "batches", "rows"]


@pytest.fixture(scope="module", name="host")
def _host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    directory = tmp_path_factory.mktemp("odd")
    write(directory)
    with running(directory, SHORT + PLUGINS) as host:
        yield host
        assert host.stop() == 0


@pytest.fixture(autouse=True)
def _well(host: HostProcess) -> Iterator[None]:
    yield
    well(host)


def write(directory: Path) -> None:
    (directory / "odd.py").write_text(ODD)
    (directory / "listener.py").write_text(LISTENER)


def misbehave(host: HostProcess, where: str, deed: str) -> None:
    (host.directory / "deed").write_text(f"{where} {deed}")


def well(host: HostProcess) -> None:
    (host.directory / "deed").unlink(missing_ok=True)


def body(name: str, **more: Any) -> dict[str, Any]:
    # Each has different settings, so that each opens a source.
    source = {"dialect": "odd", "number": name}
    return {"name": name, "sourceConfig": source, "sourceTable": name, "targetTable": name, "isActive": False, **more}


def is_there(host: HostProcess) -> bool:
    return bool(host.result("GET", "/health") == {"status": "ready"}) and host.query("SELECT 1") == [[1]]


@pytest.mark.parametrize("deed", RAISED)
@pytest.mark.parametrize("where", OF_A_RUN)
def test_a_run_of_a_dialect_that_lets_anything_out(host: HostProcess, where: str, deed: str) -> None:
    """It has failed, with a word of why, and the host goes on."""
    name = f"{where}-{deed}"
    host.configure(**body(name))
    misbehave(host, where, deed)
    answer = host.request("POST", f"/data-replication/sync/{name}")
    assert answer.status_code == 502, answer.text
    assert f"raised {RAISED[deed]}" in answer.json()["error"]
    assert "the dialect odd" in answer.json()["error"]
    assert is_there(host)
    now = host.status(name)
    assert now["consecutive_failures"] == 1
    assert now["degraded_since"] is not None
    assert RAISED[deed] in now["last_error"]
    # What follows the first line of a record is indented.
    assert re.search(rf"in misbehave\n +raise (asyncio\.)?{RAISED[deed]}", host.log)
    well(host)
    assert host.sync(name)["status"] == "success"
    assert host.query(f'SELECT * FROM "{name}"') == [["1", "a"], ["2", "b"]]


@pytest.mark.parametrize("deed", RAISED)
def test_a_comparison_of_a_dialect_that_lets_anything_out(host: HostProcess, deed: str) -> None:
    name = f"compared-{deed}"
    host.configure(**body(name))
    host.sync(name)
    misbehave(host, "summarise", deed)
    answer = host.request("POST", f"/data-replication/verify/{name}")
    assert answer.status_code == 502, answer.text
    assert f"the dialect odd raised {RAISED[deed]}" in answer.json()["error"]
    assert is_there(host)


@pytest.mark.parametrize("deed", RAISED)
@pytest.mark.parametrize("where", ["check", "secret_parts"])
def test_configuring_with_a_dialect_that_lets_anything_out(host: HostProcess, where: str, deed: str) -> None:
    misbehave(host, where, deed)
    answer = host.request("POST", "/data-replication/configure", body(f"{where}-{deed}"))
    assert answer.status_code == 502, answer.text
    assert answer.json() == {"error": f"the dialect odd of plugin odd raised {RAISED[deed]}"}
    assert "the dialect odd of plugin odd raised" in host.log
    assert is_there(host)


@pytest.mark.parametrize(
    ("where", "value", "kind"),
    [
        ("check", "None", "TypeError"),
        ("check", "7", "TypeError"),
        ("check", "{'sourceConfig.x': object()}", "TypeError"),
        ("secret_parts", "None", "TypeError"),
        ("secret_parts", "7", "TypeError"),
        ("secret_parts", "{'a': object()}", "TypeError"),
        ("secret_parts", "{'a': float('nan')}", "ValueError"),
    ],
)
def test_configuring_with_a_dialect_that_gives_invalid_answers(
    host: HostProcess, where: str, value: str, kind: str
) -> None:
    misbehave(host, where, f"value {value}")
    asked = body(f"{where}-{value}")
    answer = host.request("POST", "/data-replication/configure", {**asked, "name": "nonsense", "targetTable": "t"})
    why = f"the dialect odd of plugin odd failed ({kind}); the host's log has the details"
    assert (answer.status_code, answer.json()) == (502, {"error": why})
    assert "NaN" not in host.request("GET", "/data-replication/status").text
    assert is_there(host)


def test_a_run_with_an_invalid_answer_names_the_plugin_of_the_dialect(host: HostProcess) -> None:
    host.configure(**body("nameless"))
    misbehave(host, "identity", "value None")
    answer = host.request("POST", "/data-replication/sync/nameless")
    assert answer.status_code == 502
    assert "the dialect odd of plugin odd failed (TypeError)" in answer.json()["error"]
    misbehave(host, "note", "value 7")
    answer = host.request("POST", "/data-replication/sync/nameless")
    assert answer.status_code == 502
    why = (
        "the dialect odd of plugin odd broke a rule, reading the watermark of nameless: received int, and HighWatermark"
    )
    assert why in answer.json()["error"]
    assert is_there(host)


@pytest.mark.parametrize("deed", RAISED)
def test_a_source_that_does_not_close(host: HostProcess, deed: str) -> None:
    name = f"closed-{deed}"
    host.configure(**body(name))
    host.sync(name)
    misbehave(host, "close", deed)
    host.result("DELETE", f"/data-replication/configure/{name}")
    assert "a source could not be closed by the dialect odd of plugin odd" in host.log
    assert is_there(host)


def failures_of(host: HostProcess, name: str) -> dict[str, dict[str, Any]]:
    (found,) = (plugin["failures"] for plugin in host.result("GET", "/plugins") if plugin["name"] == name)
    return {each["hook"]: each for each in found}


def test_a_dialect_whose_sources_never_close_is_blamed_at_the_end(tmp_path: Path) -> None:
    """Not data replication, which waits for them."""
    write(tmp_path)
    with running(tmp_path, CONFIG + PLUGINS) as host:
        host.configure(**body("waiting"))
        host.sync("waiting")
        misbehave(host, "close", "wait")
        assert host.stop(seconds=10) == 0
    assert "a source could not be closed by the dialect odd of plugin odd (TimeoutError after " in host.log
    assert "plugin data_replication: plugin_lifespan" not in host.log


def test_a_dialect_whose_close_blocks_the_event_loop_is_blamed(host: HostProcess) -> None:
    host.configure(**body("blocking"))
    host.sync("blocking")
    misbehave(host, "close", "hang")
    deleting = threading.Thread(
        target=lambda: host.request("DELETE", "/data-replication/configure/blocking"), daemon=True
    )
    deleting.start()
    until(lambda: "the event loop has been held up" in host.log, what="the blame")
    well(host)
    deleting.join(30)
    assert re.search(
        r"the event loop has been held up for \d+\.\d s by plugin odd, at .*odd.py:\d+ in misbehave", host.log
    )
    until(lambda: "the event loop goes on; it was held up for" in host.log, what="the end")
    held = [each for each in host.result("GET", "/status")["hold_ups"] if each["what"] == "event loop"]
    assert [each["plugin"] for each in held] == ["odd"]


@pytest.mark.parametrize("where", ["check", "describe", "rows", "summarise"])
def test_failures_of_a_dialect_are_counted_as_its_plugins(host: HostProcess, where: str) -> None:
    name = f"counted-{where}"
    host.configure(**body(name))
    host.sync(name)
    before = failures_of(host, "odd").get("dialect odd", {"count": 0})["count"]
    misbehave(host, where, "exit")
    if where == "check":
        host.request("POST", "/data-replication/configure", body(f"{name}-2"))
    else:
        host.request("POST", f"/data-replication/{'verify' if where == 'summarise' else 'sync'}/{name}")
    now = failures_of(host, "odd")["dialect odd"]
    assert now["count"] == before + 1
    assert "SystemExit" in now["error"]
    assert failures_of(host, "data_replication") == {}


def test_a_schedule_that_fails_by_a_stray_cancellation_says_so(host: HostProcess) -> None:
    """It passed for an interruption, of another of a group that there was not: no error, no event, for ever."""
    misbehave(host, "describe", "cancel")
    host.configure(**body("stray", isActive=True, syncIntervalMinutes=0.01))
    until(lambda: host.status("stray")["consecutive_failures"] >= 2, what="two failures")
    assert {run["status"] for run in host.logs("stray")} == {"error"}
    assert "raised CancelledError, though the run was not interrupted" in host.status("stray")["last_error"]

    def events() -> list[str]:
        return [each["type"] for each in events_of(host.directory) if each["config_name"] == "stray"]

    until(lambda: "degraded" in events(), what="the event")
    well(host)
    until(lambda: "recovered" in events(), what="the recovery")
    # One that is interrupted is still no failure.
    host.result("POST", "/data-replication/stop/stray")
    assert {run["status"] for run in host.logs("stray")} <= {"error", "success", "interrupted"}


@pytest.mark.parametrize("where", ["check", "secret_parts", "identity"])
def test_a_dialect_that_hangs_while_it_is_configured(host: HostProcess, where: str) -> None:
    """No other write waits for it, and the answer names the plugin."""
    odd = body(f"hanging-{where}", group=f"of-{where}")
    host.configure(**body(f"member-{where}", group=f"of-{where}"))
    misbehave(host, where, "hang")
    answers: list[Any] = []
    asking = threading.Thread(
        target=lambda: answers.append(host.request("POST", "/data-replication/configure", odd)), daemon=True
    )
    asking.start()
    for _ in range(3):
        assert host.request("POST", "/query", {"sql": f'CREATE TABLE IF NOT EXISTS "{where}" (x)'}).status_code == 200
    asking.join(30)
    (answer,) = answers
    assert answer.status_code == 502, answer.text
    assert answer.json() == {"error": "the dialect odd of plugin odd has not answered within 0.5 s"}
    well(host)
    until(lambda: host.request("POST", "/data-replication/configure", odd).status_code == 200, what="the next attempt")


def test_what_changes_while_a_dialect_judges_is_not_undone(tmp_path: Path) -> None:
    """A change that gives no isActive keeps it as it is when the change is saved, not as it was when it came."""
    write(tmp_path)
    with running(tmp_path, CONFIG + PLUGINS) as host:
        host.configure(**body("x", isActive=True, syncIntervalMinutes=60))
        until(lambda: host.status("x")["last_success_at"] is not None, what="the first sync")
        misbehave(host, "check", "hang")
        change = {"name": "x", "sourceConfig": {"dialect": "odd", "number": "two"}}
        asking = threading.Thread(target=lambda: host.configure(**change), daemon=True)
        asking.start()
        until((tmp_path / "reached").exists, what="the judgement")
        host.result("POST", "/data-replication/stop/x")
        well(host)
        asking.join(30)
        assert host.status("x")["source_config"] == change["sourceConfig"]
        assert (host.status("x")["state"], host.status("x")["next_sync_at"]) == ("stopped", None)


@pytest.mark.parametrize("where", ["identity", "table_name", "open"])
def test_a_run_of_a_dialect_that_hangs(host: HostProcess, where: str) -> None:
    name = f"held-{where}"
    host.configure(**body(name))
    misbehave(host, where, "hang")
    answer = host.request("POST", f"/data-replication/sync/{name}")
    assert answer.status_code == 502, answer.text
    assert "the dialect odd of plugin odd has not answered within 0.5 s" in answer.json()["error"]
    assert is_there(host)


def test_a_source_that_exits_when_it_is_asked_whether_it_is_there(tmp_path: Path) -> None:
    write(tmp_path)
    config = SHORT.replace("[plugins.data_replication]", "[plugins.data_replication]\nsilence_timeout_seconds = 1")
    with running(tmp_path, config + PLUGINS) as host:
        host.configure(**body("asked"))
        misbehave(host, "answers", "exit")
        host.result("POST", "/data-replication/sync/asked", wait="false")
        until(lambda: "could not ask whether its source answers" in host.log, what="the question")
        assert is_there(host)
        assert host.stop() == 0


INVALID = {
    "items raises": "class Answer(dict):\n    def items(self):\n        raise ValueError\nANSWER = Answer(odd=1)",
    "items exits": "class Answer(dict):\n    def items(self):\n        raise SystemExit(3)\nANSWER = Answer(odd=1)",
    "items hangs": "import threading\nclass Answer(dict):\n    def items(self):\n        threading.Event().wait()\n"
    "ANSWER = Answer(odd=1)",
    "an attribute raises": "class D:\n    def __getattr__(self, name):\n        raise RuntimeError(name)\n"
    "ANSWER = {'odd': D()}",
    "an attribute exits": "class D:\n    def __getattr__(self, name):\n        raise SystemExit\nANSWER = {'odd': D()}",
    "a class": "import good\nANSWER = {'odd': good.Dialect}",
    "a name": "import good\nANSWER = {42: good.Dialect()}",
    "no mapping": "ANSWER = 42",
    "no dialect": "ANSWER = {'odd': object()}",
    "no hosts": "import good\nclass D(good.Dialect):\n    hosts = None\nANSWER = {'odd': D()}",
    "no features": "import good\nclass D(good.Dialect):\n    features = None\nANSWER = {'odd': D()}",
}


@pytest.mark.parametrize("case", INVALID)
def test_an_invalid_list_of_dialects_is_logged_and_left_out(case: str, tmp_path: Path) -> None:
    """It is logged with its plugin's name; those of others are there, and data replication runs."""
    offering = "from starbase_host import hookimpl\n\ndef plugin(options):\n    return Offering()\n\nclass Offering:\n"
    offering += "    @hookimpl(optionalhook=True)\n    def replication_dialects(self):\n        return ANSWER\n"
    (tmp_path / "good.py").write_text(ODD.replace('"odd"', '"good"'))
    (tmp_path / "offering.py").write_text(f"{INVALID[case]}\n{offering}")
    plugins = '\n[plugins.offering]\nmodule = "offering"\n\n[plugins.good]\nmodule = "good"\n'
    with running(tmp_path, SHORT + plugins) as host:
        failed = {plugin["name"] for plugin in host.result("GET", "/plugins") if plugin["failed"] is not None}
        assert failed == {"offering"}
        assert failures_of(host, "offering")["replication_dialects"]["count"] == 1
        assert "plugin offering: " in host.log
        assert "left out" in host.log
        answer = host.request("POST", "/data-replication/configure", body("x"))
        assert answer.status_code == 400, answer.text
        assert "sourceConfig.dialect is not a dialect" in answer.json()["error"]
        host.configure(**body("y", sourceConfig={"dialect": "good"}))
        assert host.sync("y")["status"] == "success"
        assert host.stop() == 0

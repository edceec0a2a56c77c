"""What holds up the event loop or the writer is named while it does: the plugin, the line and the stack."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest

from starbase_host import Clock
from starbase_host.watcher import MAX_PLACES, Blame, Watcher
from tests.support.hosts import ADMIN, HostProcess, running, until

# A plugin that holds up what a request names, until a file beside it is removed.
HOLDING = """
import asyncio, contextlib, functools, pathlib, time
from starbase_host import Route, hookimpl

HOLD = pathlib.Path(__file__).with_name("hold")

def plugin(options):
    return Holding()

def wait(*_):
    while HOLD.exists():
        time.sleep(0.01)

class Holding:
    @hookimpl
    def register_routes(self, host):
        self.host = host
        return [Route("/holding/{what}", self.hold, ("POST",), role=None)]

    async def hold(self, request):
        what = request.path_params["what"]
        if what == "loop":
            wait()
        elif what == "task":
            await asyncio.create_task(self.task())
        elif what == "callback":
            asyncio.get_running_loop().call_soon(functools.partial(time.sleep, 1.6))
        elif what == "writer":
            await self.host.database.write(wait)
        elif what == "bare":
            await self.host.database.write(functools.partial(next, map(time.sleep, [1.6])))
        return what

    async def task(self):
        wait()
"""
OTHER = """
import contextlib
from starbase_host import hookimpl

def plugin(options):
    return Other()

class Other:
    @hookimpl
    @contextlib.asynccontextmanager
    async def plugin_lifespan(self, host):
        yield
"""
CONFIG = f"""\
[host]
bind = "127.0.0.1:0"
admin_token = "{ADMIN}"

[plugins.other]
module = "other"

[plugins.holding]
module = "holding"
"""


def write(directory: Path) -> None:
    (directory / "holding.py").write_text(HOLDING)
    (directory / "other.py").write_text(OTHER)


def hold_ups(host: HostProcess) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = host.result("GET", "/status")["hold_ups"]
    # A machine that is busy with other tests may stand still for a moment.
    return [each for each in found if each["what"] != "all threads"]


@pytest.mark.parametrize(
    ("what", "held", "function"),
    [
        ("loop", "event loop", "wait"),
        ("task", "event loop", "wait"),
        ("callback", "event loop", None),
        ("writer", "writer", "wait"),
        ("bare", "writer", None),
    ],
)
def test_what_holds_it_up_is_named(what: str, held: str, function: str | None, tmp_path: Path) -> None:
    write(tmp_path)
    hold = tmp_path / "hold"
    with running(tmp_path, CONFIG) as host:
        assert host.result("GET", "/status")["hold_ups"] == []
        hold.touch()
        asking = threading.Thread(target=lambda: host.request("POST", f"/holding/{what}", token=None), daemon=True)
        asking.start()
        until(lambda: f"the {held} has been held up for" in host.log, what="the blame")
        place = rf"at .*holding\.py:\d+ in {function}" if function else "at "
        assert re.search(rf"the {held} has been held up for \d+\.\d s by plugin holding, {place}", host.log)
        assert "\n      File " in host.log
        if held == "writer":
            # Reads go on, and the status shows what is under way.
            assert [each["under_way"] for each in hold_ups(host) if each["what"] == held] == [True]
        hold.unlink()
        asking.join(30)
        until(lambda: f"the {held} goes on; it was held up for" in host.log, what="the end")
        (found,) = hold_ups(host)
        assert (found["what"], found["plugin"], found["count"], found["under_way"]) == (held, "holding", 1, False)
        assert found["longest_seconds"] >= 1
        assert host.stop() == 0
    # Where it is, and then that it is over.
    assert host.log.count("by plugin holding") == 2


def test_what_is_kept_is_bounded_and_a_place_is_logged_once_a_minute() -> None:
    watcher = Watcher(Clock(), lambda file, preferred: None)
    for number in range(3 * MAX_PLACES):
        assert watcher._count("writer", Blame("a", f"{number}"), 1.0, 0.0)
    assert len(watcher.shown()) == MAX_PLACES
    last = Blame("a", f"{3 * MAX_PLACES - 1}")
    assert not watcher._count("writer", last, 5.0, 59.0)
    assert watcher._count("writer", last, 2.0, 60.0)
    shown = watcher.shown()[-1]
    assert (shown["count"], shown["longest_seconds"], shown["plugin"]) == (3, 5.0, "a")

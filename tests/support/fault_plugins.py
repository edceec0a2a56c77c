"""Plugins, as the text of a module, with which a test puts faults into a host."""

from __future__ import annotations

# A plugin through which a test sets the clock of a host: so many seconds, as a file says.
STEPPER = """
import pathlib, time
from starbase_host import Clock
OFFSET = pathlib.Path(__file__).with_name("offset")
Clock.now = lambda self: time.time() + float(OFFSET.read_text())
def plugin(options):
    return object()
"""

# A plugin that wraps one step; `reached` ends the process at the nth time, and only in its first life.
CRASHER = """
import functools, os, pathlib, signal
from starbase_data_replication.storage import store, target
from starbase_data_replication.sync import sync

def plugin(options):
    reached = Reached(options["nth"])
    POINTS[options["point"]](reached)
    return object()

class Reached:
    def __init__(self, nth):
        self.left = nth
        self.marker = pathlib.Path(__file__).with_name("crashed")
    def __call__(self):
        self.left -= 1
        if self.left == 0 and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)

def before(owner, name, reached):
    step = getattr(owner, name)
    @functools.wraps(step)
    def wrapped(*args, **kwargs):
        reached()
        return step(*args, **kwargs)
    setattr(owner, name, wrapped)

def after(owner, name, reached):
    step = getattr(owner, name)
    @functools.wraps(step)
    def wrapped(*args, **kwargs):
        answer = step(*args, **kwargs)
        reached()
        return answer
    setattr(owner, name, wrapped)

def after_commit(reached):
    step = sync.Sync._write
    async def wrapped(*args, **kwargs):
        answer = await step(*args, **kwargs)
        reached()
        return answer
    sync.Sync._write = wrapped

POINTS = {
    "before the batch commits": lambda reached: after(target.Target, "apply", reached),
    "after the position is set": lambda reached: after(store, "save_position", reached),
    "after the batch commits": after_commit,
    "before the run is recorded": lambda reached: before(store, "record", reached),
    "between runs": lambda reached: before(store, "begin_run", reached),
    "during a swap": lambda reached: after(target.Target, "swap", reached),
    "during a reconciliation": lambda reached: after(target.Target, "remove", reached),
    "before a swap": lambda reached: before(target.Target, "swap", reached),
}
"""

"""Watches, from a thread, whether the event loop and the writer go on, and names the plugin that holds one of them up.

While one is held up, nothing that runs on it can say so. The thread asks the loop to answer, and looks whether the
writer is still at the same job. When that takes too long, it reads the stack of the thread that is late.
Must not know what a plugin does.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import traceback
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

from starbase_host.clock import Clock, iso
from starbase_host.isolation import RUNNING
from starbase_host.writer import Writer

log = logging.getLogger("starbase.watcher")

LATE_SECONDS = 1.0
LOOK_SECONDS = 0.25
# If two looks are further apart than this, no thread has run: no stack says why.
STILL_SECONDS = LOOK_SECONDS + LATE_SECONDS
# The same place is logged once in this time.
AGAIN_SECONDS = 60.0
# Places that are kept; the one that was held up the longest ago makes way.
MAX_PLACES = 50
MAX_FRAMES = 40
LOOP, WRITER, ALL = "event loop", "writer", "all threads"
EFFECTS = {LOOP: "no request is answered and no alarm fires", WRITER: "all writes wait"}


@dataclass(frozen=True)
class Blame:
    """Who holds something up. plugin: None for the host. place: file, line and function."""

    plugin: str | None
    place: str

    def __str__(self) -> str:
        return f"{f'plugin {self.plugin}' if self.plugin else 'the host'}, at {self.place}"


@dataclass(kw_only=True)
class HoldUp:
    """How often something was held up in one place, and for how long at most."""

    count: int = 0
    longest_seconds: float = 0.0
    last_at: float = 0.0
    logged_at: float | None = None
    under_way: bool = False


@dataclass
class _Watched:
    """Something that is watched.

    what: LOOP or WRITER.
    since: when it was asked to go on; monotonic seconds.
    late: who holds it up, once it is late.
    logged: whether that was logged.
    """

    what: str
    since: float = 0.0
    late: Blame | None = None
    logged: bool = False


class Watcher:
    """Watches one host while `run` is open.

    clock: the system's, also where tests move the host's time.
    plugin_of: the plugin that a source file belongs to, or None; its second argument decides where several share it.
    """

    def __init__(self, clock: Clock, plugin_of: Callable[[str, str | None], str | None]) -> None:
        self._clock = clock
        self._plugin_of = plugin_of
        self._found: dict[tuple[str, Blame], HoldUp] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._loop_answered = True
        self._loop_thread = 0

    @contextlib.contextmanager
    def run(self, loop: AbstractEventLoop, writer: Writer) -> Iterator[None]:
        """Watch inside this context. Enter it on the thread of the loop."""
        self._loop_thread = threading.get_ident()
        thread = threading.Thread(target=self._watch, args=(loop, writer), name="watcher", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def shown(self) -> list[dict[str, Any]]:
        """What `GET /status` shows: the places that held something up, the latest last."""
        with self._lock:
            return [
                {
                    "what": what,
                    "plugin": blame.plugin,
                    "place": blame.place,
                    "count": found.count,
                    "longest_seconds": round(found.longest_seconds, 1),
                    "last_at": iso(found.last_at),
                    "under_way": found.under_way,
                }
                for (what, blame), found in self._found.items()
            ]

    def _watch(self, loop: AbstractEventLoop, writer: Writer) -> None:
        watched_loop, watched_writer = _Watched(LOOP), _Watched(WRITER)
        job, looked_at = -1, self._clock.monotonic()
        while not self._ended.wait(LOOK_SECONDS):
            now = self._clock.monotonic()
            if now - looked_at > STILL_SECONDS:
                self._still(now - looked_at)
            looked_at = now
            if self._loop_answered:
                self._goes_on(watched_loop, now)
                self._loop_answered, watched_loop.since = False, now
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(self._answer)
            elif now - watched_loop.since >= LATE_SECONDS:
                self._late(watched_loop, self._loop_thread, None, now)
            if not writer.writing or writer.jobs != job:
                self._goes_on(watched_writer, now)
                job, watched_writer.since = writer.jobs, now
            elif now - watched_writer.since >= LATE_SECONDS:
                self._late(watched_writer, writer.thread_id, writer.plugin, now)

    def _answer(self) -> None:
        self._loop_answered = True

    def _late(self, watched: _Watched, thread: int, plugin: str | None, now: float) -> None:
        """Find who holds something up, when it is found to be late; count it and log it."""
        seconds = now - watched.since
        if watched.late is not None:
            with self._lock:
                found = self._found.setdefault((watched.what, watched.late), HoldUp(count=1))
                found.longest_seconds = max(found.longest_seconds, seconds)
            return
        frame = sys._current_frames().get(thread)
        if frame is None:
            return
        watched.late = self._blame(frame, plugin)
        watched.logged = self._count(watched.what, watched.late, seconds, now)
        if watched.logged:
            shown = (watched.what, seconds, watched.late, EFFECTS[watched.what], _stack(frame))
            log.warning("the %s has been held up for %.1f s by %s; %s\n%s", *shown)

    def _goes_on(self, watched: _Watched, now: float) -> None:
        if watched.late is None:
            return
        blame, seconds = watched.late, now - watched.since
        with self._lock:
            if found := self._found.get((watched.what, blame)):
                found.under_way, found.last_at = False, self._clock.now()
                found.longest_seconds = max(found.longest_seconds, seconds)
        if watched.logged:
            log.warning("the %s goes on; it was held up for %.1f s by %s", watched.what, seconds, blame)
        watched.late = None

    def _still(self, seconds: float) -> None:
        """No thread has run: no stack can be read any more."""
        blame = Blame(None, "unknown")
        if self._count(ALL, blame, seconds, self._clock.monotonic(), under_way=False):
            why = "a C function kept the interpreter's lock, or the machine was suspended or overloaded"
            log.warning("all threads stood still for %.1f s: %s", seconds, why)

    def _count(self, what: str, blame: Blame, seconds: float, now: float, *, under_way: bool = True) -> bool:
        """Count a hold-up; return whether to log it."""
        with self._lock:
            found = self._found.pop((what, blame), None) or HoldUp()
            if len(self._found) >= MAX_PLACES:
                self._found.pop(next(iter(self._found)))
            self._found[what, blame] = found
            found.count += 1
            found.longest_seconds = max(found.longest_seconds, seconds)
            found.last_at, found.under_way = self._clock.now(), under_way
            if found.logged_at is not None and now - found.logged_at < AGAIN_SECONDS:
                return False
            found.logged_at = now
            return True

    def _blame(self, frame: FrameType, plugin: str | None) -> Blame:
        """The innermost code of a plugin on a stack; else the plugin whose task, or job, this is.

        The innermost, because one plugin may call another: data replication calls the dialects of others.
        plugin: the one that has put the job.
        """
        plugin = plugin or _running(frame)
        each: FrameType | None = frame
        while each is not None:
            owner = self._plugin_of(each.f_code.co_filename, plugin)
            if owner is not None:
                return Blame(owner, _place(each))
            each = each.f_back
        return Blame(plugin, _place(frame))


def _place(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"


def _running(frame: FrameType) -> str | None:
    """The plugin whose task or callback the event loop runs on this stack: asyncio keeps its context."""
    each: FrameType | None = frame
    while each is not None:
        if each.f_code.co_name == "_run" and each.f_code.co_filename.endswith(os.path.join("asyncio", "events.py")):
            context = getattr(each.f_locals.get("self"), "_context", None)
            return context.get(RUNNING) if context is not None else None
        each = each.f_back
    return None


def _stack(frame: FrameType) -> str:
    frames: Sequence[traceback.FrameSummary] = traceback.extract_stack(frame, MAX_FRAMES)
    return "".join(traceback.format_list(list(frames))).rstrip()

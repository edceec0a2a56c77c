"""Failures of plugins' code: what is shown of an exception, how often each hook has failed, and when that is logged.

An exception is an object of the plugin: to make its text may raise, never end, or fill the memory. `describe` is the
one place that makes it. Call it through `Worker.describe`, which does so in the plugin's thread.
Must not know hooks, or which plugins exist.
"""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from starbase_host.clock import iso
from starbase_host.printable import printable

# Characters of an error's text, of its details in the log, and of the text that `GET /plugins` shows.
MAX_TEXT, MAX_DETAILS, MAX_SHOWN = 2_000, 20_000, 500
# A longer text is copied off the event loop.
MAX_QUICK = 10_000
# Errors of one chain, and frames of each, that are shown.
MAX_CHAIN, MAX_FRAMES = 8, 30
# Hooks and routes of one plugin whose failures are kept; the oldest one makes way.
MAX_KEPT = 100
# Kinds of failures of one streak that are logged when they first occur.
MAX_KINDS = 10

_MRO = type.__dict__["__mro__"]
_NAME = type.__dict__["__name__"]
_DICT = type.__dict__["__dict__"]
_ERRNO = OSError.__dict__["errno"]


def kind_of(value: object) -> str:
    """The name of a class, of an error or any value, read from `type`: a foreign class may override `__name__`."""
    name: str = _NAME.__get__(type(value))
    return name


def has_plain_text(error: BaseException) -> bool:
    """Whether str() of an error runs no code of a foreign class: neither the error's class nor its arguments'."""
    owner = next(each for each in _MRO.__get__(type(error)) if "__str__" in _DICT.__get__(each))
    # An OSError without a number, such as the TimeoutError of a time limit, shows its one argument.
    plain = owner is BaseException or (owner is OSError and _ERRNO.__get__(error) is None)
    return plain and all(type(each) in (str, int) for each in _own(error, "args"))


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An exception in plain text.

    kind: the name of its class.
    text: its message in one line, at most MAX_TEXT characters; None if the message could not be made.
    details: the tracebacks of it and its causes, at most MAX_DETAILS characters.
    place: the file and line where it was raised.
    """

    kind: str
    text: str | None
    details: str
    place: str

    def __str__(self) -> str:
        if self.text is None:
            return f"{self.kind}, whose text could not be made"
        return f"{self.kind}: {self.text}" if self.text else self.kind


def is_quick(error: BaseException) -> bool:
    """Whether `describe` may be called on the event loop: no text of the chain runs foreign code, and none is long."""
    return all(
        has_plain_text(each) and sum(len(part) for part in _own(each, "args") if type(part) is str) <= MAX_QUICK
        for _, each in _chain(error)
    )


def describe(error: BaseException, *, texts: bool = True) -> Failure:
    """Describe an exception.

    texts: False leaves out all messages, and so runs no code of the exceptions' classes.
    """
    text = _text(error) if texts else None
    parts = []
    for title, each in reversed(list(_chain(error))):
        shown = (text if each is error else _text(each)) if texts else None
        where = "".join(traceback.format_tb(_own(each, "__traceback__"), -MAX_FRAMES))
        parts.append(f"{where}{Failure(kind=kind_of(each), text=shown, details='', place='')}\n{title}")
    details = "".join(parts).rstrip()
    if len(details) > MAX_DETAILS:
        details = f"{details[: MAX_DETAILS // 2]}\n…\n{details[-MAX_DETAILS // 2 :]}"
    return Failure(kind=kind_of(error), text=text, details=details, place=_place(_own(error, "__traceback__")))


def _text(error: BaseException) -> str | None:
    try:
        # A subclass of str may do anything when it is used, so it is copied into one.
        text = str.__str__(str(error))
    except BaseException:
        return None
    return printable(" ".join(text[: 2 * MAX_TEXT].split()), at_most=MAX_TEXT)


def _own(error: BaseException, name: str) -> Any:
    """An attribute of BaseException, which a foreign class may override."""
    return BaseException.__dict__[name].__get__(error)


def _chain(error: BaseException) -> Iterator[tuple[str, BaseException]]:
    """An error and the errors that it comes from, each with the line that leads from it to the one before."""
    seen: set[int] = set()
    waiting: list[tuple[str, BaseException | None]] = [("", error)]
    while waiting and len(seen) < MAX_CHAIN:
        title, each = waiting.pop(0)
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield title, each
        if isinstance(each, BaseExceptionGroup):
            inner = BaseExceptionGroup.__dict__["exceptions"].__get__(each)
            waiting += [("… which is part of:\n", one) for one in itertools.islice(inner, MAX_CHAIN)]
        if (cause := _own(each, "__cause__")) is not None:
            waiting.append(("… which led to:\n", cause))
        elif not _own(each, "__suppress_context__"):
            waiting.append(("… and while that was handled:\n", _own(each, "__context__")))


def _place(trace: TracebackType | None) -> str:
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"


class Streak:
    """Failures in a row of one thing: which of them are worth a line of the log, so that they do not fill it.

    quiet_seconds: how long it must not have failed until a success ends the streak.
    """

    def __init__(self, quiet_seconds: float) -> None:
        self.count = 0
        self._quiet_seconds = quiet_seconds
        self._failed_at = 0.0
        self._kinds: set[str] = set()

    def fail(self, now: float, kind: str = "") -> bool:
        """Count a failure; return whether to log it: as the first one of its kind, or as the 10th, 100th, 1000th …

        now: monotonic seconds.
        """
        self.count += 1
        self._failed_at = now
        new = kind not in self._kinds and len(self._kinds) < MAX_KINDS
        if new:
            self._kinds.add(kind)
        return new or (self.count >= 10 and str(self.count).strip("0") == "1")

    def succeed(self, now: float) -> int:
        """Count a success; return how many failures the streak had if this ends it, else 0."""
        if not self.count or now - self._failed_at < self._quiet_seconds:
            return 0
        ended, self.count = self.count, 0
        self._kinds.clear()
        return ended


@dataclass(kw_only=True)
class _Kept:
    error: str
    count: int
    last_at: float


@dataclass
class FailureLog:
    """The failures of one plugin, by hook, route or dialect. Bounded: MAX_KEPT of them, with texts of MAX_SHOWN."""

    _kept: dict[str, _Kept] = field(default_factory=dict)

    def add(self, hook: str, error: str, now: float) -> None:
        """Count a failure. now: seconds since 1970."""
        count = self._kept.pop(hook).count if hook in self._kept else 0
        if len(self._kept) >= MAX_KEPT:
            self._kept.pop(next(iter(self._kept)))
        self._kept[hook] = _Kept(error=printable(error, at_most=MAX_SHOWN), count=count + 1, last_at=now)

    def shown(self) -> list[dict[str, Any]]:
        """What `GET /plugins` shows of them, the latest first."""
        return [
            {"hook": hook, "error": kept.error, "count": kept.count, "last_at": iso(kept.last_at)}
            for hook, kept in reversed(self._kept.items())
        ]

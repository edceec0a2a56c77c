"""A plugin whose every hook misbehaves. Tests import it, and copy it beside a plugin.toml."""

from __future__ import annotations

import asyncio
import inspect
import pathlib
import threading
from collections.abc import Callable, Mapping
from typing import Any

from starbase_host import hookimpl

CALLED = pathlib.Path(__file__).with_name("called")


def plugin(options: Mapping[str, Any]) -> Any:
    return evil(options["hook"], options["mode"], lambda: CALLED.open("a").write(options["hook"] + "\n"))


def evil(hook: str, mode: str, called: Callable[[], object], released: threading.Event | None = None) -> Any:
    """A plugin with one hook. mode: what it does, and in which form: `raise plain`, `hang coroutine` …

    released: what a function that hangs waits for; for ever where left out.
    """
    deed, form = mode.split()

    def plain(self: Any) -> Any:
        called()
        if deed == "hang":
            (released or threading.Event()).wait()
        return _misbehave(deed)

    async def coroutine(self: Any) -> Any:
        called()
        if deed == "hang":
            await asyncio.Event().wait()
        if deed == "stubborn":
            await _stubborn(released or threading.Event())
        return _misbehave(deed)

    function = coroutine if form == "coroutine" else plain
    assert inspect.iscoroutinefunction(function) == (form == "coroutine")
    # Under a different name, so that every hook can be made of the same function.
    return type("Evil", (), {"implementation": hookimpl(specname=hook, optionalhook=True)(function)})()


def _misbehave(deed: str) -> Any:
    errors: dict[str, BaseException] = {
        "raise": RuntimeError("a bug,\nin two lines"),
        "exit": SystemExit(3),
        "interrupt": KeyboardInterrupt(),
        "cancel": asyncio.CancelledError(),
        "stop": StopIteration(),
    }
    if deed in errors:
        raise errors[deed]
    return 42


async def _stubborn(released: threading.Event) -> None:
    """Does not heed its cancellation."""
    while not released.is_set():
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            continue

"""Calls a plugin's code so that it can harm nobody else: bounded in time, in its own thread, every exception caught.

Knows nothing of hooks or of which plugins there are.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import inspect
import queue
import threading
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from starbase_host.errors import PluginFailed

QUEUE_LIMIT = 100


class Worker:
    """A plugin's own thread for its plain functions, with a bounded queue.

    A function that hangs blocks this thread for good: later calls wait in the queue until their own time-out,
    and fail at once when the queue is full. The thread is a daemon, so it never holds up the process's end.
    """

    def __init__(self, plugin: str) -> None:
        self._plugin = plugin
        self._jobs: queue.Queue[tuple[concurrent.futures.Future[Any], Callable[[], Any]] | None] = queue.Queue(
            QUEUE_LIMIT
        )
        self._thread: threading.Thread | None = None

    async def call(
        self,
        function: Callable[..., Any],
        arguments: dict[str, Any] | tuple[Any, ...],
        timeout_seconds: float,
        look: Callable[[Any], Any] | None = None,
    ) -> Any:
        """Call a plain function in this thread, or a coroutine function on the loop; by name, or by position.

        look: makes of the answer what is answered, in this thread and within the same time: an answer is the plugin's
        own object, which may do anything when it is looked at. Raises what the function or `look` raises, TimeoutError
        when both take longer, PluginFailed when the queue is full.
        """
        call = partial(function, **arguments) if isinstance(arguments, dict) else partial(function, *arguments)
        return await bounded(self._answer(function, call, look), timeout_seconds)

    async def _answer(
        self, function: Callable[..., Any], call: Callable[[], Any], look: Callable[[Any], Any] | None
    ) -> Any:
        if inspect.iscoroutinefunction(function):
            answer = await call()
        else:
            answer, awaitable = await asyncio.wrap_future(self.submit(partial(_asked, call)))
            if awaitable:
                # A lambda or a decorator around a coroutine function does not look like one.
                answer = await answer
        return answer if look is None else await asyncio.wrap_future(self.submit(partial(look, answer)))

    def call_plain(self, function: Callable[..., Any], arguments: dict[str, Any], timeout_seconds: float) -> Any:
        """The same for a caller without a loop: blocks, and a coroutine function gets a loop of its own."""

        def call() -> Any:
            answer = function(**arguments)
            return asyncio.run(bounded(answer, timeout_seconds)) if inspect.isawaitable(answer) else answer

        try:
            return self.submit(call).result(timeout_seconds)
        except concurrent.futures.TimeoutError:
            raise TimeoutError(f"no answer within {timeout_seconds:g} s") from None

    def submit(self, function: Callable[[], Any]) -> concurrent.futures.Future[Any]:
        """Queue a call. Raises PluginFailed when the queue is full."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop, name=f"plugin-{self._plugin}", daemon=True)
            self._thread.start()
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        try:
            self._jobs.put_nowait((future, function))
        except queue.Full:
            raise PluginFailed(f"plugin {self._plugin}: {QUEUE_LIMIT} calls are waiting already") from None
        return future

    def close(self) -> None:
        """Let the thread end after what is queued. Without it, it waits for ever."""
        if self._thread is not None:
            self._thread = None
            with contextlib.suppress(queue.Full):
                self._jobs.put_nowait(None)

    def _loop(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            future, function = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = function()
            except BaseException as error:
                future.set_exception(_tamed(error))
            else:
                future.set_result(result)


class Lifespan:
    """A context manager of a plugin, entered and left in one task of its own, as its cancel scopes need.

    failed: hears what went wrong, at whichever end.
    """

    def __init__(self, manager: Any, failed: Callable[[BaseException], None]) -> None:
        self._manager = manager
        self._failed = failed
        self._entered = asyncio.Event()
        self._leave = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def enter(self, timeout_seconds: float) -> bool:
        """Whether it was entered; never raises."""
        if not hasattr(self._manager, "__aenter__") or not hasattr(self._manager, "__aexit__"):
            self._failed(TypeError("did not answer an async context manager"))
            return False
        self._task = asyncio.create_task(self._run(), name="lifespan")
        waiter = asyncio.create_task(self._entered.wait())
        try:
            await asyncio.wait({self._task, waiter}, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._task.cancel()
            raise
        finally:
            waiter.cancel()
        if self._entered.is_set():
            return True
        self._give_up(f"was not entered within {timeout_seconds:g} s")
        return False

    async def leave(self, timeout_seconds: float) -> bool:
        """Whether it has been left; may be called again for one that takes longer."""
        assert self._task is not None
        self._leave.set()
        done, _ = await asyncio.wait({self._task}, timeout=timeout_seconds)
        return bool(done)

    def abandon(self) -> None:
        """Wait no longer for one that does not leave."""
        self._give_up("was not left in time")

    def _give_up(self, why: str) -> None:
        if self._task is not None and not self._task.done():
            # One that does not heed its cancellation, and is entered after all, is left at once.
            self._leave.set()
            self._task.cancel()
            self._failed(TimeoutError(why))

    async def _run(self) -> None:
        try:
            async with self._manager:
                self._entered.set()
                await self._leave.wait()
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            self._failed(_tamed(error))
        except BaseException as error:
            self._failed(_tamed(error))


def _asked(call: Callable[[], Any]) -> tuple[Any, bool]:
    """What is answered, and whether it has yet to be awaited: that is asked of its type, which may be the plugin's."""
    answer = call()
    return answer, inspect.isawaitable(answer)


async def leave(lifespans: Sequence[Lifespan], timeout_seconds: float) -> None:
    """Leave one after the other, all within this time; one that hangs does not keep the next from its turn."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_seconds
    turn = timeout_seconds / (len(lifespans) + 1)
    late = [each for each in lifespans if not await each.leave(turn)]
    for each in late:
        if not await each.leave(max(0.0, deadline - loop.time())):
            each.abandon()


async def bounded(awaitable: Awaitable[Any], timeout_seconds: float) -> Any:
    """Wait at most this long. What does not heed its cancellation is left behind, not waited for."""
    task = asyncio.ensure_future(_contained(awaitable))
    try:
        done, _ = await asyncio.wait({task}, timeout=timeout_seconds)
    except asyncio.CancelledError:
        task.cancel()
        task.add_done_callback(_forget)
        raise
    if not done:
        task.cancel()
        task.add_done_callback(_forget)
        raise TimeoutError(f"no answer within {timeout_seconds:g} s")
    if task.cancelled():
        # From inside: nobody has cancelled the caller, who must not look as if.
        raise PluginFailed("raised CancelledError")
    return task.result()


async def _contained(awaitable: Awaitable[Any]) -> Any:
    try:
        return await awaitable
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        tamed = _tamed(error)
        if tamed is error:
            raise
        raise tamed from error


def _tamed(error: BaseException) -> BaseException:
    """SystemExit and its like would end the host from inside a task; an ordinary exception does not.

    A future takes neither a StopIteration nor a CancelledError for what it is.
    """
    odd = not isinstance(error, Exception) or isinstance(error, StopIteration | concurrent.futures.CancelledError)
    return PluginFailed(f"raised {type(error).__name__}") if odd else error


def _forget(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()

"""Isolates calls of a plugin's code: each has a time limit and the plugin's own thread, and no exception escapes.

Must not know hooks, or which plugins exist.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import inspect
import queue
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any

from starbase_host.errors import PluginFailed
from starbase_host.failures import Failure, describe, is_quick, kind_of

QUEUE_LIMIT = 100
# How long the text of an error may take.
TEXT_SECONDS = 1.0

# The plugin whose code runs: set in its thread, and in each task that calls it and the tasks that those begin.
RUNNING: ContextVar[str | None] = ContextVar("running", default=None)


class Worker:
    """A plugin's own thread for its plain functions, with a bounded queue.

    A function that hangs blocks this thread for good: later calls wait in the queue until their own time-out, and
    fail at once when the queue is full. The thread is a daemon, so it never delays the end of the process.
    """

    def __init__(self, name: str, *, plugin: str | None = None) -> None:
        """name: of the thread; that of the plugin, unless `plugin` gives it."""
        self._name = name
        self._plugin = plugin or name
        self._calls: queue.Queue[tuple[concurrent.futures.Future[Any], Callable[[], Any]] | None] = queue.Queue(
            QUEUE_LIMIT
        )
        self._thread: threading.Thread | None = None

    async def call(
        self,
        function: Callable[..., Any],
        arguments: dict[str, Any] | tuple[Any, ...],
        timeout_seconds: float,
        convert: Callable[[Any], Any] | None = None,
    ) -> Any:
        """Call a plain function in this thread, or a coroutine function on the event loop; return its answer.

        arguments: by name (a dict) or by position (a tuple).
        timeout_seconds: the limit for the function and `convert` together.
        convert: turns the answer into what this method returns, in this thread. An answer is an object of the plugin,
            whose methods may do anything.
        Raises what the function or `convert` raises; TimeoutError; PluginFailed when the queue is full.
        """
        call = partial(function, **arguments) if isinstance(arguments, dict) else partial(function, *arguments)
        return await with_timeout(self._answer(function, call, convert), timeout_seconds)

    async def describe(self, error: BaseException) -> Failure:
        """Describe an exception of the plugin: in this thread, if the plugin's own code makes a text of it."""
        if is_quick(error):
            return describe(error)
        try:
            failure: Failure = await with_timeout(
                asyncio.wrap_future(self.submit(partial(describe, error))), TEXT_SECONDS
            )
        except Exception:
            return describe(error, texts=False)
        return failure

    def describe_plain(self, error: BaseException) -> Failure:
        """Do the same as `describe` without an event loop."""
        try:
            failure: Failure = self.submit(partial(describe, error)).result(TEXT_SECONDS)
        except Exception:
            return describe(error, texts=False)
        return failure

    async def _answer(
        self, function: Callable[..., Any], call: Callable[[], Any], convert: Callable[[Any], Any] | None
    ) -> Any:
        RUNNING.set(self._plugin)
        if inspect.iscoroutinefunction(function):
            answer = await call()
        else:
            answer, awaitable = await asyncio.wrap_future(self.submit(partial(_call_and_inspect, call)))
            if awaitable:
                # A lambda or a decorator hides that it wraps a coroutine function.
                answer = await answer
        return answer if convert is None else await asyncio.wrap_future(self.submit(partial(convert, answer)))

    def call_plain(
        self,
        function: Callable[..., Any],
        arguments: dict[str, Any],
        timeout_seconds: float,
        convert: Callable[[Any], Any] | None = None,
    ) -> Any:
        """Do the same as `call` without an event loop: block, and run a coroutine function on its own loop."""

        def call() -> Any:
            answer = function(**arguments)
            if inspect.isawaitable(answer):
                answer = asyncio.run(with_timeout(answer, timeout_seconds))
            return answer if convert is None else convert(answer)

        try:
            return self.submit(call).result(timeout_seconds)
        except concurrent.futures.TimeoutError:
            raise TimeoutError(f"did not answer within {timeout_seconds:g} s") from None

    def submit(self, function: Callable[[], Any]) -> concurrent.futures.Future[Any]:
        """Queue a call. Raises PluginFailed when the queue is full."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop, name=f"plugin-{self._name}", daemon=True)
            self._thread.start()
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        try:
            self._calls.put_nowait((future, function))
        except queue.Full:
            raise PluginFailed(f"plugin {self._name}: {QUEUE_LIMIT} calls are already waiting") from None
        return future

    def close(self) -> None:
        """Let the thread end after the queued calls. A Worker that is not closed keeps its thread."""
        if self._thread is not None:
            self._thread = None
            with contextlib.suppress(queue.Full):
                self._calls.put_nowait(None)

    def _loop(self) -> None:
        RUNNING.set(self._plugin)
        while True:
            call = self._calls.get()
            if call is None:
                return
            future, function = call
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = function()
            except BaseException as error:
                future.set_exception(_wrap_fatal(error))
            else:
                future.set_result(result)


class Lifespan:
    """A plugin's async context manager, entered and left in the same task, as its cancel scopes require.

    plugin: the plugin's name.
    on_failure: called with the error when entering or leaving fails.
    """

    def __init__(self, manager: Any, plugin: str, on_failure: Callable[[BaseException], Awaitable[object]]) -> None:
        self._manager = manager
        self._plugin = plugin
        self._on_failure = on_failure
        self._entered = asyncio.Event()
        self._leave = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def enter(self, timeout_seconds: float) -> bool:
        """Enter it; return whether that succeeded. Does not raise the plugin's errors."""
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
        await self._give_up(f"did not enter within {timeout_seconds:g} s")
        return False

    async def leave(self, timeout_seconds: float) -> bool:
        """Leave it; return whether it has been left in this time. If not, call this again to wait longer."""
        assert self._task is not None
        self._leave.set()
        done, _ = await asyncio.wait({self._task}, timeout=timeout_seconds)
        return bool(done)

    async def abandon(self) -> None:
        """Stop waiting for it."""
        await self._give_up("did not leave in time")

    async def _give_up(self, why: str) -> None:
        if self._task is not None and not self._task.done():
            # If it ignores its cancellation and is entered after all, it is left at once.
            self._leave.set()
            self._task.cancel()
            await self._on_failure(TimeoutError(why))

    async def _run(self) -> None:
        RUNNING.set(self._plugin)
        try:
            async with self._manager:
                self._entered.set()
                await self._leave.wait()
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            await self._on_failure(_wrap_fatal(error))
        except BaseException as error:
            await self._on_failure(_wrap_fatal(error))


def _call_and_inspect(call: Callable[[], Any]) -> tuple[Any, bool]:
    """Return the answer, and whether it is awaitable. To ask that may run code of the plugin, so it is done here."""
    answer = call()
    return answer, inspect.isawaitable(answer)


async def leave_all(lifespans: Sequence[Lifespan], timeout_seconds: float) -> None:
    """Leave one after the other, all within this time. One that hangs does not use up the time of the next."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_seconds
    turn = timeout_seconds / (len(lifespans) + 1)
    late = [each for each in lifespans if not await each.leave(turn)]
    for each in late:
        if not await each.leave(max(0.0, deadline - loop.time())):
            await each.abandon()


async def with_timeout(awaitable: Awaitable[Any], timeout_seconds: float) -> Any:
    """Await it for at most this long. Raises what it raises, and TimeoutError.

    A task that ignores its cancellation is abandoned, not waited for.
    """
    task = asyncio.ensure_future(_await_isolated(awaitable))
    try:
        done, _ = await asyncio.wait({task}, timeout=timeout_seconds)
    except asyncio.CancelledError:
        task.cancel()
        task.add_done_callback(_retrieve_exception)
        raise
    if not done:
        task.cancel()
        task.add_done_callback(_retrieve_exception)
        raise TimeoutError(f"did not answer within {timeout_seconds:g} s")
    if task.cancelled():
        # The awaitable cancelled itself. The caller was not cancelled, and must not appear to be.
        raise PluginFailed("raised CancelledError")
    return task.result()


async def _await_isolated(awaitable: Awaitable[Any]) -> Any:
    try:
        return await awaitable
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        wrapped = _wrap_fatal(error)
        if wrapped is error:
            raise
        raise wrapped from error


def _wrap_fatal(error: BaseException) -> BaseException:
    """Wrap an exception that would do more than fail this call; return any other unchanged.

    SystemExit and KeyboardInterrupt would end the host from inside a task. A future does not carry a StopIteration or
    a CancelledError as an ordinary exception.
    """
    odd = not isinstance(error, Exception) or isinstance(error, StopIteration | concurrent.futures.CancelledError)
    return PluginFailed(f"raised {kind_of(error)}") if odd else error


def _retrieve_exception(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()

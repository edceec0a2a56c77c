"""A plugin for the host under measurement: how long its event loop was held, and which modules it has imported."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.requests import Request

from starbase_host import Host, Route, hookimpl

STEP_SECONDS = 0.001


def plugin(options: Mapping[str, Any]) -> Probe:
    return Probe()


class Probe:
    def __init__(self) -> None:
        self._late: list[float] = []

    @hookimpl
    def register_routes(self, host: Host) -> list[Route]:
        return [Route("/probe/lag", self.lag, ("GET",)), Route("/probe/modules", self.modules, ("GET",))]

    @hookimpl
    def plugin_lifespan(self, host: Host) -> contextlib.AbstractAsyncContextManager[None]:
        return self._watching()

    @contextlib.asynccontextmanager
    async def _watching(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()

    async def _watch(self) -> None:
        """Ask to be woken in a millisecond, again and again: any extra time, something else had the loop."""
        while True:
            began = time.perf_counter()
            await asyncio.sleep(STEP_SECONDS)
            self._late.append(time.perf_counter() - began - STEP_SECONDS)

    async def lag(self, request: Request) -> Any:
        """Seconds, one for each wake-up since the last request."""
        late, self._late = self._late, []
        return late

    async def modules(self, request: Request) -> Any:
        return sorted(sys.modules)

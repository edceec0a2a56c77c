"""The plugin's HTTP routes. Each takes a request apart, calls the service, and words the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from itertools import islice
from typing import Any

from starlette.requests import Request

from starbase_data_replication.config import MAX_UNKNOWN, WAIT, configure_body, flags_body
from starbase_data_replication.model import RunKind, SyncRun
from starbase_data_replication.runs import AFTERWARDS, GOES_ON, ActiveRun
from starbase_data_replication.service import Service
from starbase_host import Answer, Host, InvalidRequest, NotFound, Route, StarbaseError, Unavailable, iso, read_json

PREFIX = "/data-replication"
MAX_LOGS = 1000
FORCED = "Let rows go that may only be hidden from the source's user."
AGAIN = "ask for it again"
NOUNS = {RunKind.RESET: "Reset", RunKind.VERIFY: "Verification", RunKind.RECONCILE: "Reconciliation"}
NONE: Mapping[str, Mapping[str, Any]] = {}
LOGS: Mapping[str, Mapping[str, Any]] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": MAX_LOGS, "default": 50},
    "name": {"type": "string"},
}


class RunFailed(StarbaseError):
    """A run that was asked for by hand has failed; status is that of its cause."""

    code = "sync_failed"


class Api:
    """The routes of one host."""

    def __init__(self, host: Host, service: Service) -> None:
        self._host = host
        self._service = service

    def routes(self) -> list[Route]:
        named, post = f"{PREFIX}/{{}}/{{{{name}}}}", ("POST",)
        told: dict[str, Any] = {"query": NONE, "body": flags_body()}
        return [
            Route(
                f"{PREFIX}/configure", self.configure, post, summary="Create or change one", query=NONE,
                body=configure_body(),
            ),
            Route(named.format("configure"), self.delete, ("DELETE",), summary="Forget one; its table stays", **told),
            Route(named.format("start"), self.start, post, summary="Put one on its schedule", **told),
            Route(named.format("stop"), self.stop, post, summary="Take one off its schedule", **told),
            _run_route("sync", self.sync, "Sync one now"),
            _run_route("reset", self.reset, "Load one anew, beside what is there", force=FORCED),
            _run_route("verify", self.verify, "Compare one with its source", repair="Mend what differs."),
            _run_route("reconcile", self.reconcile, "Follow deletes now", force="However many rows are gone."),
            Route(f"{PREFIX}/status", self.status, summary="Every replication, with its state", query=NONE),
            Route(f"{PREFIX}/logs", self.logs, summary="The latest runs, newest first", query=LOGS),
        ]  # fmt: skip

    async def configure(self, request: Request) -> Any:
        await self._service.configure(await read_json(request))
        return _success("Replication configured successfully")

    async def delete(self, request: Request) -> Any:
        name = request.path_params["name"]
        await _flags(request)
        await self._service.delete(name)
        return _success(f"Replication {name} deleted; its table stays")

    async def start(self, request: Request) -> Any:
        name = request.path_params["name"]
        await _flags(request)
        await self._service.start(name)
        return _success(f"Replication {name} started")

    async def stop(self, request: Request) -> Any:
        name = request.path_params["name"]
        await _flags(request)
        await self._service.stop(name)
        return _success(f"Replication {name} stopped")

    async def sync(self, request: Request) -> Any:
        wait, _ = _waits(request), await _flags(request, query=WAIT)
        return await self._answer(await self._service.runner.start(request.path_params["name"], RunKind.MANUAL), wait)

    async def reset(self, request: Request) -> Any:
        wait, flags = _waits(request), await _flags(request, "force", query=WAIT)
        return await self._answer(await self._service.reset(request.path_params["name"], **flags), wait)

    async def verify(self, request: Request) -> Any:
        return await self._check(request, RunKind.VERIFY, "repair")

    async def reconcile(self, request: Request) -> Any:
        return await self._check(request, RunKind.RECONCILE, "force")

    async def _check(self, request: Request, kind: RunKind, option: str) -> Any:
        wait, flags = _waits(request), await _flags(request, option, query=WAIT)
        run = await self._service.runner.start(request.path_params["name"], kind, **flags)
        answer = await self._answer(run, wait)
        if run.checked is None or isinstance(answer, Answer):
            return answer
        return {**answer, **run.checked.as_dict(), "duration_ms": answer["run"]["sync_duration_ms"]}

    async def _answer(self, run: ActiveRun, wait: bool) -> Any:
        if not wait:
            return Answer({**_success(f"{_noun(run)} of {run.name} begun"), "run_id": run.run_id}, status=202)
        record = await self._ended(run)
        if record.status == "success":
            return {**_success(f"{_noun(run)} of {run.name} done"), "run": run_as_dict(record)}
        if record.status == "error":
            raise RunFailed(f"{_noun(run)} of {run.name} failed: {record.error_message}", status=run.failure_status)
        why = f"{record.error_message}; {await self._afterwards(run)}"
        raise Unavailable(f"{_noun(run)} of {run.name} was interrupted: {why}")

    async def _afterwards(self, run: ActiveRun) -> str:
        """What becomes of a run that was interrupted."""
        try:
            await self._service.store.get(run.name)
        except NotFound:
            return "it does not go on"
        return AFTERWARDS.get(run.interrupt_reason or "", GOES_ON) if run.kind.syncs else AGAIN

    async def status(self, request: Request) -> Any:
        return {"configs": await self._service.status()}

    async def logs(self, request: Request) -> Any:
        text = request.query_params.get("limit", "50")
        if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= MAX_LOGS):
            raise InvalidRequest(fields={"limit": f"must be a whole number from 1 to {MAX_LOGS}"})
        name = request.query_params.get("name")
        logs = await self._service.store.logs(limit=int(text), name=name)
        if name is not None and not logs:
            # A name that was never there is a mistake; one that has not run yet is not.
            await self._service.store.get(name)
        return {"logs": logs}

    async def _ended(self, run: ActiveRun) -> SyncRun:
        """Wait for the run's end, or for the host's: then the run is interrupted and resumes later."""
        stopping = asyncio.create_task(self._host.stopping.wait())
        ends: set[asyncio.Future[Any]] = {run.result, stopping}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        if run.result.done():
            return run.result.result()
        what = f"{_noun(run).lower()} of {run.name} is interrupted"
        raise Unavailable(f"the host is stopping; {what}{f', and {GOES_ON}' if run.kind.syncs else f'; {AGAIN}'}")


def _run_route(verb: str, endpoint: Callable[..., Awaitable[Any]], summary: str, **flags: str) -> Route:
    """A run is begun, and waited for unless told not to; `flags` are those of its body, each with its doc."""
    path, body = f"{PREFIX}/{verb}/{{name}}", flags_body(**flags)
    return Route(path, endpoint, ("POST",), summary=summary, query=WAIT, body=body, statuses=(200, 202))


async def _flags(request: Request, *names: str, query: Mapping[str, Any] = NONE) -> dict[str, bool]:
    """The flags of an optional body: `{"repair": true}`. Of none, the body must be empty: what it asks is not done."""
    body = await read_json(request, empty={})
    if not isinstance(body, dict):
        example = "{}" if not names else f'{{"{names[0]}": true}}'
        raise InvalidRequest(f"the body must be an object, such as {example}, or be left out")
    known = f"known: {', '.join(names)}" if names else "the body holds none"
    unknown = islice((key for key in body if key not in names), MAX_UNKNOWN)
    fields = {
        key[:60]: f"belongs into the query: ?{key}=false" if key in query else f"is not a field; {known}"
        for key in unknown
    }
    fields |= {key: "must be true or false" for key in names if not isinstance(body.get(key, False), bool)}
    if fields:
        raise InvalidRequest(fields=fields)
    return {name: bool(body.get(name, False)) for name in names}


def _noun(run: ActiveRun) -> str:
    return NOUNS.get(run.kind, "Sync")


def run_as_dict(run: SyncRun) -> dict[str, Any]:
    """A run as JSON: the names of the log's columns."""
    return {
        "run_id": run.run_id,
        "config_name": run.config_name,
        "kind": run.kind.value,
        "status": run.status,
        "records_processed": run.records_processed,
        "rows_read": run.rows_read,
        "bytes_read": run.bytes_read,
        "sync_duration_ms": run.sync_duration_ms,
        "started_at": iso(run.started_at),
        "finished_at": iso(run.finished_at),
        "error_message": run.error_message,
        "warnings": list(run.warnings),
    }


def _success(message: str) -> dict[str, Any]:
    return {"success": True, "message": message}


def _waits(request: Request) -> bool:
    """Whether the caller waits for the end of the run."""
    text = request.query_params.get("wait", "true").lower()
    if text not in ("true", "false", "1", "0"):
        raise InvalidRequest(fields={"wait": "must be true or false"})
    return text in ("true", "1")

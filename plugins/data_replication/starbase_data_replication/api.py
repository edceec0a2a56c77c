"""The plugin's HTTP routes. Each takes a request apart, calls the service, and words the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request

from starbase_data_replication.running import Running
from starbase_data_replication.runs import RunKind, SyncRun
from starbase_data_replication.schema import WAIT, configure_body, flag_body
from starbase_data_replication.service import Service
from starbase_host import Answer, Host, InvalidRequest, Route, StarbaseError, Unavailable, iso, read_json

PREFIX = "/data-replication"
MAX_LOGS = 1000
LOGS: Mapping[str, Mapping[str, Any]] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": MAX_LOGS, "default": 50},
    "name": {"type": "string"},
}


class RunFailed(StarbaseError):
    """A run that was asked for by hand has failed; status is that of its cause."""

    code = "sync_failed"

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Api:
    """The routes of one host."""

    def __init__(self, host: Host, service: Service) -> None:
        self._host = host
        self._service = service

    def routes(self) -> list[Route]:
        named, post = f"{PREFIX}/{{}}/{{{{name}}}}", ("POST",)
        body = configure_body()
        return [
            Route(f"{PREFIX}/configure", self.configure, post, summary="Create or change one", body=body),
            Route(named.format("configure"), self.delete, ("DELETE",), summary="Forget one; its table stays"),
            Route(named.format("start"), self.start, post, summary="Put one on its schedule"),
            Route(named.format("stop"), self.stop, post, summary="Take one off its schedule"),
            _run_route("sync", self.sync, "Sync one now"),
            _run_route("reset", self.reset, "Load one anew, beside what is there"),
            _run_route("verify", self.verify, "Compare one with its source", repair="Mend what differs."),
            _run_route("reconcile", self.reconcile, "Follow deletes now", force="However many rows are gone."),
            Route(f"{PREFIX}/status", self.status, summary="Every replication, with its state"),
            Route(f"{PREFIX}/logs", self.logs, summary="The latest runs, newest first", query=LOGS),
        ]

    async def configure(self, request: Request) -> Any:
        await self._service.configure(await read_json(request))
        return _success("Replication configured successfully")

    async def delete(self, request: Request) -> Any:
        name = request.path_params["name"]
        await self._service.delete(name)
        return _success(f"Replication {name} deleted; its table stays")

    async def start(self, request: Request) -> Any:
        name = request.path_params["name"]
        await self._service.start(name)
        return _success(f"Replication {name} started")

    async def stop(self, request: Request) -> Any:
        name = request.path_params["name"]
        await self._service.stop(name)
        return _success(f"Replication {name} stopped")

    async def sync(self, request: Request) -> Any:
        wait = _flag(request, "wait", default=True)
        return await self._answer(await self._service.runner.start(request.path_params["name"], RunKind.MANUAL), wait)

    async def reset(self, request: Request) -> Any:
        wait = _flag(request, "wait", default=True)
        return await self._answer(await self._service.reset(request.path_params["name"]), wait)

    async def verify(self, request: Request) -> Any:
        return await self._check(request, RunKind.VERIFY, "repair")

    async def reconcile(self, request: Request) -> Any:
        return await self._check(request, RunKind.RECONCILE, "force")

    async def _check(self, request: Request, kind: RunKind, option: str) -> Any:
        wait = _flag(request, "wait", default=True)
        thorough = await _option(request, option)
        run = await self._service.runner.start(request.path_params["name"], kind, thorough=thorough)
        answer = await self._answer(run, wait)
        if run.checked is None or isinstance(answer, Answer):
            return answer
        return {**answer, **run.checked.as_dict(), "duration_ms": answer["run"]["sync_duration_ms"]}

    async def _answer(self, run: Running, wait: bool) -> Any:
        if not wait:
            return Answer({**_success(f"{_noun(run)} of {run.name} begun"), "run_id": run.run_id}, status=202)
        record = await self._ended(run)
        if record.status == "success":
            return {**_success(f"{_noun(run)} of {run.name} done"), "run": run_as_dict(record)}
        if record.status == "error":
            raise RunFailed(f"{_noun(run)} of {run.name} failed: {record.error_message}", run.failure_status)
        raise Unavailable(f"{_noun(run)} of {run.name} was interrupted: {record.error_message}; it goes on later")

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

    async def _ended(self, run: Running) -> SyncRun:
        """Wait for the run's end, or for the host's: then the run is interrupted and resumes later."""
        stopping = asyncio.create_task(self._host.stopping.wait())
        ends: set[asyncio.Future[Any]] = {run.result, stopping}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        if run.result.done():
            return run.result.result()
        raise Unavailable(f"the host is stopping; {_noun(run).lower()} of {run.name} goes on when it is back")


def _run_route(verb: str, endpoint: Callable[..., Awaitable[Any]], summary: str, **flag: str) -> Route:
    """A route that begins a run, and waits for it unless told not to; `flag` is the one of its body, with its doc."""
    body = next((flag_body(name, doc) for name, doc in flag.items()), None)
    path = f"{PREFIX}/{verb}/{{name}}"
    return Route(path, endpoint, ("POST",), summary=summary, query=WAIT, body=body, statuses=(200, 202))


async def _option(request: Request, name: str) -> bool:
    """One flag of an optional body: `{"repair": true}`."""
    if name in request.query_params:
        # Left out in silence, it would look as if it had been done.
        raise InvalidRequest(fields={name: f'belongs into the body: {{"{name}": true}}'})
    if request.headers.get("content-length", "0") == "0" and "transfer-encoding" not in request.headers:
        return False
    body = await read_json(request)
    if not isinstance(body, dict):
        raise InvalidRequest(f'the body must be an object, such as {{"{name}": true}}, or be left out')
    fields = {key: f"is not a field; known: {name}" for key in body if key != name}
    if not isinstance(body.get(name, False), bool):
        fields[name] = "must be true or false"
    if fields:
        raise InvalidRequest(fields=fields)
    return bool(body.get(name, False))


def _noun(run: Running) -> str:
    return {RunKind.VERIFY: "Verification", RunKind.RECONCILE: "Reconciliation"}.get(run.kind, "Sync")


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


def _flag(request: Request, name: str, *, default: bool) -> bool:
    text = request.query_params.get(name)
    if text is None:
        return default
    if text.lower() not in ("true", "false", "1", "0"):
        raise InvalidRequest(fields={name: "must be true or false"})
    return text.lower() in ("true", "1")

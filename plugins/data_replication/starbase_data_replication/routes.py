"""The plugin's HTTP routes: each parses a request, calls the service, and words the answer.

Must not know what is below the service.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from itertools import islice
from typing import Any

from starlette.requests import Request

from starbase_data_replication.config import MAX_UNKNOWN, WAIT, configure_body, flags_body
from starbase_data_replication.model import SyncRun
from starbase_data_replication.service import ActiveRun, Service
from starbase_host import Answer, InvalidRequest, Route, iso, read_json

PREFIX = "/data-replication"
# What one answer may hold: a thousand records are about half a megabyte of JSON.
MAX_LOGS = 1000
NONE: Mapping[str, Mapping[str, Any]] = {}
LOGS: Mapping[str, Mapping[str, Any]] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": MAX_LOGS, "default": 50},
    "name": {"type": "string"},
}


class Api:
    """The routes of one host."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Route]:
        named, post = f"{PREFIX}/{{}}/{{{{name}}}}", ("POST",)
        no_input: dict[str, Any] = {"query": NONE, "body": flags_body()}
        return [
            Route(
                f"{PREFIX}/configure", self.configure, post, summary="Create or change a replication", query=NONE,
                body=configure_body(),
            ),
            Route(
                named.format("configure"), self.delete, ("DELETE",), summary="Delete a replication; its table stays",
                **no_input,
            ),
            Route(named.format("start"), self.start, post, summary="Put a replication on its schedule", **no_input),
            Route(named.format("stop"), self.stop, post, summary="Take a replication off its schedule", **no_input),
            _run_route("sync", self.sync, "Sync a replication now"),
            _run_route(
                "reset", self.reset, "Reload a replication into a new table, then swap it in",
                force="Also remove rows that the source may only hide from its user.",
            ),
            _run_route(
                "verify", self.verify, "Compare a replica with its source, row by row",
                repair="Write what is missing or different, and remove what is extra.",
            ),
            _run_route(
                "reconcile", self.reconcile, "Remove, or mark, the rows that are gone from the source",
                force="Also if they are a large share of the replica.",
            ),
            Route(
                f"{PREFIX}/dialects", self.dialects, summary="The kinds of source, and the settings that each takes",
                query=NONE,
            ),
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
        return await self._answer(await self._service.sync(request.path_params["name"]), wait)

    async def reset(self, request: Request) -> Any:
        wait, flags = _waits(request), await _flags(request, "force", query=WAIT)
        return await self._answer(await self._service.reset(request.path_params["name"], **flags), wait)

    async def verify(self, request: Request) -> Any:
        wait, flags = _waits(request), await _flags(request, "repair", query=WAIT)
        return await self._answer(await self._service.verify(request.path_params["name"], **flags), wait)

    async def reconcile(self, request: Request) -> Any:
        wait, flags = _waits(request), await _flags(request, "force", query=WAIT)
        return await self._answer(await self._service.reconcile(request.path_params["name"], **flags), wait)

    async def _answer(self, run: ActiveRun, wait: bool) -> Any:
        if not wait:
            return Answer({**_success(f"{run.noun} of {run.name} begun"), "run_id": run.run_id}, status=202)
        record = await self._service.finish(run)
        answer = {**_success(f"{run.noun} of {run.name} done"), "run": run_as_dict(record)}
        if run.verification is not None:
            answer |= {**run.verification.as_dict(), "duration_ms": record.sync_duration_ms}
        return answer

    async def dialects(self, request: Request) -> Any:
        return {"dialects": await self._service.dialects()}

    async def status(self, request: Request) -> Any:
        return {"configs": await self._service.status()}

    async def logs(self, request: Request) -> Any:
        text = request.query_params.get("limit", "50")
        if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= MAX_LOGS):
            raise InvalidRequest(fields={"limit": f"must be a whole number from 1 to {MAX_LOGS}"})
        name = request.query_params.get("name")
        return {"logs": await self._service.logs(limit=int(text), name=name)}


def _run_route(verb: str, endpoint: Callable[..., Awaitable[Any]], summary: str, **flags: str) -> Route:
    """A route that begins a run, and waits for it unless the query says `wait=false`.

    flags: the fields of its body, true or false, each with its documentation.
    """
    path, body = f"{PREFIX}/{verb}/{{name}}", flags_body(**flags)
    return Route(path, endpoint, ("POST",), summary=summary, query=WAIT, body=body, statuses=(200, 202))


async def _flags(request: Request, *names: str, query: Mapping[str, Any] = NONE) -> dict[str, bool]:
    """The flags of an optional body, such as `{"repair": true}`; False for each that is left out.

    names: the flags that the route knows. query: its parameters, which a body cannot give. Raises InvalidRequest.
    """
    body = await read_json(request, empty={})
    if not isinstance(body, dict):
        example = "{}" if not names else f'{{"{names[0]}": true}}'
        raise InvalidRequest(f"the body must be an object, such as {example}, or be left out")
    known = f"known: {', '.join(names)}" if names else "this body has no fields"
    unknown = islice((key for key in body if key not in names), MAX_UNKNOWN)
    fields = {
        key[:60]: f"belongs in the query: ?{key}=false" if key in query else f"is not a field; {known}"
        for key in unknown
    }
    fields |= {key: "must be true or false" for key in names if not isinstance(body.get(key, False), bool)}
    if fields:
        raise InvalidRequest(fields=fields)
    return {name: bool(body.get(name, False)) for name in names}


def run_as_dict(run: SyncRun) -> dict[str, Any]:
    """A run as JSON, under the names of the log's columns."""
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

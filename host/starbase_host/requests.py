"""Requests of plugins to the host itself: through the whole ASGI application, without a socket or a token.

Must not know routes or plugins; the application is given.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Scope

from starbase_host.errors import StarbaseError, TooLarge
from starbase_host.routes import Caller

# The key of a request's scope that has its Caller. A request from the network cannot set it.
CALLER = "starbase.caller"
# What a copy of a request has, beside its headers and the parameters of its path.
COPIED = (
    "type", "http_version", "method", "scheme", "path", "raw_path", "query_string", "root_path", "client", "server",
)  # fmt: skip
# An answer of /query may have 64 MiB; it is all in memory here.
ANSWER_BYTES = 65 * 1024 * 1024


class RequestFailed(StarbaseError):
    """A route has refused a request of a plugin; message and status are those of its answer."""

    code = "request_failed"


async def request(
    app: ASGIApp, method: str, path: str, *, body: Any, params: Mapping[str, Any] | None, caller: Caller | None
) -> Any:
    """Call a route; see `Host.request`. caller: None for a request without a role."""
    content = b"" if body is None else json.dumps(body).encode()
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method.upper(),
        "scheme": "http",
        "path": path,
        "raw_path": quote(path).encode(),
        "query_string": urlencode(params or {}, doseq=True).encode(),
        "root_path": "",
        "headers": [
            (b"host", b"in-process"),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(content)).encode()),
        ],
        "client": None,
        "server": None,
    }
    if caller is not None:
        scope[CALLER] = caller
    answer = _Answer(content)
    await app(scope, answer.receive, answer.send)
    return answer.result()


def copy_request(request: Request) -> Request:
    """A copy of a request that has no body and no state, and shares nothing that can change."""
    scope = {name: request.scope[name] for name in COPIED if name in request.scope}
    return Request({**scope, "headers": list(request.scope["headers"]), "path_params": dict(request.path_params)})


class _Answer:
    """Both ends of one request: gives its body, and gathers its answer."""

    def __init__(self, content: bytes) -> None:
        self._content: bytes | None = content
        self._ended = asyncio.Event()
        self._status = 500
        self._is_json = False
        self._pieces: list[bytes] = []
        self._size = 0

    async def receive(self) -> Message:
        if self._content is not None:
            content, self._content = self._content, None
            return {"type": "http.request", "body": content, "more_body": False}
        await self._ended.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            kind = dict(message.get("headers", [])).get(b"content-type", b"")
            self._is_json = kind.startswith(b"application/json")
        elif message["type"] == "http.response.body":
            self._pieces.append(message.get("body", b""))
            self._size += len(self._pieces[-1])
            if self._size > ANSWER_BYTES:
                raise TooLarge(f"the answer is longer than {ANSWER_BYTES:,} bytes; ask for less")
            if not message.get("more_body", False):
                self._ended.set()

    def result(self) -> Any:
        content = b"".join(self._pieces)
        answer = json.loads(content) if self._is_json and content else None
        enveloped = answer if isinstance(answer, dict) else {}
        if self._status >= 400:
            raise RequestFailed(str(enveloped.get("error", f"status {self._status}")), status=self._status)
        return enveloped.get("result", content)

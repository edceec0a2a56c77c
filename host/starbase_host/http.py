"""HTTP: who may call what, one envelope for answers and errors, bounded bodies, CORS.

Knows no SQL and no plugin by name. `endpoint(...)` wraps every route, the host's and the plugins' alike, so
that none can forget the token or leak a traceback.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import inspect
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from starbase_host.errors import (
    Forbidden,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    StarbaseError,
    TooLarge,
    Unauthorized,
)
from starbase_host.routes import Role

log = logging.getLogger("starbase.http")

CORS_HEADERS = [
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"GET, POST, PUT, PATCH, DELETE, OPTIONS"),
    (b"access-control-allow-headers", b"Authorization, Content-Type"),
    (b"access-control-max-age", b"86400"),
]

# What a body that is no JSON text at all can raise: bad syntax, bad UTF-8, a number of a million digits, too deep.
NOT_JSON = (ValueError, RecursionError)


@dataclass(frozen=True)
class Answer:
    """What an endpoint answers when the status is not 200. `result` goes into the envelope."""

    result: Any
    status: int = 200


@dataclass(frozen=True)
class Tokens:
    """The bearer tokens of this host. None: nobody has that role."""

    admin: str
    client: str | None

    def role_of(self, authorization: str | None) -> Role:
        """The role of an Authorization header. Raises Unauthorized."""
        scheme, _, token = (authorization or "").partition(" ")
        offered = token.strip().encode("utf-8", "surrogateescape")
        if scheme.lower() == "bearer" and offered:
            if hmac.compare_digest(offered, self.admin.encode()):
                return "admin"
            if self.client is not None and hmac.compare_digest(offered, self.client.encode()):
                return "client"
        raise Unauthorized("send a valid token as `Authorization: Bearer TOKEN`")


def json_response(body: dict[str, Any], status: int = 200) -> Response:
    """The one way an answer is made."""
    try:
        content = json.dumps(body, ensure_ascii=False, separators=(",", ":"), default=_json_default).encode()
    except UnicodeEncodeError:
        # A lone surrogate has no UTF-8; JSON can still escape it.
        content = json.dumps(body, separators=(",", ":"), default=_json_default).encode()
    return Response(content, status_code=status, media_type="application/json")


def error_response(error: StarbaseError) -> Response:
    """The one shape of an error."""
    response = json_response({"error": str(error)}, error.status)
    if isinstance(error, Unauthorized):
        response.headers["www-authenticate"] = "Bearer"
    return response


async def read_json(request: Request) -> Any:
    """The request's body as JSON. Raises InvalidRequest when it is none, TooLarge when it is over the limit."""
    limit: int = request.app.state.max_body_bytes
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise TooLarge(f"the body is over {limit} bytes")
            chunks.append(chunk)
    except ClientDisconnect:
        raise InvalidRequest("the connection ended inside the body") from None
    try:
        return json.loads(b"".join(chunks), parse_constant=_no_constant)
    except NOT_JSON as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from error


def endpoint(
    function: Callable[..., Awaitable[Any]], role: Role | None, tokens: Tokens
) -> Callable[[Request], Awaitable[Response]]:
    """Wrap a route's function: token, role, envelope, errors."""
    is_coroutine = inspect.iscoroutinefunction(function)

    async def handle(request: Request) -> Response:
        try:
            if role is not None:
                caller = tokens.role_of(request.headers.get("authorization"))
                if role == "admin" and caller != "admin":
                    raise Forbidden("this route needs the admin token")
                request.state.role = caller
            result = await function(request) if is_coroutine else await run_in_threadpool(function, request)
            if isinstance(result, Response):
                return result
            if isinstance(result, Answer):
                return json_response({"result": result.result}, result.status)
            return json_response({"result": result})
        except StarbaseError as error:
            return error_response(error)
        except (asyncio.CancelledError, KeyboardInterrupt):
            raise
        except BaseException:
            # SystemExit too: what a plugin's route raises must not end the host.
            log.exception("%s %s failed", request.method, request.url.path)
            return error_response(StarbaseError("internal error; the host's log has the details"))

    return handle


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own refusals, in our envelope."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return error_response(NotFound(f"no route {request.url.path}"))
    if error.status_code == 405:
        response = error_response(MethodNotAllowed(f"{request.method} is not for {request.url.path}"))
        response.headers.update(error.headers or {})
        return response
    return json_response({"error": str(error.detail)}, error.status_code)


class Cors:
    """Adds CORS headers to every answer, and answers OPTIONS with 204 without asking anybody."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *CORS_HEADERS]
            await send(message)

        if scope["method"] == "OPTIONS":
            await Response(status_code=204)(scope, receive, send_with_headers)
        else:
            await self.app(scope, receive, send_with_headers)


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _json_default(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return {"$base64": base64.b64encode(bytes(value)).decode()}
    raise TypeError(f"{type(value).__name__} is not JSON-able")

"""HTTP: who may call what, one envelope for answers and errors, bounded bodies, CORS.

Knows no SQL and no plugin by name. `endpoint(...)` wraps every route, the host's and the plugins' alike, so
that none can forget the token or leak a traceback.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
import hmac
import inspect
import json
import logging
import math
import re
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from starbase_host.clock import Clock
from starbase_host.errors import (
    Forbidden,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    RequestTimeout,
    StarbaseError,
    TooLarge,
    TooManyGuesses,
    Unauthorized,
)
from starbase_host.login_throttle import Throttle
from starbase_host.routes import MAX_NAME, Role, Route, wrong_in_query
from starbase_host.wire import PIECE_BYTES, Body, Budget, Quota

log = logging.getLogger("starbase.http")

# Answers hold rows and settings: no cache keeps them, and no browser takes one for a page.
SAFE_HEADERS = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]
CORS_HEADERS = [
    (b"access-control-allow-methods", b"GET, POST, PUT, PATCH, DELETE, OPTIONS"),
    (b"access-control-allow-headers", b"Authorization, Content-Type, X-Starbase-Source, X-Data-Source"),
    (b"access-control-max-age", b"86400"),
]

# Where a request's scope says that its route is for admins.
ADMINS = "starbase.admins"

# The whole body must have come by then; a client that sends a byte now and then would hold a connection for ever.
BODY_SECONDS = 60.0
MAX_DEPTH = 64
# A client's body holds at most so many commas and brackets outside of its texts: what is taken apart is so in one call,
# which nobody else has a turn in.
CLIENT_MARKS = 100_000
# Longer bodies of clients, while their requests last, are at most this together: each may take four bytes a character,
# and hundreds of them can wait for a reader.
CLIENTS_BODIES_BYTES = 16 * 1024 * 1024
# A longer body is taken apart in a thread: everybody would wait for it.
LOOP_BYTES = 64 * 1024


@dataclass(frozen=True)
class Answer:
    """What an endpoint answers when the status is not 200. `result` goes into the envelope."""

    result: Any
    status: int = 200


@dataclass(frozen=True)
class Tokens:
    """The bearer tokens of this host. client None: nobody has that role."""

    admin: str = field(repr=False)
    client: str | None = field(repr=False)
    throttle: Throttle
    clock: Clock

    def role_of(self, authorization: str | None, address: str) -> Role:
        """The role of an Authorization header that came from this address. Raises Unauthorized or TooManyGuesses.

        A right token is never made to wait, or whoever guesses from its address could lock it out. Each token that is
        sent is compared with both, by digests, so that the time tells neither what is right nor how long it is.
        """
        scheme, _, token = (authorization or "").partition(" ")
        offered = token.strip().encode("utf-8", "surrogateescape")
        if scheme.lower() == "bearer" and offered:
            digest = _digest(offered)
            is_admin = hmac.compare_digest(digest, self._admin_digest)
            is_client = hmac.compare_digest(digest, self._client_digest) and self.client is not None
            if is_admin or is_client:
                return "admin" if is_admin else "client"
            now = self.clock.monotonic()
            if (wait := self.throttle.wait_seconds(address, now)) > 0:
                raise TooManyGuesses(math.ceil(wait))
            self.throttle.failed(address, offered, now)
        raise Unauthorized("send a valid token as `Authorization: Bearer TOKEN`")

    @functools.cached_property
    def _admin_digest(self) -> bytes:
        return _digest(self.admin.encode())

    @functools.cached_property
    def _client_digest(self) -> bytes:
        return _digest((self.client or "").encode())


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def json_response(body: dict[str, Any], status: int = 200) -> Response:
    """The one way an answer is made."""
    try:
        content = json.dumps(body, ensure_ascii=False, separators=(",", ":"), default=_json_default).encode()
    except UnicodeEncodeError:
        # A lone surrogate has no UTF-8; JSON can still escape it.
        content = json.dumps(body, separators=(",", ":"), default=_json_default).encode()
    return Response(content, status_code=status, media_type="application/json")


class BodyResponse(Response):
    """A query's answer, sent in pieces: the event loop has its turn between them, and each is let go once it is sent.

    All of it is made before, so that what goes wrong while it is made still has its status.
    """

    media_type = "application/json"

    def __init__(self, body: Body) -> None:
        short = body.size <= PIECE_BYTES
        super().__init__(b"".join(body.pieces) if short else b"")
        # It counts among what the host holds for as long as it lives.
        self._held = body
        if short:
            body.pieces.clear()
        else:
            self.headers["content-length"] = str(body.size)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._held.pieces:
            await super().__call__(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        pieces = self._held.pieces[::-1]
        self._held.pieces.clear()
        while pieces:
            await send({"type": "http.response.body", "body": pieces.pop(), "more_body": bool(pieces)})
            # While the socket takes all that it is given, to send waits for nothing.
            await asyncio.sleep(0)


def error_response(error: StarbaseError) -> Response:
    """The one shape of an error."""
    response = json_response({"error": str(error)}, error.status)
    if isinstance(error, Unauthorized):
        response.headers["www-authenticate"] = "Bearer"
    if isinstance(error, TooManyGuesses):
        response.headers["retry-after"] = str(error.seconds)
    return response


async def read_json(request: Request, *, empty: Any = ...) -> Any:
    """The request's body as JSON; `empty` is what one without a byte stands for, where it may be left out.

    Raises InvalidRequest as `parse_json` does; TooLarge when it is over the limit; RequestTimeout when it has not come
    within BODY_SECONDS.
    """
    limit: int = request.app.state.max_body_bytes
    of_client = getattr(request.state, "role", None) == "client"
    # It lives as long as the request does: `endpoint` closes it.
    held = request.state.held_body = Budget(bytes=limit, quota=request.app.state.bodies)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise TooLarge(f"the body is over {limit} bytes")
                if of_client:
                    held.spend(len(chunk))
                chunks.append(chunk)
    except TimeoutError:
        raise RequestTimeout(f"the body did not come within {BODY_SECONDS:g} seconds") from None
    except ClientDisconnect:
        raise InvalidRequest("the connection ended inside the body") from None
    text = b"".join(chunks)
    if of_client and _marks(text) > CLIENT_MARKS:
        async with request.app.state.parsing:
            texts_apart = await run_in_threadpool(_TEXTS.sub, b"", text)
        if _marks(texts_apart) > CLIENT_MARKS:
            raise TooLarge(f"the body holds more than {CLIENT_MARKS:,} values, a client's limit; send a list as text")
    if not text and empty is not ...:
        return empty
    if len(text) <= LOOP_BYTES:
        return parse_json(text, "the body")
    # One at a time: each holds the interpreter, and the event loop would wait for all of them.
    async with request.app.state.parsing:
        return await run_in_threadpool(parse_json, text, "the body")


def held_bodies() -> Quota:
    """What counts the bodies of one host's clients."""
    return Quota(CLIENTS_BODIES_BYTES, "bodies that clients have sent; try again, or send a shorter one")


def _marks(text: bytes) -> int:
    return text.count(b",") + text.count(b"[") + text.count(b"{")


# One that is not closed goes to the end: else each quotation mark in it would be tried as a beginning.
_TEXTS = re.compile(rb'"(?:[^"\\]++|\\.?)*+"?', re.DOTALL)


def parse_json(text: bytes, what: str) -> Any:
    """A text as JSON; `what` is what a message calls it.

    Raises InvalidRequest when it is none, is nested deeper than MAX_DEPTH, or holds a key twice in one object.
    """
    try:
        body = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_object)
    except RecursionError:
        raise InvalidRequest(f"{what} is nested more than {MAX_DEPTH} deep") from None
    except _Twice as error:
        raise InvalidRequest(fields={_shown(str(error)): f"stands twice in one object of {what}; leave one"}) from None
    except (json.JSONDecodeError, UnicodeDecodeError, _NotJson) as error:
        raise InvalidRequest(f"{what} is not JSON: {error}") from error
    except ValueError:
        # The only one left: to make a number of so many digits takes Python the square of the time.
        digits = sys.get_int_max_str_digits()
        raise InvalidRequest(
            f"{what} holds a number of more than {digits} digits; shorten it, or send it as text"
        ) from None
    if text.count(b"[") + text.count(b"{") > MAX_DEPTH and _is_deep(body):
        raise InvalidRequest(f"{what} is nested more than {MAX_DEPTH} deep")
    return body


class _NotJson(ValueError):
    """Something that Python's reader takes, and JSON does not have."""


class _Twice(ValueError):
    """A key that an object has twice."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """One object. Of a key that stands there twice, the first value would be dropped in silence."""
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise _Twice(next(key for key, count in counts.items() if count > 1))
    return found


def _shown(name: str) -> str:
    """A name that a caller has sent, so that any text can hold it."""
    return name[:MAX_NAME].encode("utf-8", "backslashreplace").decode()


def _is_deep(body: Any) -> bool:
    """Whether a value is nested more than MAX_DEPTH deep; level by level, as a recursion could be too deep."""
    level = [body]
    for _ in range(MAX_DEPTH + 1):
        lists = [item for item in level if isinstance(item, list)]
        objects = [item for item in level if isinstance(item, dict)]
        level = [part for item in lists for part in item] + [part for item in objects for part in item.values()]
    return bool(level)


def endpoint(route: Route, tokens: Tokens) -> Callable[[Request], Awaitable[Response]]:
    """Wrap a route's function: token, role, query parameters, envelope, errors."""
    function, role = route.endpoint, route.role
    is_coroutine = inspect.iscoroutinefunction(function)

    async def handle(request: Request) -> Response:
        try:
            request.scope[ADMINS] = role == "admin"
            if role is not None:
                address = request.client.host if request.client is not None else ""
                caller = tokens.role_of(request.headers.get("authorization"), address)
                if role == "admin" and caller != "admin":
                    raise Forbidden("this route needs the admin token")
                request.state.role = caller
            if request.scope["query_string"]:
                _check_query(route, request)
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
        finally:
            if (held := getattr(request.state, "held_body", None)) is not None:
                held.close()

    handle.for_admins = role == "admin"  # type: ignore[attr-defined]
    return handle


def _check_query(route: Route, request: Request) -> None:
    names = [name for name, _ in request.query_params.multi_items()]
    if problems := wrong_in_query(route, names):
        raise InvalidRequest(fields=problems)


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
    """Adds CORS headers to answers that pages of other origins may read; answers OPTIONS with 204, asking nobody.

    origins: those whose pages may call every route, "*" for any; None for any page, but not on a route for admins: what
    calls StarbaseDB from a browser has a client token.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str] | None = None) -> None:
        self.app = app
        self._origins = None if origins is None else frozenset(origin.encode() for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = message.get("headers", [])
                names = {name.lower() for name, _ in given}
                safe = [header for header in SAFE_HEADERS if header[0] not in names]
                message["headers"] = [*given, *safe, *_ending(scope), *self._headers(scope)]
            await send(message)

        if scope["method"] == "OPTIONS":
            scope[ADMINS] = _is_for_admins(scope)
            await Response(status_code=204)(scope, receive, send_with_headers)
        else:
            await self.app(scope, receive, send_with_headers)

    def _headers(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        if self._origins is None:
            return [] if scope.get(ADMINS) else [(b"access-control-allow-origin", b"*"), *CORS_HEADERS]
        if b"*" in self._origins:
            return [(b"access-control-allow-origin", b"*"), *CORS_HEADERS]
        origin = next((value for name, value in scope["headers"] if name == b"origin"), None)
        # Else a cache could hand one origin's answer to another.
        vary = (b"vary", b"Origin")
        if origin not in self._origins:
            return [vary]
        return [(b"access-control-allow-origin", origin), *CORS_HEADERS, vary]


def _ending(scope: Scope) -> list[tuple[bytes, bytes]]:
    """Two lengths of one body: what is read here as the next request, a proxy may have read as a part of it."""
    names = {name for name, _ in scope["headers"]}
    return [(b"connection", b"close")] if {b"content-length", b"transfer-encoding"} <= names else []


def _is_for_admins(scope: Scope) -> bool:
    """Whether the request that a browser asks leave for would meet a route for admins."""
    asked = next((value for name, value in scope["headers"] if name == b"access-control-request-method"), b"")
    meant = {**scope, "method": asked.decode("latin-1") or "GET"}
    met = [(route.matches(meant)[0], route) for route in scope["app"].router.routes]
    best = max((match.value for match, _ in met), default=Match.NONE.value)
    best_met = [route for match, route in met if match.value == best and match is not Match.NONE]
    return any(getattr(route.endpoint, "for_admins", True) for route in best_met)


def _no_constant(text: str) -> Any:
    raise _NotJson(f"{text} is none of its values")


def _json_default(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return {"$base64": base64.b64encode(bytes(value)).decode()}
    raise TypeError(f"{type(value).__name__} is not JSON-able")

"""HTTP: authorization, one envelope for answers and errors, limits on bodies, CORS.

Must not know SQL, or a plugin by name. `endpoint(...)` wraps every route of the host and of plugins, so that no route
can forget to check the token or leak a traceback.
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
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

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
from starbase_host.failures import Failure, has_plain_text
from starbase_host.isolation import RUNNING
from starbase_host.login_throttle import LoginThrottle
from starbase_host.requests import CALLER
from starbase_host.routes import MAX_NAME, Caller, Route, query_problems
from starbase_host.wire import PIECE_BYTES, Body, Budget, Quota

log = logging.getLogger("starbase.http")

# Answers contain rows and settings: caches must not keep them, and browsers must not show one as a page.
SAFE_HEADERS = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]
CORS_HEADERS = [
    (b"access-control-allow-methods", b"GET, POST, PUT, PATCH, DELETE, OPTIONS"),
    (b"access-control-allow-headers", b"Authorization, Content-Type, X-Starbase-Source, X-Data-Source"),
    (b"access-control-max-age", b"86400"),
]

# What counts as a failed login when no plugin knows the caller.
CREDENTIALS = (b"authorization", b"cookie")
# A number with more digits is no value of SQLite's.
MAX_DIGITS = 400

# The key of a request's scope that says whether its route is for admins.
ADMINS = "starbase.admins"

# The time for a whole body: else a client that sends a byte now and then would hold a connection for ever.
BODY_SECONDS = 60.0
MAX_DEPTH = 64
# Of a form.
MAX_FIELDS = 1000
# How many commas and opening brackets a client's body may have outside its strings: it is parsed in one call, and no
# other thread runs meanwhile.
CLIENT_SEPARATORS = 100_000
# The limit on the bodies of all clients together, without the small ones: a body may take four bytes a character while
# its request lasts, and hundreds of requests can wait for a reader.
CLIENTS_BODIES_BYTES = 16 * 1024 * 1024
# The limit of their values, which take up to 200 bytes each once they are parsed.
CLIENTS_BODIES_VALUES = 200_000
# Smaller bodies do not count: 500 connections of them take less than the limits.
SMALL_BODY_BYTES, SMALL_BODY_VALUES = 8 * 1024, 200
# A longer body is parsed in a thread, because the event loop would wait for it.
LOOP_BYTES = 64 * 1024


@dataclass(frozen=True)
class Answer:
    """The answer of an endpoint with another status than 200.

    result: a JSON value, for the envelope.
    status: the HTTP status.
    """

    result: Any
    status: int = 200


@dataclass(frozen=True)
class Tokens:
    """The bearer tokens of this host.

    admin: the token of role admin.
    client: the token of role client; None when no caller has that role.
    throttle: the failed logins.
    clock: for `throttle`.
    authenticate: asks the plugins who sends a request without a valid token; None when no plugin can say.
    """

    admin: str = field(repr=False)
    client: str | None = field(repr=False)
    throttle: LoginThrottle
    clock: Clock
    authenticate: Callable[[Request], Awaitable[Caller | None]] | None = None

    async def caller(self, request: Request) -> Caller:
        """Return who has sent a request. Raises Unauthorized or TooManyGuesses; PluginFailed if a plugin has failed.

        A right token never has to wait: else anyone who guesses from the same address could lock its owner out. The
        token is compared with both tokens by their digests, so that the time reveals neither a token nor its length.
        """
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        offered = token.strip().encode("utf-8", "surrogateescape") if scheme.lower() == "bearer" else b""
        if offered:
            digest = _digest(offered)
            is_admin = hmac.compare_digest(digest, self._admin_digest)
            is_client = hmac.compare_digest(digest, self._client_digest) and self.client is not None
            if is_admin or is_client:
                return Caller(role="admin" if is_admin else "client", by="token")
        if self.authenticate is not None:
            offered = b"\n".join(value for name, value in request.headers.raw if name in CREDENTIALS)
        address = request.client.host if request.client is not None else ""
        if offered and (wait := self.throttle.wait_seconds(address, self.clock.monotonic())) > 0:
            # Plugins are not asked meanwhile: what they check may be short enough to be guessed.
            raise TooManyGuesses(math.ceil(wait))
        if self.authenticate is not None and (found := await self.authenticate(request)) is not None:
            return found
        if offered:
            self.throttle.record_failure(address, offered, self.clock.monotonic())
        raise Unauthorized("send a valid token as `Authorization: Bearer TOKEN`")

    @functools.cached_property
    def _admin_digest(self) -> bytes:
        return _digest(self.admin.encode())

    @functools.cached_property
    def _client_digest(self) -> bytes:
        return _digest((self.client or "").encode())


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


@dataclass(frozen=True)
class RouteOwner:
    """The plugin of a route.

    name: the plugin's name.
    describe: describes an exception in the plugin's thread, because to make its text may run the plugin's code.
    count: counts a failure of the route.
    """

    name: str
    describe: Callable[[BaseException], Awaitable[Failure]]
    count: Callable[[Route, Failure], None]


def json_response(body: dict[str, Any], status: int = 200) -> Response:
    """Make a JSON response; every answer and error goes through this."""
    try:
        content = json.dumps(body, ensure_ascii=False, separators=(",", ":"), default=_json_default).encode()
    except UnicodeEncodeError:
        # A lone surrogate has no UTF-8; JSON can still escape it.
        content = json.dumps(body, separators=(",", ":"), default=_json_default).encode()
    return Response(content, status_code=status, media_type="application/json")


class BodyResponse(Response):
    """The answer of a query, sent in pieces. Between them the event loop runs; after it is sent, a piece is freed.

    The body is complete before, so that an error while it is made still has its own status.
    """

    media_type = "application/json"

    def __init__(self, body: Body) -> None:
        short = body.size <= PIECE_BYTES
        super().__init__(b"".join(body.pieces) if short else b"")
        # The body counts for the quota while it exists.
        self._body = body
        if short:
            body.pieces.clear()
        else:
            self.headers["content-length"] = str(body.size)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._body.pieces:
            await super().__call__(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        pieces = self._body.pieces[::-1]
        self._body.pieces.clear()
        while pieces:
            await send({"type": "http.response.body", "body": pieces.pop(), "more_body": bool(pieces)})
            # As long as the socket takes everything, `send` never yields to the event loop.
            await asyncio.sleep(0)


def error_response(error: StarbaseError) -> Response:
    """Make the response of an error."""
    response = json_response({"error": str(error)}, error.status)
    if isinstance(error, Unauthorized):
        response.headers["www-authenticate"] = "Bearer"
    if isinstance(error, TooManyGuesses):
        response.headers["retry-after"] = str(error.seconds)
    return response


async def read_body(request: Request) -> bytes:
    """Return the body of a request.

    Raises TooLarge when the body is over the limit of the host; RequestTimeout when it does not arrive within
    BODY_SECONDS; Unavailable when the bodies of all clients are over their limit; InvalidRequest when the connection
    ends before the end of the body.
    """
    limit: int = request.app.state.max_body_bytes
    budget = Budget(bytes=limit, quota=request.app.state.bodies, small=SMALL_BODY_BYTES)
    # `endpoint` closes them at the end of the request.
    request.state.body_budgets = [budget]
    chunks: list[bytes] = []
    size, is_bounded = 0, _is_bounded(request)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise TooLarge(f"the body is longer than {limit} bytes")
                if is_bounded:
                    budget.spend(len(chunk))
                chunks.append(chunk)
    except TimeoutError:
        raise RequestTimeout(f"the body did not arrive within {BODY_SECONDS:g} seconds") from None
    except ClientDisconnect:
        raise InvalidRequest("the connection ended before the end of the body") from None
    return b"".join(chunks)


def _is_bounded(request: Request) -> bool:
    """Whether a body counts for the limits of clients: also where no token is needed."""
    return getattr(request.state, "role", None) != "admin"


async def read_form(request: Request) -> dict[str, list[str]]:
    """Return the fields of an HTML form, each with its values in order.

    Raises what `read_body` raises; InvalidRequest when the type of the body is not
    application/x-www-form-urlencoded, or when it has more than MAX_FIELDS fields.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise InvalidRequest("the body must be a form of type application/x-www-form-urlencoded")
    body = await read_body(request)
    try:
        # In a thread: a body may have megabytes.
        return await run_in_threadpool(
            parse_qs, body.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS
        )
    except UnicodeDecodeError:
        raise InvalidRequest("the form is not UTF-8") from None
    except ValueError:
        raise InvalidRequest(f"the form has more than {MAX_FIELDS:,} fields") from None


async def read_json(request: Request, *, empty: Any = ...) -> Any:
    """Return the body of a request as a JSON value.

    empty: the value of an empty body, if the route allows one.
    Raises InvalidRequest as `parse_json` does; TooLarge when the body is over the limit; RequestTimeout when it does
    not arrive within BODY_SECONDS; Unavailable when the bodies of all clients are over their limit.
    """
    text = await read_body(request)
    if _is_bounded(request):
        separators = _count_separators(text)
        # `endpoint` closes it at the end of the request.
        values = Budget(
            bytes=request.app.state.max_body_bytes, quota=request.app.state.body_values, small=SMALL_BODY_VALUES
        )
        request.state.body_budgets.append(values)
        values.spend(min(separators, CLIENT_SEPARATORS))
        if separators > CLIENT_SEPARATORS:
            async with request.app.state.parsing:
                too_many = await run_in_threadpool(_has_too_many_values, text)
            if too_many:
                why = f"the body has more than {CLIENT_SEPARATORS:,} values, a client's limit; send a list as text"
                raise TooLarge(why)
    if not text and empty is not ...:
        return empty
    if len(text) <= LOOP_BYTES:
        return parse_json(text, "the body")
    # One at a time: parsing holds the interpreter lock, and the event loop would wait for all of them.
    async with request.app.state.parsing:
        return await run_in_threadpool(parse_json, text, "the body")


def body_quota() -> Quota:
    """Make the quota for the bodies of all clients of one host."""
    return Quota(CLIENTS_BODIES_BYTES, "bodies that clients have sent; try again, or send a shorter one")


def body_values_quota() -> Quota:
    """Make the quota for the values in the bodies of all clients of one host."""
    return Quota(CLIENTS_BODIES_VALUES, "bodies that clients have sent, counted in values; try again, or send fewer")


def _count_separators(text: bytes) -> int:
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def _has_too_many_values(text: bytes) -> bool:
    """Whether there are too many separators outside strings. In pieces, between which other threads may run."""
    count = at = 0
    while at < len(text) and count <= CLIENT_SEPARATORS:
        piece = _PIECE.match(text, at)
        assert piece is not None
        count += _count_separators(_TEXTS.sub(b"", piece[0]))
        at = piece.end()
    return count > CLIENT_SEPARATORS


# An unclosed string ends at the end of the text: else each quotation mark in it would be tried as a beginning.
_STRING = rb'"(?:[^"\\]++|\\.?)*+"?'
_PIECE = re.compile(rb"(?:[^\"]{1,1000}+|" + _STRING + rb"){1,1000}+", re.DOTALL)
_TEXTS = re.compile(_STRING, re.DOTALL)
# Python's parsing takes the square of a number's digits.
_LONG_NUMBER = re.compile(rb"[0-9]{%d}" % (MAX_DIGITS + 1))


def parse_json(text: bytes, what: str) -> Any:
    """Parse JSON.

    what: what an error calls the text, such as "the body".
    Raises InvalidRequest when the text is not JSON, is nested more than MAX_DEPTH deep, or has a key twice in one
    object.
    """
    try:
        # A function for each number takes time, so only where a text, or a number, has many digits.
        parse_int = _parse_short if _LONG_NUMBER.search(text) else None
        body = json.loads(text, parse_constant=_reject_constant, parse_int=parse_int, object_pairs_hook=_make_object)
    except RecursionError:
        raise InvalidRequest(f"{what} is nested more than {MAX_DEPTH} levels deep") from None
    except _DuplicateKey as error:
        raise InvalidRequest(
            fields={_printable_name(str(error)): f"occurs twice in one object of {what}; remove one"}
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError, _NotJson) as error:
        raise InvalidRequest(f"{what} is not JSON: {error}") from error
    except _LongNumber:
        raise InvalidRequest(
            f"{what} has a number with more than {MAX_DIGITS} digits; shorten it, or send it as text"
        ) from None
    if text.count(b"[") + text.count(b"{") > MAX_DEPTH and _is_deep(body):
        raise InvalidRequest(f"{what} is nested more than {MAX_DEPTH} levels deep")
    return body


class _LongNumber(Exception):
    """A whole number has more than MAX_DIGITS digits."""


def _parse_short(digits: str) -> int:
    if len(digits.lstrip("-")) > MAX_DIGITS:
        raise _LongNumber
    return int(digits)


class _NotJson(ValueError):
    """Something that Python's parser accepts, but that is not JSON."""


class _DuplicateKey(ValueError):
    """An object has a key twice; the message is the key."""


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object. If a key occurs twice, Python would silently drop the first value."""
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise _DuplicateKey(next(key for key, count in counts.items() if count > 1))
    return found


def _printable_name(name: str) -> str:
    """Make a name that a caller sent safe for a message: short, and valid UTF-8."""
    return name[:MAX_NAME].encode("utf-8", "backslashreplace").decode()


def _is_deep(body: Any) -> bool:
    """Whether a value is nested more than MAX_DEPTH deep. Not recursive: that could exceed Python's own limit."""
    level = [body]
    for _ in range(MAX_DEPTH + 1):
        lists = [item for item in level if isinstance(item, list)]
        objects = [item for item in level if isinstance(item, dict)]
        level = [part for item in lists for part in item] + [part for item in objects for part in item.values()]
    return bool(level)


def endpoint(route: Route, tokens: Tokens, owner: RouteOwner | None = None) -> Callable[[Request], Awaitable[Response]]:
    """Wrap the endpoint of a route: check token, role and query parameters; make the envelope; translate errors.

    owner: the plugin whose route it is; None for the host's.
    """
    function, role = route.endpoint, route.role
    is_coroutine = inspect.iscoroutinefunction(function)

    async def handle(request: Request) -> Response:
        running = RUNNING.set(None if owner is None else owner.name)
        try:
            request.scope[ADMINS] = role == "admin"
            if role is not None:
                caller = request.scope.get(CALLER) or await tokens.caller(request)
                if role == "admin" and caller.role != "admin":
                    raise Forbidden("this route needs the admin token")
                request.state.role, request.state.caller = caller.role, caller
            if request.scope["query_string"]:
                _check_query(route, request)
            result = await function(request) if is_coroutine else await run_in_threadpool(function, request)
            if isinstance(result, Response):
                return result
            if isinstance(result, Answer):
                return json_response({"result": result.result}, result.status)
            return json_response({"result": result})
        except (asyncio.CancelledError, KeyboardInterrupt):
            raise
        except BaseException as error:
            # Also SystemExit: a plugin's route must not end the host.
            return await _failed(request, route, owner, error)
        finally:
            RUNNING.reset(running)
            for budget in getattr(request.state, "body_budgets", ()):
                budget.close()

    handle.for_admins = role == "admin"  # type: ignore[attr-defined]
    return handle


async def _failed(request: Request, route: Route, owner: RouteOwner | None, error: BaseException) -> Response:
    """Make the response of an error of an endpoint, and log an error that is not meant for the caller."""
    if isinstance(error, StarbaseError) and (owner is None or has_plain_text(error)):
        return error_response(error)
    if owner is None:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    else:
        failure = await owner.describe(error)
        if isinstance(error, StarbaseError) and failure.text is not None:
            return error_response(StarbaseError(failure.text, status=error.status))
        owner.count(route, failure)
        shown = f"plugin {owner.name}: {failure}\n{failure.details}"
        log.error("%s %s failed: %s", request.method, request.url.path, shown)
    return error_response(StarbaseError("internal error; the host's log has the details"))


def _check_query(route: Route, request: Request) -> None:
    names = [name for name, _ in request.query_params.multi_items()]
    if problems := query_problems(route, names):
        raise InvalidRequest(fields=problems)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Put Starlette's own errors into the envelope."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return error_response(NotFound(f"the route {request.url.path} does not exist"))
    if error.status_code == 405:
        response = error_response(MethodNotAllowed(f"{request.url.path} does not take {request.method}"))
        response.headers.update(error.headers or {})
        return response
    return json_response({"error": str(error.detail)}, error.status_code)


class Cors:
    """Adds CORS headers to answers that pages of other origins may read; answers OPTIONS with 204 without a token.

    origins: origins whose pages may call every route; "*" stands for any. None lets any page call every route but those
        for admins, because code in a browser has a client token.
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
                # A route that answers with CORS headers of its choice keeps them. Vary may come twice.
                added = [header for header in self._headers(scope) if header[0] not in names - {b"vary"}]
                message["headers"] = [*given, *safe, *_close_headers(scope), *added]
            await send(message)

        if scope["method"] == "OPTIONS" and not _answers_options(scope):
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
        # Else a cache could give one origin the answer for another.
        vary = (b"vary", b"Origin")
        if origin not in self._origins:
            return [vary]
        return [(b"access-control-allow-origin", origin), *CORS_HEADERS, vary]


def _close_headers(scope: Scope) -> list[tuple[bytes, bytes]]:
    """Close the connection after a request with two lengths: a proxy may read part of its body as the next request."""
    names = {name for name, _ in scope["headers"]}
    return [(b"connection", b"close")] if {b"content-length", b"transfer-encoding"} <= names else []


def _answers_options(scope: Scope) -> bool:
    """Whether a route answers OPTIONS itself."""
    return any(route.matches(scope)[0] is Match.FULL for route in scope["app"].router.routes)


def _is_for_admins(scope: Scope) -> bool:
    """Whether the request that a preflight asks about would reach a route for admins."""
    asked = next((value for name, value in scope["headers"] if name == b"access-control-request-method"), b"")
    meant = {**scope, "method": asked.decode("latin-1") or "GET"}
    met = [(route.matches(meant)[0], route) for route in scope["app"].router.routes]
    best = max((match.value for match, _ in met), default=Match.NONE.value)
    best_met = [route for match, route in met if match.value == best and match is not Match.NONE]
    return any(getattr(route.endpoint, "for_admins", True) for route in best_met)


def _reject_constant(text: str) -> Any:
    raise _NotJson(f"{text} is not a JSON value")


def _json_default(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return {"$base64": base64.b64encode(bytes(value)).decode()}
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")

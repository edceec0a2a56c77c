"""Every error that the host raises on purpose, with its HTTP status and its code.

::

    StarbaseError
      InvalidRequest 400        a body or a parameter is wrong; `fields` names each
        ConfigError             a configuration value is wrong; `field` names it
      Unauthorized 401   Forbidden 403   NotFound 404   MethodNotAllowed 405   QueryTimeout 408
      RequestTimeout 408 Conflict 409    TooLarge 413        TooManyGuesses 429
      PluginFailed 500   IncompatibleLibrary 500   Unavailable 503

A message is for a person: it names the field, the cause and the fix, and never holds a secret or a
row's value. `status` is for the HTTP caller; `transient` tells a caller whether to try again.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping


def did_you_mean(name: str, known: Iterable[str], *, otherwise: str = "") -> str:
    """The fix for an unknown name: the known name that is closest, such as `did you mean host?`.

    Case, `_` and `-` make no difference. Where no known name is close, the result is `otherwise`, or else a list of
    the known names: `known: host, plugins`.
    """
    folded = {re.sub("[_-]", "", each).lower(): each for each in known}
    near = difflib.get_close_matches(re.sub("[_-]", "", name).lower(), folded, n=1, cutoff=0.7)
    if near:
        return f"did you mean {folded[near[0]]}?"
    return otherwise or f"known: {', '.join(sorted(folded.values()))}"


# A reason that begins with one of these words makes a sentence with its field: "port must be a number".
PREDICATE = re.compile(
    r"(?:are|belongs|can|cannot|contains|defines|does|gives|has|have|holds|implements|is|looks|may|must|names|needs|occurs|"
    r"takes|would)\b"
)


def _sentence(field: str, reason: str) -> str:
    """What is wrong with a field; any other reason follows a colon, so that plugins may word theirs as they like."""
    return f"{field} {reason}" if PREDICATE.match(reason) else f"{field}: {reason}"


class StarbaseError(Exception):
    """The root of the tree.

    code: a short, stable name for programs; one for each class.
    status: the HTTP status; that of the class, unless the constructor gets another.
    transient: whether the same request can succeed later.
    """

    code = "error"
    status = 500
    transient = False

    def __init__(self, message: str = "", *, status: int | None = None) -> None:
        super().__init__(message)
        if status is not None:
            self.status = status


class InvalidRequest(StarbaseError):
    """The request is wrong.

    fields: the name of each wrong field, and what is wrong with it and the fix, best as a predicate: `must be a
        number`. Without a message, the error's text is made from them: `a is required; b must be a number`.
    """

    code = "invalid_request"
    status = 400

    def __init__(self, message: str = "", *, fields: Mapping[str, str] | None = None) -> None:
        self.fields = dict(fields or {})
        super().__init__(message or "; ".join(_sentence(name, why) for name, why in self.fields.items()))


class ConfigError(InvalidRequest):
    """One configuration value is wrong.

    field: its dotted name.
    reason: what is wrong with it, and the fix.
    """

    code = "config"

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        self.reason = message
        super().__init__(fields={field: message})


class Unauthorized(StarbaseError):
    """The request has no token, or an unknown one."""

    code = "unauthorized"
    status = 401


class Forbidden(StarbaseError):
    """The caller is known, but its role may not do this."""

    code = "forbidden"
    status = 403


class QueryRejected(Forbidden):
    """Raised by a plugin's `before_query` or `after_query` to refuse a query; its message is the answer."""

    code = "query_rejected"


class NotFound(StarbaseError):
    """The route or the name does not exist."""

    code = "not_found"
    status = 404


class MethodNotAllowed(StarbaseError):
    """The route exists, but does not take this method."""

    code = "method_not_allowed"
    status = 405


class QueryTimeout(StarbaseError):
    """A query ran longer than its limit and was interrupted."""

    code = "timeout"
    status = 408


class RequestTimeout(StarbaseError):
    """The body of a request did not arrive in time."""

    code = "request_timeout"
    status = 408


class TooManyGuesses(StarbaseError):
    """Too many wrong tokens came from this address.

    seconds: how long the address has to wait.
    """

    code = "too_many_guesses"
    status = 429

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        super().__init__(f"too many wrong tokens have come from this address; try again in {seconds} seconds")


class Conflict(StarbaseError):
    """The request is valid, but something that runs stands in its way."""

    code = "conflict"
    status = 409


class TooLarge(StarbaseError):
    """A body or an answer is over its limit."""

    code = "too_large"
    status = 413


class PluginFailed(StarbaseError):
    """A plugin's hook raised, timed out, or returned an invalid answer."""

    code = "plugin_failed"


class IncompatibleLibrary(StarbaseError):
    """A library does not have, or no longer calls, a method that the host or a plugin replaces."""

    code = "incompatible_library"


class Unavailable(StarbaseError):
    """The host is stopping, is not ready, or cannot use its database now; or what was awaited has ended."""

    code = "unavailable"
    status = 503
    transient = True

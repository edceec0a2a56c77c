"""Every error this project raises on purpose, with the HTTP status and the code each answers with.

::

    StarbaseError
      InvalidRequest 400        a body or a parameter is wrong; `fields` names each
        ConfigError             a configuration value is wrong; `field` names it
      Unauthorized 401   Forbidden 403   NotFound 404   MethodNotAllowed 405   QueryTimeout 408
      RequestTimeout 408 Conflict 409    TooLarge 413        TooManyGuesses 429
      PluginFailed 500   IncompatibleLibrary 500   Unavailable 503

A message is for the person who reads it: it names the field and the mend, and never holds a secret
or a row's value. `status` is for the caller of HTTP, `transient` for whoever decides to try again.
"""

from __future__ import annotations

from collections.abc import Mapping


class StarbaseError(Exception):
    """The root. `code` is stable and short, for programs; `status` is the HTTP status, of the class unless given."""

    code = "error"
    status = 500
    transient = False

    def __init__(self, message: str = "", *, status: int | None = None) -> None:
        super().__init__(message)
        if status is not None:
            self.status = status


class InvalidRequest(StarbaseError):
    """A request that cannot be understood. `fields` maps each wrong field to what is wrong with it."""

    code = "invalid_request"
    status = 400

    def __init__(self, message: str = "", *, fields: Mapping[str, str] | None = None) -> None:
        self.fields = dict(fields or {})
        super().__init__(message or "; ".join(f"{name}: {why}" for name, why in self.fields.items()))


class ConfigError(InvalidRequest):
    """One configuration value is wrong. `field` is its dotted name, the message its mend."""

    code = "config"

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        self.reason = message
        super().__init__(fields={field: message})


class Unauthorized(StarbaseError):
    """No token, or one that is not known."""

    code = "unauthorized"
    status = 401


class Forbidden(StarbaseError):
    """A known caller asked for what its role may not do."""

    code = "forbidden"
    status = 403


class QueryRejected(Forbidden):
    """Raised by a plugin's `before_query` or `after_query` to refuse a query; its message is the answer."""

    code = "query_rejected"


class NotFound(StarbaseError):
    """No such route, or no such name."""

    code = "not_found"
    status = 404


class MethodNotAllowed(StarbaseError):
    """The route exists, but not for this method."""

    code = "method_not_allowed"
    status = 405


class QueryTimeout(StarbaseError):
    """A query ran longer than its limit and was interrupted."""

    code = "timeout"
    status = 408


class RequestTimeout(StarbaseError):
    """A request's body did not come in time."""

    code = "request_timeout"
    status = 408


class TooManyGuesses(StarbaseError):
    """Too many wrong tokens have come from this address; `seconds` is how long it has to wait."""

    code = "too_many_guesses"
    status = 429

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        super().__init__(f"too many wrong tokens have come from this address; try again in {seconds} seconds")


class Conflict(StarbaseError):
    """The request is right, but not now: something holds the name."""

    code = "conflict"
    status = 409


class TooLarge(StarbaseError):
    """A body or an answer is over its limit."""

    code = "too_large"
    status = 413


class PluginFailed(StarbaseError):
    """A plugin that stands in a query's way raised, hung or answered nonsense."""

    code = "plugin_failed"


class IncompatibleLibrary(StarbaseError):
    """A library does not have, or does not call, what the host or a plugin replaces in it."""

    code = "incompatible_library"


class Unavailable(StarbaseError):
    """The host is stopping, not ready yet, or cannot use its database now; or something has ended what was awaited."""

    code = "unavailable"
    status = 503
    transient = True

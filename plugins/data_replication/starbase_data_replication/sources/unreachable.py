"""Error messages for a source that cannot be reached: what was tried, what happened, and what to check.

Must not know any dialect. Without these, a driver passes on what the operating system says, such as "Connect call
failed" for a port on which nothing listens.
"""

from __future__ import annotations

import errno
import socket

LOOK_AT = "check host and port of sourceConfig"
# Messages by error number; {where} is the place that was tried.
BY_NUMBER = {
    errno.ECONNREFUSED: f"nothing listens at {{where}} (connection refused); start the server, or {LOOK_AT}",
    errno.EHOSTUNREACH: f"there is no route to {{where}}; check the network between, or {LOOK_AT}",
    errno.ENETUNREACH: f"there is no route to {{where}}; check the network between, or {LOOK_AT}",
    errno.ENOENT: "there is no socket {where}; start the server, or check host of sourceConfig",
    errno.ENOTDIR: "there is no socket {where}; start the server, or check host of sourceConfig",
    errno.EACCES: "this program's user may not use {where}; grant it that, or check the firewall of this machine",
    errno.EPERM: "this program's user may not use {where}; grant it that, or check the firewall of this machine",
    errno.ECONNRESET: f"{{where}} closed the connection before it answered; it may refuse this machine, or {LOOK_AT}",
    errno.EPIPE: f"{{where}} closed the connection before it answered; it may refuse this machine, or {LOOK_AT}",
    errno.ETIMEDOUT: f"{{where}} does not answer; check for a firewall between, or {LOOK_AT}",
}


class Unreachable(OSError):
    """A source cannot be reached. Its text is the whole message."""


def unreachable(error: BaseException, where: str) -> Unreachable:
    """The error of a failed connection. where: host and port, or the path of a socket."""
    if isinstance(error, Unreachable):
        return error
    if isinstance(error, TimeoutError):
        return Unreachable(BY_NUMBER[errno.ETIMEDOUT].format(where=where))
    number = error.errno if isinstance(error, OSError) else None
    if number in BY_NUMBER:
        return Unreachable(BY_NUMBER[number].format(where=where))
    return Unreachable(f"{where} cannot be reached: {str(error) or type(error).__name__}")


def not_known(host: str, error: BaseException) -> str:
    """Why a name could not be looked up."""
    if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
        return f"the name {host} cannot be looked up at the moment; check this machine's DNS"
    if isinstance(error, UnicodeError):
        return f"{host} cannot be a host name; check host of sourceConfig"
    return f"the name {host} is not known; check host of sourceConfig, or at this machine's DNS"


def lookup_timed_out(host: str) -> Unreachable:
    return Unreachable(
        f"the lookup of the name {host} did not end in time; check this machine's DNS, or write an address as host"
    )


def speaks_another_protocol(where: str, protocol: str) -> Unreachable:
    return Unreachable(f"what listens at {where} does not speak {protocol}'s protocol; {LOOK_AT}")


def place(host: str, port: int | str) -> str:
    """Host and port, as they are written together."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

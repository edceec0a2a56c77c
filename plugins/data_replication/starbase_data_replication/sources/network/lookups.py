"""Looking names up: each in its own thread, because a name server that is silent holds a thread for half a minute.

The event loop's own threads are few, and the host's other work needs them. Must not know where a source may be.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from concurrent.futures import Future

from starbase_data_replication.errors import SourceUnavailable
from starbase_data_replication.sources.unreachable import not_known

# Names that are looked up at once. A thread that only waits takes little memory.
MOST = 256


class Lookups:
    """The lookups that have not ended. Several that want the same name wait for one thread."""

    def __init__(self) -> None:
        self._running: dict[str, Future[list[str]]] = {}

    async def addresses(self, host: str) -> list[str]:
        """The addresses of a name, or of a text that is an address itself, in their order.

        Raises SourceUnavailable if there is none, or if too many lookups have not ended.
        """
        try:
            return _addresses(host, socket.AI_NUMERICHOST)
        except UnicodeError as error:
            raise SourceUnavailable(not_known(host, error)) from None
        except OSError:
            pass
        if (running := self._running.get(host)) is None:
            running = self._begin(host)
        try:
            # The thread goes on if its caller stops waiting: nothing can interrupt it.
            return await asyncio.shield(asyncio.wrap_future(running))
        except (OSError, UnicodeError) as error:
            raise SourceUnavailable(not_known(host, error)) from None

    def _begin(self, host: str) -> Future[list[str]]:
        if len(self._running) >= MOST:
            raise SourceUnavailable(
                f"{MOST} lookups of names have not ended, so the name {host} is not looked up; check this machine's "
                "DNS, or write addresses"
            )
        running: Future[list[str]] = Future()
        running.set_running_or_notify_cancel()

        def run() -> None:
            try:
                found = _addresses(host)
            except BaseException as error:
                self._running.pop(host, None)
                running.set_exception(error)
            else:
                self._running.pop(host, None)
                running.set_result(found)

        self._running[host] = running
        # The end of the process does not wait for it.
        threading.Thread(target=run, name=f"lookup of {host}", daemon=True).start()
        return running


def _addresses(host: str, flags: int = 0) -> list[str]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=flags)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))

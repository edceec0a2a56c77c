"""Trying an access to the database again while it cannot be used: events must be neither lost nor sent twice for that.

Must not know what is read or written.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from starbase_host import Host, StarbaseError

log = logging.getLogger("starbase.data_replication")

# How long to wait before a database that is locked or full is asked again.
AGAIN_SECONDS = 5.0
T = TypeVar("T")


async def retry_database(host: Host, attempt: Callable[[], Awaitable[T]], what: str) -> T:
    """Repeat an access to the database until it succeeds. Raises its error once the host stops.

    what: the subject and verb of the line in the log, such as "the durable subscriber a waits".
    """
    while True:
        try:
            return await attempt()
        except StarbaseError as error:
            if host.stopping.is_set():
                raise
            log.error("%s for the database: %s", what, error)
            await host.clock.sleep(AGAIN_SECONDS)

"""What comes of connecting by a dialect, without a host."""

from __future__ import annotations

import asyncio
from typing import Any

from starbase_data_replication.errors import SyncError
from starbase_data_replication.model import TableName
from starbase_data_replication.sources.protocols import Dialect


def described(dialect: Dialect, settings: dict[str, Any]) -> str:
    """What comes of connecting: "connected", or the error."""

    async def run() -> str:
        source = dialect.open(settings, max_connections=1)
        try:
            await source.describe(TableName(schema=settings.get("defaultSchema"), name="t"), "id")
        except SyncError as error:
            return str(error)
        finally:
            await source.close()
        return "connected"

    return asyncio.run(run())

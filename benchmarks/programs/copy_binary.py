"""The limit: PostgreSQL's COPY … (FORMAT binary) of a query through asyncpg into nothing.

copy_binary.py HOST PORT USER PASSWORD DATABASE QUERY
"""

import asyncio
import sys
from pathlib import Path

import asyncpg


async def main(host: str, port: str, user: str, password: str, database: str, query: str) -> None:
    connection = await asyncpg.connect(host=host, port=int(port), user=user, password=password, database=database)
    await connection.copy_from_query(query, output=Path("/dev/null"), format="binary")
    await connection.close()


asyncio.run(main(*sys.argv[1:]))

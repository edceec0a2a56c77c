"""What a request costs without the product: Starlette that answers a constant, and one that runs the query itself.

Served by the uvicorn of the project's environment: `uvicorn benchmarks.programs.bare:app`. DATABASE names the file.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

_connections = threading.local()


async def constant(request: Request) -> JSONResponse:
    await request.body()
    return JSONResponse({"result": [{"id": 1, "customer_id": 7, "status": "paid", "amount": "0.14"}]})


async def query(request: Request) -> JSONResponse:
    body = json.loads(await request.body())
    return JSONResponse({"result": await run_in_threadpool(_run, body["sql"], body["params"])})


def _run(sql: str, params: list[object]) -> list[dict[str, object]]:
    connection: sqlite3.Connection | None = getattr(_connections, "connection", None)
    if connection is None:
        connection = _connections.connection = sqlite3.connect(f"file:{os.environ['DATABASE']}?mode=ro", uri=True)
    cursor = connection.execute(sql, params)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


app = Starlette(routes=[Route("/constant", constant, methods=["POST"]), Route("/query", query, methods=["POST"])])

"""What SQLite takes of memory and time while it prepares a statement, in a process of limited memory."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import NamedTuple

PREPARE = """
import json, resource, sys, time
import apsw
from starbase_host.sandbox_rules import CLIENT_PROGRAM_STEPS, LIMITS
resource.setrlimit(resource.RLIMIT_AS, (1 << 31, 1 << 31))
connection = apsw.Connection(":memory:")
for sql in json.loads(sys.stdin.readline()):
    connection.execute(sql)
for limit, value in LIMITS.items():
    connection.limit(limit, value)
connection.limit(apsw.SQLITE_LIMIT_VDBE_OP, CLIENT_PROGRAM_STEPS)
for line in sys.stdin:
    apsw.memory_high_water(True)
    before, started = apsw.memory_used(), time.thread_time()
    error = None
    try:
        connection.execute("EXPLAIN " + json.loads(line), can_cache=False).fetchone()
    except apsw.Error as raised:
        error = str(raised)
    print(json.dumps([apsw.memory_high_water() - before, time.thread_time() - started, error]), flush=True)
"""


class Prepared(NamedTuple):
    """used: the most bytes that it took; seconds: of the thread; error: of SQLite."""

    used: int
    seconds: float
    error: str | None


class Preparer:
    """A process that prepares statements over a schema, under a client's limits."""

    def __init__(self, schema: list[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PREPARE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._send(schema)

    def _send(self, value: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(value) + "\n")
        self._process.stdin.flush()

    def prepare(self, sql: str) -> Prepared:
        self._send(sql)
        assert self._process.stdout is not None
        return Prepared(*json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        self._process.communicate()

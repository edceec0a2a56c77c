"""Requests per second of one address, from a process of its own: by wrk where it is installed, else by asyncio.

Run as `python -m benchmarks.throughput URL SECONDS CONNECTIONS METHOD BODY HEADERS`, `%d` in URL or BODY being a number
from 1 to 1000 that changes with each request; HEADERS is a JSON object. Prints a JSON object.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any
from urllib.parse import urlsplit

from benchmarks.measure import Failed

KEYS = 1000
SCRIPT = """
wrk.method = %(method)s
for name, value in pairs({%(headers)s}) do wrk.headers[name] = value end
local number = 0
request = function()
  number = number %% %(keys)d + 1
  return wrk.format(nil, string.gsub(%(path)s, "%%%%d", number), nil, (string.gsub(%(body)s, "%%%%d", number)))
end
"""


def per_second(url: str, *, seconds: int, connections: int, method: str, body: str, headers: dict[str, str]) -> float:
    """Answers of status 200 in a second. Raises Failed when any other came."""
    if shutil.which("wrk") is not None:
        return _wrk(url, seconds, connections, method, body, headers)
    words = [url, str(seconds), str(connections), method, body, json.dumps(headers)]
    command = [sys.executable, "-m", "benchmarks.throughput", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(done.stderr.strip().splitlines()[-1])
    return float(json.loads(done.stdout)["per_second"])


def client_name() -> str:
    return "wrk" if shutil.which("wrk") is not None else "an asyncio client, which is slower than wrk"


def _wrk(url: str, seconds: int, connections: int, method: str, body: str, headers: dict[str, str]) -> float:
    parts = urlsplit(url)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    lua = SCRIPT % {
        "method": json.dumps(method),
        "headers": ", ".join(f"[{json.dumps(name)}] = {json.dumps(value)}" for name, value in headers.items()),
        "keys": KEYS,
        "path": json.dumps(path),
        "body": json.dumps(body),
    }
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(lua)
        script.flush()
        command = [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds}s",
            "-s",
            script.name,
            f"{parts.scheme}://{parts.netloc}",
        ]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in output:
        raise Failed("some answers were not 200")
    found = re.search(r"Requests/sec:\s+([\d.]+)", output)
    if found is None:
        raise Failed("wrk reported no figure")
    return float(found.group(1))


async def _ask(parts: Any, method: str, body: str, headers: dict[str, str], until: float, offset: int) -> int:
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    count = 0
    while time.perf_counter() < until:
        number = str((offset + count) % KEYS + 1)
        content = body.replace("%d", number).encode()
        lines = [f"{method} {path.replace('%d', number)} HTTP/1.1", f"host: {parts.netloc}"]
        lines += [f"content-length: {len(content)}", *(f"{name}: {value}" for name, value in headers.items())]
        writer.write("\r\n".join([*lines, "", ""]).encode() + content)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"answered {head.split(b' ')[1].decode()}")
        if b"transfer-encoding: chunked" in head.lower():
            while (size := int(await reader.readline(), 16)) > 0:
                await reader.readexactly(size + 2)
            await reader.readline()
        else:
            length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
            await reader.readexactly(int(length.group(1)) if length else 0)
        count += 1
    writer.close()
    return count


async def _main(url: str, seconds: str, connections: str, method: str, body: str, headers: str) -> None:
    began = time.perf_counter()
    until = began + float(seconds)
    work = [
        _ask(urlsplit(url), method, body, json.loads(headers), until, 60 * each) for each in range(int(connections))
    ]
    count = sum(await asyncio.gather(*work))
    print(json.dumps({"per_second": count / (time.perf_counter() - began)}))


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))

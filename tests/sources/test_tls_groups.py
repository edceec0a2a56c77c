"""The ciphers of TLS that a server may choose from: none lets it choose how long a computation takes."""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest

from starbase_data_replication.sources.mysql import settings as mysql
from starbase_data_replication.sources.postgresql import settings as postgresql
from starbase_data_replication.sources.postgresql.dialect import PostgresqlDialect
from tests.support.dialects import described

LOGIN = {"host": "127.0.0.1", "user": "u", "database": "d"}


def exchanges(context: ssl.SSLContext) -> set[str]:
    return {cipher["kea"] for cipher in context.get_ciphers()}


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
def test_the_context_of_postgresql(mode: str) -> None:
    context = postgresql.pool_arguments(postgresql.read({**LOGIN, "sslmode": mode}))["ssl"]
    assert "kx-dhe" not in exchanges(context)
    assert "kx-ecdhe" in exchanges(context)


@pytest.mark.parametrize("mode", ["PREFERRED", "REQUIRED", "VERIFY_IDENTITY"])
def test_the_context_of_mysql(mode: str) -> None:
    context = mysql._ssl(mysql.read({**LOGIN, "sslMode": mode}))
    assert context is not None
    assert "kx-dhe" not in exchanges(context)
    assert "kx-ecdhe" in exchanges(context)


@pytest.mark.parametrize("mode", ["allow", "prefer", "require"])
def test_a_server_is_offered_no_group_of_its_choice(mode: str) -> None:
    """Also not where the driver makes the context."""
    offered: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            first = await reader.readexactly(8)
            if struct.unpack("!II", first)[1] == 80877103:
                writer.write(b"S")
                head = await reader.readexactly(5)
                offered.append(await reader.readexactly(int.from_bytes(head[3:], "big")))
            else:
                # What makes `allow` ask for TLS.
                text = b"SFATAL\0C28000\0Mno\0\0"
                writer.write(b"E" + struct.pack("!I", len(text) + 4) + text)
        writer.close()

    async def run() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            settings: Mapping[str, Any] = {
                **LOGIN, "port": server.sockets[0].getsockname()[1], "password": "p", "sslmode": mode,
            }  # fmt: skip
            await asyncio.to_thread(described, PostgresqlDialect(), dict(settings))

    asyncio.run(run())
    suites = _suites(offered[0])
    dhe = {cipher["id"] & 0xFFFF for cipher in _all_ciphers() if cipher["kea"] == "kx-dhe"}
    assert suites
    assert dhe
    assert not suites & dhe


def _suites(hello: bytes) -> set[int]:
    """The cipher suites of a ClientHello, without the head of its record."""
    at = 4 + 2 + 32
    at += 1 + hello[at]
    length = int.from_bytes(hello[at : at + 2], "big")
    return {int.from_bytes(hello[each : each + 2], "big") for each in range(at + 2, at + 2 + length, 2)}


def _all_ciphers() -> list[Any]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("ALL:@SECLEVEL=0")
    return list(context.get_ciphers())

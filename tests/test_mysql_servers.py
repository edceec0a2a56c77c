"""What a server may ask of the MySQL room while it greets: fake servers, since no real one misbehaves so."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from starbase_data_replication.errors import SyncError
from starbase_data_replication.model import TableName
from starbase_data_replication.sources.mysql import settings
from starbase_data_replication.sources.mysql.source import MysqlSource

PASSWORD = "the secret of the tests"
SALT = b"abcdefghijklmnopqrst"
OK = b"\x00\x00\x00\x02\x00\x00\x00"
# PROTOCOL_41, SECURE_CONNECTION, PLUGIN_AUTH, CONNECT_WITH_DB and their like; no TLS.
CAPABILITIES = 0x00080000 | 0x8000 | 0x0200 | 0x0008 | 0x0001


class Peer:
    """The server's side of one connection, packet by packet. heard: every byte that the client has sent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.heard = b""

    async def read(self) -> bytes:
        head = await self._reader.readexactly(4)
        self._number = head[3]
        body = await self._reader.readexactly(int.from_bytes(head[:3], "little"))
        self.heard += head + body
        return body

    def send(self, body: bytes, *, number: int | None = None) -> None:
        number = (self._number + 1) % 256 if number is None else number
        self._writer.write(len(body).to_bytes(3, "little") + bytes([number]) + body)

    async def greet(self, plugin: bytes) -> bytes:
        """Send the greeting; the client's answer."""
        low, high = struct.pack("<I", CAPABILITIES)[:2], struct.pack("<I", CAPABILITIES)[2:]
        self.send(
            b"\x0a8.0.36\x00" + bytes(4) + SALT[:8] + b"\x00" + low + b"\x2d\x02\x00" + high + b"\x15" + bytes(10)
            + SALT[8:] + b"\x00" + plugin + b"\x00",
            number=0,
        )  # fmt: skip
        return await self.read()

    async def rest(self) -> None:
        """Listen until the client hangs up."""
        self.heard += await self._reader.read()


def met(talk: Callable[[Peer], Awaitable[None]]) -> tuple[str, bytes]:
    """What the source says of such a server, and what the server has heard."""
    peers: list[Peer] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.append(Peer(reader, writer))
        try:
            await talk(peers[-1])
            await peers[-1].rest()
        except (OSError, EOFError):
            pass
        finally:
            writer.close()

    async def main() -> str:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        config = {"host": "127.0.0.1", "port": server.sockets[0].getsockname()[1], "user": "u", "database": "d"}
        arguments = settings.pool_arguments(settings.read({**config, "password": PASSWORD}))
        source = MysqlSource(arguments, max_connections=1, ssl_fallback=True)
        try:
            with pytest.raises(SyncError) as error:
                await source.describe(TableName(schema="d", name="t"), "id")
            return str(error.value)
        finally:
            await source.close()
            server.close()
            # Whoever still talks hears that the client has gone.
            await asyncio.sleep(0)

    said = asyncio.run(main())
    return said, b"".join(peer.heard for peer in peers)


def test_a_server_that_asks_for_a_file_gets_nothing(tmp_path: Any) -> None:
    secret = tmp_path / "secret"
    secret.write_text("what nobody may have")

    async def talk(peer: Peer) -> None:
        await peer.greet(b"mysql_native_password")
        peer.send(OK)
        await peer.read()
        peer.send(b"\xfb" + str(secret).encode())

    said, heard = met(talk)
    assert "LOCAL INFILE" in said
    assert b"what nobody may have" not in heard


@pytest.mark.parametrize("plugin", [b"mysql_clear_password", b"mysql_old_password"])
def test_a_server_that_asks_for_the_password_in_clear_does_not_get_it(plugin: bytes) -> None:
    async def talk(peer: Peer) -> None:
        await peer.greet(b"mysql_native_password")
        peer.send(b"\xfe" + plugin + b"\x00" + SALT + b"\x00")

    said, heard = met(talk)
    assert "sslMode" in said
    assert PASSWORD.encode() not in heard


def test_a_kind_of_password_that_nobody_knows_is_named() -> None:
    async def talk(peer: Peer) -> None:
        await peer.greet(b"mysql_native_password")
        peer.send(b"\xfeauthentication_kerberos_client\x00" + SALT + b"\x00")

    said, _ = met(talk)
    assert "authentication_kerberos_client" in said


def test_caching_sha2_passwords_of_mysql_8() -> None:
    """Without TLS: the password goes out encrypted with the server's key, and the server can read it."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    told: list[bytes] = []

    async def talk(peer: Peer) -> None:
        await peer.greet(b"caching_sha2_password")
        peer.send(b"\x01\x04")
        assert await peer.read() == b"\x02"
        peer.send(b"\x01" + public)
        sha1 = padding.OAEP(mgf=padding.MGF1(hashes.SHA1()), algorithm=hashes.SHA1(), label=None)
        hidden = key.decrypt(await peer.read(), sha1)
        told.append(bytes(byte ^ SALT[at % 20] for at, byte in enumerate(hidden)))
        peer.send(OK)
        raise EOFError("the password is all that was wanted")

    _, heard = met(talk)
    assert told == [PASSWORD.encode() + b"\x00"]
    assert PASSWORD.encode() not in heard

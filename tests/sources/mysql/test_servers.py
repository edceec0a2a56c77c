"""What a server may ask of the MySQL room while it greets: fake servers, since no real one misbehaves so."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from starbase_data_replication.errors import SyncError
from starbase_data_replication.model import TableName
from starbase_data_replication.sources.mysql import settings
from starbase_data_replication.sources.mysql.authentication import public_key
from starbase_data_replication.sources.mysql.source import MysqlSource
from starbase_host import ConfigError

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


def met(talk: Callable[[Peer], Awaitable[None]], **more: Any) -> tuple[str, bytes]:
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
        arguments = settings.pool_arguments(settings.read({**config, "password": PASSWORD, **more}))
        source = MysqlSource(arguments, max_connections=1, ssl_fallback=True)
        try:
            with pytest.raises(SyncError) as error:
                await source.describe(TableName(schema="d", name="t"), "id")
            return str(error.value)
        finally:
            await source.close()
            server.close()
            # A server that still writes gets an error, because the client has gone.
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
    assert "asks for a file of the host" in said
    assert b"what nobody may have" not in heard


PLUGINS = [b"mysql_clear_password", b"mysql_old_password", b"sha256_password", b"caching_sha2_password"]


def talking(plugin: bytes, public: bytes, *, greeting: bytes) -> Callable[[Peer], Awaitable[None]]:
    """An impostor that asks for the password by this plugin, in its greeting or after it, and hands out its key."""

    async def talk(peer: Peer) -> None:
        await peer.greet(greeting)
        if greeting != plugin:
            peer.send(b"\xfe" + plugin + b"\x00" + SALT + b"\x00")
            await peer.read()
        if plugin == b"caching_sha2_password":
            peer.send(b"\x01\x04")
            await peer.read()
        peer.send(b"\x01" + public)
        await peer.read()

    return talk


def new_key() -> tuple[rsa.RSAPrivateKey, bytes]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return key, public


def shown(key: rsa.RSAPrivateKey, heard: bytes) -> bool:
    """Whether a password can be read from what an impostor has heard: as it is, or by its key."""
    if PASSWORD.encode() in heard:
        return True
    sha1 = padding.OAEP(mgf=padding.MGF1(hashes.SHA1()), algorithm=hashes.SHA1(), label=None)
    for at in range(len(heard) - 255):
        try:
            key.decrypt(heard[at : at + 256], sha1)
        except ValueError:
            continue
        return True
    return False


@pytest.mark.parametrize("greeting", [b"mysql_native_password", None])
@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_server_without_tls_that_asks_for_the_password_does_not_get_it(plugin: bytes, greeting: bytes | None) -> None:
    key, public = new_key()
    said, heard = met(talking(plugin, public, greeting=greeting or plugin))
    if greeting is None and plugin not in (b"caching_sha2_password",):
        # Greeted with another plugin than it may begin with, the client waits to be asked by it.
        assert b"mysql_native_password" in heard
    else:
        assert "sslMode" in said
        assert plugin.decode() in said
    assert not shown(key, heard)


@pytest.mark.parametrize("asked", [b"\xfe", b"\xfemysql_native_password", b"\xfe" + SALT[:8]])
def test_a_switch_without_a_plugin_is_the_oldest_one(asked: bytes) -> None:
    async def talk(peer: Peer) -> None:
        await peer.greet(b"mysql_native_password")
        peer.send(asked)
        await peer.read()

    said, heard = met(talk)
    assert "mysql_old_password" in said
    assert "sslMode" in said
    # The greeting's answer, and nothing after it.
    assert len(heard) == 4 + int.from_bytes(heard[:3], "little")


def test_an_unknown_kind_of_password_is_named() -> None:
    async def talk(peer: Peer) -> None:
        await peer.greet(b"mysql_native_password")
        peer.send(b"\xfeauthentication_kerberos_client\x00" + SALT + b"\x00")

    said, _ = met(talk)
    assert "authentication_kerberos_client" in said


@pytest.mark.parametrize("plugin", [b"caching_sha2_password", b"sha256_password"])
@pytest.mark.parametrize("pasted", [False, True])
def test_a_password_goes_out_by_the_key_that_is_configured_and_no_other(
    plugin: bytes, pasted: bool, tmp_path: Path
) -> None:
    key, public = new_key()
    other, evil = new_key()
    (tmp_path / "public_key.pem").write_bytes(public)
    received: list[bytes] = []

    async def talk(peer: Peer) -> None:
        await peer.greet(b"mysql_native_password")
        peer.send(b"\xfe" + plugin + b"\x00" + SALT + b"\x00")
        if plugin == b"caching_sha2_password":
            await peer.read()
            peer.send(b"\x01\x04")
        sha1 = padding.OAEP(mgf=padding.MGF1(hashes.SHA1()), algorithm=hashes.SHA1(), label=None)
        hidden = key.decrypt(await peer.read(), sha1)
        received.append(bytes(byte ^ SALT[at % 20] for at, byte in enumerate(hidden)))
        peer.send(b"\x01" + evil)

    _, heard = met(talk, serverPublicKey=public.decode() if pasted else str(tmp_path / "public_key.pem"))
    assert received == [PASSWORD.encode() + b"\x00"]
    assert not shown(other, heard)


@pytest.mark.parametrize("what", ["nothing", "a pipe", "a directory", "a certificate", "too long", "of another kind"])
def test_a_key_that_cannot_be_used_is_refused_alike(what: str, tmp_path: Path) -> None:
    """The error does not quote what the server sent."""
    path = tmp_path / "key"
    match what:
        case "a pipe":
            os.mkfifo(path)
        case "a directory":
            path.mkdir()
        case "a certificate":
            path.write_text("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n")
        case "too long":
            path.write_bytes(new_key()[1] + b"\n" * 2_000_000)
        case "of another kind":
            public = ec.generate_private_key(ec.SECP256R1()).public_key()
            form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            path.write_bytes(public.public_bytes(*form))
    with pytest.raises(ConfigError, match="must be a regular file") as error:
        public_key(str(path))
    assert error.value.field == "sourceConfig.serverPublicKey"

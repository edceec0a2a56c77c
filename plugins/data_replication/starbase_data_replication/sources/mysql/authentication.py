"""Authentication with MySQL and MariaDB: what a connection may send to a server that it has not verified.

Without TLS, an attacker can answer in the server's place, choose the authentication plugin, and send the key that is to
encrypt the password. An answer to a challenge does not reveal the password; every other method needs TLS, a Unix
socket, or a key that the sourceConfig names. Must not know what is read over the connection.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiomysql
from aiomysql.connection import MysqlPacket
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pymysql import _auth
from pymysql.constants import CLIENT, CR
from pymysql.err import OperationalError

from starbase_data_replication.sources.settings import is_pem, using
from starbase_host import ConfigError, overrides

NATIVE, ED25519, CACHING, SHA256 = (
    "mysql_native_password", "client_ed25519", "caching_sha2_password", "sha256_password",
)  # fmt: skip
# Plugins that send the password, or something that replaces it.
SHOWING = ("mysql_clear_password", "mysql_old_password")
# Plugins whose first answer, to a challenge, is sent with the user's name.
FIRST = (NATIVE, CACHING)

# A server sends 32 bytes to sign. Signing takes time in proportion to their number, on the event loop.
ED25519_BYTES = 64
# The steps of caching_sha2_password: the server has the answer in its cache, or asks for the password.
KNOWN, WANTED = 3, 4
RSA_KEY = "an RSA public key as PEM, such as a copy of the server's public_key.pem"


def public_key(setting: str | None) -> bytes | None:
    """The key in `serverPublicKey`, a file or the PEM itself. Raises the same ConfigError for every unusable value."""
    if setting is None:
        return None
    if not is_pem(setting):
        with using("serverPublicKey", RSA_KEY, setting) as (place,):
            return _rsa(Path(place).read_bytes())
    try:
        return _rsa(setting.encode())
    except ValueError:
        raise ConfigError("sourceConfig.serverPublicKey", f"must be {RSA_KEY}") from None


def _rsa(pem: bytes) -> bytes:
    """Raises ValueError for what is not an RSA public key."""
    try:
        key = load_pem_public_key(pem)
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from error
    if not isinstance(key, RSAPublicKey):
        raise ValueError("not a key of RSA")
    return pem


class AuthenticatingConnection(aiomysql.Connection):  # type: ignore[misc]
    """A connection that authenticates without revealing its password to a server that it has not verified."""

    _server_auth_plugin: str
    # Whether the login is done.
    _logged_in = False

    @overrides("aiomysql.connection.Connection._connect")
    async def _request_authentication(self) -> None:
        if not self.server_capabilities & CLIENT.PLUGIN_AUTH:
            raise self._refused("mysql_old_password")
        if self._server_auth_plugin not in FIRST:
            # The server asks for the account's plugin next; for some plugins the driver would send the password now.
            self._server_auth_plugin = NATIVE
        await super()._request_authentication()
        self._logged_in = True

    @overrides("aiomysql.connection.Connection._request_authentication")
    async def _read_packet(self, packet_type: Any = MysqlPacket) -> Any:
        packet = await super()._read_packet(packet_type)
        if not self._logged_in and packet.is_auth_switch_request() and b"\0" not in packet.get_all_data():
            # Without a plugin's name, it means the oldest plugin.
            raise self._refused("mysql_old_password")
        return packet

    @overrides("aiomysql.connection.Connection._request_authentication")
    async def _process_auth(self, plugin_name: bytes, auth_packet: Any) -> Any:
        """Answer a server that asks for another authentication plugin."""
        plugin = plugin_name.decode("ascii", "backslashreplace")
        if plugin in SHOWING and not self._secure:
            raise self._refused(plugin)
        if plugin == ED25519:
            return await self._answer_ed25519(auth_packet.read_all())
        if plugin not in (*FIRST, *SHOWING, SHA256):
            raise OperationalError(
                CR.CR_AUTH_PLUGIN_CANNOT_LOAD,
                f"the server asks for the password by {plugin}, which is not supported; give the account another kind "
                "of password",
            )
        return await super()._process_auth(plugin_name, auth_packet)

    @overrides("aiomysql.connection.Connection._request_authentication", "aiomysql.connection.Connection._process_auth")
    async def caching_sha2_password_auth(self, packet: Any) -> None:
        password = self._password.encode("latin1")
        if packet.is_auth_switch_request():
            self.salt = packet.read_all().removesuffix(b"\0")
            packet = await self._answer(_auth.scramble_caching_sha2(password, self.salt))
        if not packet.is_extra_auth_data():
            # Logged in with an empty password.
            return
        packet.advance(1)
        step = packet.read_uint8()
        if step == WANTED:
            await self._prove(self._encrypted(password, CACHING))
        elif step == KNOWN:
            await self._read_packet()
        else:
            raise OperationalError(CR.CR_MALFORMED_PACKET, f"the server asks for an unknown step of {CACHING}")

    @overrides("aiomysql.connection.Connection._request_authentication", "aiomysql.connection.Connection._process_auth")
    async def sha256_password_auth(self, packet: Any) -> None:
        self.salt = packet.read_all().removesuffix(b"\0")
        password = self._password.encode("latin1")
        await self._prove(self._encrypted(password, SHA256) if password else b"")

    def _encrypted(self, password: bytes, plugin: str) -> bytes:
        """The password as this server may get it: in clear if the connection is secure, else encrypted with the key."""
        if self._secure:
            return password + b"\0"
        if self.server_public_key is None:
            raise self._refused(plugin)
        encrypted: bytes = _auth.sha2_rsa_encrypt(password, self.salt, self.server_public_key)
        return encrypted

    async def _answer_ed25519(self, asked: bytes) -> Any:
        if len(asked) > ED25519_BYTES:
            raise OperationalError(CR.CR_MALFORMED_PACKET, "the server asks for a signature of a text that is too long")
        return await self._answer(_auth.ed25519_password(self._password.encode("latin1"), asked))

    async def _prove(self, data: bytes) -> None:
        packet = await self._answer(data)
        if not packet.is_ok_packet():
            raise OperationalError(CR.CR_MALFORMED_PACKET, "the server asks for more than the password")

    async def _answer(self, data: bytes) -> Any:
        self.write_packet(data)
        packet = await self._read_packet()
        packet.check_error()
        return packet

    def _refused(self, plugin: str) -> OperationalError:
        key = ", or serverPublicKey to the server's public_key.pem" if plugin in (CACHING, SHA256) else ""
        return OperationalError(
            CR.CR_AUTH_PLUGIN_ERR,
            f"the server asks for the password by {plugin}, and without TLS anyone in its place could read it; set "
            f"sslMode to REQUIRED{key}",
        )

"""How the secrets of a sourceConfig are stored: encrypted, if STARBASE_SECRET_KEY gives a key.

Owns the texts in `tmp_replication_secrets`: plain JSON, or `fernet:` and a Fernet token of that JSON. Must not know
which settings are secret: the caller passes what may be shown of them, and settings that may be shown whole are not
encrypted. So a lost key costs only the settings that needed it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import apsw

from starbase_data_replication.model import SECRET_KEY
from starbase_host import ConfigError, Database, Unavailable

if TYPE_CHECKING:
    from cryptography.fernet import Fernet, MultiFernet

log = logging.getLogger("starbase.data_replication")

MARK = "fernet:"
MAKE = "make one with `openssl rand -base64 32`"


class EncryptedSettings(Mapping[str, Any]):
    """Settings whose secrets are encrypted. As a mapping, they are what may be shown.

    Attributes:
        text: the settings as they are stored, for `SecretKeys.decrypt`.
    """

    def __init__(self, shown: Mapping[str, Any], text: str) -> None:
        self._shown = dict(shown)
        self.text = text

    def __getitem__(self, name: str) -> Any:
        return self._shown[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._shown)

    def __len__(self) -> int:
        return len(self._shown)


class SecretKeys:
    """The keys of one host: the first encrypts, any of them decrypts. Without a key nothing is encrypted."""

    def __init__(self, keys: str | None) -> None:
        """keys: the value of STARBASE_SECRET_KEY, keys separated by commas. Raises ConfigError."""
        self._first: Fernet | None = None
        self._all: MultiFernet | None = None
        if keys and keys.strip():
            # Imported only if there is a key: the import takes a while, and most hosts have none.
            from cryptography.fernet import MultiFernet

            fernets = [_fernet(key.strip(), number) for number, key in enumerate(keys.split(","), start=1)]
            self._first, self._all = fernets[0], MultiFernet(fernets)

    @classmethod
    def from_environment(cls) -> SecretKeys:
        return cls(os.environ.get(SECRET_KEY))

    def encrypt(self, settings: Mapping[str, Any], shown: Mapping[str, Any]) -> Mapping[str, Any]:
        """The settings as they are to be stored; `shown` is what may be shown of them."""
        if self._all is None or isinstance(settings, EncryptedSettings) or dict(settings) == dict(shown):
            return settings
        token = self._all.encrypt(json.dumps(dict(settings)).encode()).decode()
        return EncryptedSettings(shown, MARK + token)

    def decrypt(self, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """The settings with their secrets. Raises ConfigError if no key decrypts them."""
        if not isinstance(settings, EncryptedSettings):
            return settings
        decrypted = _decrypt(self._all, settings.text)
        if decrypted is None:
            raise ConfigError("sourceConfig", f"its password is encrypted, and {self._cause_and_fix()}")
        return dict(json.loads(decrypted))

    def rotate(self, text: str, shown: Mapping[str, Any]) -> str | None:
        """A stored text, encrypted with the first key: the same text if it is already, None if no key decrypts it."""
        if not text.startswith(MARK):
            return dump(self.encrypt(json.loads(text), shown))
        if _decrypt(self._first, text) is not None:
            # The token stays as it is, so that a start writes nothing.
            return text
        if self._all is None or _decrypt(self._all, text) is None:
            return None
        return MARK + self._all.rotate(_token(text)).decode()

    def _cause_and_fix(self) -> str:
        cause = f"{SECRET_KEY} is not set" if self._all is None else f"no key in {SECRET_KEY} decrypts it"
        return (
            f"{cause}; start the host with the key that it was stored with (several are separated by commas), "
            "or configure the source again with its password"
        )

    async def rotate_stored(self, database: Database, *, serves: bool = True) -> None:
        """Encrypt what is stored with the first key. Log, in one line each, what stays in plain or is not decrypted.

        serves: a host that stays is warned of a missing key before there is a password to protect.
        """
        plain, unreadable = await database.write(self._rotate_rows)
        if self._all is None and (plain or serves):
            log.warning(
                "%s is not set: passwords in a sourceConfig are stored unencrypted (%d now); %s, "
                "or write ${NAME} instead",
                SECRET_KEY, len(plain), MAKE,
            )  # fmt: skip
        elif self._all is not None:
            # What was stored in plain is overwritten in the database; the journal must not keep it either.
            try:
                await database.truncate_wal()
            except Unavailable as error:
                log.warning(
                    "passwords that were stored in plain may still be readable in the database's write-ahead log: %s",
                    error,
                )
        if unreadable:
            log.error(
                "the stored passwords of %s cannot be decrypted: %s", ", ".join(unreadable), self._cause_and_fix()
            )

    def _rotate_rows(self, connection: apsw.Connection) -> tuple[list[str], list[str]]:
        """Names of the replications that had a secret in plain, and of those that no key decrypts."""
        rows = connection.execute(
            "SELECT c.id, c.name, c.source_config, s.source_config FROM tmp_replication_configs c "
            "JOIN tmp_replication_secrets s ON s.config_id = c.id ORDER BY c.name"
        ).fetchall()
        plain: list[str] = []
        unreadable: list[str] = []
        for row in rows:
            name, shown, text = map(str, row[1:])
            if not text.startswith(MARK) and json.loads(text) != json.loads(shown):
                plain.append(name)
            rotated = self.rotate(text, json.loads(shown))
            if rotated is None:
                unreadable.append(name)
            elif rotated != text:
                with overwriting(connection):
                    connection.execute(
                        "UPDATE tmp_replication_secrets SET source_config = ? WHERE config_id = ?", (rotated, row[0])
                    )
        return plain, unreadable


def dump(settings: Mapping[str, Any]) -> str:
    """Settings as the text that is stored."""
    return settings.text if isinstance(settings, EncryptedSettings) else json.dumps(dict(settings))


def load(text: str, shown: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings of a stored text, encrypted if they are so there; `shown` is what may be shown of them."""
    return EncryptedSettings(shown, text) if text.startswith(MARK) else dict(json.loads(text))


@contextlib.contextmanager
def overwriting(connection: apsw.Connection) -> Iterator[None]:
    """Have SQLite overwrite with zeros what is changed or removed inside, instead of only marking it as free."""
    before = connection.pragma("secure_delete")
    connection.pragma("secure_delete", True)
    try:
        yield
    finally:
        connection.pragma("secure_delete", before)


def _token(text: str) -> bytes:
    return text.removeprefix(MARK).encode()


def _decrypt(keys: Fernet | MultiFernet | None, text: str) -> bytes | None:
    """The JSON of a stored text; None if no key decrypts it."""
    if keys is None:
        return None
    from cryptography.fernet import InvalidToken

    try:
        return keys.decrypt(_token(text))
    except InvalidToken:
        return None


def _fernet(key: str, number: int) -> Fernet:
    from cryptography.fernet import Fernet

    try:
        return Fernet(key)
    except ValueError:
        raise ConfigError(SECRET_KEY, f"key {number} is not 32 bytes in base64; {MAKE}") from None

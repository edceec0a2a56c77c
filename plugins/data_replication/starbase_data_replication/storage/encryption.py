"""How the secrets of a sourceConfig lie in the database: sealed, when STARBASE_SECRET_KEY gives a key.

Owns the texts in `tmp_replication_secrets`: plain JSON, or `fernet:` and a Fernet token of that JSON. Must not know
which settings are secret: whoever stores says how the settings may be shown, and what may be shown whole is not
sealed, so that a lost key costs only what needed it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any

import apsw

from starbase_data_replication.model import SECRET_KEY
from starbase_host import ConfigError, Database, Unavailable

log = logging.getLogger("starbase.data_replication")

MARK = "fernet:"
MAKE = "make one with `openssl rand -base64 32`"


class Sealed(Mapping[str, Any]):
    """Settings whose secrets are sealed: what may be shown of them, and the text that `Seal.open` opens."""

    def __init__(self, shown: Mapping[str, Any], text: str) -> None:
        self._shown = dict(shown)
        self.text = text

    def __getitem__(self, name: str) -> Any:
        return self._shown[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._shown)

    def __len__(self) -> int:
        return len(self._shown)


class Seal:
    """The keys of one host: the first seals, each opens. Without a key nothing is sealed."""

    def __init__(self, keys: str | None) -> None:
        """keys: the value of STARBASE_SECRET_KEY, keys separated by commas. Raises ConfigError."""
        self._fernets: list[Any] = []
        for number, key in enumerate((keys or "").split(","), start=1):
            if keys and keys.strip():
                self._fernets.append(_fernet(key.strip(), number))

    @classmethod
    def from_environment(cls) -> Seal:
        return cls(os.environ.get(SECRET_KEY))

    @property
    def has_key(self) -> bool:
        return bool(self._fernets)

    def close(self, settings: Mapping[str, Any], shown: Mapping[str, Any]) -> Mapping[str, Any]:
        """The settings as they are to be stored; `shown` is what may be shown of them."""
        if not self._fernets or isinstance(settings, Sealed) or dict(settings) == dict(shown):
            return settings
        token = self._fernets[0].encrypt(json.dumps(dict(settings)).encode()).decode()
        return Sealed(shown, MARK + token)

    def open(self, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """The settings with their secrets. Raises ConfigError when no key opens them."""
        if not isinstance(settings, Sealed):
            return settings
        opened = self._opened(settings.text, self._fernets)
        if opened is None:
            raise ConfigError("sourceConfig", f"its password is encrypted, and {self._mend()}")
        return dict(json.loads(opened))

    def renewed(self, text: str, shown: Mapping[str, Any]) -> str | None:
        """A stored text as the first key seals it: the same where it does so already, None where no key opens it."""
        if not text.startswith(MARK):
            return dump(self.close(json.loads(text), shown))
        if self._opened(text, self._fernets[:1]) is not None:
            return text
        opened = self._opened(text, self._fernets)
        return None if opened is None else dump(self.close(json.loads(opened), shown))

    def _opened(self, text: str, fernets: list[Any]) -> bytes | None:
        from cryptography.fernet import InvalidToken

        for fernet in fernets:
            with contextlib.suppress(InvalidToken):
                return bytes(fernet.decrypt(text.removeprefix(MARK).encode()))
        return None

    def _mend(self) -> str:
        why = f"no key in {SECRET_KEY} opens it" if self._fernets else f"{SECRET_KEY} is not set"
        return (
            f"{why}; start the host with the key that it was stored with (several are separated by commas), "
            "or configure the source again with its password"
        )

    async def renew(self, database: Database, *, serves: bool = True) -> None:
        """Seal what is stored with the first key; say, in one line each, what is not sealed or cannot be opened.

        serves: a host that stays is warned of a missing key before there is a password to protect.
        """
        plain, unreadable = await database.write(self._renew_rows)
        if not self._fernets and (plain or serves):
            log.warning(
                "%s is not set: passwords that stand in a sourceConfig are stored unencrypted (%d now); %s, "
                "or write ${NAME} in their place",
                SECRET_KEY, len(plain), MAKE,
            )  # fmt: skip
        elif self._fernets:
            # What was stored in plain is overwritten in the database; the journal must not keep it either.
            try:
                await database.truncate_wal()
            except Unavailable as error:
                log.warning(
                    "passwords that were stored in plain may still be read in the database's journal: %s", error
                )
        if unreadable:
            log.error("the stored passwords of %s cannot be opened: %s", ", ".join(unreadable), self._mend())

    def _renew_rows(self, connection: apsw.Connection) -> tuple[list[str], list[str]]:
        """Names of the replications that had a secret in plain, and of those that no key opens."""
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
            renewed = self.renewed(text, json.loads(shown))
            if renewed is None:
                unreadable.append(name)
            elif renewed != text:
                with overwriting(connection):
                    connection.execute(
                        "UPDATE tmp_replication_secrets SET source_config = ? WHERE config_id = ?", (renewed, row[0])
                    )
        return plain, unreadable


def dump(settings: Mapping[str, Any]) -> str:
    """Settings as the text that is stored."""
    return settings.text if isinstance(settings, Sealed) else json.dumps(dict(settings))


def load(text: str, shown: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings of a stored text, sealed where they are; `shown` is what may be shown of them."""
    return Sealed(shown, text) if text.startswith(MARK) else dict(json.loads(text))


@contextlib.contextmanager
def overwriting(connection: apsw.Connection) -> Iterator[None]:
    """What is changed or removed in here is overwritten with zeros, not only marked as free."""
    before = connection.pragma("secure_delete")
    connection.pragma("secure_delete", True)
    try:
        yield
    finally:
        connection.pragma("secure_delete", before)


def _fernet(key: str, number: int) -> Any:
    from cryptography.fernet import Fernet

    try:
        return Fernet(key)
    except ValueError:
        raise ConfigError(SECRET_KEY, f"key {number} is not 32 bytes in base64; {MAKE}") from None

"""The secrets in a sourceConfig: how one is recognised, shown and kept.

A secret is a private key's text, or a password that stands there in plain, as `password` or inside
`connectionString` (before the `@`, or as a parameter `password`). A `${NAME}` is none. Must not know any dialect's
keys, but for the two that all share: `password` and `connectionString`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote, unquote_plus

from starbase_data_replication.sources.settings.connection_string import ConnectionString, decode, split_if_possible
from starbase_data_replication.sources.settings.env_references import has_reference, is_reference
from starbase_data_replication.sources.settings.scrubbing import MASK
from starbase_host import ENV_REFERENCE

# What settings of other dialects call a secret.
SECRET_NAME = re.compile(r"pass(?:word|wd|phrase)|secret|token|credential|api_?key", re.IGNORECASE)


def _with_passwords(parts: ConnectionString, change: Callable[[str], str]) -> ConnectionString:
    """The parts with every password in them changed."""
    parameters = parts.parameters
    if parameters is not None:
        parameters = tuple((name, change(value) if name == "password" else value) for name, value in parameters)
    password = None if parts.password is None else change(parts.password)
    return replace(parts, password=password, parameters=parameters)


def _show(secret: str) -> str:
    return MASK if secret and not is_reference(secret) else secret


def masked(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as they may be shown: each secret `***`, and nothing else changed.

    A connection string that cannot be taken apart, or that holds a private key, is hidden whole.
    """
    shown = {name: MASK if _is_private_key(value) else value for name, value in settings.items()}
    if "password" in shown and shown["password"] is not None:
        password = shown["password"]
        shown["password"] = _show(password) if isinstance(password, str) else MASK
    text = shown.get("connectionString")
    if text is not None and not is_reference(text):
        parts = split_if_possible(text)
        hidden = parts is None or _is_private_key(text)
        shown["connectionString"] = MASK if parts is None or hidden else str(_with_passwords(parts, _show))
    return shown


def _is_private_key(value: object) -> bool:
    """Whether a setting is the text of a private key, rather than the name of the file that holds one."""
    return isinstance(value, str) and "PRIVATE KEY" in unquote_plus(value)


def unmasked(new: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """`new`, with each secret that was sent back as `masked` shows it replaced by the stored one.

    The password is kept where only its place is the same: a connection string with `***` as its password may
    name another host, and `password` may become a part of a connection string, or the other way round.
    """
    result = dict(new)
    shown = masked(stored).get("connectionString")
    if shown is not None and result.get("connectionString") == shown:
        result["connectionString"] = stored["connectionString"]
    for name, value in stored.items():
        if result.get(name) == MASK and _is_private_key(value):
            result[name] = value
    plain, encoded = _stored_password(stored)
    if result.get("password") == MASK and plain is not None:
        result["password"] = plain
    parts = split_if_possible(result.get("connectionString"))
    if parts is not None and encoded is not None:
        kept = encoded
        changed = _with_passwords(parts, lambda secret: kept if secret == MASK else secret)
        result["connectionString"] = str(changed)
    return result


def _stored_password(stored: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The stored password as it stands in `password`, and as it stands inside a connection string."""
    password = stored.get("password")
    if isinstance(password, str):
        # What is not a reference is encoded, the references between are not.
        texts = ENV_REFERENCE.split(password)
        encoded = "".join(f"${{{text}}}" if at % 2 else quote(text, safe="") for at, text in enumerate(texts))
        return password, encoded
    found = _passwords(split_if_possible(stored.get("connectionString")))
    if not found:
        return None, None
    try:
        plain = decode(found[0])
    except ValueError:
        return None, found[0]
    # An encoded `${` is text; decoded into `password` it would become a reference.
    return (plain if has_reference(plain) == has_reference(found[0]) else None), found[0]


def _passwords(parts: ConnectionString | None) -> list[str]:
    if parts is None:
        return []
    found = [] if parts.password is None else [parts.password]
    return found + [value for name, value in parts.parameters or () if name == "password"]


def secrets(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Every secret as it may turn up in a message: as written and percent-decoded; the longest first.

    What a setting of another dialect holds counts by its name: `token`, `apiKey`, and the like, at any depth.
    """
    password, text = settings.get("password"), settings.get("connectionString")
    found = {value for name, value in settings.items() if name != "connectionString" and _is_private_key(value)}
    found.update(_named(settings))
    if isinstance(password, str):
        found.update((password, password if is_reference(password) else quote(password, safe="")))
    parts = split_if_possible(text)
    if isinstance(text, str) and parts is None:
        found.add(text)
    keys = [value for _, value in (parts.parameters if parts else None) or () if _is_private_key(value)]
    for raw in (*_passwords(parts), *keys):
        found.add(raw)
        try:
            found.add(decode(raw))
        except ValueError:
            continue
    return tuple(sorted((one for one in found if _show(one) == MASK), key=lambda one: (-len(one), one)))


def _named(settings: Mapping[str, Any]) -> Iterator[str]:
    """The strings that stand under a secret's name."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _named(value)
        elif isinstance(value, str) and isinstance(name, str) and SECRET_NAME.search(name):
            yield value

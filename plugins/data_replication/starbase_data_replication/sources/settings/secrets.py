"""The secrets in a sourceConfig: how they are recognised, masked, and kept when a masked one is sent back.

A secret is the text of a private key, or a password in plain text: as `password` or inside `connectionString` (before
the `@`, or as a parameter `password`). A `${NAME}` is not a secret. Must not know a dialect's keys, except for the two
that all share: `password` and `connectionString`.
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

# Names of secrets in the settings of other dialects.
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
    """The settings as they may be shown, with each secret as `***`.

    A connection string that cannot be parsed, or that contains a private key, is masked as a whole.
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
    """Whether a setting is the text of a private key, and not the name of a file."""
    return isinstance(value, str) and "PRIVATE KEY" in unquote_plus(value)


def unmasked(new: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """`new`, with the stored secrets in place of those that were sent back as `masked` shows them.

    A password is kept even if other settings have changed: a connection string with `***` as its password may name
    another host, and `password` may move into a connection string, or out of it.
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
    """The stored password as the setting `password`, and as it is written in a connection string."""
    password = stored.get("password")
    if isinstance(password, str):
        # Encode everything except the references.
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
    """Every secret, as written and percent-decoded, with the longest first.

    In the settings of another dialect, a name such as `token` or `apiKey` marks a secret, at any depth.
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
    """The strings that a secret's name marks, at any depth."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _named(value)
        elif isinstance(value, str) and isinstance(name, str) and SECRET_NAME.search(name):
            yield value


def hidden_parts(settings: Mapping[str, Any], shown: Mapping[str, Any]) -> tuple[str, ...]:
    """What a dialect's `secret_parts` hides: the texts of `settings` that `shown` lacks, or has otherwise.

    Of a text that is only partly hidden, such as a URL with `***` in it, the part.
    """
    found = {text for name, value in settings.items() for text in _hidden(value, shown.get(name))}
    return tuple(sorted((text for text in found if text and not is_reference(text)), key=lambda one: (-len(one), one)))


def _hidden(value: object, shown: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        inner = shown if isinstance(shown, Mapping) else {}
        for name, each in value.items():
            yield from _hidden(each, inner.get(name))
    elif isinstance(value, list):
        items = shown if isinstance(shown, list) and len(shown) == len(value) else [None] * len(value)
        for each, other in zip(value, items, strict=True):
            yield from _hidden(each, other)
    elif value is not None and not isinstance(value, bool) and value != shown:
        text = str(value)
        kept = [re.escape(piece) for piece in shown.split(MASK)] if isinstance(shown, str) and MASK in shown else []
        inside = re.fullmatch("(.*?)".join(kept), text, re.DOTALL) if kept else None
        yield from inside.groups() if inside is not None else (text,)

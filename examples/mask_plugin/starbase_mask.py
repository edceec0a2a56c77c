"""Masks e-mail addresses on their way into a replica: ada@example.com becomes a***@example.com, always alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starbase_host import ConfigError, hookimpl


def plugin(options: Mapping[str, Any]) -> MaskEmails:
    for name in options:
        raise ConfigError(name, "unknown option; there are none")
    return MaskEmails()


class MaskEmails:
    @hookimpl(optionalhook=True)
    def transform_batch(self, columns: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        return {name: [masked(value) for value in values] for name, values in columns.items()}


def masked(value: Any) -> str | None:
    """Fails for what is not text: a value that slipped through unmasked would be worse than a run that stops."""
    if value is None:
        return None
    name, at, domain = value.rpartition("@")
    return f"{name[:1]}***@{domain}" if at else "***"

"""Masks e-mail addresses before they are stored in a replica: ada@example.com always becomes a***@example.com."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starbase_host import ConfigError, hookimpl


def plugin(options: Mapping[str, Any]) -> MaskEmails:
    for name in options:
        raise ConfigError(name, "unknown option; this plugin has no options")
    return MaskEmails()


class MaskEmails:
    """Implements `transform_batch` for the columns that a replication names."""

    @hookimpl(optionalhook=True)
    def transform_batch(self, columns: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        return {name: [masked(value) for value in values] for name, values in columns.items()}


def masked(value: Any) -> str | None:
    """Mask one address. Raises AttributeError when it is not text: to fail is better than to store it unmasked."""
    if value is None:
        return None
    name, at, domain = value.rpartition("@")
    return f"{name[:1]}***@{domain}" if at else "***"

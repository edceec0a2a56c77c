"""Saves a body of `configure`: checks it first, then stores it if what it was checked against has not changed.

The check runs outside the transaction, because a dialect may be another plugin's: one that hangs must not block the
one thread that writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol
from weakref import WeakValueDictionary

import apsw

from starbase_data_replication.config import parse
from starbase_data_replication.config.checks import NAME
from starbase_data_replication.config.needs import check_needs
from starbase_data_replication.model import Replication
from starbase_data_replication.sources import Dialects
from starbase_data_replication.sources.settings import Variables
from starbase_data_replication.storage import StoredReplication, sqlite_tables, store
from starbase_host import Host, InvalidRequest


class Secrets(Protocol):
    """What saving needs to know about secrets: which variables may hold them, and how they are stored."""

    @property
    def variables(self) -> Variables:
        """Which variables of the environment a sourceConfig may name."""

    def encrypted(self, replication: Replication, shown: Mapping[str, Any]) -> Replication:
        """The replication as it will be stored; `shown` is what may be shown of its settings."""

    def hiding_secrets(self, *found: Mapping[str, Any]) -> contextlib.AbstractAsyncContextManager[None]:
        """Scrub these settings' secrets from errors of a dialect of another plugin."""

    def decrypted(self, replication: Replication) -> Replication:
        """The replication with its secrets; unchanged if no key decrypts them."""


@dataclass(frozen=True, kw_only=True)
class Configuring:
    """Saves what users ask for, on one host.

    host: whose database, log and plugins it uses.
    secrets: how secrets are stored.
    dialects: by name.
    """

    host: Host
    secrets: Secrets
    dialects: Dialects
    # A lock for each group, for as long as a request holds it.
    _groups: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)

    async def save(
        self, body: Any, *, now: float, on_save: Callable[[apsw.Connection, StoredReplication], None]
    ) -> tuple[StoredReplication, bool]:
        """Create or change a replication: what is stored, and whether it was there. Raises InvalidRequest, Conflict.

        on_save: called in the transaction that saves it, with what is stored then.
        """
        name = body.get("name") if isinstance(body, dict) else None
        name = name if isinstance(name, str) and NAME.match(name) else None
        stored = None
        while stored is None:
            # Repeats only if another request has changed the same replication or group meanwhile.
            existing, asked, masked = await self._check(body, name)
            async with self._one_of(asked.options.group):
                others = await self._check_group(asked)
                self._check_transforms(asked)
                replication = self.secrets.encrypted(asked, masked)
                validated = _ValidatedConfig(replication=replication, masked=masked, existing=existing, others=others)
                stored = await self.host.database.write(partial(validated.save, now=now, on_save=on_save))
        return stored, existing is not None

    def _one_of(self, group: str | None) -> contextlib.AbstractAsyncContextManager[object]:
        """Let one request of a group in at a time: side by side, each would make the others start again."""
        if group is None:
            return contextlib.nullcontext()
        return self._groups.setdefault(group, asyncio.Lock())

    async def _check(
        self, body: Any, name: str | None
    ) -> tuple[StoredReplication | None, Replication, Mapping[str, Any]]:
        """What is stored under this name, what it will become, and what may be shown of its settings."""
        stored = await self.host.database.read(partial(store.find, name=name)) if name is not None else None
        existing = self.secrets.decrypted(stored.replication) if stored is not None else None

        def check() -> tuple[Replication, Mapping[str, Any]]:
            asked = parse.parse(body, existing=existing, dialects=self.dialects, variables=self.secrets.variables)
            # As JSON here already: a dialect of another plugin may return what JSON cannot hold.
            masked = json.dumps(dict(self.dialects[asked.dialect].secret_parts(asked.source_config)), allow_nan=False)
            return asked, json.loads(masked)

        async with self.secrets.hiding_secrets(*parse.settings_of(body, existing)):
            asked, masked = await self.dialects.call(parse.dialects_of(body, existing), check)
        check_needs(asked.options, self.dialects.known(asked.dialect))
        return stored, asked, masked

    async def _check_group(self, replication: Replication) -> list[Replication]:
        """The others of its group, as they are stored. Raises InvalidRequest if one reads from another source."""
        if replication.options.group is None:
            return []
        others = await self.host.database.read(partial(_others, replication=replication))
        opened = [self.secrets.decrypted(each) for each in others]
        check = partial(parse.check_group, replication, opened, self.dialects)
        async with self.secrets.hiding_secrets(*(each.source_config for each in (replication, *opened))):
            await self.dialects.call({replication.dialect, *(each.dialect for each in others)}, check)
        return others

    def _check_transforms(self, replication: Replication) -> None:
        known = self.host.implementers("transform_batch")
        for plugin in replication.options.transforms:
            if plugin not in known:
                why = f"names {plugin}, which is not a plugin with transform_batch; known: {', '.join(known) or 'none'}"
                raise InvalidRequest(fields={"transforms": why})


@dataclass(frozen=True, kw_only=True)
class _ValidatedConfig:
    """A checked replication, and what it was checked against.

    replication: what to store, its secrets encrypted if there is a key.
    masked: its settings as they may be shown.
    existing: what was stored under its name; None for a new one.
    others: the other replications of its group, as they were stored.
    """

    replication: Replication
    masked: Mapping[str, Any]
    existing: StoredReplication | None
    others: list[Replication]

    def save(
        self, connection: apsw.Connection, *, now: float, on_save: Callable[[apsw.Connection, StoredReplication], None]
    ) -> StoredReplication | None:
        """Store it; return None if something that it was checked against has changed.

        Raises Conflict if another replication has its target, and InvalidRequest for a name that SQLite uses.
        """
        replication = self.replication
        found = store.find(connection, replication.name)
        if _basis(found) != _basis(self.existing) or _others(connection, replication=replication) != self.others:
            return None
        parse.check_target(replication, store.targets(connection))
        if sqlite_tables.is_function(connection, replication.target_table):
            why = f"is a table-valued function of SQLite, {replication.target_table}; choose another name"
            raise InvalidRequest(fields={"targetTable": why})
        if (owner := sqlite_tables.kept_for(connection, replication.target_table)) is not None:
            raise InvalidRequest(fields={"targetTable": sqlite_tables.KEEPS.format(owner)})
        stored = store.save(connection, replication, self.masked, now=now)
        on_save(connection, stored)
        return stored


def _basis(stored: StoredReplication | None) -> object:
    """What of a stored replication a change is checked against; the results of its runs do not count."""
    return None if stored is None else (stored.id, stored.revision, stored.replication)


def _others(connection: apsw.Connection, *, replication: Replication) -> list[Replication]:
    group = replication.options.group
    found = store.of_group(connection, group) if group is not None else []
    return [each.replication for each in found if each.name != replication.name]

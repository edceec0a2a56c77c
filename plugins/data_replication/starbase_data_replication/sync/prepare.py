"""How a sync is prepared: what the table is now, whether the replica still fits it, and the table to write to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import apsw

from starbase_data_replication.errors import ReplicaChanged, SchemaMismatch, TableMissing
from starbase_data_replication.model import Former, Options, Phase, Position, Progress, TableName, TableSchema
from starbase_data_replication.sources import HidingColumns, Inspector, NoTrackingColumn, checked_schema
from starbase_data_replication.storage import StoredReplication, Target, sqlite_tables, store
from starbase_data_replication.sync import identity, schema_changes, tracking_values
from starbase_data_replication.sync.rewind import refusal
from starbase_data_replication.sync.selection import selected
from starbase_data_replication.sync.start import LoadInPlace, LoadIntoShadow, ReplaceWhole, Start, start_from
from starbase_host import Database

AWAY = "the source had no such table for a while"
GONE = "the replica, or a column of it, was missing"
OTHER_FORM = "this version stores values in another form"


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """Prepares the syncs and the checks of one replication.

    Attributes:
        stored: the replication as its run began with it.
        table: the source's table.
        identity: what the position must belong to.
        database: the internal database.
        progress: the run's.
        together: whether the sync is one of a group.
        added_seconds: how long a batch may take if users have added triggers and the like.
    """

    stored: StoredReplication
    table: TableName
    identity: str
    database: Database
    progress: Progress
    together: bool
    added_seconds: float

    async def stored_position(self) -> Position | None:
        """How far the replica has come; None before its first sync."""
        return await self.database.read(lambda connection: store.load_position(connection, self.stored))

    async def describe(self, inspector: Inspector, position: Position | None) -> TableSchema:
        """What of the table is copied. Raises TableMissing, and SchemaMismatch if the options do not fit the table."""
        fingerprint = position.fingerprint if position is not None and position.identity == self.identity else None
        tracking = self.stored.replication.tracking_column
        try:
            described = await inspector.describe(self.table, tracking or tracking_values.DEFAULT)
        except NoTrackingColumn as error:
            described = self._untracked(error)
        except TableMissing as error:
            if fingerprint is not None and position is not None:
                self.progress.schema_changes = (str(error),)
                # A table that comes back under this name may be another one, with other rows.
                await self.must_load_again(position, AWAY)
            raise
        schema = selected(checked_schema(described), self._options, checked=fingerprint is not None)
        self._check_hidden(schema)
        if schema.unfollowable is not None and not self.whole(schema):
            raise SchemaMismatch(f"mode: {schema.unfollowable}; set mode to full, which loads it whole at each sync")
        if not self.whole(schema):
            doubts = tracking_values.of_type(schema, named=tracking is not None)
            unprotected = schema.unprotected or tracking_values.made_elsewhere(schema)
            schema = replace(schema, warnings=(*schema.warnings, *schema.caveats, *doubts), unprotected=unprotected)
        return schema

    async def must_load_again(self, position: Position, why: str) -> None:
        """Store that the next sync must load the table again, and why: by then, the reason cannot be seen any more."""

        def write(connection: apsw.Connection) -> None:
            store.check_current(connection, self.stored)
            store.save_position(connection, self.stored, replace(position, reload=why))

        if position.reload is None:
            await self.database.write(write)

    def _check_hidden(self, schema: TableSchema) -> None:
        """Raise SchemaMismatch if hidden rows would silently be missing or removed."""
        if schema.hidden is None:
            return
        if self._options.row_security == "refuse":
            raise SchemaMismatch(
                f"rowSecurity: {schema.hidden}; or set rowSecurity to filtered, to copy only what this user sees"
            )
        if not schema.key:
            raise SchemaMismatch(
                f"rowSecurity: {schema.table} has no key, so hidden rows cannot be distinguished from removed ones; "
                "name keyColumns"
            )

    def _check_kept(self, schema: TableSchema, position: Position, lost: Sequence[str]) -> None:
        """Raise SchemaMismatch if a load would erase columns that are perhaps only hidden from this user."""
        if position.identity == self.identity and not self.whole(schema):
            return
        if identity.parse_identity(position.identity).source != identity.parse_identity(self.identity).source:
            return
        chosen = self._options.columns
        names = [
            name for name in lost if name not in self._options.exclude_columns and (chosen is None or name in chosen)
        ]
        if names:
            raise SchemaMismatch(
                f"these columns of {schema.table} were dropped, or are no longer granted to this user: "
                f"{', '.join(names)}; a load would erase what was copied of them: grant them again, name the columns "
                f"to copy in columns, or reset the replication (POST /data-replication/reset/{self.stored.name})"
            )

    def _untracked(self, error: NoTrackingColumn) -> TableSchema:
        """The schema of a table without its tracking column. Raises the error if one is needed."""
        needed = self.stored.replication.tracking_column is not None or self._options.null_tracking != "read"
        if needed or not self.whole(selected(checked_schema(error.schema), self._options, checked=True)):
            raise tracking_values.missing(checked_schema(error.schema), error.name) from error
        return error.schema

    def replica(self, schema: TableSchema, dropped: Sequence[str] = (), former_names: Sequence[str] = ()) -> Target:
        """The replica's side, for what the source table looks like now."""
        name, mark = self.stored.replication.target_table, self._options.mark_column
        return Target(
            name, schema, shadow_id=self.stored.id, mark=mark, dropped=dropped, former_names=former_names,
            added_seconds=self.added_seconds,
        )  # fmt: skip

    def whole(self, schema: TableSchema) -> bool:
        """Whether every sync loads the whole table, so that nothing is ever followed."""
        return not schema.key or self._options.mode == "full"

    async def prepare(
        self, inspector: Inspector, schema: TableSchema, position: Position | None
    ) -> tuple[Target, Start]:
        """Decide how the sync starts, and make the table that it writes to. Raises SchemaMismatch."""
        lost = schema_changes.gone(position, schema)
        hides_columns = bool(lost) and await _hides_columns(inspector, schema)
        dropped: tuple[str, ...] = ()
        reason: str | None = None
        if position is not None:
            dropped, reason = self._reason_to_load(schema, position, lost if hides_columns else ())
        replica = self.replica(schema, dropped, _former_names(position, schema))
        # A load starts over unless the replica serves as it is; what it then finds decides how, in `_decide`.
        goes_on = position if reason is None and not self.whole(schema) else None
        if goes_on is None and not lost and self._options.columns is None:
            hides_columns = await _hides_columns(inspector, schema)
        if goes_on is None and (schema.where is not None or self._options.key_columns is not None):
            await inspector.check_filter_and_key(schema, key=self._options.key_columns is not None)
        if goes_on is not None and await self.database.read(partial(self._adopts, replica=replica, position=goes_on)):
            start = start_from(goes_on)
        else:
            former = _former(position, reason) if position is not None and reason is not None else None
            make = partial(self._make_table, replica=replica, position=goes_on, former=former)
            start = await self.database.write(make)
        if hides_columns:
            replica.warnings.append(
                f"{schema.table} has columns that this user may not read, and that are not copied: grant SELECT on the "
                "table, or name the columns to copy in columns"
            )
        return replica, start

    def _reason_to_load(
        self, schema: TableSchema, position: Position, revoked: Sequence[str]
    ) -> tuple[tuple[str, ...], str | None]:
        """The columns that the source no longer has, and why the table must be loaded again; None if it need not.

        revoked: columns that are gone, and may only be hidden from this user. Raises SchemaMismatch for a change that
        the options refuse.
        """
        if revoked:
            self._check_kept(schema, position, revoked)
        dropped: tuple[str, ...] = ()
        reason: str | None = None
        if position.identity != self.identity:
            reason = self.configured_since(position)
        elif position.fingerprint is not None:
            changes = schema_changes.compare_fingerprints(position.fingerprint, schema.fingerprint)
            changes = schema_changes.maybe_revoked(changes, revoked) if revoked else changes
            dropped = schema_changes.dropped(position, schema, changes, self._options)
            # A load under way that has to begin again has promised nothing yet.
            asks = position.phase is Phase.FOLLOW and self._options.on_source_rewind == "error"
            if asks and position.reload not in (None, AWAY):
                raise refusal(str(position.reload), self.stored.name)
            reason = position.reload or self._why_reload(schema, position, changes)
        if reason is None and self.together and position.phase is Phase.LOAD:
            # What a group has read of a load that was cut short is of another moment than what it reads now.
            reason = position.former.why if position.former is not None else "a load was cut short"
        return dropped, reason

    def _why_reload(self, schema: TableSchema, position: Position, found: schema_changes.SchemaChanges) -> str | None:
        """Why these changes make a load necessary; None if they do not. Raises as `must_reload`."""
        # An earlier attempt may have stored the new fingerprint already. What it found is still to be reported.
        self.progress.schema_changes = found.texts or self.progress.schema_changes
        name = self.stored.name
        reload = schema_changes.must_reload(schema.table, position, schema.fingerprint, found, self._options, name=name)
        return ("; ".join(found.texts) or OTHER_FORM) if reload else None

    def _adopts(self, connection: apsw.Connection, *, replica: Target, position: Position) -> bool:
        """Whether the table to write to exists and fits; then the sync writes to it as it is."""
        if self.together:
            return False
        return replica.adopt(connection, shadow=position.into_shadow) and _is_there(connection, replica)

    def _make_table(
        self, connection: apsw.Connection, *, replica: Target, position: Position | None, former: Former | None
    ) -> Start:
        store.check_current(connection, self.stored)
        run = self.stored.unrecorded_run
        assert run is not None, "a sync begins with its run stored"
        start = self._decide(connection, replica=replica, position=position, former=former)
        into_shadow, fresh = start.position.into_shadow, start.position.load_key is None
        replica.match(connection, shadow=into_shadow, fresh=fresh, run_id=run.run_id)
        if self.together and not into_shadow:
            replica.make_stage(connection)
        if not into_shadow:
            store.own_target(connection, replica.name)
        if start.position is not position:
            if not into_shadow:
                # The target is a new table, or one that was not counted yet.
                store.mark_uncounted(connection, self.stored)
            store.save_position(connection, self.stored, start.position)
        return start

    def _decide(
        self, connection: apsw.Connection, *, replica: Target, position: Position | None, former: Former | None
    ) -> Start:
        """How the sync starts, by the tables that are there. position: what to go on from, if they serve."""
        if position is not None:
            replica.table = replica.shadow if position.into_shadow else replica.name
            if _is_there(connection, replica) and not _lacks_column(connection, replica, position):
                return start_from(position)
            # A user may have dropped the table, or one of its columns, or put another in its place: the position says
            # nothing of what is there now.
            former = _former(position, GONE)
        owned = store.owns_target(connection, replica.name)
        if not owned and sqlite_tables.exists(connection, replica.name):
            _check_free(connection, replica)
            replica.check_fit(connection)
        new = Position(identity=self.identity, fingerprint=replica.schema.fingerprint, dropped=tuple(replica.dropped))
        if self.whole(replica.schema):
            return ReplaceWhole(position=replace(new, into_shadow=True))
        if owned or self.together:
            # What is there may hold anything, and may not have today's columns: load beside it, and swap.
            return LoadIntoShadow(position=replace(new, into_shadow=True, former=former))
        return LoadInPlace(position=new)

    def configured_since(self, position: Position) -> str | None:
        """Why the position belongs to another configuration; None if it belongs to this one."""
        return _configured(position.identity, self.identity) if position.identity != self.identity else None

    def check(self, connection: apsw.Connection, replica: Target) -> None:
        """Check, before a run writes, that it still may, and that its table exists. Raises ReplicaChanged."""
        store.check_current(connection, self.stored)
        if not _is_there(connection, replica):
            raise ReplicaChanged(
                f"table {replica.name} was dropped or replaced during the run; the next run makes it again"
            )

    def swap(self, connection: apsw.Connection, replica: Target) -> list[str]:
        """Put the shadow in the target's place. Returns warnings of what no longer fits."""
        _check_free(connection, replica)
        warnings = replica.swap(connection)
        store.own_target(connection, replica.name)
        store.mark_uncounted(connection, self.stored)
        return warnings

    @property
    def _options(self) -> Options:
        return self.stored.replication.options


async def _hides_columns(inspector: Inspector, schema: TableSchema) -> bool:
    return isinstance(inspector, HidingColumns) and await inspector.hides_columns(schema)


def _configured(before: str, now: str) -> str:
    """Why a position belongs to another configuration, in words."""
    old, new = identity.parse_identity(before), identity.parse_identity(now)
    if old.source != new.source:
        return "the source is a different one"
    return f"{', '.join(identity.changed_fields(old, new)) or 'the configuration'} changed"


def _former(position: Position, why: str) -> Former | None:
    """What the replica was built from, as far as its position shows."""
    former = position.former
    if position.into_shadow:
        # The replica is still what it was before that load.
        if former is None:
            return None
        return replace(former, why=why, noted=(former.noted and former.why == why) or position.reload == why, kept=0)
    if position.fingerprint is None:
        return None
    return Former(identity=position.identity, fingerprint=position.fingerprint, why=why, noted=position.reload == why)


def _former_names(position: Position | None, schema: TableSchema) -> list[str]:
    """The replica's last names of the columns that the source still has."""
    if position is None:
        return []
    there = {column.name for column in (*schema.columns, *schema.left_out)}
    shapes = (position.fingerprint, position.former.fingerprint if position.former is not None else None)
    return [
        column[2]
        for fingerprint in shapes
        if fingerprint
        for name, column in fingerprint.columns.items()
        if name in there
    ]


def _is_there(connection: apsw.Connection, replica: Target) -> bool:
    """Whether the table to write to is still the one that this run, or one before it, has made."""
    if replica.table == replica.shadow:
        return sqlite_tables.exists(connection, replica.shadow)
    return store.owns_target(connection, replica.name)


def _lacks_column(connection: apsw.Connection, replica: Target, position: Position) -> bool:
    """Whether a column is missing that an earlier run has filled."""
    filled = position.fingerprint.columns if position.fingerprint is not None else {}
    missing = replica.missing(connection)
    return any(column.name in filled and filled[column.name][2] == column.target for column in missing)


def _check_free(connection: apsw.Connection, replica: Target) -> None:
    """Raise SchemaMismatch if the target is a table with rows that the plugin has not made: it is never touched."""
    if not store.owns_target(connection, replica.name) and sqlite_tables.exists_with_rows(connection, replica.name):
        raise SchemaMismatch(
            f"table {replica.name} exists and contains rows that do not belong to a replica; empty it, or choose "
            "another targetTable"
        )

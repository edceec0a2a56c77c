"""Which columns of a source table are copied, and under which names.

Owns `columns`, `excludeColumns`, `rename`, `types`, `collations` and `keyColumns`.
A pure function of the source's schema and the options. Must not know how rows are read or written.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import replace

from starbase_data_replication.errors import NO_KEY, SchemaMismatch
from starbase_data_replication.model import Column, Options, Row, Rows, TableSchema, as_text
from starbase_data_replication.sources.settings import text_problem

# SQLite's tables have no more columns.
MAX_COLUMNS = 2_000


def selected(schema: TableSchema, options: Options, *, checked: bool = False) -> TableSchema:
    """The part of `schema` that the options select.

    checked: whether these options have fitted the table before, so that they may name a column that is gone since.

    Raises SchemaMismatch, which names the field, for a column that never existed or that must be copied.
    """
    names = {column.name for column in schema.columns}
    if not checked:
        _check_names(schema, options)
    _check_needed(schema, options)
    _check_collations(schema, options)
    chosen = names if options.columns is None else set(options.columns)
    wanted = names & chosen - set(options.exclude_columns)
    _check_count(schema, options, len(wanted))
    key = schema.key if options.key_columns is None else tuple(options.key_columns)
    left_out = "columns" if options.columns is not None else "excludeColumns"
    needed = [(name, "is part of the key") for name in key]
    if options.deleted_column is not None:
        needed.append((options.deleted_column, "is what deletes.sourceColumn names"))
    for name, why in needed:
        if name in names and name not in wanted:
            raise SchemaMismatch(f"{left_out}: {name} of {schema.table} {why}, so it must be copied")
    _check_readable(schema, {*wanted, schema.tracking_column})
    for name in (column.name for column in schema.columns if column.name in wanted):
        # Real servers have no such names. A server that only poses as one, or another plugin's dialect, may.
        if (problem := text_problem(name, control=True)) is not None:
            raise SchemaMismatch(f"the name of column {name!r} of {schema.table} {problem}; rename it at the source")
    transformed = {name for columns in options.transforms.values() for name in columns}
    for name, why in needed:
        if name in transformed:
            raise SchemaMismatch(f"transforms: {name} of {schema.table} {why}, so it must stay as it is")

    def as_copied(column: Column) -> Column:
        renamed, changed = options.rename.get(column.name), column.name in transformed
        kept_as = options.types.get(column.name)
        if kept_as == "datetime":
            column = replace(column, cast=replace(column.cast, select=column.cast.moment))
        elif kept_as == "text" and column.cast.decimal:
            column = replace(column, cast=as_text(column.cast))
        nocase = column.name in options.collations
        if renamed or changed or nocase:
            return replace(column, renamed=renamed, transformed=changed, nocase=nocase)
        return column

    return replace(
        schema,
        columns=tuple(as_copied(column) for column in schema.columns if column.name in wanted),
        left_out=tuple(column for column in schema.columns if column.name not in wanted),
        key=key,
        where=options.where,
    )


def _check_count(schema: TableSchema, options: Options, count: int) -> None:
    """Raises SchemaMismatch if the replica would have more columns than SQLite lets a table have."""
    room = MAX_COLUMNS - (options.mark_column is not None)
    if count > room:
        of_replica = "" if room == MAX_COLUMNS else f": a replica has {MAX_COLUMNS:,}, and one is deletes.mark"
        raise SchemaMismatch(f"columns: choose at most {room:,} of the {count:,} of {schema.table}{of_replica}")


def _check_readable(schema: TableSchema, needed: Set[str]) -> None:
    """Raise SchemaMismatch with the names of unreadable columns: the source's own error names the table at most."""
    hidden = [column.name for column in schema.columns if column.name in needed and not column.readable]
    if not any(column.readable for column in schema.columns):
        raise SchemaMismatch(f"the source's user may not read {schema.table}; GRANT SELECT on it")
    if hidden:
        names = ", ".join(hidden)
        raise SchemaMismatch(
            f"the source's user may not read these columns of {schema.table}: {names}; GRANT SELECT ({names}) on it, "
            "or name them in excludeColumns"
        )


def check_unique(rows: Sequence[Row], schema: TableSchema, options: Options) -> None:
    """Raise SchemaMismatch if two rows of one batch have the same key: the second would silently replace the first.

    Only keyColumns can cause that: any other key is a constraint of the source. Before a load the whole table is
    checked; later rows are only compared with those of their batch.
    """
    if options.key_columns is None or len(rows) < 2:
        return
    places = {column.name: at for at, column in enumerate(schema.columns)}
    key = [places[name] for name in schema.key]
    values = Rows.of(rows, len(rows[0]))
    if len(set(zip(*(values.column(at) for at in key), strict=True))) < len(rows):
        raise SchemaMismatch(f"keyColumns: {NO_KEY.format(table=schema.table)}")


def _check_names(schema: TableSchema, options: Options) -> None:
    present = {column.name for column in schema.columns}
    fields = {
        "columns": options.columns or (),
        "excludeColumns": options.exclude_columns,
        "rename": options.rename,
        "types": options.types,
        "collations": options.collations,
        "transforms": [name for columns in options.transforms.values() for name in columns],
    }
    for field, names in fields.items():
        for name in names:
            if name not in present:
                raise SchemaMismatch(f"{field}: {schema.table} has no column {name}; write it as the source does")
    for column in schema.columns:
        kept_as, cast = options.types.get(column.name), column.cast
        if (kept_as == "text" and not cast.decimal and cast.declared != "TEXT") or (
            kept_as == "datetime" and not cast.moment
        ):
            raise SchemaMismatch(
                f"types: {column.name} of {schema.table} is {column.source_type}; only a decimal can be kept as text, "
                "and only a date with a time as datetime"
            )


def _check_collations(schema: TableSchema, options: Options) -> None:
    """Raise SchemaMismatch unless the source compares these columns without regard to case, and none is in the key."""
    key = schema.key if options.key_columns is None else options.key_columns
    for column in schema.columns:
        if column.name not in options.collations:
            continue
        insensitive = "_ci" in column.collation or "citext" in column.source_type
        if column.cast.declared != "TEXT" or not insensitive:
            raise SchemaMismatch(
                f"collations: the source does not compare {column.name} of {schema.table} without regard to case, "
                "so the replica would answer differently; leave it out"
            )
        if column.name in key:
            raise SchemaMismatch(
                f"collations: {column.name} of {schema.table} is part of the key, which distinguishes upper and "
                "lower case; leave it out, and write COLLATE NOCASE in the query"
            )


def _check_needed(schema: TableSchema, options: Options) -> None:
    """Raise SchemaMismatch if a column is missing that no sync can do without, even if it existed once."""
    present = {column.name for column in schema.columns}
    deleted = [options.deleted_column] if options.deleted_column is not None else []
    for field, names in (("keyColumns", options.key_columns or ()), ("deletes.sourceColumn", deleted)):
        for name in names:
            if name not in present:
                raise SchemaMismatch(f"{field}: {schema.table} has no column {name}; write it as the source does")

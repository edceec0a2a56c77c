"""What of a source table is copied, and under which names: `columns`, `excludeColumns`, `rename`, `keyColumns`.

A pure function of what the source looks like and of the options. Must not know how anything is read or written.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from starbase_data_replication.errors import SchemaMismatch
from starbase_data_replication.model import Column, TableSchema
from starbase_data_replication.options import Options


def selected(schema: TableSchema, options: Options, *, known: Collection[str] = ()) -> TableSchema:
    """The part of `schema` that the options ask for.

    known: columns that were there at an earlier sync: naming one that is gone since is no mistake.

    Raises SchemaMismatch that names the field for a column that was never there, or that must not be left out.
    """
    names = [column.name for column in schema.columns]
    _check_names(schema, options, there={*names, *known})
    wanted = [name for name in names if options.columns is None or name in options.columns]
    wanted = [name for name in wanted if name not in options.exclude_columns]
    key = schema.key if options.key_columns is None else tuple(options.key_columns)
    left_out = "columns" if options.columns is not None else "excludeColumns"
    needed = [(name, "is part of the key") for name in key]
    if options.deleted_column is not None:
        needed.append((options.deleted_column, "is what deletes.sourceColumn names"))
    for name, why in needed:
        if name in names and name not in wanted:
            raise SchemaMismatch(f"{left_out}: {name} of {schema.table} {why}, so it must be copied")
    transformed = {name for columns in options.transforms.values() for name in columns}
    for name in key:
        if name in transformed:
            raise SchemaMismatch(f"transforms: {name} is part of the key of {schema.table}, which must stay as it is")

    def copied(column: Column) -> Column:
        renamed, changed = options.rename.get(column.name), column.name in transformed
        return replace(column, renamed=renamed, transformed=changed) if renamed or changed else column

    return replace(
        schema,
        columns=tuple(copied(column) for column in schema.columns if column.name in wanted),
        left_out=tuple(column for column in schema.columns if column.name not in wanted),
        key=key,
        where=options.where,
    )


def _check_names(schema: TableSchema, options: Options, *, there: Collection[str]) -> None:
    fields = {
        "columns": options.columns or (),
        "excludeColumns": options.exclude_columns,
        "rename": options.rename,
        "transforms": [name for columns in options.transforms.values() for name in columns],
        "deletes.sourceColumn": [options.deleted_column] if options.deleted_column is not None else [],
    }
    for field, names in fields.items():
        for name in names:
            if name not in there:
                raise SchemaMismatch(f"{field}: {schema.table} has no column {name}; write it as the source does")
    present = {column.name for column in schema.columns}
    for name in options.key_columns or ():
        if name not in present:
            raise SchemaMismatch(f"keyColumns: {schema.table} has no column {name}; write it as the source does")

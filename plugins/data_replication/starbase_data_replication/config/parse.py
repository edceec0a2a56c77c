"""The body of `configure`, checked, as a Replication.

Owns how fields depend on one another, on what is stored and on their dialect; `fields` has the fields
themselves. Must not know a dialect's keys, a database or the source: the first sync finds what only a connection can
show.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from starbase_data_replication.config.checks import value_of
from starbase_data_replication.config.fields import FIELDS
from starbase_data_replication.model import Options, Replication
from starbase_data_replication.sources import Dialect
from starbase_data_replication.sources.settings import EVERY, Variables, misspelt, not_allowed, partial_hosts, unmasked
from starbase_host import Conflict, InvalidRequest, did_you_mean, fold_name

# An error names at most so many unknown fields, so that a caller who sends anything gets a short answer.
MAX_UNKNOWN = 20
KEPT_ELSEWHERE = "is masked, and a stored secret is kept only for the same host, port and user; give it again"
# Names users try that are too far from a dialect's name for a suggestion.
ALSO_CALLED = {"mariadb": "is called mysql for MariaDB too; write mysql"}
OPTION_NAMES = frozenset(option.name for option in dataclasses.fields(Options))


def parse(
    body: object,
    *,
    existing: Replication | None,
    dialects: Mapping[str, Dialect],
    variables: Variables = EVERY,
) -> Replication:
    """The replication that a body of `configure` asks for.

    existing: the stored replication of that name, whose values a missing field keeps; None for a new one.
    dialects: by name.
    variables: which variables of the environment a sourceConfig may name.

    Raises one InvalidRequest that names every wrong field.
    """
    if not isinstance(body, Mapping):
        raise InvalidRequest('the body must be a JSON object: {"name": "orders", "sourceConfig": {…}, …}')
    problems = dict(_unknown(body))
    values: dict[str, Any] = {}
    for field in FIELDS:
        if field.json in body:
            value, why = value_of(field, body[field.json])
            values[field.attribute] = value
        else:
            why = "is required" if field.required and existing is None else None
        if why is not None:
            problems[field.json] = why
    problems.update(_source(values, problems, existing=existing, dialects=dialects, variables=variables))
    if problems:
        raise InvalidRequest(fields=problems)
    replication = _merged(values, existing)
    if problems := _dependencies(replication.options):
        raise InvalidRequest(fields=problems)
    return replication


def dialects_of(body: object, existing: Replication | None) -> list[object]:
    """The names of the dialects that `parse` may call, as the body and the stored settings have them."""
    return [each.get("dialect") for each in settings_of(body, existing)]


def settings_of(body: object, existing: Replication | None) -> list[Mapping[str, Any]]:
    """The settings that `parse` may show to a dialect: those of the body, and the stored ones."""
    sent = body.get("sourceConfig") if isinstance(body, Mapping) else None
    found = (sent, existing.source_config if existing is not None else None)
    return [each for each in found if isinstance(each, Mapping)]


def check_target(replication: Replication, targets: Iterable[tuple[str, str]]) -> None:
    """Raise Conflict if another replication has its target. targets: name and target table of every replication."""
    wanted = fold_name(replication.target_table)
    for holder, target in targets:
        if holder != replication.name and fold_name(target) == wanted:
            raise Conflict(f"targetTable {replication.target_table} is already the target of {holder}")


def to_json(replication: Replication, dialect: Dialect) -> dict[str, Any]:
    """The body of `configure` that creates this replication, with every secret as `***`. A caller may send it back."""
    body: dict[str, Any] = {}
    for field in FIELDS:
        owner = replication.options if field.attribute in OPTION_NAMES else replication
        value = getattr(owner, field.attribute)
        body[field.json] = int(value) if isinstance(value, float) and value.is_integer() else value
    return {**body, "sourceConfig": dict(dialect.secret_parts(replication.source_config))}


def check_group(replication: Replication, others: Iterable[Replication], dialects: Mapping[str, Dialect]) -> None:
    """Raise InvalidRequest if another of its group reads from another source: a snapshot has only one source."""
    for other in others:
        if _server(other, dialects) != _server(replication, dialects):
            why = f"has {other.name}, which reads from another source; all replications of a group must read from one"
            raise InvalidRequest(fields={"group": why})


def _server(replication: Replication, dialects: Mapping[str, Dialect]) -> tuple[str, ...] | None:
    """What identifies its server: the identity of a table that every server could have."""
    dialect = dialects.get(replication.dialect)
    if dialect is None:
        return None
    settings = {key: value for key, value in replication.source_config.items() if key != "defaultSchema"}
    database = replication.source_config.get("database") or replication.source_config.get("defaultSchema")
    settings |= {"database": database} if "connectionString" not in settings else {}
    return (replication.dialect, *dialect.identity(settings, "public.t"))


def _dependencies(options: Options) -> dict[str, str]:
    """What is wrong with options that do not fit each other: field to problem."""
    problems: dict[str, str] = {}
    if options.group is not None and options.deletes == "reconcile" and options.mode != "full":
        problems["deletes"] = (
            "must not be reconcile in a group, where rows are removed together or not at all; use mode full, which "
            'follows deletes, or {"mark": …} or {"sourceColumn": …}'
        )
    for name in options.key_columns or ():
        if name in options.exclude_columns or (options.columns is not None and name not in options.columns):
            problems["keyColumns"] = f"names {name}, which is not copied; copy it"
    return problems


def _merged(values: dict[str, Any], existing: Replication | None) -> Replication:
    options = {name: values.pop(name) for name in OPTION_NAMES & set(values)}
    if existing is None:
        return Replication(**values, options=Options(**options))
    return dataclasses.replace(existing, **values, options=dataclasses.replace(existing.options, **options))


def _unknown(body: Mapping[Any, Any]) -> list[tuple[str, str]]:
    known = [field.json for field in FIELDS]
    found = islice((str(key) for key in body if key not in known), MAX_UNKNOWN)
    names = [key[:60].encode("utf-8", "backslashreplace").decode() for key in found]
    return [(name, f"is not a field; {did_you_mean(name, known)}") for name in names]


def _source(
    values: dict[str, Any],
    problems: Mapping[str, str],
    *,
    existing: Replication | None,
    dialects: Mapping[str, Dialect],
    variables: Variables,
) -> dict[str, str]:
    """Check source and table by their dialect, and put stored secrets into `values` where they are masked."""
    settings = values.get("source_config", existing.source_config if existing else None)
    table = values.get("source_table", existing.source_table if existing else None)
    if "sourceConfig" in problems or settings is None:
        return {}
    name = settings.get("dialect")
    if not isinstance(name, str) or name not in dialects:
        known = ", ".join(sorted(dialects))
        if not isinstance(name, str):
            return {"sourceConfig.dialect": f"must be one of {known}"}
        if name.lower() in ALSO_CALLED:
            return {"sourceConfig.dialect": ALSO_CALLED[name.lower()]}
        return {"sourceConfig.dialect": f"is not a dialect; {did_you_mean(name[:60], dialects)}"}
    if not {"source_config", "source_table"} & values.keys():
        # What is stored was checked when it came. Its secrets may be encrypted, and the key lost.
        return {}
    sent = settings
    if existing is not None and "source_config" in values:
        settings = values["source_config"] = _with_secrets(settings, existing.source_config, dialects)
    # A table that is already known to be wrong is not checked twice.
    found = dict(dialects[name].check(settings, "table" if table is None or "sourceTable" in problems else table))
    if not all(type(text) is str for pair in found.items() for text in pair):
        raise TypeError("check did not return a mapping of fields to messages")
    if "source_config" in values:
        found.update(not_allowed(sent, variables))
        found.update(partial_hosts(sent))
        found.update(misspelt(sent))
    if not found and existing is not None and settings != sent and not _same_recipient(settings, existing, dialects):
        keys = [key for key in sent if settings[key] != sent[key]]
        found = {f"sourceConfig.{key}": KEPT_ELSEWHERE for key in keys}
    return found


def _same_recipient(settings: Mapping[str, Any], existing: Replication, dialects: Mapping[str, Dialect]) -> bool:
    """Whether the stored secrets would go to the same server as before.

    Otherwise a caller who cannot read them could have them sent to a server of the caller's choice.
    """

    def recipient(settings: Mapping[str, Any]) -> object:
        dialect = dialects[settings["dialect"]]
        own = getattr(dialect, "recipient", None)
        return dialect.identity(settings, "table") if own is None else own(settings)

    stored = existing.source_config
    if stored["dialect"] != settings["dialect"] or stored["dialect"] not in dialects:
        return False
    return recipient(settings) == recipient(stored)


def _with_secrets(new: Mapping[str, Any], stored: Mapping[str, Any], dialects: Mapping[str, Dialect]) -> dict[str, Any]:
    """`new`, with the stored secrets wherever it has their masked form."""
    dialect = dialects.get(str(stored.get("dialect")))
    shown = {} if dialect is None else dialect.secret_parts(stored)
    return unmasked(_kept(new, stored, shown), stored)


def _kept(new: Mapping[str, Any], stored: Mapping[str, Any], shown: Mapping[str, Any]) -> dict[str, Any]:
    """`new`, with the stored value wherever it has what is shown of that value, at any depth."""
    result = dict(new)
    for key in new.keys() & stored.keys() & shown.keys():
        if all(isinstance(settings[key], Mapping) for settings in (new, stored, shown)):
            result[key] = _kept(new[key], stored[key], shown[key])
        elif shown[key] != stored[key] and new[key] == shown[key]:
            result[key] = stored[key]
    return result

"""`${NAME}` in a sourceConfig: finds references and texts that only look like one, and replaces references.

A `${NAME}` is stored and shown as written. Only `resolve` reads the environment, just before connecting. Inside a
connection string, the value of a variable needs no percent-encoding, and cannot change where the string's parts begin
and end.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from starbase_data_replication.sources.settings.allowed_variables import EVERY, Variables
from starbase_data_replication.sources.settings.connection_string import ConnectionString, split_if_possible
from starbase_host import ENV_REFERENCE, MALFORMED_REFERENCE, InvalidRequest

ONLY_REFERENCES = re.compile(rf"(?:{ENV_REFERENCE.pattern})+\Z")

# A host that is one reference: alone, or with its port in a connection string.
WHOLE_HOST = re.compile(rf"\[?{ENV_REFERENCE.pattern}\]?(?::(?:[0-9]+|{ENV_REFERENCE.pattern}))?\Z")
# Matches a whole text only, because a password may contain `${`.
LIKE_A_REFERENCE = re.compile(r"\$\{(?:[A-Za-z0-9_]*+\Z|.*\}\Z)", re.DOTALL)


def has_reference(value: object) -> bool:
    """Whether this is a string with a `${NAME}`, so that its final form is not known yet."""
    return isinstance(value, str) and ENV_REFERENCE.search(value) is not None


def is_reference(value: object) -> bool:
    """Whether this is a string of only `${NAME}`s, so that it contains no secret itself."""
    return isinstance(value, str) and ONLY_REFERENCES.match(value) is not None


def misspelt(settings: Mapping[str, Any]) -> dict[str, str]:
    """Texts that look like a `${NAME}` but are not one, and so would be taken literally: field to problem."""
    why = (
        "looks like a ${NAME} but is not one: NAME is a letter or _, then letters, digits and _; "
        "if the value itself looks like this, put it into a variable"
    )
    return {
        field: why
        for field, text in _strings("sourceConfig", settings)
        if any(
            LIKE_A_REFERENCE.match(part) and MALFORMED_REFERENCE.search(part)
            for part in _parts(field.removeprefix("sourceConfig."), text)
        )
    }


def partial_hosts(settings: Mapping[str, Any]) -> dict[str, str]:
    """Hosts of which a `${NAME}` is only a part: field to problem.

    `${SECRET}.example.com` would give the variable to the name servers of example.com, before any check of whether a
    source may be there.
    """
    why = "a ${NAME} must be a host's whole name, and not a part of it"
    found = {}
    for key in ("host", "connectionString"):
        text = settings.get(key)
        if not isinstance(text, str):
            continue
        parts = split_if_possible(text) if key == "connectionString" else None
        hosts = [text] if key == "host" else [] if parts is None else [parts.hosts]
        if parts is not None:
            hosts += [value for name, value in parts.parameters or () if name == "host"]
        each = [host for listed in hosts for host in listed.split(",")]
        if any(ENV_REFERENCE.search(host) and not WHOLE_HOST.match(host) for host in each):
            found[f"sourceConfig.{key}"] = why
    return found


def not_allowed(settings: Mapping[str, Any], variables: Variables) -> dict[str, str]:
    """Variables that these settings may not name: field to problem, with the fix."""
    found = {}
    for field, text in _strings("sourceConfig", settings):
        reasons = (variables.why_not(name) for name in sorted(set(ENV_REFERENCE.findall(text))))
        if (why := next((reason for reason in reasons if reason is not None), None)) is not None:
            found[field] = why
    return found


def _parts(key: str, text: str) -> list[str]:
    """A text and, if it is a connection string, its parts."""
    parts = split_if_possible(text) if key == "connectionString" else None
    if parts is None:
        return [text]
    values = [value for _, value in parts.parameters or ()]
    return [text, parts.user or "", parts.password or "", parts.hosts, parts.database or "", *values]


def resolve(
    settings: Mapping[str, Any], environ: Mapping[str, str] | None = None, *, variables: Variables = EVERY
) -> dict[str, Any]:
    """Replace every `${NAME}` in the settings by its value.

    environ: the environment; None is that of the process. variables: which ones may be named.

    Call it only to connect, and never store the result. Raises InvalidRequest that names every field whose variable
    may not be named, is not set, or is only a part of a host.
    """
    values = os.environ if environ is None else environ
    missing: dict[str, str] = {}
    for field, text in _strings("sourceConfig", settings):
        names = set(ENV_REFERENCE.findall(text))
        unset = sorted(name for name in names if name not in values)
        if unset:
            what = f"variable {unset[0]} is" if len(unset) == 1 else f"variables {', '.join(unset)} are"
            missing[field] = f"the environment {what} not set; set it for the host's process, and start that again"
    missing.update(partial_hosts(settings))
    # Last, so that it replaces any other problem of a field: the error must not even show whether the variable is set.
    missing.update(not_allowed(settings, variables))
    if missing:
        raise InvalidRequest(fields=missing)
    return {key: _fill(key, value, values) for key, value in settings.items()}


def referenced(settings: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables that the settings name, with their values, without those that are not set."""
    values = os.environ if environ is None else environ
    names = {name for _, text in _strings("sourceConfig", settings) for name in ENV_REFERENCE.findall(text)}
    return {name: values[name] for name in sorted(names) if name in values}


def _strings(field: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield field, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _strings(f"{field}.{key}", item)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _strings(f"{field}[{index}]", item)


def _fill(key: str, value: Any, values: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {name: _fill(name, item, values) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_fill(key, item, values) for item in value]
    if not has_reference(value):
        return value
    parts = split_if_possible(value) if key == "connectionString" else None
    return _substitute(value, values) if parts is None else str(_fill_parts(parts, values))


def _substitute(text: str, values: Mapping[str, str], *, safe: str | None = None) -> str:
    """Replace references by their values, percent-encoded except for `safe`; None does not encode."""
    return ENV_REFERENCE.sub(lambda at: values[at[1]] if safe is None else quote(values[at[1]], safe=safe), text)


def _fill_parts(parts: ConnectionString, values: Mapping[str, str]) -> ConnectionString:
    """Fill each part separately, with encoded values, so that no character of a value can end its part."""

    def fill(text: str | None) -> str | None:
        return None if text is None else _substitute(text, values, safe="")

    parameters = parts.parameters
    if parameters is not None:
        parameters = tuple((name, _substitute(value, values, safe="")) for name, value in parameters)
    # A variable may contain several hosts, or one with its port, so these marks keep their meaning.
    hosts = _substitute(parts.hosts, values, safe=":,[]")
    return replace(
        parts,
        user=fill(parts.user),
        password=fill(parts.password),
        hosts=hosts,
        database=fill(parts.database),
        parameters=parameters,
    )

"""What every dialect does alike with a sourceConfig: `${NAME}`, secrets, TLS contexts.

Owns how a secret is recognised, shown, kept and scrubbed. Must not know any dialect's keys, but for the two
that all share: `password` and `connectionString`.

A secret is a private key's text, or a password that stands there in plain, as `password` or inside
`connectionString` (before the `@`, or as a parameter `password`). A `${NAME}` is none: it is stored and shown as
written, and read from the environment only by `resolve`, just before connecting. Inside a connection string the
variable's value stands for itself: it needs no percent-encoding, and cannot change where the string's parts begin
and end.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus, unquote_plus

from starbase_data_replication.sources.connection_string import ConnectionString, decode, split
from starbase_host import ConfigError, InvalidRequest

MASK = "***"
MAX_PATH = 500
# Opens every stored secret; whoever may configure must not be able to have it sent to a server of their own.
SECRET_KEY = "STARBASE_SECRET_KEY"
REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
ONLY_REFERENCES = re.compile(rf"(?:{REFERENCE.pattern})+\Z")

NO_REFERENCE = re.compile(rf"(?!{REFERENCE.pattern})\$\{{")
# The whole of a text: a password may well hold `${` somewhere.
LIKE_A_REFERENCE = re.compile(r"\$\{(?:.*\}|[A-Za-z0-9_]*)\Z", re.DOTALL)


def has_reference(value: object) -> bool:
    """True for a string that holds a `${NAME}`, whose final form is therefore not known yet."""
    return isinstance(value, str) and REFERENCE.search(value) is not None


def is_reference(value: object) -> bool:
    """True for a string that is nothing but `${NAME}`s, so that it shows no secret itself."""
    return isinstance(value, str) and ONLY_REFERENCES.match(value) is not None


def misspelt(settings: Mapping[str, Any]) -> dict[str, str]:
    """What looks like a `${NAME}` and is none, so that it would be taken letter by letter: field to mend."""
    why = (
        "looks like a ${NAME} and is none: NAME is a letter or _, then letters, digits and _; "
        "a text like this is read from a variable"
    )
    return {
        field: why
        for field, text in _strings("sourceConfig", settings)
        if any(
            LIKE_A_REFERENCE.match(part) and NO_REFERENCE.search(part)
            for part in _parts(field.removeprefix("sourceConfig."), text)
        )
    }


def _parts(key: str, text: str) -> list[str]:
    """A text, and where it is a connection string, what stands between its marks too."""
    parts = _split(text) if key == "connectionString" else None
    if parts is None:
        return [text]
    values = [value for _, value in parts.parameters or ()]
    return [text, parts.user or "", parts.password or "", parts.hosts, parts.database or "", *values]


def resolve(settings: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The settings with every `${NAME}` read from the environment.

    Call it only to connect, and never store the result. Raises InvalidRequest that names every field whose
    variable is not set.
    """
    values = os.environ if environ is None else environ
    missing: dict[str, str] = {}
    for field, text in _strings("sourceConfig", settings):
        names = set(REFERENCE.findall(text))
        if SECRET_KEY in names:
            missing[field] = f"the environment variable {SECRET_KEY} may not be used here"
            continue
        unset = sorted(name for name in names if name not in values)
        if unset:
            what = f"variable {unset[0]} is" if len(unset) == 1 else f"variables {', '.join(unset)} are"
            missing[field] = f"the environment {what} not set; set it for the host's process, and start that again"
    if missing:
        raise InvalidRequest(fields=missing)
    return {key: _fill(key, value, values) for key, value in settings.items()}


def referenced(settings: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables that the settings name, with their values; those that are not set are left out."""
    values = os.environ if environ is None else environ
    names = {name for _, text in _strings("sourceConfig", settings) for name in REFERENCE.findall(text)}
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
    parts = _split(value) if key == "connectionString" else None
    return _substitute(value, values) if parts is None else str(_fill_parts(parts, values))


def _substitute(text: str, values: Mapping[str, str], *, safe: str | None = None) -> str:
    """Put the variables' values in; percent-encoded but for `safe`, unless that is None."""
    return REFERENCE.sub(lambda at: values[at[1]] if safe is None else quote(values[at[1]], safe=safe), text)


def _fill_parts(parts: ConnectionString, values: Mapping[str, str]) -> ConnectionString:
    """Fill each part by itself, the values encoded, so that no character of a value can end its part."""

    def fill(text: str | None) -> str | None:
        return None if text is None else _substitute(text, values, safe="")

    parameters = parts.parameters
    if parameters is not None:
        parameters = tuple((name, _substitute(value, values, safe="")) for name, value in parameters)
    # In the place of hosts a variable may hold several, or one with its port: these marks keep their meaning.
    hosts = _substitute(parts.hosts, values, safe=":,[]")
    return replace(
        parts,
        user=fill(parts.user),
        password=fill(parts.password),
        hosts=hosts,
        database=fill(parts.database),
        parameters=parameters,
    )


def _split(text: object) -> ConnectionString | None:
    try:
        return split(text) if isinstance(text, str) else None
    except ValueError:
        return None


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
        parts = _split(text)
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
    parts = _split(result.get("connectionString"))
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
        texts = REFERENCE.split(password)
        encoded = "".join(f"${{{text}}}" if at % 2 else quote(text, safe="") for at, text in enumerate(texts))
        return password, encoded
    found = _passwords(_split(stored.get("connectionString")))
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
    """Every secret as it may turn up in a message: as written and percent-decoded; the longest first."""
    password, text = settings.get("password"), settings.get("connectionString")
    found = {value for name, value in settings.items() if name != "connectionString" and _is_private_key(value)}
    if isinstance(password, str):
        found.update((password, password if is_reference(password) else quote(password, safe="")))
    parts = _split(text)
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


def scrub(message: str, hidden: Iterable[str]) -> str:
    """A message with every secret in it as `***`, however it is escaped there.

    `hidden` comes from `secrets` of the resolved settings.
    """
    forms = {form for secret in hidden for form in _forms(secret)}
    for form in sorted(forms, key=lambda form: (-len(form), form)):
        message = message.replace(form, MASK)
    return message


def is_pem(text: object) -> bool:
    """Whether a setting holds certificates themselves, and not the name of a file."""
    return isinstance(text, str) and text.lstrip().startswith("-----BEGIN ")


def _forms(secret: str) -> Iterator[str]:
    """A secret as it may be written: as it is, for a URL, in JSON, in Python's and SQL's quotes, in base64."""
    yield secret
    yield quote(secret, safe="", errors="replace")
    yield quote(secret, errors="replace")
    yield quote_plus(secret, errors="replace")
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    yield repr(secret)[1:-1]
    yield ascii(secret)[1:-1]
    yield secret.replace("'", "''")
    yield base64.b64encode(secret.encode(errors="replace")).decode()


def tls_context(
    *, verify: bool, hostname: bool, files: Mapping[str, str | None], ca: str, cert: str, key: str
) -> ssl.SSLContext:
    """A client's TLS context of 1.2 or newer. Raises ConfigError for a file that cannot be used.

    files: settings by name; `ca`, `cert` and `key` are the names of the three. That of `ca` may be the certificates
    themselves, as PEM. Without one, or with `system`, the machine's own certificates are trusted.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = hostname
    context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    trusted, certificate = files[ca], files[cert]
    if verify and is_pem(trusted):
        with _using(ca, "the certificate"):
            context.load_verify_locations(cadata=trusted)
    elif verify and trusted is not None and trusted != "system":
        with _using(ca, trusted):
            context.load_verify_locations(cafile=trusted)
    elif verify:
        context.load_default_certs()
    if certificate is not None:
        for field in (cert, key):
            # OpenSSL does not say which of the two it has not found.
            if (path := files[field]) is not None:
                with _using(field, path):
                    Path(path).open("rb").close()
        with _using(cert, certificate):
            # An empty password: without one, OpenSSL would ask on the terminal for that of an encrypted key.
            context.load_cert_chain(certificate, files[key], password="")
    return context


@contextlib.contextmanager
def _using(field: str, path: str) -> Iterator[None]:
    """Raises ConfigError, which names the field and the file, for one that cannot be used inside."""
    try:
        yield
    except OSError as error:
        # What is no file's name may be anything, a key among them.
        shown = path if len(path) <= MAX_PATH else f"a text of {len(path)} characters"
        raise ConfigError(f"sourceConfig.{field}", f"{shown} cannot be used: {error.strerror or error}") from None

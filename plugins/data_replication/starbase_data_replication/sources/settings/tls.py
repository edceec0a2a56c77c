"""A client's TLS context, from what a sourceConfig says of certificates; and the files that it names.

An admin chooses the names over HTTP. So only regular files are read, and without waiting; and the error is the same
whatever is wrong with a file, so that it does not show what there is on the machine. The host's log does.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import ssl
import stat
from collections.abc import Iterator, Mapping

from starbase_data_replication.sources.settings.names import is_pem
from starbase_host import ConfigError

log = logging.getLogger("starbase.data_replication")

MAX_PATH = 500
MAX_BYTES = 1024 * 1024
WHY = "must be a regular file of at most 1 MiB that the host may read, with {}; the host's log says what is wrong"
AUTHORITIES = "certificates as PEM"
PAIR = "a certificate and its private key as PEM, the key without a password"


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
    if verify and trusted is not None and is_pem(trusted):
        try:
            context.load_verify_locations(cadata=trusted)
        except OSError as error:
            raise ConfigError(f"sourceConfig.{ca}", f"the certificate cannot be used: {error}") from None
    elif verify and trusted is not None and trusted != "system":
        with using(ca, AUTHORITIES, trusted) as (place,):
            context.load_verify_locations(cafile=place)
    elif verify:
        context.load_default_certs()
    if certificate is not None:
        # One error for both: which of them it names would tell whether the other is there.
        paths = [path for path in (certificate, files[key]) if path is not None]
        with using(cert, PAIR, *paths) as places:
            # An empty password: without one, OpenSSL would ask on the terminal for that of an encrypted key.
            context.load_cert_chain(places[0], places[1] if len(places) > 1 else None, password="")
    return context


@contextlib.contextmanager
def using(field: str, content: str, *paths: str) -> Iterator[list[str]]:
    """Where the files can be read, by OpenSSL too, while they are open. Raises ConfigError when that, or what is done,
    fails."""
    with contextlib.ExitStack() as stack:
        # What is no file's name may be anything, a key among them.
        plain = [len(path) <= MAX_PATH and path.isprintable() for path in paths]
        shown = [
            path if as_it_is else f"a text of {len(path)} characters"
            for path, as_it_is in zip(paths, plain, strict=True)
        ]
        places: list[str] = []
        try:
            for path in paths:
                places.append(stack.enter_context(_opened(path)))
            yield places
        except (OSError, ValueError) as error:
            at = shown[len(places)] if len(places) < len(shown) else " and ".join(shown)
            log.warning("sourceConfig.%s: %r cannot be used: %s", field, at, error)
            why = f"{' and '.join(shown)} cannot be used: {'each' if len(paths) > 1 else 'it'} {WHY.format(content)}"
            raise ConfigError(f"sourceConfig.{field}", why) from None


@contextlib.contextmanager
def _opened(path: str) -> Iterator[str]:
    """A name under which the file that was judged is read, and no other that takes its place meanwhile.

    Raises OSError; ValueError for a name with NUL.
    """
    # To open a pipe waits for somebody who writes, and to open a device can do anything.
    _check(os.stat(path))
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        _check(os.fstat(descriptor))
        # OpenSSL takes names only. Not /dev/fd: but on Linux, it goes on where the last reader has stopped.
        same = f"/proc/self/fd/{descriptor}"
        yield same if os.path.exists(same) else path
    finally:
        os.close(descriptor)


def _check(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OSError("not a regular file")
    # A file of the kernel's says that it is regular, and reading it may wait for ever, as reading its log does.
    if found.st_size == 0 or found.st_dev in _kernel_devices():
        raise OSError("empty, or a file of the kernel's")
    if found.st_size > MAX_BYTES:
        raise OSError(f"holds {found.st_size:,} bytes")


@functools.cache
def _kernel_devices() -> frozenset[int]:
    return frozenset(os.stat(place).st_dev for place in ("/proc", "/sys") if os.path.isdir(place))

"""A client's TLS context, made from the certificates of a sourceConfig, and the files that it names.

An admin chooses the files over HTTP. So only regular files are read, without waiting. The error is the same whatever is
wrong with a file, so that it does not reveal what is on the machine; the host's log has the reason.
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

# In characters. A longer text may be a key that was pasted in the wrong place, so no message shows it.
MAX_PATH = 500
# A bundle of all public authorities has about 250 kB.
MAX_BYTES = 1024 * 1024
WHY = "must be a regular file of at most 1 MiB that the host may read, with {}; the host's log says what is wrong"
AUTHORITIES = "certificates as PEM"
PAIR = "a certificate and its private key as PEM, the key without a password"


def tls_context(
    *, verify: bool, hostname: bool, files: Mapping[str, str | None], ca: str, cert: str, key: str
) -> ssl.SSLContext:
    """Make a client's context for TLS 1.2 or newer. Raises ConfigError for a file that cannot be used.

    verify: whether to check the server's certificate.
    hostname: whether to check that the certificate is for this host.
    files: the settings by name. That of `ca` may be the text of certificates (PEM). If it is missing or `system`, the
        machine's own certificates are trusted.
    ca, cert, key: the names of these settings, for messages too.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    leave_out_dhe(context)
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
        # One error for both: naming one of them would reveal whether the other exists.
        paths = [path for path in (certificate, files[key]) if path is not None]
        with using(cert, PAIR, *paths) as places:
            # An empty password: without one, OpenSSL would ask on the terminal for that of an encrypted key.
            context.load_cert_chain(places[0], places[1] if len(places) > 1 else None, password="")
    return context


def leave_out_dhe(context: ssl.SSLContext) -> None:
    """Take the ciphers with a Diffie-Hellman group of the server's choice out of a client's context.

    The server chooses how long its numbers are, and OpenSSL computes with them on the event loop: with 10,000 bits, for
    seconds. Elliptic curves and TLS 1.3 have fixed groups.
    """
    kept = [cipher["name"] for cipher in context.get_ciphers() if cipher["kea"] != "kx-dhe"]
    context.set_ciphers(":".join(kept))


@contextlib.contextmanager
def using(field: str, content: str, *paths: str) -> Iterator[list[str]]:
    """Open files, and give the paths under which OpenSSL can read them.

    field: the setting that names them. content: what they must contain, for the message.

    Raises ConfigError if a file cannot be opened, or if the body of the context raises OSError or ValueError.
    """
    with contextlib.ExitStack() as stack:
        # A text that cannot be a file's name may be anything, even a key.
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
    """A path that leads to the file that was checked, even if another file takes its place meanwhile.

    Raises OSError; ValueError for a name with NUL.
    """
    # Opening a pipe waits for a writer, and opening a device can do anything.
    _check(os.stat(path))
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        _check(os.fstat(descriptor))
        # OpenSSL takes only names. Not /dev/fd: outside Linux, a second reader goes on where the first one stopped.
        same = f"/proc/self/fd/{descriptor}"
        yield same if os.path.exists(same) else path
    finally:
        os.close(descriptor)


def _check(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OSError("not a regular file")
    # A file of the kernel's says that it is regular, and reading it may wait for ever, as reading its log does.
    if found.st_size == 0 or found.st_dev in _kernel_devices():
        raise OSError("empty, or a file that the kernel makes")
    if found.st_size > MAX_BYTES:
        raise OSError(f"contains {found.st_size:,} bytes")


@functools.cache
def _kernel_devices() -> frozenset[int]:
    return frozenset(os.stat(place).st_dev for place in ("/proc", "/sys") if os.path.isdir(place))

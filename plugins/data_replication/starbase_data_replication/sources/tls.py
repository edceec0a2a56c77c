"""A client's TLS context, from what a sourceConfig says of certificates."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path

from starbase_data_replication.sources.texts import is_pem
from starbase_host import ConfigError

MAX_PATH = 500


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

"""A certificate authority of the tests, and what it signs, as files: for a server, for a client, expired."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme


class Authority:
    """Signs, and writes PEM files into its directory, which a server's account may read."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._authority = trustme.CA()
        self.path = directory / "ca.pem"
        self.text = self._authority.cert_pem.bytes().decode()
        self.path.write_text(self.text)

    def issue(
        self, name: str, *, common_name: str = "127.0.0.1", days: int = 30, owner: int | None = None
    ) -> tuple[Path, Path]:
        """A certificate and its key: `name`.pem and `name`.key. With less than 0 days it has expired."""
        now = datetime.now(UTC)
        issued = self._authority.issue_cert(
            common_name,
            common_name=common_name,
            not_before=now - timedelta(days=60),
            not_after=now + timedelta(days=days),
        )
        paths = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        issued.cert_chain_pems[0].write_to_path(paths[0])
        issued.private_key_pem.write_to_path(paths[1])
        paths[1].chmod(0o600)
        if owner is not None:
            for path in paths:
                os.chown(path, owner, -1)
        return paths

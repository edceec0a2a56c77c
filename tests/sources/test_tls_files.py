"""The files that a sourceConfig names for TLS: none makes the host wait, nor tells what there is on the machine."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import Authority
from tests.support.hosts import HostProcess, running

# Nothing listens on port 1: the files are read before anybody connects.
AT = {"host": "127.0.0.1", "port": 1, "user": "u", "password": "not-to-be-seen", "database": "d"}
POSTGRESQL = {"dialect": "postgresql", **AT, "sslmode": "require"}
MYSQL = {"dialect": "mysql", **AT, "sslMode": "REQUIRED"}
# What names the files, and the setting that the error is of.
NAMED: dict[str, tuple[dict[str, Any], str]] = {
    "sslrootcert": ({**POSTGRESQL, "sslrootcert": "FILE"}, "sslrootcert"),
    "sslcert": ({**POSTGRESQL, "sslcert": "FILE"}, "sslcert"),
    "sslkey": ({**POSTGRESQL, "sslcert": "GOOD", "sslkey": "FILE"}, "sslcert"),
    "connectionString": (
        {
            "dialect": "postgresql",
            "connectionString": "postgresql://u:not-to-be-seen@127.0.0.1:1/d?sslmode=verify-ca&sslrootcert=FILE",
        },
        "sslrootcert",
    ),
    "sslCa": ({**MYSQL, "sslMode": "VERIFY_CA", "sslCa": "FILE"}, "sslCa"),
    "sslCert": ({**MYSQL, "sslCert": "FILE"}, "sslCert"),
    "sslKey": ({**MYSQL, "sslCert": "GOOD", "sslKey": "FILE"}, "sslCert"),
}


@pytest.fixture(scope="module", name="files")
def _files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What cannot be used, by what is wrong with it; and under `good` a certificate without its key."""
    directory = tmp_path_factory.mktemp("files")
    authority = Authority(directory)
    good, _ = authority.issue("good")
    authority.issue("other")
    os.mkfifo(directory / "pipe")
    (directory / "link").symlink_to(directory / "pipe")
    (directory / "text").write_text("root:x:0:0:a line of a file that is no certificate\n")
    (directory / "large").write_bytes(authority.text.encode() + b"\n" * 1_100_000)
    return {
        "good": str(good), "missing": str(directory / "missing"), "under a file": f"{good}/missing",
        "a directory": str(directory), "a pipe": str(directory / "pipe"), "a link to a pipe": str(directory / "link"),
        "a device that waits": "/dev/ptmx", "a device without end": "/dev/zero", "not PEM": str(directory / "text"),
        "too large": str(directory / "large"), "a regular file that cannot be read": "/proc/self/mem",
        # A reader of the kernel's own file waits until it has something to say.
        "the kernel's log": "/proc/kmsg", "a file of the kernel's": "/sys/kernel/notes",
        "not ASCII": str(directory / "é\u202e"),
    }  # fmt: skip


@pytest.fixture(scope="module", name="host")
def _host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    with running(tmp_path_factory.mktemp("host")) as host:
        yield host


def settings_of(named: str, files: dict[str, str], path: str) -> dict[str, Any]:
    settings, _ = NAMED[named]
    return {
        key: value.replace("FILE", path).replace("GOOD", files["good"]) if isinstance(value, str) else value
        for key, value in settings.items()
    }


@pytest.mark.parametrize("named", NAMED)
def test_a_file_that_cannot_be_used(host: HostProcess, files: dict[str, str], named: str) -> None:
    errors = set()
    for path in [path for what, path in files.items() if what != "good"]:
        config = settings_of(named, files, path)
        host.configure(
            name=named, sourceConfig=config, sourceTable="t", targetTable=f"t{named.encode().hex()}", isActive=False
        )
        began = time.monotonic()
        response = host.request("POST", f"/data-replication/sync/{named}")
        assert time.monotonic() - began < 5
        assert response.status_code in (400, 502), response.text
        error = str(response.json()["error"])
        assert f"sourceConfig.{NAMED[named][1]}: " in error
        assert "No such file" not in error
        shown = path if path.isprintable() else f"a text of {len(path)} characters"
        errors.add(error.replace(f"{shown} cannot", "FILE cannot").replace(files["good"], "GOOD"))
    assert len(errors) == 1, errors
    (error,) = errors
    assert "must be a regular file of at most 1 MiB that the host may read, with " in error
    # Of each its log says what it is.
    for why in ("No such file", "not a regular file", "1,10", "PEM"):
        assert why in host.log, why


def test_another_files_key_is_one_that_cannot_be_used(host: HostProcess, files: dict[str, str]) -> None:
    other = files["good"].replace("good", "other")
    errors = []
    for path in (other, files["missing"]):
        config = {**POSTGRESQL, "sslcert": files["good"], "sslkey": path}
        host.configure(name="pair", sourceConfig=config, sourceTable="t", targetTable="pair", isActive=False)
        errors.append(host.request("POST", "/data-replication/sync/pair").json()["error"].replace(path, "FILE"))
    assert errors[0] == errors[1]


def test_the_command_line_does_not_wait_for_a_pipe(tmp_path: Path, files: dict[str, str]) -> None:
    """Without a host, it reads the files itself."""
    host = HostProcess(tmp_path)
    (tmp_path / "pipe.json").write_text(
        '{"name": "t", "sourceTable": "t", "targetTable": "t", "isActive": false, "sourceConfig": '
        f'{{"dialect": "postgresql", "host": "127.0.0.1", "port": 1, "user": "u", "sslmode": "verify-ca", '
        f'"sslrootcert": "{files["a pipe"]}"}}}}'
    )
    assert host.command("replication", "configure", str(tmp_path / "pipe.json")).returncode == 0
    began = time.monotonic()
    ended = host.command("replication", "sync", "t")
    assert time.monotonic() - began < 10
    assert ended.returncode != 0
    assert "must be a regular file of at most 1 MiB" in ended.stderr

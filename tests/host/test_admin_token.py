"""The admin token that the host makes: it is there whole or not at all, only its owner reads it, and none is hidden."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.hosts import ADMIN, CONFIG, HostProcess

TOKENLESS = CONFIG.replace(f'admin_token = "{ADMIN}"\n', "")


def host_in(directory: Path) -> tuple[HostProcess, Path]:
    """A host without a token of its configuration, and the file where it keeps its own."""
    host = HostProcess(directory, TOKENLESS)
    host.database.parent.mkdir()
    return host, host.database.with_name("starbase.db.admin-token")


def status_of(host: HostProcess, file: Path) -> int:
    return host.request("GET", "/status", token=file.read_text().strip()).status_code


@pytest.mark.parametrize("left", ["", "\n"])
def test_an_unfinished_token_file_gets_a_new_token(tmp_path: Path, left: str) -> None:
    """As a crash or a full disk has left it."""
    host, file = host_in(tmp_path)
    file.write_text(left)
    with host:
        assert status_of(host, file) == 200
        assert len(file.read_text().strip()) >= 32
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert host.command("replication", "list").returncode == 0
        assert [each.name for each in file.parent.glob("*token*")] == [file.name]


def test_a_token_that_cannot_be_written_leaves_none(tmp_path: Path) -> None:
    """What cannot be written whole does not stand there by half, and the next start makes it."""
    host, file = host_in(tmp_path)
    file.with_name(file.name + ".new").mkdir()
    answer = host.command("serve")
    assert answer.returncode == 2, answer.stderr
    assert f"{file} cannot be written: " in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert not file.exists()
    file.with_name(file.name + ".new").rmdir()
    with host:
        assert status_of(host, file) == 200


def dangling(file: Path) -> None:
    file.symlink_to("nowhere")


def circle(file: Path) -> None:
    file.symlink_to(file)


def holding(content: bytes) -> Callable[[Path], None]:
    def make(file: Path) -> None:
        file.write_bytes(content)
        file.chmod(0o600)

    return make


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "a space inside": (holding(b"two words\n"), "does not hold a token"),
    "two lines": (holding(b"one\ntwo\n"), "does not hold a token"),
    "no text": (holding(b"\xff\xfe\x00"), "does not hold a token"),
    "another alphabet": (holding("tökén".encode()), "does not hold a token"),
    "a directory": (Path.mkdir, "is not a regular file"),
    "a pipe": (os.mkfifo, "is not a regular file"),
    "a link to nothing": (dangling, "is a link to a file that does not exist"),
    "a link to itself": (circle, "cannot be read"),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_invalid_token_file_stops_the_start_with_one_line(tmp_path: Path, case: str) -> None:
    make, expected = WRONG[case]
    host, file = host_in(tmp_path)
    make(file)
    for words in (("serve",), ("replication", "list")):
        answer = host.command(*words)
        assert answer.returncode == 2, answer.stderr
        assert answer.stderr.startswith(f"starbase: {file} {expected}")
        assert "remove it" in answer.stderr
        assert "two words" not in answer.stderr
        assert answer.stderr.count("\n") == 1, answer.stderr


def test_a_token_that_others_can_read_is_taken_from_them(tmp_path: Path) -> None:
    host, file = host_in(tmp_path)
    file.write_text("a-token-that-somebody-copied-here\n")
    file.chmod(0o644)
    with host:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert status_of(host, file) == 200
        assert "other users could read" in host.log
        assert "a-token-that" not in host.log


def test_that_a_token_was_made_is_said_only_then(tmp_path: Path) -> None:
    host, file = host_in(tmp_path)
    command = [sys.executable, "-m", "starbase_host.cli", "--config", str(host.config_path), "serve"]
    for words in ("no admin_token is set; the host made one: ", "no admin_token is set; it is the one in "):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            said = process.stdout.readline()
            process.terminate()
        assert said == f"starbase: {words}{file}\n"


def test_a_token_file_that_is_gone_while_the_host_runs(tmp_path: Path) -> None:
    """A command makes none that the host does not know: it would be refused, now and after a restart by the other."""
    host, file = host_in(tmp_path)
    with host:
        file.unlink()
        answer = host.command("replication", "list")
        assert answer.returncode == 2, answer.stderr
        assert f"{file} holds " in answer.stderr
        assert "restart the host" in answer.stderr
        assert not file.exists()
        host.stop()
        host.start()
        assert host.command("replication", "list").returncode == 0

"""Whose files the host takes for its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from starbase_host.modes import is_of_another
from tests.support.hosts import ADMIN, CONFIG, HostProcess

ANOTHER = 2001


@pytest.mark.parametrize(
    ("owner", "user", "expected"),
    [(ANOTHER, 0, True), (0, 0, False), (1000, 1000, False), (0, 1000, False), (ANOTHER, 1000, False)],
    ids=["another's, as root", "root's, as root", "its own", "root's", "shared through a group"],
)
def test_whose_files_are_refused(owner: int, user: int, expected: bool) -> None:
    assert is_of_another(owner, user) is expected


@pytest.mark.parametrize("suffix", ["", ".admin-token"], ids=["the database", "the token"])
def test_root_refuses_a_file_of_another_user(tmp_path: Path, suffix: str) -> None:
    """Run as another user, the test sees that the host starts on its own files. SQLite itself takes back a WAL."""
    host = HostProcess(tmp_path, CONFIG.replace(f'admin_token = "{ADMIN}"\n', ""))
    with host:
        host.kill()
    file = host.database.with_name(host.database.name + suffix)
    assert file.exists()
    if os.geteuid() != 0:
        host.start().stop()
        return
    os.chown(file, ANOTHER, -1)
    answer = host.command("serve")
    assert answer.returncode == 2, answer.stderr
    assert f"{file} belongs to the user {ANOTHER}, and this process runs as root; run the host as" in answer.stderr
    os.chown(file, 0, -1)
    host.start().stop()

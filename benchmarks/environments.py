"""Environments of their own, in .bench/, for the tools and for the product as a user installs it.

Git ignores .bench/, and it may be removed at any time.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
import subprocess
import venv
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import Failed, say

ROOT = Path(__file__).parent.parent
ENVIRONMENTS = ROOT / ".bench"
INSTALL_SECONDS = 600.0


def installed(name: str, requirements: Sequence[str], *, stamp: str) -> Path:
    """The directory of an environment's programs, made again if its stamp has changed. Raises Failed."""
    directory = ENVIRONMENTS / name
    there = directory / "requirements"
    if not there.exists() or there.read_text() != stamp:
        say(f"installing {', '.join(requirements)}")
        shutil.rmtree(directory, ignore_errors=True)
        venv.create(directory, with_pip=True)
        pip = [str(directory / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        command = [*pip, "--prefer-binary", *requirements]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS)
        except subprocess.TimeoutExpired:
            raise Failed(f"could not be installed within {INSTALL_SECONDS:g} s") from None
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise Failed(f"cannot be installed: {lines[-1] if lines else 'pip failed'}")
        there.write_text(stamp)
    return directory / "bin"


@functools.cache
def product() -> Path:
    """The directory of `starbase`, installed from this tree: no tool of its development is beside it."""
    parts = [*(ROOT / "host").rglob("*"), *(ROOT / "plugins").rglob("*")]
    digest = hashlib.sha256((ROOT / "pyproject.toml").read_bytes())
    for path in sorted(parts):
        if path.suffix in (".py", ".sql"):
            digest.update(str(path.relative_to(ROOT)).encode())
            digest.update(path.read_bytes())
    return installed("product", [str(ROOT)], stamp=digest.hexdigest())

"""Runs every test, the long proofs too, and writes docs/internals/proofs.md and docs/reference/supported.md.

A test adds to the page with pytest's `record_property`: "server" the version of a server it ran on, "seeds"
the seeds it tried; "met", of which server and version its database was, is added to each by
tests/conftest.py. The pages are written for a failed run as well; only an interrupted one leaves them alone.
"""

from __future__ import annotations

import os
import platform
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "internals" / "proofs.md"
SLOWEST = 15
SUPPORTED = ROOT / "docs" / "reference" / "supported.md"
INTERRUPTED = 2
INTRO = "The result of the last `make prove`: every test, including the long proofs, with a new seed."


@dataclass(frozen=True)
class Case:
    name: str
    seconds: float
    outcome: str
    properties: list[tuple[str, str]]


def read_cases(report: Path) -> list[Case]:
    if not report.exists():
        return []
    cases = []
    for element in ElementTree.parse(report).iter("testcase"):
        outcome = "passed"
        for kind in ("failure", "error", "skipped"):
            if element.find(kind) is not None:
                outcome = kind
                break
        properties = [(p.get("name", ""), p.get("value", "")) for p in element.iter("property")]
        name = f"{element.get('classname', '').removeprefix('tests.')}.{element.get('name')}"
        cases.append(Case(name, float(element.get("time", 0)), outcome, properties))
    return cases


def page(cases: list[Case], status: int, started: datetime, seed: int) -> str:
    count = {kind: sum(case.outcome == kind for case in cases) for kind in ("passed", "skipped")}
    broken = [case for case in cases if case.outcome in ("failure", "error")]
    verdict = "passed" if status == 0 else f"**FAILED** (pytest ended with status {status})"
    minutes, seconds = divmod(round((datetime.now(UTC) - started).total_seconds()), 60)
    servers = sorted({value for case in cases for name, value in case.properties if name == "server"})
    facts = [
        ("result", verdict),
        ("tests", f"{count['passed']} passed, {len(broken)} failed, {count['skipped']} skipped"),
        ("started", f"{started:%Y-%m-%d %H:%M} UTC, ran {minutes} min {seconds} s"),
        ("source", commit()),
        ("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        ("processors", str(os.cpu_count())),
        ("servers", "; ".join(servers) or "none answered"),
        ("Hypothesis seed", str(seed)),
    ]
    text = ["# The long proofs: the last run", "", INTRO, ""]
    text += table(("", ""), facts)
    if broken:
        text += ["", "## Failed", "", *(f"- `{case.name}`" for case in broken)]
    seeds = [(f"`{case.name}`", value) for case in cases for name, value in case.properties if name == "seeds"]
    if seeds:
        text += ["", "## Seeds", "", *table(("test", "seeds"), seeds)]
    slowest = sorted(cases, key=lambda case: -case.seconds)[:SLOWEST]
    rows = [(f"`{case.name}`", f"{case.seconds:.1f}") for case in slowest]
    text += ["", "## Slowest", "", *table(("test", "seconds"), rows)]
    return "\n".join(text) + "\n"


def supported(met: Iterable[tuple[str, int]]) -> str:
    """The page of servers: of each its name and version, and how many tests have passed on it."""
    text = ["# Tested servers", "", "Written by the last `make prove`.", ""]
    text += table(("server", "tests that passed"), [(server, str(count)) for server, count in sorted(met)])
    text += [
        "",
        "Tests of types and of the main functions run on each of these servers, the others on MySQL and on the",
        "distribution's PostgreSQL and MariaDB. Other versions are not tested.",
    ]
    return "\n".join(text) + "\n"


def met_by(cases: Iterable[Case]) -> list[tuple[str, int]]:
    passed = (case for case in cases if case.outcome == "passed")
    return list(Counter(server for case in passed for server in {v for n, v in case.properties if n == "met"}).items())


def table(head: tuple[str, str], rows: Iterable[tuple[str, str]]) -> list[str]:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (head, ("---", "---"), *rows)]
    return [f"| {left} | {right} |" for left, right in cells]


def commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    revision = git("rev-parse", "--short", "HEAD") or "no commit"
    changed = git("status", "--porcelain", "--", ".", ":(exclude)docs/internals/proofs.md")
    return f"{revision}, with changes that are not committed" if changed else revision


def main() -> int:
    seed = random.SystemRandom().randrange(2**32)
    started = datetime.now(UTC)
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory, "report.xml")
        # More workers than processors: the proofs mostly wait, for writers and for transactions to end.
        command = [sys.executable, "-m", "pytest", "-q", "-n", "3", "--dist", "loadgroup"]
        command += ["-m", "prove or not prove", f"--junitxml={report}", f"--hypothesis-seed={seed}"]
        try:
            status = subprocess.run([*command, *sys.argv[1:]], cwd=ROOT, check=False).returncode
        except KeyboardInterrupt:
            return INTERRUPTED
        if status == INTERRUPTED:
            return status
        PAGE.parent.mkdir(exist_ok=True)
        cases = read_cases(report)
        PAGE.write_text(page(cases, status, started, seed), encoding="utf-8")
        SUPPORTED.write_text(supported(met_by(cases)), encoding="utf-8")
    sys.stdout.write(f"the result is in {PAGE.relative_to(ROOT)}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())

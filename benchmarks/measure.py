"""Whole processes timed, tools taken in turn, figures put together. Knows no tool and no database."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

LAUNCH = Path(__file__).with_name("launch.py")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured run. seconds: wall; cpu: user and system, in seconds; mib: peak resident memory.

    cpu and mib are None where the run is a part of a longer process, as a request to a running host is.
    """

    seconds: float
    cpu: float | None = None
    mib: float | None = None


class Failed(Exception):
    """A tool could not do it; the message is the reason that the table gives."""


def whole_process(
    command: Sequence[str | Path], *, cwd: Path, environ: Mapping[str, str] | None = None, timeout: float = 400
) -> Figure:
    """Run a command to its end, output to a file in `cwd`. Raises Failed, with the output's last line."""
    with tempfile.NamedTemporaryFile("r", suffix=".report") as report, (cwd / "output.log").open("wb") as output:
        words = [sys.executable, "-S", "-E", str(LAUNCH), report.name, *map(str, command)]
        launched = subprocess.Popen(
            words, cwd=cwd, env={**os.environ, **(environ or {})}, stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            launched.wait(timeout)
        except subprocess.TimeoutExpired:
            raise Failed(f"did not end within {timeout:g} s") from None
        finally:
            # What it has launched as well: it would take a core from everything that is measured later.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(launched.pid, signal.SIGKILL)
            launched.wait()
        if launched.returncode != 0:
            raise Failed(f"cannot be started: {_last_line(cwd / 'output.log')}")
        code, seconds, cpu, kib = report.read().split()
    if code != "0":
        raise Failed(f"exit status {code}: {_last_line(cwd / 'output.log')}")
    return Figure(seconds=float(seconds), cpu=float(cpu), mib=int(kib) / 1024)


def _last_line(path: Path) -> str:
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:160] if lines else "no output"


@dataclass
class Tool:
    """One thing to measure: `run(round)` does it once and answers its figure, or raises Failed.

    prepare: called before each run, not measured. rounds: at most so many runs, for what takes minutes.
    """

    name: str
    run: Callable[[int], Figure]
    prepare: Callable[[int], None] = lambda _: None
    rounds: int = 1000
    figures: dict[int, Figure] = field(default_factory=dict)
    failure: str | None = None


def unavailable(name: str, reason: str) -> Tool:
    """A tool that cannot be measured here: a line in the table all the same."""
    return Tool(name, lambda _: Figure(seconds=0), failure=reason)


def in_turn(tools: Sequence[Tool], rounds: int, before_round: Callable[[int], None] = lambda _: None) -> None:
    """Ours, a peer, the next peer; ours, a peer …: what the machine does meanwhile strikes all alike."""
    for number in range(rounds):
        before_round(number)
        for tool in tools:
            if tool.failure is not None or number >= tool.rounds:
                continue
            try:
                tool.prepare(number)
                tool.figures[number] = figure = tool.run(number)
            except Failed as error:
                tool.failure = str(error)
                say(f"  {tool.name}: {error}")
            else:
                say(f"  {tool.name}: {figure.seconds:.3f} s" + (f", {figure.mib:.0f} MiB" if figure.mib else ""))


def ratios(tool: Tool, ours: Tool) -> list[float]:
    """The tool's time over ours, pair by pair: above 1, ours is faster."""
    both = tool.figures.keys() & ours.figures.keys()
    return [tool.figures[number].seconds / ours.figures[number].seconds for number in sorted(both)]


def spread(values: Sequence[float], form: str = ".2f", unit: str = "") -> str:
    """`median (least to most)`."""
    if not values:
        return "–"
    middle = f"{statistics.median(values):{form}}{unit}"
    return middle if len(values) == 1 else f"{middle} ({min(values):{form}} to {max(values):{form}})"


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def timed(work: Callable[[], object]) -> Figure:
    began = time.perf_counter()
    work()
    return Figure(seconds=time.perf_counter() - began)


def say(text: str) -> None:
    print(text, flush=True)

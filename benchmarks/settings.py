"""What one call of the benchmarks is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Settings:
    """rows: of `orders`. runs: repetitions. slow_runs: at most so many for tools that take a minute each.

    directory: for everything that is written; removed at the end.
    """

    rows: int
    runs: int
    slow_runs: int
    directory: Path

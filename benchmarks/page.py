"""Tables as Markdown, and their place in docs/explanation/performance.md."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import Tool, ratios, spread

PAGE = Path(__file__).parent.parent / "docs" / "explanation" / "performance.md"


def table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [heads, ["---"] * len(heads), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def compared(tools: Sequence[Tool], *, rows: int | None = None, against: Sequence[Tool]) -> str:
    """A line for each tool, with its time over that of each of `against`, in pairs of one round: above 1 is slower."""
    lines = []
    for tool in tools:
        if not tool.figures:
            lines.append([tool.name, f"not measured: {tool.failure}", *[""] * (len(against) + (3 if rows else 2))])
            continue
        figures = list(tool.figures.values())
        seconds = [figure.seconds for figure in figures]
        line = [tool.name, spread(seconds)]
        if rows:
            line.append(spread([rows / each / 1000 for each in seconds], ".0f"))
        line += ["1" if tool is ours else spread(ratios(tool, ours)) for ours in against]
        line.append(spread([figure.cpu for figure in figures if figure.cpu is not None], ".2f"))
        line.append(spread([figure.mib for figure in figures if figure.mib is not None], ".0f"))
        lines.append(line)
    heads = ["tool", "s", *(["1,000 rows/s"] if rows else []), *(f"÷ {ours.name}" for ours in against)]
    return table([*heads, "CPU s", "peak MiB"], lines)


def write(group: str, text: str) -> None:
    """Put a group's text between its markers, and leave the rest of the page as it is."""
    page = PAGE.read_text()
    begin, end = f"<!-- bench {group} -->", f"<!-- end {group} -->"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(page):
        raise SystemExit(f"{PAGE.name} has no place for {group}: put {begin} and {end} into it")
    PAGE.write_text(pattern.sub(lambda _: f"{begin}\n\n{text}\n\n{end}", page))

"""The packages as files: where they lie, which modules they have, and what each of these imports."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
HOST = ROOT / "host" / "starbase_host"
PLUGIN = ROOT / "plugins" / "data_replication" / "starbase_data_replication"
EXAMPLES = ROOT / "examples"
ARCHITECTURE = ROOT / "docs" / "internals" / "architecture.md"


@dataclass(frozen=True)
class Import:
    """`module` is what is imported, dotted; `name` one name from it, or None; `level` of a relative one."""

    module: str
    name: str | None
    level: int = 0

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]


def python_files(*roots: Path) -> list[Path]:
    return sorted(path for root in roots for path in root.rglob("*.py"))


@functools.cache
def imports_of(path: Path, *, at_run_time: bool = False) -> tuple[Import, ...]:
    """Every import, also inside functions. at_run_time: without those under `if TYPE_CHECKING`."""
    return tuple(_imports(path, at_run_time))


def _imports(path: Path, at_run_time: bool) -> Iterator[Import]:
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (Import(node.module or "", alias.name, node.level) for alias in node.names)
        elif at_run_time and isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            waiting += node.orelse
        else:
            waiting += ast.iter_child_nodes(node)


def rooms(package: Path) -> dict[str, Path]:
    """Modules of a package, dotted below it; a package by the name of its directory."""
    found = {}
    for path in python_files(package):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def layers() -> dict[str, list[list[str]]]:
    """Of each package, by its dotted name, the lines of its block in architecture.md: its rooms, the lowest first."""
    page = ARCHITECTURE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```imports ([\w.]+)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    return {package: [line.split() for line in block.splitlines()] for package, block in blocks}

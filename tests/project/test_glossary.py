"""Every term that a module or a public class is named after is in the glossary, or is a plain word."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PACKAGES = [ROOT / "host" / "starbase_host", ROOT / "plugins" / "data_replication" / "starbase_data_replication"]
GLOSSARY = ROOT / "docs" / "internals" / "glossary.md"
# Words of every program, and of English, that mean here what they mean everywhere.
PLAIN = frozenset(
    re.findall(
        "[a-z]+",
        """
        absent allowed app attempts back buffer buffered built cli comparing configuring conflict conforming
        damaged details digest env existing exited forbidden formatter high incompatible invalid large levels
        list loop mismatch moved packets parser postgres raised rejected removals response save select slow
        storage stream strict summary timeout tls triggers unasked unauthorized unavailable unlike unpackable
        unrecorded variables verdict view went
        """,
    )
)


def forms(word: str) -> set[str]:
    """The word, and how the glossary may have it: singular or plural, a verb or what is done with it."""
    stems = {
        word,
        word.removesuffix("s"),
        word.removesuffix("es"),
        word.removesuffix("ing"),
        word.removesuffix("ed"),
        word.removesuffix("e"),
    }
    endings = ("", "s", "es", "ed", "ing", "e", "er", "ion", "ation")
    return {stem + ending for stem in stems for ending in endings} | {word.removesuffix("y") + "ies"}


def names(package: Path) -> Iterator[str]:
    for path in package.rglob("*.py"):
        yield path.parent.name if path.stem == "__init__" else path.stem
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield node.name


def words(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def known() -> set[str]:
    return set(re.findall(r"[a-z]+", GLOSSARY.read_text(encoding="utf-8").lower()))


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_names_are_terms_of_the_glossary(package: Path) -> None:
    terms = known()
    missing = {f"{word} ({name})" for name in names(package) for word in words(name) - PLAIN if not forms(word) & terms}
    assert missing == set(), "explain the term in docs/internals/glossary.md, or use a word that is there"


def test_plain_words_are_used() -> None:
    used = set[str]().union(*(words(name) for package in PACKAGES for name in names(package)))
    assert used >= PLAIN

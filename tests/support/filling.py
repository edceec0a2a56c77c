"""Statements that fill a database with pages."""

from __future__ import annotations

PAGE = 4096
CREATE = "CREATE TABLE filled (value BLOB)"


def fill(pages: int) -> str:
    """A statement that writes at least so many pages."""
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {pages})"
    return f"INSERT INTO filled {numbers} SELECT zeroblob({PAGE}) FROM n"

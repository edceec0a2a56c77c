"""A sourceConfig of each dialect, as fields or as a connection string, for the tests that connect to nothing."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

POSTGRESQL = {"dialect": "postgresql", "host": "db.example.com", "user": "app", "password": "s3cret"}
MYSQL = {
    "dialect": "mysql",
    "host": "db.example.com",
    "user": "app",
    "password": "s3cret",
    "database": "shop",
}
TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=30)


def url(text: str, **more: Any) -> dict[str, Any]:
    return {"dialect": text.partition("://")[0], "connectionString": text, **more}

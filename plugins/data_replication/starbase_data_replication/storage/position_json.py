"""A position as the JSON that is stored, and back. What an older version has stored must be read here, too."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from starbase_data_replication.model import Candidate, Former, OpenTransactions, Phase, Position, SchemaFingerprint


def dump_position(position: Position) -> str:
    """A position as JSON."""
    plain = asdict(position)
    for candidate in plain["candidates"]:
        candidate["open_transactions"]["tokens"] = sorted(candidate["open_transactions"]["tokens"])
    return json.dumps(plain)


def parse_position(text: str) -> Position:
    """The position that `dump_position` has written."""
    plain = json.loads(text)
    load_key, fingerprint, former = plain["load_key"], plain.get("fingerprint"), plain.get("former")
    values = {
        **plain,
        "phase": Phase(plain["phase"]),
        "candidates": tuple(_parse_candidate(each) for each in plain["candidates"]),
        "load_key": tuple(load_key) if load_key is not None else None,
        "fingerprint": _parse_fingerprint(fingerprint) if fingerprint is not None else None,
        "dropped": tuple(plain.get("dropped", ())),
        "former": None
        if former is None
        else Former(**{**former, "fingerprint": _parse_fingerprint(former["fingerprint"])}),
    }
    return Position(**values)


def _parse_candidate(plain: dict[str, Any]) -> Candidate:
    transactions = plain["open_transactions"]
    open_transactions = OpenTransactions(**{**transactions, "tokens": frozenset(transactions["tokens"])})
    return Candidate(**{**plain, "open_transactions": open_transactions})


def _parse_fingerprint(plain: dict[str, Any]) -> SchemaFingerprint:
    columns = {name: tuple(facts) for name, facts in plain["columns"].items()}
    return SchemaFingerprint(**{**plain, "columns": columns, "key": tuple(plain["key"])})

"""A replica that a user drops while a reset compares it with what was loaded: the reset goes on without it."""

from __future__ import annotations

import contextlib
import importlib.util
from pathlib import Path
from typing import Any

import apsw
import pytest

from starbase_data_replication.plugin import plugin as data_replication
from starbase_data_replication.storage import Leftovers
from tests.support.odd_dialect import ODD
from tests.support.plugin_hosts import InProcess, host_with

BODY = {"name": "t", "sourceTable": "t", "targetTable": "t", "isActive": False, "sourceConfig": {"dialect": "odd"}}


def odd(directory: Path) -> object:
    """The plugin of the dialect."""
    path = directory / "odd.py"
    path.write_text(ODD)
    spec = importlib.util.spec_from_file_location("odd", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    plugin: object = module.plugin({})
    return plugin


async def run_of(host: InProcess, verb: str) -> dict[str, Any]:
    answer = await host.request("POST", f"/data-replication/{verb}/t")
    assert answer.status_code == 200, answer.text
    run: dict[str, Any] = answer.json()["result"]["run"]
    return run


@pytest.mark.anyio
@pytest.mark.parametrize("method", ["of", "piece"])
async def test_a_replica_that_is_dropped_during_a_reset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """It was an unexpected SQLError: the rows of a table that was gone were counted."""
    async with host_with(tmp_path, {"odd": odd(tmp_path), "data_replication": data_replication({})}) as host:
        answer = await host.request("POST", "/data-replication/configure", BODY)
        assert answer.status_code == 200, answer.text
        await run_of(host, "sync")
        called = getattr(Leftovers, method)
        dropped: list[bool] = []

        def drop_and_call(*arguments: Any, **named: Any) -> Any:
            found = None if method == "piece" and not dropped else called(*arguments, **named)
            if not dropped:
                dropped.append(True)
                with contextlib.closing(apsw.Connection(str(tmp_path / "starbase.db"))) as connection:
                    connection.set_busy_timeout(5000)
                    connection.execute("DROP TABLE t")
            return found if found is not None else called(*arguments, **named)

        monkeypatch.setattr(Leftovers, method, drop_and_call)
        run = await run_of(host, "reset")
        assert (dropped, run["status"]) == ([True], "success")
        assert (await host.query("SELECT * FROM t")).json()["result"]["rows"] == [["1", "a"], ["2", "b"]]

"""Plugins that ask: the host by `host.request`, and data replication by its typed methods."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from starbase_data_replication import ReplicationStatus, RunRecord
from tests.support.hosts import CONFIG, running

ASKING = """
from typing import Any

from starbase_data_replication import DataReplication
from starbase_host import Host, NotFound, Route, StarbaseError, hookimpl


def plugin(options: Any) -> "Asking":
    return Asking()


class Asking:
    @hookimpl
    def register_routes(self, host: Host) -> list[Route]:
        self.host = host
        return [Route("/asking/request", self.request, ("POST",)), Route("/asking/replication", self.replication)]

    async def request(self, request: Any) -> Any:
        body = await request.json()
        try:
            return await self.host.request(
                body["method"], body["path"], role=body["role"], body=body.get("body"), params=body.get("params")
            )
        except StarbaseError as error:
            return {"status": error.status, "error": str(error)}

    async def replication(self, request: Any) -> Any:
        replication = self.host.plugin(DataReplication)
        source = {"dialect": "mysql", "host": "127.0.0.1", "port": 1, "user": "u", "database": "d"}
        status = await replication.configure(
            {"name": "t", "sourceConfig": source, "sourceTable": "t", "targetTable": "t", "isActive": False}
        )
        try:
            await replication.sync("t")
            failed = ""
        except StarbaseError as error:
            failed = f"{error.status} {error}"
        runs = await replication.runs(after=0, limit=10)
        later = await replication.runs(name="t", after=runs[-1]["id"])
        try:
            await replication.status("nobody")
            missing = False
        except NotFound:
            missing = True
        (shown,) = await replication.status("t")
        return {"status": status, "shown": shown, "failed": failed, "runs": runs, "later": later, "missing": missing}
"""
CONFIG_ASKING = CONFIG + '\n[plugins.asking]\nmodule = "asking"\n'


def test_a_request_in_the_process(tmp_path: Path) -> None:
    (tmp_path / "asking.py").write_text(ASKING)
    with running(tmp_path, CONFIG_ASKING) as host:

        def ask(method: str, path: str, role: str | None, body: Any = None, **params: Any) -> Any:
            question = {"method": method, "path": path, "role": role, "body": body, "params": params}
            return host.result("POST", "/asking/request", question)

        one = {"sql": "SELECT ? AS n", "params": [7]}
        assert ask("POST", "/query", "client", one) == [{"n": 7}]
        assert ask("GET", "/data-replication/logs", "admin", limit=5) == {"logs": []}
        assert ask("GET", "/health", None) == {"status": "ready"}
        refusals: dict[int, tuple[Any, ...]] = {
            401: ("POST", "/query", None, one),
            403: ("GET", "/status", "client"),
            404: ("GET", "/nowhere", "admin"),
            405: ("GET", "/query", "admin"),
            400: ("POST", "/query", "admin", {"sql": "SELEC"}),
        }
        for status, question in refusals.items():
            answer = ask(*question)
            assert (answer["status"], bool(answer["error"])) == (status, True), answer
        hidden = ask("POST", "/query", "client", {"sql": "SELECT * FROM tmp_replication_configs"})
        assert hidden["status"] == 403


def test_the_typed_methods_of_data_replication(tmp_path: Path) -> None:
    (tmp_path / "asking.py").write_text(ASKING)
    with running(tmp_path, CONFIG_ASKING) as host:
        answer = host.result("GET", "/asking/replication")
        assert answer["status"]["name"] == "t"
        assert answer["shown"] == host.status("t")
        assert set(answer["shown"]) == set(ReplicationStatus.__annotations__)
        assert answer["failed"].startswith("502 Sync of t failed")
        assert answer["runs"] == host.logs("t")
        assert set(answer["runs"][0]) == set(RunRecord.__annotations__)
        assert answer["later"] == []
        assert answer["missing"]


@pytest.mark.prove
def test_a_type_checker_knows_the_other_plugin(tmp_path: Path) -> None:
    (tmp_path / "asking.py").write_text(ASKING + "\n\nasync def wrong(host: Host) -> None:\n"
        "    reveal_type(host.plugin(DataReplication))\n"
        "    await host.plugin(DataReplication).snyc('t')\n")  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "asking.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert 'Revealed type is "starbase_data_replication.facade.DataReplication"' in done.stdout, done.stdout
    errors = [line for line in done.stdout.splitlines() if "error:" in line]
    assert len(errors) == 1, errors
    assert '"DataReplication" has no attribute "snyc"' in errors[0]


def test_before_the_host_has_started(tmp_path: Path) -> None:
    """Routes are registered before any can be called."""
    (tmp_path / "early.py").write_text(
        "from starbase_host import hookimpl\n\n"
        "def plugin(options):\n    return Early()\n\n"
        "class Early:\n    @hookimpl\n    async def register_routes(self, host):\n"
        '        await host.request("GET", "/health", role=None)\n        return []\n'
    )
    with running(tmp_path, CONFIG + '\n[plugins.early]\nmodule = "early"\n') as host:
        (early,) = (each for each in host.result("GET", "/plugins") if each["name"] == "early")
        assert "the host has not started yet" in str(early)

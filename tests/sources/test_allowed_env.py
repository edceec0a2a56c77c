"""Which variables of the environment a sourceConfig may name, over HTTP and by the command line."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from starbase_data_replication.plugin import plugin
from starbase_data_replication.sources.settings.allowed_variables import DEFAULT, NEVER, Variables
from starbase_host import ConfigError
from tests.support.hosts import ADMIN, CLIENT, CONFIG, HostProcess, running, until
from tests.support.servers import TestDatabase

SOURCE = {"dialect": "postgresql", "host": "127.0.0.1", "port": 1, "user": "u", "database": "d"}
BODY = {"sourceTable": "t", "targetTable": "t", "isActive": False}


@pytest.mark.parametrize(
    "name",
    [
        "DATABASE_URL", "SHOP_DATABASE_URL", "NEON_DATABASE_URL", "DATABASE_PASSWORD", "PGPASSWORD", "PGHOST",
        "PG_PASSWORD", "POSTGRES_PASSWORD", "POSTGRESQL_PASSWORD", "MYSQL_PASSWORD", "MARIADB_PASSWORD", "DB_PASS",
        "SUPABASE_DB_URL", "SOURCE_PASSWORD", "STARBASE_SOURCE_1",
    ],
)  # fmt: skip
def test_what_may_be_named_unless_somebody_says_otherwise(name: str) -> None:
    assert Variables().why_not(name) is None


@pytest.mark.parametrize(
    "name",
    [
        *sorted(NEVER), "AWS_SECRET_ACCESS_KEY", "PGP_PRIVATE_KEY", "SUPABASE_SERVICE_ROLE_KEY", "NEON_API_KEY", "PATH",
        "GITHUB_TOKEN", "pg_password", "STARBASE_ADMIN",
    ],
)  # fmt: skip
def test_what_may_not(name: str) -> None:
    assert name in (Variables().why_not(name) or "")


def test_the_hosts_own_may_never_be_named() -> None:
    everything = Variables(("*", "PG_TOKEN"), never=("PG_TOKEN",))
    assert everything.why_not("ANYTHING") is None
    for name in (*NEVER, "PG_TOKEN"):
        assert "the host's own" in (everything.why_not(name) or "")


@pytest.mark.parametrize(
    ("entry", "fix"),
    [
        ("$PG_PASSWORD", "write PG_PASSWORD"),
        ("PG_PASSWORD=x", "write PG_PASSWORD"),
        ("PG PASSWORD", "write one such as PG_PASSWORD"),
        ("", "must be the name of a variable"),
        (7, "must be the name of a variable"),
        ("STARBASE_SECRET_KEY", "the host's own"),
        ("ADMIN_AUTHORIZATION_TOKEN", "the host's own"),
    ],
)
def test_an_entry_that_never_matches_stops_the_start(entry: object, fix: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plugin({"allowed_env": ["PG_*", entry]})
    assert caught.value.field == "allowed_env[1]"
    assert fix in caught.value.reason
    with pytest.raises(ConfigError, match="must be a list"):
        plugin({"allowed_env": "PG_*"})
    plugin({"allowed_env": [*DEFAULT, "SHOP_[AB]_URL", "X?"]})


def test_no_caller_may_name_another(tmp_path: Path) -> None:
    """Not by any field, any dialect's string, nor for a moment: a value that is never read is sent nowhere."""
    config = CONFIG.replace(ADMIN, "${DB_ADMIN}").replace(CLIENT, "${DB_CLIENT}")
    environ = {"DB_ADMIN": ADMIN, "DB_CLIENT": CLIENT, "AWS_KEY": "from-the-environment"}
    with running(tmp_path, config, environ=environ) as host:
        for name in ("AWS_KEY", "DB_ADMIN", "DB_CLIENT", "STARBASE_SECRET_KEY"):
            for source in (
                {**SOURCE, "password": f"${{{name}}}"},
                {**SOURCE, "user": f"x${{{name}}}y"},
                {**SOURCE, "host": f"${{{name}}}"},
                {"dialect": "postgresql", "connectionString": f"${{{name}}}"},
                {"dialect": "mysql", "connectionString": f"mysql://u:${{{name}}}@127.0.0.1:1/d"},
            ):
                body = {**BODY, "name": "t", "sourceConfig": source}
                refused = host.request("POST", "/data-replication/configure", body)
                assert refused.status_code == 400, refused.text
                said = refused.json()["error"]
                assert f"the environment variable {name} " in said
                assert ("allowed_env in [plugins.data_replication]" if name == "AWS_KEY" else "the host's own") in said
        (tmp_path / "body.json").write_text(json.dumps({**BODY, "name": "t", "sourceConfig": source}))
        assert "the host's own" in host.command("replication", "configure", str(tmp_path / "body.json")).stderr
        host.configure(**BODY, name="t", sourceConfig={**SOURCE, "password": "${DB_PASSWORD}"})


@pytest.mark.elsewhere_in_prove
def test_what_is_stored_and_names_another_says_what_to_do(source_database: TestDatabase, tmp_path: Path) -> None:
    """As after an update, or after the list was made shorter: it fails with the fix, and works when that is done."""
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    host = HostProcess(tmp_path, CONFIG + 'allowed_env = ["*"]\n')
    host.environ = {"OUR_SOURCE_PW": str(source_database.source_config["password"])}
    source: dict[str, Any] = {**source_database.source_config, "password": "${OUR_SOURCE_PW}"}
    fix = "OUR_SOURCE_PW is not among allowed_env; add it to allowed_env in [plugins.data_replication] of plugin.toml"
    with host:
        host.configure(**BODY, name="t", sourceConfig=source)
        assert host.sync("t")["status"] == "success"
        host.configure(**{**BODY, "targetTable": "a", "isActive": True}, name="active", sourceConfig=source)
        until(lambda: host.status("active")["last_success_at"])
        assert fix not in host.log
    host.config_path.write_text(CONFIG)
    with host:
        assert fix in host.log
        # At once, although its next sync is an hour away; and the schedule goes on.
        failed_run = until(lambda: host.logs("active")[0]["status"] == "error" and host.logs("active")[0])
        assert (failed_run["kind"], fix in failed_run["error_message"]) == ("scheduled", True)
        status = until(lambda: (found := host.status("active"))["next_sync_at"] > found["last_error_at"] and found)
        assert (status["state"], fix in status["last_error"]) == ("degraded", True)
        started = time.monotonic()
        failed = host.request("POST", "/data-replication/sync/t")
        assert time.monotonic() - started < 10
        assert failed.status_code == 400
        assert fix in failed.json()["error"]
        assert fix in host.status("t")["last_error"]
        # What does not touch the source can be changed meanwhile.
        host.configure(name="t", syncIntervalMinutes=5)
    host.config_path.write_text(CONFIG + 'allowed_env = ["OUR_*"]\n')
    with host:
        assert host.sync("t")["status"] == "success"

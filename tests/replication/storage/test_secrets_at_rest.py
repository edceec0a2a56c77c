"""STARBASE_SECRET_KEY: what lies in the database's files with it and without it, rotation, and a key that is lost."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from starbase_data_replication.storage.encryption import EncryptedSettings, SecretKeys, dump, load
from starbase_host import ConfigError
from tests.support.canary import PASSWORD, files_with, leaks
from tests.support.hosts import HostProcess, until
from tests.support.servers import TestDatabase

VARIABLE = "STARBASE_SECRET_KEY"
OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key().decode()


@pytest.fixture
def seen(postgres_database: TestDatabase) -> TestDatabase:
    """A database with a table, and a role that logs in with the canary."""
    role = f"encrypted_{postgres_database.name[-8:]}"
    literal = PASSWORD.replace("'", "''")
    postgres_database.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{literal}'")
    postgres_database.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2)")
    postgres_database.execute(f"GRANT SELECT ON t TO {role}")
    return dataclasses.replace(
        postgres_database,
        source_config={**postgres_database.source_config, "user": role, "password": PASSWORD},
    )


def configure(host: HostProcess, database: TestDatabase, name: str, **change: Any) -> None:
    source = {**database.source_config, **change}
    host.configure(name=name, sourceConfig=source, sourceTable="t", targetTable=name, isActive=False)


def test_a_key_may_come_and_be_changed_and_be_lost(seen: TestDatabase, tmp_path: Path) -> None:
    """One life of a database: plain, encrypted, rotated, the old key gone, the key lost, fixed."""
    host = HostProcess(tmp_path, environ={"SOURCE_PLAIN": PASSWORD}).start()
    try:
        configure(host, seen, "literal")
        configure(host, seen, "named", password="${SOURCE_PLAIN}")
        assert host.sync("literal")["records_processed"] == 2
        host.stop()
        assert host.log.count(VARIABLE) == 1, "one warning without a key"
        assert "(0 now)" in host.log
        assert list(files_with(tmp_path))

        host.environ[VARIABLE] = OLD
        host.start()
        # While it runs, so that the write-ahead log is there too.
        assert list(files_with(tmp_path)) == []
        assert host.sync("literal")["rows_read"] >= 0
        configure(host, seen, "other")
        assert host.sync("other")["records_processed"] == 2
        assert list(files_with(tmp_path)) == []
        host.stop()
        assert host.log.count(VARIABLE) == 1

        for keys in (f"{NEW}, {OLD}", NEW):
            host.environ[VARIABLE] = keys
            host.start()
            host.sync("literal")
            host.sync("other")
            host.stop()
        assert host.log.count(VARIABLE) == 1

        _with_a_wrong_key(host, seen, OLD, f"no key in {VARIABLE} decrypts it")
        host.environ[VARIABLE] = ""
        host.start()
        refused = host.request("POST", "/data-replication/sync/literal")
        assert f"{VARIABLE} is not set" in refused.json()["error"]
        configure(host, seen, "other")
        host.configure(name="other", sourceConfig={**seen.source_config, "password": "${SOURCE_PLAIN}"})
        host.stop()
        host.environ[VARIABLE] = NEW
        host.start()
        host.sync("literal")
        assert list(files_with(tmp_path)) == [], "what was in plain for a moment is gone from the log, too"
        assert OLD not in host.log + host.request("GET", "/status").text
    finally:
        host.stop()


@pytest.mark.parametrize(
    ("key", "why"),
    [(NEW, f"no key in {VARIABLE} decrypts it"), ("", f"{VARIABLE} is not set")],
    ids=["another", "none"],
)
def test_a_password_that_no_key_decrypts_shows_at_the_start(
    seen: TestDatabase, tmp_path: Path, key: str, why: str
) -> None:
    """Not an hour later, when its next sync is due."""
    host = HostProcess(tmp_path, environ={VARIABLE: OLD})
    with host:
        host.configure(name="t", sourceConfig=seen.source_config, sourceTable="t", targetTable="t")
        until(lambda: host.status("t")["last_success_at"])
    host.environ[VARIABLE] = key
    with host:
        status = until(lambda: (found := host.status("t"))["state"] == "degraded" and found)
        assert why in status["last_error"]
        assert until(lambda: (found := host.status("t"))["next_sync_at"] > found["last_error_at"])
    # With the right key again, the next sync is as if nothing had been.
    host.environ[VARIABLE] = OLD
    with host:
        assert host.sync("t")["status"] == "success"
        assert host.status("t")["state"] == "idle"


def _with_a_wrong_key(host: HostProcess, seen: TestDatabase, key: str, why: str) -> None:
    """The host starts, says which replications it cannot decrypt, and harms neither them nor the others."""
    host.environ[VARIABLE] = key
    before = len(host.log)
    host.start()
    (line,) = [line for line in host.log[before:].splitlines() if "ERROR" in line]
    assert "passwords of literal" in line
    assert VARIABLE in line
    host.sync("named")
    failed = host.request("POST", "/data-replication/sync/literal")
    assert failed.status_code == 400
    assert why in failed.json()["error"]
    assert why in host.status("literal")["last_error"]
    assert host.status("literal")["source_config"]["password"] == "***"
    # Another field may be changed; the secret stays as it is stored, and is not taken for `***`.
    host.configure(name="literal", syncIntervalMinutes=30)
    masked = {**seen.source_config, "password": "***"}
    refused = host.request("POST", "/data-replication/configure", {"name": "literal", "sourceConfig": masked})
    assert refused.status_code == 400
    assert "password" in refused.json()["error"]
    # Given again, it is stored under the current key.
    configure(host, seen, "other")
    host.sync("other")
    configure(host, seen, "other", password="${SOURCE_PLAIN}")
    host.stop()


@pytest.mark.parametrize(
    "keys",
    ["nonsense", f"{OLD},", f",{OLD}", f"{OLD},{OLD[:-5]}", "é"],
    ids=["word", "empty", "first empty", "cut", "letter"],
)
def test_an_invalid_key_stops_the_start_with_one_line(tmp_path: Path, keys: str) -> None:
    host = HostProcess(tmp_path, environ={VARIABLE: keys})
    run: subprocess.CompletedProcess[str] = host.command("serve")
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1, run.stderr
    assert VARIABLE in run.stderr
    assert "openssl rand -base64 32" in run.stderr
    assert keys not in run.stderr


def test_a_key_of_openssl_is_one() -> None:
    for _ in range(20):
        SecretKeys(
            subprocess.run(["openssl", "rand", "-base64", "32"], capture_output=True, text=True, check=True).stdout
        )


def test_what_may_be_shown_whole_is_not_encrypted_and_what_is_encrypted_shows_nothing() -> None:
    keys = SecretKeys(OLD)
    plain = {"dialect": "postgresql", "password": "${NAME}"}
    assert keys.encrypt(plain, plain) is plain
    settings, shown = {"dialect": "postgresql", "password": PASSWORD}, {"dialect": "postgresql", "password": "***"}
    encrypted = keys.encrypt(settings, shown)
    assert isinstance(encrypted, EncryptedSettings)
    assert dict(encrypted) == shown
    assert leaks(repr(encrypted) + dump(encrypted)) == []
    again = load(dump(encrypted), shown)
    assert keys.decrypt(again) == settings
    for other in (SecretKeys(NEW), SecretKeys(None), SecretKeys("")):
        with pytest.raises(ConfigError, match=VARIABLE):
            other.decrypt(again)
        assert other.encrypt(again, shown) is again
    assert SecretKeys(f"{NEW},{OLD}").decrypt(again) == settings


def test_a_text_that_an_earlier_version_stored_is_decrypted_and_rotated() -> None:
    key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
    stored = (
        "fernet:gAAAAABpVbkAw8l8t129KJOoI0wIdWJr_5Qr_vrADftOjbBj-69kN967loEN1hzwDBJWx7Jv848qvnVaPM9qOU6JQ8"
        "c7I5k-X5J4BOeQJXg_6seTBEZreRtqvK0bu-7xitQtErA_ptda"
    )
    shown = {"dialect": "postgresql", "password": "***"}
    assert SecretKeys(key).decrypt(load(stored, shown)) == {"dialect": "postgresql", "password": "p"}
    assert SecretKeys(f"{key},{NEW}").rotate(stored, shown) == stored, "the first key has encrypted it already"
    rotated = SecretKeys(f"{NEW},{key}").rotate(stored, shown)
    assert rotated is not None
    assert SecretKeys(NEW).decrypt(load(rotated, shown)) == {"dialect": "postgresql", "password": "p"}
    assert SecretKeys(OLD).rotate(stored, shown) is None


def test_the_key_itself_cannot_be_named_in_a_source_config(tmp_path: Path) -> None:
    """Otherwise a user who may configure could have it sent to another server."""
    with HostProcess(tmp_path, environ={VARIABLE: OLD}) as host:
        body = {"name": "t", "sourceTable": "t", "targetTable": "t", "isActive": False}
        for field in ("host", "user", "password"):
            source = {"dialect": "postgresql", "host": "127.0.0.1", "port": 1, "user": "u", field: f"${{{VARIABLE}}}"}
            refused = host.request("POST", "/data-replication/configure", {**body, "sourceConfig": source})
            assert refused.status_code == 400
            assert f"{VARIABLE} may not be used" in refused.json()["error"]

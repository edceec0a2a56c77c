"""caching_sha2_password in all its ways, on a real MySQL with TLS and on one without."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hosts import running
from tests.support.servers import TestDatabase, ThrowawayMySQL, fresh_database


@pytest.fixture(params=["with TLS", "without TLS"])
def database(request: pytest.FixtureRequest) -> Iterator[TestDatabase]:
    with ThrowawayMySQL(tls=request.param == "with TLS") as server, fresh_database("mysql", server) as found:
        yield found


def test_passwords_that_the_server_has_cached_and_has_not(database: TestDatabase, tmp_path: Path) -> None:
    """The server asks for the password itself until it has met it once, and again after its cache was emptied.

    Without TLS it is sent encrypted with the key that the sourceConfig names, and with no other.
    """
    server = database.server
    assert isinstance(server, ThrowawayMySQL)
    key = {} if server.tls else {"serverPublicKey": str(server.directory / "data" / "public_key.pem")}
    database.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    with running(tmp_path) as host:
        for name, password in (("long", "p" * 60 + "é:/?#@%"), ("short", "x"), ("empty", "")):
            user = f"sha2_{name}"
            database.execute(f"CREATE USER {user}@'%%' IDENTIFIED WITH caching_sha2_password BY %s", password)
            database.execute(f"GRANT SELECT ON {database.name}.* TO {user}@'%'; GRANT PROCESS ON *.* TO {user}@'%'")
            config = {**database.source_config, "user": user, "password": password, **key}
            for attempt in range(3):
                if attempt == 2:
                    database.execute("FLUSH PRIVILEGES")
                target = f"{name}_{attempt}"
                host.configure(
                    name=target, sourceConfig={**config}, sourceTable="t",
                    targetTable=target, trackingColumn="id", isActive=False,
                )  # fmt: skip
                run = host.sync(target)
                assert (run["status"], run["records_processed"]) == ("success", 1)
                # PROCESS is all that it takes beside reading.
                assert host.status(target)["protection"].startswith("transactions")
        if not server.tls:
            config = {**database.source_config, "user": "sha2_long", "password": "p" * 60 + "é:/?#@%"}
            database.execute("FLUSH PRIVILEGES")
            refused = host.request("POST", "/data-replication/configure", {
                "name": "long_0", "sourceConfig": config, "sourceTable": "t", "targetTable": "long_0",
            })  # fmt: skip
            assert refused.status_code == 200
            answer = host.request("POST", "/data-replication/sync/long_0")
            assert answer.status_code == 502
            for named in ("caching_sha2_password", "sslMode", "serverPublicKey"):
                assert named in answer.json()["error"]

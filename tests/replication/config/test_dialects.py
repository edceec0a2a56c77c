"""Which kinds of source there are, and the settings that each takes, for a form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from starbase_data_replication.sources.mysql.dialect import MysqlDialect
from starbase_data_replication.sources.postgresql.dialect import PostgresqlDialect
from tests.support.hosts import CLIENT, CONFIG, running

PLUGIN = """
from starbase_host import hookimpl

METHODS = ("check", "identity", "secret_parts", "hosts", "table_name", "open")

class Offered:
    features = frozenset({"keys"})

    def __init__(self, schema=None):
        self.__dict__.update(dict.fromkeys(METHODS, lambda *_: None))
        if schema is not None:
            self.schema = schema

class Plugin:
    @hookimpl(optionalhook=True)
    def replication_dialects(self):
        return {
            "acme": Offered(lambda: {"type": "object", "properties": {"token": {"type": "string", "writeOnly": True}}}),
            "bare": Offered(),
            "failing": Offered(lambda: 1 / 0),
            "list": Offered(lambda: []),
            "long": Offered(lambda: {"description": "x" * 100_000}),
            "odd": Offered(lambda: {"default": object()}),
        }

def plugin(options):
    return Plugin()
"""


def test_every_dialect_is_listed_with_its_settings(tmp_path: Path) -> None:
    (tmp_path / "kinds.py").write_text(PLUGIN)
    with running(tmp_path, CONFIG + '[plugins.kinds]\nmodule = "kinds"\n') as host:
        assert host.request("GET", "/data-replication/dialects", token=CLIENT).status_code == 403
        answer = host.request("GET", "/data-replication/dialects?name=x")
        assert answer.status_code == 400
        listed = host.result("GET", "/data-replication/dialects")["dialects"]
        assert "/data-replication/dialects" in host.request("GET", "/openapi.json", token=None).json()["paths"]
    found = {each.pop("name"): each for each in listed}
    assert list(found) == ["acme", "bare", "failing", "list", "long", "mysql", "odd", "postgresql"]
    token = {"type": "string", "writeOnly": True}
    assert found["acme"] == {
        "plugin": "kinds", "features": ["keys"], "schema": {"type": "object", "properties": {"token": token}}
    }  # fmt: skip
    assert [found[name]["schema"] for name in ("bare", "failing", "list", "long", "odd")] == [None] * 5
    assert found["mysql"]["plugin"] is None
    assert found["mysql"]["schema"]["properties"]["password"]["writeOnly"]


@pytest.mark.parametrize("dialect", [PostgresqlDialect(), MysqlDialect()], ids=["postgresql", "mysql"])
def test_the_schema_of_a_built_in_dialect_is_that_of_its_check(dialect: Any) -> None:
    properties = dialect.schema()["properties"]
    good = {"host": "h", "user": "u", "database": "d"}
    assert dialect.check(good, "t") == {}
    for name, rule in properties.items():
        if "enum" in rule:
            for choice in rule["enum"]:
                assert f"sourceConfig.{name}" not in dialect.check({**good, name: choice}, "t")
            assert f"sourceConfig.{name}" in dialect.check({**good, name: "no such choice"}, "t")
        if "default" in rule:
            assert dialect.check({**good, name: rule["default"]}, "t") == {}
        # A list is of no setting's type.
        assert f"sourceConfig.{name}" in dialect.check({**good, name: []}, "t"), name
    shown = dialect.secret_parts({name: "s3cret" for name, rule in properties.items() if rule.get("writeOnly")})
    assert shown["password"] == "***"

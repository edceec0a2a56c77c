"""/openapi.json is true to the routes; and what it describes, and what it does not, never makes the host fail."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from starbase_data_replication.config.fields import FIELDS
from starbase_data_replication.config.json_schema import configure_body
from tests.support.access import ROLES, a_host
from tests.support.hosts import ADMIN, CLIENT, HostProcess, running

FEW, MANY = 5, 30
SETTINGS = settings(
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    with running(tmp_path_factory.mktemp("fuzz")) as host:
        yield host
        assert "Traceback" not in host.log


@pytest.mark.anyio
async def test_the_document_has_every_route_and_nothing_else(tmp_path: Path) -> None:
    async with a_host(tmp_path) as (_, client):
        response = await client.get("/openapi.json")
    document = response.json()
    described = {
        (method.upper(), path): (operation["x-role"], operation["security"] == [])
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    assert described == {route: (role, role is None) for route, role in ROLES.items()}
    assert document["openapi"].startswith("3.1")
    assert {tag["name"] for tag in document["tags"]} == {"host", "data_replication", "third"}
    assert document["paths"]["/third/open"]["get"]["summary"] == "For everybody"
    for secret in (ADMIN, CLIENT, str(tmp_path)):
        assert secret not in response.text
    # Raises for an invalid document.
    assert len(list(schemathesis.openapi.from_dict(document).get_all_operations())) == len(ROLES)


def test_the_body_of_configure_is_described_field_by_field() -> None:
    described = configure_body()
    assert set(described["properties"]) == {field.json for field in FIELDS}
    for field in FIELDS:
        schema = described["properties"][field.json]
        if field.kind == "number":
            assert (schema["minimum"], schema["maximum"]) == (field.low, field.high)
        assert schema["description"].startswith(field.doc)
        assert ("null" in schema.get("type", ())) == field.nullable
    assert described["properties"]["group"]["pattern"] == described["properties"]["name"]["pattern"]


def fuzz(host: HostProcess, examples: int) -> None:
    """Schemathesis makes calls of every operation, valid ones and others; none may be an error of the host's."""
    schema = schemathesis.openapi.from_dict(host.request("GET", "/openapi.json", token=None).json())
    for found in schema.get_all_operations():
        operation: Any = cast(Any, found).ok()
        for mode in schemathesis.GenerationMode:

            @settings(SETTINGS, max_examples=examples)
            @given(case=operation.as_strategy(generation_mode=mode))
            def one(case: Any) -> None:
                response = case.call(base_url=host.url, headers={"Authorization": f"Bearer {ADMIN}"})
                # A source that cannot be reached is 502, and not ours.
                assert response.status_code in range(200, 500) or response.status_code == 502, response.text
                case.validate_response(response, checks=CHECKS)

            # An operation that takes nothing cannot be given anything wrong.
            with contextlib.suppress(Unsatisfiable):
                one()


# What is refused and what is accepted is the business of other tests; here an answer must have its form.
CHECKS = [response_schema_conformance, content_type_conformance, status_code_conformance]

ODD: st.SearchStrategy[Any] = st.sampled_from(
    [
        None, True, 0, -1, 0.01, 1e308, 10**400, "", " ", "\0", "\ud800", "x" * 5000, "é", "../../etc/passwd", "a'b\"c",
        "%", "${X}", "${", "***", [], {}, [[]], {"": None}, {"mark": 1}, {"mark": "x"}, "tmp_x", "SQLITE_x", "1e5",
        "NaN", "-- x", "\u202e", "2099-01-01", 2**63, -(2**63) - 1, 1.5, "t;DROP TABLE t",
    ]
)  # fmt: skip
NAMES = ["\0", "..", "%00", "a/b", "?", "#", "\ud800", "x" * 9000]
VALUES = ["0", "1001", "-1", "1e3", "٣", "true", "\0", "9" * 5000]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
# Nothing listens on port 1, so that each accepted request ends soon.
SOURCE = {"dialect": "postgresql", "host": "127.0.0.1", "port": 1, "user": "u"}
SOURCES = st.dictionaries(
    st.sampled_from(["user", "password", "database", "defaultSchema", "sslmode", "port", "dialect", "x"]), ODD | JSON,
    max_size=2,
).map(lambda change: {**SOURCE, **change})  # fmt: skip
BODIES = st.fixed_dictionaries(
    {
        "name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", fullmatch=True) | ODD,
        "sourceConfig": st.just(SOURCE) | SOURCES | ODD,
        "sourceTable": st.just("t") | st.text() | ODD,
        "targetTable": st.text(min_size=1, max_size=20) | ODD,
        "isActive": st.just(False) | ODD,
    },
    optional={field.json: ODD | JSON for field in FIELDS[4:] if field.json != "isActive"} | {"unknown": ODD},
)


def fuzz_fields(host: HostProcess, examples: int) -> None:
    @settings(SETTINGS, max_examples=examples)
    @given(body=BODIES)
    def configure(body: dict[str, Any]) -> None:
        response = host.request("POST", "/data-replication/configure", json.dumps(body).encode())
        assert response.status_code in (200, 400, 409), response.text
        if response.status_code == 200:
            name = body["name"]
            assert host.request("DELETE", f"/data-replication/configure/{name}").status_code == 200

    @settings(SETTINGS, max_examples=examples)
    @given(
        verb=st.sampled_from(["start", "stop", "sync", "reset", "verify", "reconcile", "configure"]),
        name=st.text(min_size=1, max_size=80) | st.sampled_from(NAMES),
        value=st.text(max_size=20) | st.sampled_from(VALUES),
    )
    def name_and_query(verb: str, name: str, value: str) -> None:
        method = "DELETE" if verb == "configure" else "POST"
        path = f"/data-replication/{verb}/{quote(name, safe='', errors='surrogatepass')}"
        text = value.encode("utf-8", "replace").decode()
        answers = [
            host.request(method, path, wait=text),
            host.request("GET", "/data-replication/logs", limit=text, name=f"a{text}"),
            host.request("POST", path, json.dumps({"repair": value, "force": value}).encode()),
        ]
        for answer in answers:
            assert answer.status_code in range(200, 500), (path, answer.text)
            assert set(answer.json()) in ({"result"}, {"error"})

    configure()
    name_and_query()


def test_no_call_makes_the_host_fail(host: HostProcess) -> None:
    fuzz(host, FEW)


def test_no_field_makes_the_host_fail(host: HostProcess) -> None:
    fuzz_fields(host, 4 * FEW)


@pytest.mark.prove
def test_no_call_and_no_field_makes_the_host_fail_in_many_tries(host: HostProcess) -> None:
    fuzz(host, MANY)
    fuzz_fields(host, 10 * MANY)

"""The page of the servers that the tests have met: in the form that the proofs write, and no more in the README."""

from __future__ import annotations

import re

from scripts import prove

from tests.support.packages import ROOT

README = ROOT / "README.md"
NAMED = re.compile(r"^Its tests run on (.*) \(\[the versions\]\(docs/reference/supported.md\)\)\.$", re.M)
ROW = re.compile(r"^\| ((?:PostgreSQL|MariaDB|MySQL) [\d.]+) \| (\d+) \|$", re.M)


def met() -> list[tuple[str, int]]:
    return [(server, int(count)) for server, count in ROW.findall(prove.SUPPORTED.read_text(encoding="utf-8"))]


def test_the_page_of_servers_is_as_the_proofs_write_it() -> None:
    assert prove.SUPPORTED.read_text(encoding="utf-8") == prove.supported(met())
    assert all(count > 0 for _, count in met())


def test_the_readme_names_the_servers_that_the_tests_have_met() -> None:
    (named,) = NAMED.findall(README.read_text(encoding="utf-8"))
    found: set[str] = set()
    for product, versions in re.findall(r"(PostgreSQL|MariaDB|MySQL) ([\d. and]+)", named):
        found |= {f"{product} {version}" for version in re.findall(r"\d+(?:\.\d+)?", versions)}
    # PostgreSQL counts its releases by the first number, the others by the first two.
    wanted = {re.sub(r"^(PostgreSQL \d+|\w+ \d+\.\d+).*$", r"\1", server) for server, _ in met()}
    assert found == wanted


def test_what_a_test_has_met_is_counted_once_and_only_where_it_passed() -> None:
    cases = [
        prove.Case("one", 1.0, "passed", [("met", "MySQL 9.7.4"), ("met", "MySQL 9.7.4"), ("seeds", "1")]),
        prove.Case("two", 1.0, "failure", [("met", "MariaDB 11.8.9")]),
    ]
    assert prove.met_by(cases) == [("MySQL 9.7.4", 1)]

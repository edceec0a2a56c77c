"""The measurements' own arithmetic: pairs, spreads, whole processes, and the places on the page."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from benchmarks import page
from benchmarks.__main__ import GROUPS
from benchmarks.measure import Failed, Figure, Tool, in_turn, quantile, ratios, spread, whole_process


def tool(name: str, seconds: list[float], calls: list[str], *, rounds: int = 1000, fails_in: int = -1) -> Tool:
    def run(number: int) -> Figure:
        calls.append(name)
        if number == fails_in:
            raise Failed("it broke")
        return Figure(seconds=seconds[number])

    return Tool(name, run, rounds=rounds)


def test_tools_take_turns_and_are_compared_within_a_round() -> None:
    calls: list[str] = []
    ours, peer = tool("ours", [1, 2, 4], calls), tool("peer", [2, 6, 8], calls, rounds=2)
    in_turn([ours, peer], 3)
    assert calls == ["ours", "peer", "ours", "peer", "ours"]
    assert ratios(peer, ours) == [2.0, 3.0]


def test_one_that_fails_is_left_out_and_the_table_says_why() -> None:
    calls: list[str] = []
    ours, broken = tool("ours", [1, 1], calls), tool("broken", [1, 1], calls, fails_in=0)
    in_turn([ours, broken], 2)
    assert calls == ["ours", "broken", "ours"]
    assert "not measured: it broke" in page.compared([ours, broken], against=[ours])


def test_a_spread_is_the_median_and_the_ends() -> None:
    assert spread([3, 1, 2], ".0f") == "2 (1 to 3)"
    assert (spread([1.5]), spread([])) == ("1.50", "–")
    assert [quantile(list(range(101)), share) for share in (0.5, 0.99, 1)] == [50, 99, 100]


def test_a_process_is_measured_by_itself(tmp_path: Path) -> None:
    held = bytearray(64 << 20)
    figure = whole_process([sys.executable, "-S", "-c", "sum(range(1000000))"], cwd=tmp_path)
    # Not what this process holds, from which it was forked.
    assert figure.mib is not None
    assert 1 < figure.mib < len(held) / 2**20
    assert figure.cpu is not None
    assert figure.cpu > 0
    with pytest.raises(Failed, match="exit status 3: no, not today"):
        whole_process([sys.executable, "-c", "print('no, not today'); exit(3)"], cwd=tmp_path)


@pytest.mark.parametrize("group", [*GROUPS, "versions"])
def test_every_group_has_its_place(group: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = page.PAGE.read_text()
    copy = tmp_path / "performance.md"
    copy.write_text(before)
    monkeypatch.setattr(page, "PAGE", copy)
    page.write(group, r"| \1 | new |")
    page.write(group, "again")
    after = copy.read_text()
    assert after.count(f"<!-- bench {group} -->\n\nagain\n\n<!-- end {group} -->") == 1
    assert len(after.splitlines()) <= len(before.splitlines())

"""What texts from outside may hold: `${NAME}`, and halves of surrogate pairs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starbase_host import ENV_REFERENCE, MALFORMED_REFERENCE, has_surrogate


@given(st.text(st.characters() | st.characters(categories=["Cs"])))
def test_a_text_with_half_of_a_surrogate_pair_has_no_utf_8(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        assert has_surrogate(text)
    else:
        assert not has_surrogate(text)


@pytest.mark.parametrize(
    ("text", "names", "malformed"),
    [
        ("${A}-${b_1}", ["A", "b_1"], False),
        ("$A {B} $ {C}", [], False),
        ("${}", [], True),
        ("${1}", [], True),
        ("${A-B} ${C}", ["C"], True),
        ("${A", [], True),
    ],
)
def test_a_reference_is_a_whole_name_in_braces(text: str, names: list[str], malformed: bool) -> None:
    assert ENV_REFERENCE.findall(text) == names
    assert (MALFORMED_REFERENCE.search(text) is not None) == malformed

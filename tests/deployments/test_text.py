"""Text of people: nothing that nobody sees, and nothing that a spreadsheet runs."""

from __future__ import annotations

import pytest

from deployments.services.text import line_of
from portal.lib.sheets import cell


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("safe \u202e drowssap\u2066x\u200b", "safe drowssapx"),
        ("\ufeffa\u00adb", "ab"),
        ("a\u2028b\x07c", "a b c"),
        ("für 模型", "für 模型"),
    ],
)
def test_what_nobody_sees_is_not_kept(typed: str, kept: str) -> None:
    assert line_of(typed, field="why", longest=100) == kept


@pytest.mark.parametrize(
    "text", ["=1+1", "\uff1d1+1", "\u200b=1+1", "\ufeff@SUM(1)", "\u00a0=1", " +1", "\uff0b1", "\t-1"]
)
def test_no_cell_begins_a_formula(text: str) -> None:
    assert cell(text) == f"'{text}"


@pytest.mark.parametrize("value", ["chat", "a=1", "", "\u200b", 7, -7, None, "３"])
def test_other_cells_stay_as_they_are(value: object) -> None:
    assert cell(value) == value

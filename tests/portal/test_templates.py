"""Templates are read by people: short lines, and parts that say what they expect."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.conf import settings

TEMPLATES = Path(settings.BASE_DIR) / "templates"
ALL = sorted(path.relative_to(TEMPLATES).as_posix() for path in TEMPLATES.rglob("*.html"))
PARTS = [name for name in ALL if Path(name).name.startswith("_") or name.startswith("parts/")]
# Pages that others extend, kept beside the parts.
EXTENDED = {"parts/trouble.html", "parts/trouble_in.html"}


# Django reads a tag on one line alone: one that fills its line may be longer, and still has an end.
ONE_TAG = re.compile(r"\s*\{% (include|text_field) [^%]{1,190} %\}")


@pytest.mark.parametrize("name", ALL)
def test_lines_are_short_enough_to_read(name: str) -> None:
    lines = (TEMPLATES / name).read_text(encoding="utf-8").splitlines()

    long = [number for number, line in enumerate(lines, 1) if len(line) > 120 and not ONE_TAG.fullmatch(line)]
    assert long == []


@pytest.mark.parametrize("name", [name for name in PARTS if name not in EXTENDED])
def test_a_part_begins_by_saying_what_it_is_for(name: str) -> None:
    assert (TEMPLATES / name).read_text(encoding="utf-8").startswith("{#")

"""Every dependency is named once with its reason, and locked with hashes."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
REQUIREMENTS = ROOT / "requirements"


def declared() -> set[str]:
    lines = [
        line for name in ("portal", "sandbox", "dev") for line in (REQUIREMENTS / f"{name}.in").read_text().splitlines()
    ]
    names = (re.match(r"[A-Za-z0-9-]+", line) for line in lines if not line.startswith(("#", "-r")))
    return {match.group().lower() for match in names if match}


def test_each_dependency_is_explained() -> None:
    rows = re.findall(r"^\| ([^|]+) \|", (ROOT / "docs" / "dependencies.md").read_text(), re.MULTILINE)
    explained = {name.strip().lower() for row in rows for name in row.split(",")}

    assert declared() <= explained


def test_each_dependency_is_locked_with_hashes_and_without_addresses() -> None:
    locked = (REQUIREMENTS / "dev.txt").read_text()

    for name in declared():
        assert re.search(rf"^{re.escape(name)}(\[[a-z,]+\])?==\S+ \\\n    --hash=sha256:", locked, re.MULTILINE), name
    assert "://" not in locked

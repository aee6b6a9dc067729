"""Every dependency is named once with its reason, and locked with hashes."""

import ast
import re
import sys
from importlib.metadata import packages_distributions
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


def test_the_image_installs_whatever_the_portal_imports() -> None:
    """The image holds requirements/portal.txt alone: nothing of the tests, nothing of the sandbox."""
    locked = {
        _plain(name)
        for name in re.findall(r"^([A-Za-z0-9._-]+)==", (REQUIREMENTS / "portal.txt").read_text(), re.MULTILINE)
    }
    providers = packages_distributions()

    for path in _portal_sources():
        for module in _imported(path):
            if module in sys.stdlib_module_names or (ROOT / module).is_dir():
                continue
            assert {_plain(name) for name in providers[module]} & locked, f"{path} imports {module}"


def _portal_sources() -> list[Path]:
    found = [
        path
        for package in ("portal", "deployments", "monitoring", "metering")
        for path in (ROOT / package).rglob("*.py")
    ]
    return [path for path in found if ROOT / "portal" / "demo" not in path.parents]


def _imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()

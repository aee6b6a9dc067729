"""What a comparison of two grounds tells when it fails, and that a second pass plays both of them again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from portal.demo.layout import REPOSITORY
from tests.scenarios import comparison, differences

LOOK, MAKE = "GET /api/v1/namespaces/kube-system", "POST /api/v1/namespaces/TEAM/serviceaccounts"


def test_what_is_more_is_told_with_both_lists() -> None:
    assert comparison.more("first apply", "real", [LOOK, MAKE], [MAKE]).splitlines() == [
        "first apply: on real more than on lite",
        f"  1 x {LOOK}",
        "all 1 calls on lite",
        f"  {MAKE}",
        "all 2 calls on real",
        f"  {LOOK}",
        f"  {MAKE}",
    ]
    assert comparison.more("first apply", "real", [MAKE], [LOOK, MAKE]) == ""


def test_as_many_calls_of_another_kind_are_more() -> None:
    assert f"1 x {LOOK}" in comparison.more("first apply", "real", [LOOK, MAKE], [MAKE, MAKE])


@pytest.mark.parametrize("processes", [[], ["-p", "xdist", "-n", "2"]], ids=["one process", "two processes"])
@pytest.mark.parametrize("failing", ["lite", "real"])
def test_a_second_pass_plays_both_grounds(tmp_path: Path, failing: str, processes: list[str]) -> None:
    [name] = differences.COMPARED
    (tmp_path / "test_pair.py").write_text(
        "import pytest\n\n"
        "@pytest.mark.parametrize('ground', ['lite', 'real'])\n"
        f"def {name}(ground): assert ground != '{failing}'\n\n"
        "@pytest.mark.parametrize('ground', ['lite', 'real'])\n"
        "def test_alone(ground): assert ground != 'real'\n"
    )
    first = outcomes(tmp_path, processes)
    assert (len(first), first[f"{name}[{failing}]"], first["test_alone[real]"]) == (4, "FAILED", "FAILED")
    assert outcomes(tmp_path, ["--last-failed"]).keys() == {f"{name}[lite]", f"{name}[real]", "test_alone[real]"}


def outcomes(folder: Path, arguments: list[str]) -> dict[str, str]:
    """Run pytest there; returns what became of each test, by its name."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rA", "--tb=no", "-p", comparison.__name__, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = (line.split() for line in done.stdout.splitlines())
    return {words[1].partition("::")[2]: words[0] for words in lines if words[:1] in (["PASSED"], ["FAILED"])}

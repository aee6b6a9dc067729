"""The settings import with nothing set, and each of them is documented."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def read_by_settings() -> set[str]:
    source = (ROOT / "portal" / "settings.py").read_text()
    return set(re.findall(r'env(?:_bool|_list)?\("([A-Z_]+)"', source))


def test_every_setting_is_documented_and_nothing_else() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \|", (ROOT / "docs" / "settings.md").read_text(), re.MULTILINE)

    assert set(rows) == read_by_settings()


def test_settings_import_with_an_empty_environment() -> None:
    code = "import portal.settings as s; print(s.DEBUG, len(s.SECRET_KEY))"

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True
    )

    assert done.stdout.split() == ["False", "64"], done.stderr


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from-a-file\n")
    code = "import portal.settings as s; print(s.SECRET_KEY)"
    environment = {"PATH": os.environ["PATH"], "SLIPWAY_SECRET_KEY_FILE": str(tmp_path / "key")}

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)

    assert done.stdout.strip() == "from-a-file", done.stderr

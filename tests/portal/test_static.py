"""Static files as an installation serves them: collected, compressed, under names with hashes."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
# As `manage.py collectstatic` does, packed less hard: to find the shortest form of each file takes half a minute.
COLLECT = """
from functools import partial
import brotli, django
django.setup()
from django.core.management import call_command
brotli.compress = partial(brotli.compress, quality=1)
call_command("collectstatic", interactive=False)
"""
SIGN_IN = """
import django
django.setup()
from django.template.loader import render_to_string
page = render_to_string("404.html")
print(page)
"""


def run(folder: Path, *command: str) -> str:
    environment = {
        "PATH": os.environ["PATH"],
        "DJANGO_SETTINGS_MODULE": "portal.settings",
        "SLIPWAY_STATIC_ROOT": str(folder),
    }
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_pages_name_collected_files_by_their_hash(tmp_path: Path) -> None:
    run(tmp_path, "-c", COLLECT)

    page = run(tmp_path, "-c", SIGN_IN)

    named = next(part for part in page.split('"') if part.startswith("/static/slipway."))
    assert named != "/static/slipway.css"
    assert (tmp_path / named.removeprefix("/static/")).with_suffix(".css.br").exists()

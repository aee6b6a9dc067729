"""What a browser has to fetch stays small."""

import re
from pathlib import Path

import brotli
import django_htmx

STATIC = Path(__file__).parent.parent.parent / "static"
BASE = Path(__file__).parent.parent.parent / "templates" / "base.html"


def compressed(path: str) -> int:
    folder = Path(django_htmx.__file__).parent / "static" if path.startswith("django_htmx/") else STATIC
    return len(brotli.compress((folder / path).read_bytes()))


def test_a_page_without_charts_loads_at_most_30_kb_of_script() -> None:
    scripts = re.findall(r"""<script src="{% static '([^']+)' %}\"""", BASE.read_text())

    assert {"app.js", "theme.js"} < set(scripts)
    assert sum(map(compressed, scripts)) <= 30 * 1024


def test_a_page_with_charts_loads_at_most_345_kb_more() -> None:
    assert compressed("vendor/plotly/plotly-basic.min.js") + compressed("charts.js") <= 345 * 1024

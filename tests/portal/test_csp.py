"""Nothing inline, nothing foreign: the policy is on every answer, and the templates keep it."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import brotli
import pytest
from django.conf import settings
from django.contrib.staticfiles import finders
from django.test import Client

from deployments.models import User
from tests.deployments import factories as make

TEMPLATES = sorted((settings.BASE_DIR / "templates").rglob("*.html"))
SCRIPTS = sorted((settings.BASE_DIR / "static").glob("*.js"))
PAGES = [
    "/deployments/",
    "/deployments/new/",
    "/catalogue/",
    "/approvals/",
    "/quotas/",
    "/capacity/",
    "/cluster/",
    "/account/",
]


@pytest.fixture
def carol(db: None) -> Client:
    user: User = make.make_user("carol", admin=True)
    make.join(user, make.make_team("search"))
    client = Client(raise_request_exception=False)
    client.force_login(user)
    return client


@pytest.mark.parametrize("path", [*PAGES, "/", "/accounts/login/", "/no/such/page/", "/healthz", "/deployments/1/"])
def test_every_answer_carries_the_policy(carol: Client, path: str) -> None:
    policy = carol.get(path).headers["Content-Security-Policy"]

    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == "'self'"
    assert "unsafe" not in policy
    assert "*" not in policy
    assert rules["frame-ancestors"] == rules["base-uri"] == "'none'"


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: str(path.relative_to(settings.BASE_DIR / "templates")))
def test_templates_hold_nothing_inline_and_escape_everything(template: Path) -> None:
    text = template.read_text(encoding="utf-8")

    assert not re.search(r"""\sstyle\s*=""", text)
    assert not re.search(r"""\son[a-z]+\s*=""", text)
    assert not re.search(r"<style|javascript:|hx-on|hx-vals=.js:|hx-trigger=\"[^\"]*\[", text)
    assert not re.search(r"<script(?![^>]*\ssrc=)", text)
    assert not re.search(r"\|\s*safe\b|autoescape\s+off|mark_safe", text)
    assert not re.search(r"""(src|href|action)=["']https?://""", text)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_our_scripts_never_turn_text_into_markup_or_code(script: Path) -> None:
    text = script.read_text(encoding="utf-8")

    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|https?://", text
    )


def test_forms_that_change_something_carry_the_token() -> None:
    for template in TEMPLATES:
        for form in re.findall(r"<form[^>]*method=\"post\".*?</form>", template.read_text(encoding="utf-8"), re.DOTALL):
            assert "{% csrf_token %}" in form, template


@pytest.mark.parametrize("path", PAGES)
def test_pages_without_charts_load_little_script(carol: Client, path: str) -> None:
    text = carol.get(path).content.decode()
    sources = re.findall(r'<script src="/static/([^"]+)"', text)

    weight = 0
    for source in sources:
        found = finders.find(source)
        assert found, source
        weight += len(brotli.compress(Path(str(found)).read_bytes()))
    assert len(sources) >= 4
    assert weight <= 30 * 1024


def test_the_vendored_files_are_what_was_recorded() -> None:
    script = settings.BASE_DIR / "scripts" / "vendor.py"
    spec = importlib.util.spec_from_file_location("vendor", script)
    assert spec is not None
    assert spec.loader is not None
    vendor: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(vendor)

    assert vendor.main(["check"]) == 0
    manifest = (settings.BASE_DIR / "static" / "vendor" / "vendor.json").read_text(encoding="utf-8")
    assert not re.search(r'"(resolved|registry|url)"', manifest)


def test_htmx_evaluates_nothing_and_stays_with_us(carol: Client) -> None:
    text = carol.get("/capacity/").content.decode()

    found = re.search(r"<meta\s+name=\"htmx-config\"\s+content='([^']+)'", text)
    assert found is not None
    wanted = {"allowEval": False, "allowScriptTags": False, "selfRequestsOnly": True, "historyCacheSize": 0}
    assert json.loads(found.group(1)).items() >= wanted.items()
    assert "htmx-2.min.js" in text

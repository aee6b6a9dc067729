"""A headless Chromium on the running demo stack. Whatever the browser complains about fails the test."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Response, sync_playwright

ARTIFACTS = Path(__file__).resolve().parent.parent.parent / "test-artifacts"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# What the browser itself prints for an answer of 400 and more; tests look at the page instead.
STATUS_LINE = re.compile(r"Failed to load resource: the server responded with a status of (4\d\d|503)")


class People:
    """Opens pages as somebody of the demo, and keeps what their browsers complained about."""

    def __init__(self, browser: Browser, demo: dict[str, Any]) -> None:
        self.browser = browser
        self.demo = demo
        self.complaints: list[str] = []
        self.pages: list[Page] = []
        self._contexts: list[BrowserContext] = []

    @property
    def url(self) -> str:
        return str(self.demo["url"]).rstrip("/")

    def account(self, who: str) -> dict[str, Any]:
        """An account by user name or role."""
        accounts: list[dict[str, Any]] = self.demo["accounts"]
        return next(item for item in accounts if who in {item["username"], item["role"]})

    def open(self, who: str, path: str = "/", **context: Any) -> Page:
        """A page of somebody who has signed in."""
        made = self.browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **context})
        made.set_default_timeout(15_000)
        self._contexts.append(made)
        page = self.watch(made.new_page())
        account = self.account(who)
        page.goto(f"{self.url}/accounts/login/?next={path}")
        page.fill("input[name=login]", account["username"])
        page.fill("input[name=password]", account["password"])
        page.click("button[type=submit]")
        page.wait_for_url(f"{self.url}{path}")
        return page

    def watch(self, page: Page) -> Page:
        """Keep what this page complains about: errors of scripts, violations of the policy, failed answers."""
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(f"{page.url}: {error}"))
        page.on("response", self._response)
        self.pages.append(page)
        return page

    def close(self) -> None:
        for context in self._contexts:
            context.close()

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not STATUS_LINE.match(message.text):
            self.complaints.append(f"{message.location.get('url', '')}: {message.text}")

    def _response(self, response: Response) -> None:
        if response.status >= 500:
            self.complaints.append(f"{response.status} {response.url}")


# Playwright's event loop runs in this thread until it is closed: no test outside this package could start one.
@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What demo.json says: of the running demo that SLIPWAY_DEMO names, or of one that is started for the tests."""
    given = os.environ.get("SLIPWAY_DEMO")
    described: dict[str, Any] = json.loads(Path(given).read_text()) if given else request.getfixturevalue("demo")
    return described


@pytest.fixture
def people(chromium: Browser, stack: dict[str, Any], request: pytest.FixtureRequest) -> Iterator[People]:
    opened = People(chromium, stack)
    yield opened
    report = getattr(request.node, "report_call", None)
    if report is not None and report.failed:
        ARTIFACTS.mkdir(exist_ok=True)
        name = re.sub(r"[^a-zA-Z0-9]+", "-", request.node.name).strip("-")
        for number, page in enumerate(page for page in opened.pages if not page.is_closed()):
            page.screenshot(path=ARTIFACTS / f"{name}-{number}.png", full_page=True)
    opened.close()
    assert opened.complaints == []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Let fixtures see how the test ended."""
    report = yield
    setattr(item, f"report_{report.when}", report)
    return report

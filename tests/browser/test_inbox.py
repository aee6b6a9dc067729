"""The inbox by keyboard: requests of both kinds are taken in hand, decided and followed by the next one."""

from __future__ import annotations

import json
import secrets
import urllib.request
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import People

pytestmark = [pytest.mark.browser, pytest.mark.stack, pytest.mark.timeout(240)]

NAME = f"inbox-{secrets.token_hex(2)}"


def ask(people: People, who: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Ask over the API, as a program of this person."""
    request = urllib.request.Request(
        f"{people.url}/api/v1/{path}",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {people.account(who)['token']}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        made: dict[str, Any] = json.load(answer)
    return made


@pytest.fixture
def waiting(people: People) -> tuple[str, str]:
    """Two requests that wait for carol: the ids of their cards."""
    spec = {
        "source": {"uri": "hf://Qwen/Qwen2.5-7B-Instruct"},
        "flavor": "l40s-48gb",
        "engine": {"args": {"max-model-len": 8192, "trust-remote-code": True}},
    }
    made = ask(people, "member", "deployments/", {"team": "search", "name": NAME, "spec": spec})
    quota = {"team": "search", "flavor": "l4-24gb", "gpus": 1, "why": f"For {NAME}"}
    asked = ask(people, "lead", "quota-requests/", quota)
    page = people.open("carol", "/approvals/?kind=deployment")
    card = page.locator("[data-case]", has=page.get_by_role("link", name=NAME, exact=True))
    return str(card.get_attribute("id")), f"q{asked['id']}" if made else ""


def in_hand(page: Page) -> str:
    return str(page.evaluate("() => document.activeElement.closest('[data-case]')?.id || ''"))


def take(page: Page, card: str) -> None:
    """Move with j until this card is in hand."""
    for _ in range(page.locator("[data-case]").count()):
        page.keyboard.press("j")
        if in_hand(page) == card:
            return
    raise AssertionError(f"{card} was never in hand")


def test_requests_are_decided_by_keyboard_alone(people: People, waiting: tuple[str, str]) -> None:
    revision, quota = waiting
    page = people.open("carol", "/approvals/")

    page.keyboard.press("j")
    first = in_hand(page)
    page.keyboard.press("j")
    second = in_hand(page)
    page.keyboard.press("k")
    assert first
    assert first != second
    assert in_hand(page) == first

    page.keyboard.press("?")
    expect(page.locator("#keys")).to_contain_text("Approve the request in hand")
    page.keyboard.press("a")  # Not while the help is open.
    page.keyboard.press("Escape")
    expect(page.locator("[data-done]")).to_have_count(0)

    take(page, revision)
    page.keyboard.press("x")
    expect(page.locator("[data-selected]")).to_have_text("(1)")
    page.keyboard.press("r")
    comment = page.locator(f"#c{revision}")
    expect(comment).to_be_focused()
    page.keyboard.type("a j x")  # Letters, while a field has the focus.
    expect(comment).to_have_value("a j x")
    page.keyboard.press("Enter")

    expect(page.locator(f"#{revision}")).to_contain_text("is rejected")

    take(page, quota)
    page.keyboard.press("a")  # Quota needs words.
    expect(page.locator(f"#c{quota}")).to_be_focused()
    page.keyboard.type("For a month")
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")  # Nothing is announced any more: Enter decides nothing.
    expect(page.locator(f"#{quota} [data-approve]")).to_be_visible()
    page.locator(f"#{quota} summary", has_text="In part").click()
    page.fill(f"#g{quota}", "0")
    page.locator(f"#{quota} [data-approve]").click()
    expect(page.locator(f"#g{quota}")).to_be_focused()  # What is wrong, since the button is another one now.
    expect(page.locator(f"#c{quota}")).to_have_value("For a month")
    page.locator(f"#{quota} [data-reject]").click()
    expect(page.locator(f"#{quota}")).to_contain_text("denied")

    page.goto(f"{people.url}/approvals/?show=history&q={NAME}")
    expect(page.locator("tbody tr")).to_have_count(2)


def test_several_are_decided_with_one_press(people: People) -> None:
    for number in range(2):
        quota = {"team": "search", "flavor": "l4-24gb", "gpus": 1, "why": f"{NAME} part {number}"}
        ask(people, "lead", "quota-requests/", quota)
    page = people.open("carol", "/approvals/?kind=quota")
    for number in range(2):
        card = page.locator("[data-case]", has_text=f"{NAME} part {number}")
        card.locator("input[name=item]").check()
    expect(page.locator("[data-selected]")).to_have_text("(2)")

    page.fill("#bulk-comment", "Not this month")
    page.get_by_role("button", name="Reject selected").click()

    results = page.locator("section", has=page.locator("#results-h")).locator("li")
    expect(results).to_have_count(2)
    for number in range(2):
        expect(results.nth(number)).to_contain_text("rejected")

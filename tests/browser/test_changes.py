"""Changes to what runs, in a browser: a fix by one click, a second revision, stop and start, and its end."""

from __future__ import annotations

import re
import secrets

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import People

pytestmark = [pytest.mark.browser, pytest.mark.stack, pytest.mark.timeout(420)]

COMING_UP_MS = 120_000
NAME = f"quay-{secrets.token_hex(2)}"


def test_a_deployment_is_changed_stopped_started_and_gone(people: People) -> None:
    alice = people.open("alice", "/catalogue/")
    ask_from_the_catalogue(alice)
    address = alice.url
    # A reload would take this away: whatever follows comes into the page that is open.
    alice.evaluate("() => { window.sameDocument = true; }")

    carol = people.open("carol", "/approvals/")
    approve(carol, people.url)
    seen = states_until(alice, "Running")
    assert {"Downloading", "Starting"} & set(seen), seen
    assert alice.evaluate("() => window.sameDocument") is True

    edit(alice, address)
    expect(alice.locator(".titleline")).to_contain_text("revision 2 waits for approval")
    approve(carol, people.url)
    expect(alice.locator(".titleline")).not_to_contain_text("waits for approval", timeout=20_000)
    expect(alice.locator(".titleline .state").first).to_have_text("Running", timeout=COMING_UP_MS)

    alice.goto(f"{address}metrics/")
    for panel in ("kv", "gpu"):
        alice.locator(f"#plot-{panel}").scroll_into_view_if_needed(timeout=60_000)  # drawn when it comes into view
        expect(alice.locator(f"#plot-{panel} path.js-line").first).to_be_attached(timeout=20_000)

    alice.goto(address)
    act(alice, "Stop", "Stop it")
    expect(alice.locator(".titleline .state").first).to_have_text("Stopped", timeout=60_000)
    expect(alice.get_by_text("None. They are reserved when")).to_be_visible(timeout=30_000)
    act(alice, "Start", "Start it")
    expect(alice.locator(".titleline .state").first).to_have_text("Running", timeout=COMING_UP_MS)

    alice.get_by_role("link", name="Delete", exact=True).click()
    alice.fill("#confirm", NAME)
    alice.get_by_role("dialog").get_by_role("button", name="Delete it").click()
    expect(alice.locator(".titleline .state").first).to_have_text("Deleted", timeout=60_000)
    alice.goto(f"{people.url}/deployments/?q={NAME}")
    expect(alice.locator("#content")).not_to_contain_text(f"{NAME} ")
    expect(alice.locator("[data-row-link]")).to_have_count(0)


def ask_from_the_catalogue(page: Page) -> None:
    page.locator("a[href*='/deployments/new/?model=qwen2']").first.click()
    expect(page.locator("#id_source_uri")).to_have_value(re.compile("hf://Qwen/"))
    page.fill("#id_name", NAME)
    page.fill("#id_tensor_parallel_size", "3")
    said = page.locator("#msg-tensor_parallel_size")
    expect(said).to_contain_text("3 GPUs cannot share evenly")
    said.locator("button").first.click()
    expect(page.locator("#id_tensor_parallel_size")).not_to_have_value("3")
    expect(said.locator(".t-red")).to_have_count(0)
    page.get_by_role("button", name="Ask for it").click()
    page.wait_for_url(re.compile(r"/deployments/\d+/$"))


def approve(page: Page, url: str) -> None:
    page.goto(f"{url}/approvals/")
    page.locator("article", has_text=NAME).get_by_role("button", name="Approve").click()
    expect(page.get_by_text("is approved").first).to_be_visible()


def states_until(page: Page, last: str) -> list[str]:
    """The states that an open page shows, one after the other, until `last`."""
    seen: list[str] = []
    for _ in range(COMING_UP_MS // 200):
        state = page.locator(".titleline .state").first.inner_text().strip()
        if not seen or seen[-1] != state:
            seen.append(state)
        if state == last:
            return seen
        page.wait_for_timeout(200)
    raise AssertionError(f"only {seen}")


def edit(page: Page, address: str) -> None:
    page.get_by_role("link", name="Edit", exact=True).click()
    page.fill("#id_max_model_len", "4096")
    page.fill("#id_note", "shorter is enough")
    page.get_by_role("button", name="Ask for this change").click()
    page.wait_for_url(address)


def act(page: Page, link: str, button: str) -> None:
    page.get_by_role("link", name=link, exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name=button).click()

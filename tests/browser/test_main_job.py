"""The main job, in a browser, on the whole demo: ask, approve, watch, prompt, look at figures, stop, delete."""

from __future__ import annotations

import re
import secrets

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import People

pytestmark = [pytest.mark.browser, pytest.mark.stack, pytest.mark.timeout(420)]

COMING_UP_MS = 120_000
# Another one each time: the demo that SLIPWAY_DEMO names keeps its data.
NAME = f"harbour-{secrets.token_hex(2)}"

TOO_FEW = "--max-num-batched-tokens=32\n--max-num-seqs=64"


def test_from_a_wish_to_a_served_model_and_back(people: People) -> None:
    member = people.open("amir", "/deployments/new/")
    ask_for_a_model(member)
    address = member.url
    expect(member.get_by_role("heading", name=re.compile("waits for a decision"))).to_be_visible()

    approve(people.open("carol", "/approvals/"))

    # The member's page follows by itself: nobody reloads.
    expect(member.locator(".titleline .state").first).to_have_text("Running", timeout=COMING_UP_MS)
    expect(member.locator(".way li.done")).to_have_count(9, timeout=40_000)
    expect(member.get_by_role("table").locator("tbody tr")).to_contain_text("Serving")

    prompt(member)
    look_at_figures(member, address)
    read_the_log(member, address)
    stop_and_delete(member, address)


def ask_for_a_model(page: Page) -> None:
    page.fill("#id_source_uri", "hf://Qwen/Qwen2.5-7B-Instruct")
    page.fill("#id_name", NAME)
    page.select_option("#id_flavor", label=page.locator("#id_flavor option", has_text="L40S").inner_text())
    page.fill("#id_max_model_len", "131072")
    # What is wrong stands at its field while one types, with the value that fixes it.
    expect(page.locator("#msg-max_model_len")).to_contain_text("32,768")
    page.locator("#msg-max_model_len button").first.click()
    expect(page.locator("#id_max_model_len")).to_have_value("32768")
    expect(page.locator("#msg-max_model_len .t-red")).to_have_count(0)
    expect(page.locator("#advice")).to_contain_text("fits")
    set_the_engine(page)
    # One replica: what the page then shows is one row.
    page.fill("#id_replicas_max", "1")
    page.fill("#id_replicas_min", "1")
    page.fill("#id_note", "browser test")
    page.get_by_role("button", name="Ask for it").click()
    page.wait_for_url(re.compile(r"/deployments/\d+/$"))


def set_the_engine(page: Page) -> None:
    """Settings in folded groups: the line of a group says what is set, and a mistake unfolds it."""
    page.select_option("#id_kv_cache_dtype", "fp8")
    expect(page.locator("#said-memory")).to_contain_text("KV cache type fp8")
    features, expert = page.locator("#group-features"), page.locator("#group-expert")
    # As a way of the side panel sets it, in a group that is folded.
    change = "(field) => { field.value = 'ngram'; field.dispatchEvent(new Event('change', { bubbles: true })); }"
    page.locator("#id_spec_method").evaluate(change)
    expect(page.locator("#said-features")).to_contain_text("1 to correct")
    expect(features).to_have_attribute("open", "")
    page.locator("#msg-spec_tokens button").click()
    expect(page.locator("#id_spec_tokens")).to_have_value("3")
    expect(page.locator("#said-features")).not_to_contain_text("to correct")
    # A flag that is written as a line is put right there, also where it has a field.
    expert.locator("summary").click()
    page.fill("#id_args", TOO_FEW)  # fewer tokens in a step than requests
    page.locator("#msg-args button").first.click()
    expect(page.locator("#id_args")).not_to_have_value(TOO_FEW)
    expect(page.locator("#id_max_num_batched_tokens")).to_have_value("")
    page.fill("#id_args", "")
    for name, usual in (("spec_method", ""), ("kv_cache_dtype", "")):
        page.select_option(f"#id_{name}", usual)
    page.fill("#id_spec_tokens", "")
    expect(page.locator("#said-features")).to_contain_text("as vLLM does by itself")


def approve(page: Page) -> None:
    card = page.locator("article", has_text=NAME)
    expect(card).to_contain_text("browser test")
    card.get_by_role("button", name="Approve").click()
    expect(page.locator("article[role=status]", has_text=NAME)).to_contain_text("approved")
    page.close()


def prompt(page: Page) -> None:
    page.get_by_role("link", name="Prompt").first.click()
    page.fill("#max_tokens", "24")
    page.fill("#text", "What is a slipway?")
    page.keyboard.press("Enter")
    answer = page.locator(".msg.assistant").first
    expect(answer.locator(".meta")).to_contain_text("first token after", timeout=30_000)
    expect(answer.locator(".meta")).to_contain_text("tokens")
    assert len(answer.locator("span").first.inner_text()) > 10


def look_at_figures(page: Page, address: str) -> None:
    page.goto(address)
    page.get_by_role("link", name="Metrics").last.click()
    expect(page.locator(".chart-plot .main-svg").first).to_be_visible(timeout=60_000)


def read_the_log(page: Page, address: str) -> None:
    page.goto(f"{address}logs/")
    expect(page.locator("#log")).to_contain_text("vLLM", timeout=15_000, ignore_case=True)
    page.fill("#log-find", "model")
    expect(page.locator("#log mark").first).to_be_visible()


def stop_and_delete(page: Page, address: str) -> None:
    page.goto(address)
    page.get_by_role("link", name="Stop", exact=True).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("come back to")
    dialog.get_by_role("button", name="Stop it").click()
    expect(page.locator(".titleline .state").first).to_have_text("Stopped", timeout=60_000)
    expect(page.get_by_text("None. They are reserved when")).to_be_visible(timeout=30_000)

    page.get_by_role("link", name="Delete", exact=True).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Delete it").click()
    expect(dialog).to_contain_text("Type the name")
    page.fill("#confirm", NAME)
    dialog.get_by_role("button", name="Delete it").click()
    expect(page.locator(".titleline .state").first).to_have_text("Deleted", timeout=60_000)

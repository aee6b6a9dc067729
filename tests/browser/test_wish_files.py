"""The request form as YAML in a browser: shown beside what would be applied, taken back, and files that are no wish."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import People
from tests.browser.test_looks import findings

pytestmark = [pytest.mark.browser, pytest.mark.stack, pytest.mark.timeout(180)]


def test_a_wish_goes_to_yaml_and_back(people: People) -> None:
    page = people.open("alice", "/deployments/new/?uri=hf://Qwen/Qwen2.5-7B-Instruct")
    page.fill("#id_name", "from-yaml")
    page.get_by_text("As YAML: show or fill in").click()
    page.get_by_role("button", name="Show the form as YAML").click()
    text = page.locator("#id_wish")
    expect(text).to_have_value(re.compile(r"name: from-yaml\nspec:\n  source:\n    uri: hf://Qwen/"))
    expect(page.get_by_role("heading", name="What would be applied")).to_be_visible()
    page.get_by_text("InferenceService from-yaml").click()
    expect(page.get_by_text("kind: InferenceService")).to_be_visible()
    # Its word that something is on its way fades: half of it has too little contrast.
    expect(page.locator("#showing")).to_have_css("opacity", "0")
    assert findings(page) == []

    text.fill(text.input_value() + "    seed: 7\n".replace("    ", "      "))
    page.get_by_role("button", name="Fill in the form").click()
    expect(page.locator("#msg-wish")).to_contain_text("The form now says")
    expect(page.locator("#id_args")).to_have_value(re.compile("--seed=7"))

    text.fill("spec: &me {source: *me}")
    page.get_by_role("button", name="Fill in the form").click()
    expect(page.locator("#msg-wish")).to_contain_text("Line 1: An alias")
    expect(text).to_be_focused()
    expect(page.locator("#id_name")).to_have_value("from-yaml")


def test_a_file_is_read_into_the_text_and_a_large_one_is_never_sent(people: People) -> None:
    page = people.open("alice", "/deployments/new/")
    page.get_by_text("As YAML: show or fill in").click()
    file, said = page.locator("#id_wish_file"), page.locator("#msg-wish")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.method + request.url))

    file.set_input_files({"name": "big.yaml", "mimeType": "text/yaml", "buffer": b"a: b\n" * 1_000_000})
    expect(said).to_contain_text("larger than 64 KiB")
    expect(page.locator("#id_wish")).to_have_attribute("aria-invalid", "true")
    assert [item for item in sent if item.startswith("POST") and not item.endswith("/preflight/")] == []

    file.set_input_files({"name": "chat.yaml", "mimeType": "text/yaml", "buffer": b"flavor: l4-24gb\n"})
    expect(page.locator("#id_wish")).to_have_value("flavor: l4-24gb\n")
    expect(said).to_be_empty()

"""Every page as people see it: no violation of the policy, nothing sideways, clean for axe, by keyboard too."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.conftest import People

pytestmark = [pytest.mark.browser, pytest.mark.stack, pytest.mark.timeout(300)]

PAGES = [
    "/",
    "/deployments/",
    "/deployments/new/",
    "/deployments/1/",
    "/deployments/1/metrics/",
    "/deployments/1/logs/",
    "/deployments/1/revisions/",
    "/deployments/1/manifests/",
    "/deployments/1/prompt/",
    "/catalogue/",
    "/deployments/hub/?hub=qwen",
    "/approvals/",
    "/approvals/?show=history",
    "/quotas/",
    "/quotas/?show=requests",
    "/quotas/?show=ends",
    "/quotas/?show=history",
    "/deployments/stop/",
    "/keys/",
    "/capacity/",
    "/metrics/",
    "/people/",
    "/people/groups/",
    "/people/teams/search/",
    "/account/",
    "/accounts/2fa/",
    "/no/such/page/",
]


def findings(page: Page) -> list[str]:
    """What axe calls serious or critical, with the element."""
    found: list[dict[str, Any]] = Axe().run(page).response["violations"]
    return [
        f"{item['id']}: {item['nodes'][0]['html'][:150]}" for item in found if item["impact"] in {"serious", "critical"}
    ]


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (1440, "dark"), (360, "light"), (360, "dark")])
def test_every_page_is_whole_and_accessible(people: People, width: int, scheme: str) -> None:
    page = people.open("carol", "/", viewport={"width": width, "height": 800}, color_scheme=scheme)
    wrong: dict[str, Any] = {}
    for path in [*PAGES, "/cluster/", "/approvals/policies/", "/approvals/renderings/", "/catalogue/new/"]:
        page.goto(people.url + path)
        page.wait_for_timeout(400)  # parts that load after the page
        sideways = page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth")
        if sideways > 0:
            wrong[path] = f"{sideways} px too wide"
        if found := findings(page):
            wrong[path] = found
    assert wrong == {}


@pytest.mark.parametrize("width", [360, 680, 768, 1024, 1280, 1440])
def test_no_table_is_cut_off(people: People, width: int) -> None:
    page = people.open("carol", "/", viewport={"width": width, "height": 800})
    cut: dict[str, Any] = {}
    for path in ["/", "/deployments/", "/deployments/1/", "/approvals/?show=history", "/quotas/", "/capacity/"]:
        page.goto(people.url + path)
        page.wait_for_timeout(600)  # figures that come after the page
        hidden = page.evaluate(
            "() => [...document.querySelectorAll('.tablewrap')].map((box) => box.scrollWidth - box.clientWidth)"
        )
        if any(pixels > 0 for pixels in hidden):
            cut[path] = hidden
    assert cut == {}


def test_charts_are_drawn_before_anybody_scrolls_and_for_print(people: People) -> None:
    page = people.open("carol", "/deployments/1/metrics/", viewport={"width": 360, "height": 780})
    drawn = "() => document.querySelectorAll('.chart-plot .main-svg').length / 3"  # Plotly makes three layers

    expect(page.locator(".chart-plot").last).to_be_attached(timeout=30_000)
    page.wait_for_function("() => [...document.querySelectorAll('.chart-plot')].every((plot) => plot.children.length)")
    assert page.evaluate("() => window.scrollY") == 0
    assert page.evaluate("() => document.querySelectorAll('.chart-plot').length") >= 8

    late = people.open("carol", "/deployments/1/metrics/", viewport={"width": 360, "height": 780})
    late.add_init_script("window.requestIdleCallback = () => 0")  # never idle
    late.goto(f"{people.url}/deployments/1/metrics/")
    expect(late.locator(".chart-plot").last).to_be_attached(timeout=30_000)
    assert late.evaluate(drawn) == 0
    late.evaluate("() => window.dispatchEvent(new Event('beforeprint'))")
    assert late.evaluate(drawn) >= 8


def test_the_top_bar_counts_the_age_of_what_it_shows(people: People) -> None:
    page = people.open("carol", "/", viewport={"width": 360, "height": 780})

    expect(page.locator("#freshness [data-label]")).to_have_text(re.compile(r"^\s*live, \d+ s ago\s*$"))
    expect(page.locator("#freshness [data-label]")).to_be_in_viewport()


def test_the_keyboard_reaches_everything(people: People) -> None:
    page = people.open("carol", "/")

    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    assert page.evaluate("() => document.activeElement.id") == "content"
    page.keyboard.press("/")
    expect(page.locator("#find")).to_be_focused()
    page.locator("h1").click()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.keyboard.press("d")
    page.wait_for_url(re.compile(r"/deployments/$"))
    page.locator("[data-row-link]").first.focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator("[data-row-link]").nth(1)).to_be_focused()

    # An admin who is in no team can ask for nothing; a member can.
    member = people.open("amir", "/")
    member.keyboard.press("n")
    member.wait_for_url(re.compile(r"/deployments/new/$"))


def test_the_drawer_opens_and_closes_on_a_phone(people: People) -> None:
    page = people.open("alice", "/", viewport={"width": 360, "height": 780})
    menu = page.get_by_role("navigation", name="Main")

    expect(menu).to_be_hidden()
    page.get_by_role("button", name="Menu").click()
    expect(menu).to_be_visible()
    page.keyboard.press("Escape")
    expect(menu).to_be_hidden()


def test_the_top_bar_keeps_to_one_line_on_a_phone(people: People) -> None:
    page = people.open("carol", "/", viewport={"width": 360, "height": 780})
    page.wait_for_timeout(400)
    height = "() => document.querySelector('.top').getBoundingClientRect().height"
    seen = """() => [...document.querySelectorAll('.top > :not(.grow):not(.hide-s)')]
        .filter((node) => node.offsetWidth > 1)
        .map((node) => node.getBoundingClientRect()).map((box) => [Math.round(box.left), Math.round(box.right)])"""
    trouble = """() => { document.querySelector('#parts').innerHTML =
        '<span class="state t-red">Prometheus <span class="more">unreachable since 12:00:00</span></span>' +
        '<span class="state t-red">Queue <span class="more">unreachable since 12:00:00</span></span>'; }"""

    for change in ("() => {}", trouble):
        page.evaluate(change)
        assert page.evaluate(height) <= 56
        boxes = page.evaluate(seen)
        assert all(0 <= left < right <= 360 for left, right in boxes), boxes
        assert all(one[1] <= two[0] for one, two in pairwise(boxes)), boxes

    # The search is a button until it has the focus; then it lies over the bar.
    find = page.get_by_role("searchbox", name="Find a deployment or model")
    assert find.bounding_box()["width"] < 40
    find.focus()
    assert find.bounding_box()["width"] > 300
    page.keyboard.type("chat")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/deployments/\?q=chat$"))
    page.get_by_role("button", name="Menu", exact=True).click()
    page.get_by_role("button", name="Close the menu").click()
    expect(page.get_by_role("navigation", name="Main")).to_be_hidden()


def test_selected_rows_stay_so_and_are_named_before_they_stop(people: People) -> None:
    page = people.open("amir", "/deployments/")
    button = page.get_by_role("button", name="Stop selected")
    expect(button).to_be_disabled()
    box = page.get_by_role("checkbox", name=re.compile("^Select (?!all)")).first
    box.check()
    expect(button).to_have_text(re.compile(r"\(1\)"))
    page.evaluate("() => htmx.trigger('#list-live', 'slipway:changed')")
    page.wait_for_timeout(800)
    expect(box).to_be_checked()
    expect(button).to_be_enabled()

    button.click()

    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading", name="Stop 1 deployment?")).to_be_visible()
    name = box.get_attribute("aria-label").removeprefix("Select ")
    expect(dialog.get_by_text(name, exact=True)).to_be_visible()
    dialog.get_by_role("link", name="Keep them").click()
    expect(dialog).to_be_hidden()


def test_a_chosen_theme_stays(people: People) -> None:
    page = people.open("alice", "/account/", color_scheme="light")
    background = "() => getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)

    page.get_by_role("button", name="Dark").last.click()
    dark = page.evaluate(background)
    page.goto(people.url + "/capacity/")

    assert light != dark
    assert page.evaluate(background) == dark


def test_a_wish_can_be_made_without_scripts(people: People) -> None:
    page = people.open("amir", "/deployments/new/", java_script_enabled=False)

    page.fill("#id_source_uri", "hf://Qwen/Qwen2.5-7B-Instruct")
    page.fill("#id_name", "Not A Name")
    page.fill("#id_note", "kept")
    page.get_by_role("button", name="Ask for it").click()

    expect(page.locator("#msg-name .t-red")).to_be_visible()
    expect(page.locator("#id_note")).to_have_value("kept")
    expect(page.locator("#id_source_uri")).to_have_value("hf://Qwen/Qwen2.5-7B-Instruct")


def test_what_is_typed_survives_a_live_update(people: People) -> None:
    page = people.open("amir", "/deployments/1/")
    page.get_by_text("curl", exact=True).click()
    box = page.locator("#snippet-curl")
    expect(box).to_be_visible()

    page.evaluate("() => htmx.trigger('#dep-live', 'slipway:changed')")
    page.wait_for_timeout(800)

    expect(box).to_be_visible()
    assert page.evaluate("() => document.querySelectorAll('#dep-live').length") == 1


def test_a_stranger_gets_the_page_that_says_nothing(people: People) -> None:
    page = people.open("bob", "/")

    answer = page.goto(people.url + "/deployments/1/")

    assert answer is not None
    assert answer.status == 404
    expect(page.get_by_role("heading", name="Nothing here")).to_be_visible()

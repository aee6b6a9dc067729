"""Many tabs of one person: each opens, each hears what changes, and together they hold one stream."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import People
from tests.demo.people import Person, wish

pytestmark = [pytest.mark.browser, pytest.mark.stack, pytest.mark.timeout(240)]
TABS = 8  # a browser opens six connections to a site


def test_more_tabs_than_connections_all_open_and_all_hear_of_a_change(people: People) -> None:
    first = people.open("dave", "/deployments/")
    tabs = [first]
    for _ in range(TABS - 1):
        tab = people.watch(first.context.new_page())
        tab.goto(f"{people.url}/deployments/", timeout=15_000)
        tabs.append(tab)

    dave = Person.named(people.demo, "dave")
    pk = dave.ask(wish("devtools", "heard-by-all"))

    for tab in tabs:
        expect(tab.locator(f"#d-{pk}")).to_contain_text("heard-by-all", timeout=15_000)
    # The one that held the stream goes; another takes it over and passes on what comes.
    tabs[0].close()
    assert dave.call("DELETE", f"/api/v1/deployments/{pk}/")[0] == 202
    for tab in tabs[1:]:
        expect(tab.locator(f"#d-{pk}")).to_have_count(0, timeout=60_000)

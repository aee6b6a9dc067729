"""An invitation in a browser: a lead makes a link, somebody of another team opens it, joins and leaves again."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import People

pytestmark = [pytest.mark.browser, pytest.mark.stack, pytest.mark.timeout(120)]


def test_somebody_joins_by_the_link_that_a_lead_made(people: People) -> None:
    lead = people.open("alice", "/people/teams/search/")
    lead.get_by_role("button", name="Make the invitation").click()
    link = lead.locator("#new-link").inner_text()

    mia = people.open("mia", "/people/")
    mia.goto(link)
    mia.get_by_role("button", name=re.compile("^Join as")).click()

    expect(mia.locator("#content")).to_contain_text("Search")
    mia.wait_for_url(f"{people.url}/people/teams/search/")
    mia.get_by_role("link", name="Leave the team").click()
    mia.get_by_role("dialog").get_by_role("button", name="Leave").click()
    mia.wait_for_url(f"{people.url}/people/")
    expect(mia.locator("#content").get_by_role("link", name="Labs")).to_be_visible()
    expect(mia.locator("#content").get_by_role("link", name="Search")).to_have_count(0)

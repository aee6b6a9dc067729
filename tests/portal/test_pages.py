"""Paging by keyset, addresses with changed parameters, and the tags that pages are written with."""

from __future__ import annotations

import base64
from datetime import timedelta

import pytest
from django.http import QueryDict
from django.utils import timezone

from deployments.models import Deployment, User
from portal.lib.pages import keyset_page, query_with
from portal.templatetags import slipway as tags


@pytest.fixture
def users(db: None) -> list[User]:
    """Seven users of whom some share a first name."""
    return [User.objects.create(username=f"u{n}", first_name="ab"[n % 2]) for n in range(7)]


def names(page: object) -> list[str]:
    return [user.username for user in page.rows]  # type: ignore[attr-defined]


def test_pages_follow_each_other_without_gap_or_overlap(users: list[User]) -> None:
    order = ("first_name", "-pk")
    first = keyset_page(User.objects.all(), order=order, size=3)
    second = keyset_page(User.objects.all(), order=order, after=first.after, size=3)
    third = keyset_page(User.objects.all(), order=order, after=second.after, size=3)

    assert names(first) + names(second) + names(third) == ["u6", "u4", "u2", "u0", "u5", "u3", "u1"]
    assert first.before == third.after == ""
    back = keyset_page(User.objects.all(), order=order, before=third.before, size=3)
    assert names(back) == names(second)
    home = keyset_page(User.objects.all(), order=order, before=back.before, size=3)
    assert names(home) == names(first)
    assert home.before == ""


def test_a_row_that_appears_meanwhile_moves_nothing(users: list[User]) -> None:
    first = keyset_page(User.objects.all(), order=("pk",), size=3)
    User.objects.filter(pk=users[0].pk).delete()

    second = keyset_page(User.objects.all(), order=("pk",), after=first.after, size=3)

    assert names(second) == ["u3", "u4", "u5"]


@pytest.mark.parametrize("cursor", ["x", "bnVsbA", "WzFd", "W10", "eyJhIjoxfQ", "WyJ4IiwieSJd", "A" * 2000])
def test_a_cursor_nobody_was_given_is_the_first_page(users: list[User], cursor: str) -> None:
    page = keyset_page(User.objects.all(), order=("first_name", "pk"), after=cursor, size=2)

    assert names(page) == ["u0", "u2"]


@pytest.mark.parametrize(
    "values", ['["a",Infinity]', '["a",-Infinity]', '["a",NaN]', '["a",1e999]', '["\\u0000",1]', f'["a",{"9" * 300}]']
)
def test_a_cursor_no_column_can_be_compared_with_breaks_nothing(users: list[User], values: str) -> None:
    cursor = base64.urlsafe_b64encode(values.encode()).decode().rstrip("=")

    page = keyset_page(User.objects.all(), order=("first_name", "pk"), after=cursor, size=2)

    assert len(page.rows) == 2


def test_an_address_keeps_its_other_parameters() -> None:
    query = QueryDict("q=a%26b&after=x&sort=name")

    assert query_with(query, after=None, sort="-name") == "?q=a%26b&sort=-name"
    assert query_with(QueryDict(""), after="") == "?"


def test_every_state_has_a_word_a_tone_and_a_shape_of_its_own() -> None:
    assert set(tags.STATES) == set(Deployment.State.values)
    for state in Deployment.State.values:
        word, tone, shape = tags.STATES[state]
        badge = tags.state_badge(state)
        assert word in badge
        assert f"t-{tone}" in badge
        assert f"#{shape}" in badge
    # Tones of different meaning never share a shape.
    by_shape = {shape: tone for _, tone, shape in tags.STATES.values() if tone in {"green", "yellow", "red", "purple"}}
    assert len(set(by_shape.values())) == 4


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.41, "0.410"),
        (3.14159, "3.14"),
        (42.9, "42.9"),
        (318.4, "318"),
        (1240, "1,240"),
        (98765.4, "98,800"),
        (-2.5, "-2.50"),
        (None, "–"),
        (float("nan"), "–"),
        (True, "–"),
    ],
)
def test_measured_numbers_have_three_significant_digits(value: object, text: str) -> None:
    assert tags.sig(value) == text


def test_times_are_relative_up_to_a_day_and_exact_on_hover() -> None:
    now = timezone.now()

    assert ">41 s ago<" in tags.ago(now - timedelta(seconds=41))
    assert ">3 h ago<" in tags.ago(now - timedelta(hours=3, minutes=10))
    assert "ago" not in tags.ago(now - timedelta(days=3)).partition(">")[2]
    assert f'datetime="{now.isoformat()}"' in tags.ago(now)
    assert tags.ago(None) == "–"


def test_a_bar_is_drawn_by_attributes_and_fills_its_width() -> None:
    drawn = tags.bar([{"kind": "use", "value": 3, "label": "a"}, {"kind": "free", "value": 1, "label": "b"}], "x")

    assert [(part["x"], part["width"]) for part in drawn["parts"]] == [("0.00", "750.00"), ("750.00", "250.00")]
    empty = tags.bar([{"kind": "use", "value": 0, "label": "a"}], "x")
    assert empty["parts"][0]["width"] == "0.00"


def test_names_in_badges_are_escaped() -> None:
    assert "<script>" not in tags.badge("red", "cross", "<script>")

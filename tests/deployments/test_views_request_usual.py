"""With how many replicas a new request begins, and why."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse

from deployments.forms import usual
from deployments.forms.request import with_value
from deployments.forms.usual import replicas_within
from deployments.models import CatalogEntry, Flavor, Team, User
from tests.deployments import factories as make
from tests.deployments.test_views_request import typed
from tests.deployments.viewing import signed_in


def begun(person: User, **params: str) -> Any:
    """The empty form, as a person opens it."""
    return signed_in(person).get(reverse("deployment-create"), params)


def replicas(answer: Any) -> tuple[str, str]:
    values = answer.context["values"]
    return values["replicas_min"], values["replicas_max"]


@pytest.mark.parametrize(
    ("free", "gpus", "proposed"),
    [
        (40, 1, (2, 10)),
        (10, 1, (2, 10)),
        (4, 1, (2, 4)),
        (4, 2, (2, 2)),
        (1, 1, (1, 1)),
        (3, 2, (1, 1)),
        (0, 1, (1, 1)),
    ],
)
def test_as_many_are_proposed_as_the_free_quota_holds(free: int, gpus: int, proposed: tuple[int, int]) -> None:
    assert replicas_within(free, gpus) == proposed


def test_two_to_ten_where_the_quota_holds_them(hub: list[str], team: Team, h100: Flavor, alice: User) -> None:
    make.make_grant(team, h100, 6)

    answer = begun(alice)

    assert replicas(answer) == ("2", "10")
    assert answer.context["usual"] == "2 to 10 are usual"


def test_a_smaller_quota_begins_with_what_it_holds_and_says_why(hub: list[str], h100: Flavor, alice: User) -> None:
    answer = begun(alice)

    assert replicas(answer) == ("2", "4")
    words = f"2 to 10 are usual; the team has 4 × {h100.name} left, enough for 2 to 4"
    assert f'<div class="help" id="help-replicas_max">{words}</div>' in answer.content.decode()


def test_a_request_begins_with_a_gpu_that_the_team_has_left(hub: list[str], alice: User, bob: User) -> None:
    small = make.make_flavor("l4-24gb")

    assert begun(alice).context["values"]["flavor"] == "h100-80gb"
    assert begun(bob).context["usual"] == "2 to 10 are usual; the team has no quota left for one"
    assert replicas(begun(bob)) == ("1", "1")

    make.make_grant(Team.objects.get(slug="labs"), small, 1)
    assert begun(bob).context["values"]["flavor"] == "l4-24gb"


def test_what_is_usual_follows_what_is_typed(hub: list[str], h100: Flavor, alice: User) -> None:
    answer = signed_in(alice).post(reverse("deployment-preflight"), typed(tensor_parallel_size="4"))

    words = f"2 to 10 are usual; the team has 4 × {h100.name} left, enough for 1"
    assert f'<div class="help" id="help-replicas_max" hx-swap-oob="morph">{words}</div>' in answer.content.decode()


def offers(person: User, **changes: str) -> list[str]:
    """What the live answer would set at once beside the most replicas, as its buttons say it."""
    fields = signed_in(person).post(reverse("deployment-preflight"), typed(**changes)).context["fields"]
    said = [*fields["replicas_max"]["messages"], *fields["decode_replicas_max"]["messages"]]
    return [item["sets"] for item in said if item["severity"] == "info" and item.get("sets")]


def test_what_is_usual_is_one_press_away_once_a_gpu_has_room_for_it(
    hub: list[str], team: Team, h100: Flavor, alice: User
) -> None:
    one = {"replicas_min": "1", "replicas_max": "1"}

    assert offers(alice, **one) == ["replicas_min=2&replicas_max=4"]
    # Four GPUs are left: of two each two replicas, of four each none beside the one.
    assert offers(alice, **one, tensor_parallel_size="2") == ["replicas_min=2&replicas_max=2"]
    assert offers(alice, **one, tensor_parallel_size="4") == []
    # Chosen otherwise, it is nobody's business.
    assert offers(alice, replicas_min="1", replicas_max="2") == []

    sent = signed_in(alice).post(reverse("deployment-create"), {**typed(**one), "way": offers(alice, **one)[0]})
    assert replicas(sent) == ("2", "4")


def test_so_is_what_is_usual_for_two_roles(hub: list[str], team: Team, h100: Flavor, alice: User) -> None:
    make.make_grant(team, h100, 50)
    roles = {name: "1" for role in ("prefill", "decode") for name in (f"{role}_replicas_min", f"{role}_replicas_max")}
    split = {"prefill_tensor_parallel_size": "2", "decode_tensor_parallel_size": "1", "tensor_parallel_size": ""}

    (way,) = offers(alice, strategy="disaggregated", **roles, **split)
    assert way == "prefill_replicas_min=2&prefill_replicas_max=8&decode_replicas_min=4&decode_replicas_max=20"
    # With other splits the preset's numbers say nothing.
    assert offers(alice, strategy="disaggregated", **roles, **{**split, "decode_tensor_parallel_size": "2"}) == []


def test_a_preset_of_the_catalogue_says_its_own(hub: list[str], alice: User) -> None:
    CatalogEntry.objects.create(
        slug="qwen",
        name="Qwen",
        uri=make.QWEN,
        summary="",
        parameters_billion=7.6,
        flavor="h100-80gb",
        presets=[{"flavor": "h100-80gb", "args": {"max-model-len": 8192}, "replicas": 3}],
    )

    assert replicas(begun(alice, model="qwen")) == ("3", "3")


@pytest.mark.parametrize(
    ("name", "value", "after"),
    [
        ("replicas_max", "1", ("1", "1")),
        ("replicas_min", "12", ("12", "12")),
        ("replicas_max", "5", ("2", "5")),
        ("decode_replicas_max", "1", ("2", "10")),
    ],
)
def test_a_fix_of_one_end_takes_the_other_along(name: str, value: str, after: tuple[str, str]) -> None:
    data = {"replicas_min": "2", "replicas_max": "10", "decode_replicas_min": "4", "decode_replicas_max": "20"}

    fixed = with_value(data, name, value)

    assert (fixed["replicas_min"], fixed["replicas_max"]) == after
    assert int(fixed["decode_replicas_min"]) <= int(fixed["decode_replicas_max"])


@pytest.mark.parametrize(("few", "most", "words"), [("1", "1", "1"), (2, 8, "2 to 8")])
def test_a_number_that_is_fixed_is_said_once(few: object, most: object, words: str) -> None:
    assert usual._range(few, most) == words

"""A model whose configuration cannot be read: the panel names what it lacks, and takes it from who knows."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse

from deployments.models import Deployment, User
from tests.deployments import factories as make
from tests.deployments.test_views_request import typed
from tests.deployments.viewing import flat, signed_in

ODD = "hf://org/odd"
NUMBERS = {"model_layers": "28", "model_heads": "28", "model_kv_heads": "4", "model_head_dim": "128"}


@pytest.fixture
def odd(hub: list[str]) -> None:
    """A model of which the hub knows the size of the weights, and no more."""
    make.make_check(ODD, facts={"id": "org/odd", "sha": make.COMMIT, "weights_bytes": 15_231_233_024})


def panel(person: User, **changes: str) -> Any:
    return signed_in(person).post(reverse("deployment-preflight"), typed(source_uri=ODD, **changes))


def test_the_panel_names_what_is_missing_and_says_what_is_known(odd: None, alice: User) -> None:
    answer = panel(alice)

    advice = answer.context["advice"]
    assert advice.fits == ()
    assert [number.label for number in advice.numbers] == ["Layers", "Attention heads", "KV heads", "Width of a head"]
    text = flat(answer.content.decode())
    assert "Its weights take 14.2 GiB together." in text
    assert 'name="model_kv_heads"' in text


def test_with_the_numbers_it_is_estimated_and_they_stay_in_their_boxes(odd: None, alice: User) -> None:
    answer = panel(alice, **NUMBERS)

    advice = answer.context["advice"]
    assert [one.word for one in advice.fits] == ["fits"]
    assert advice.fits[0].fit.kv_bytes_per_token == 57_344
    assert [number.value for number in advice.numbers] == ["28", "28", "4", "128"]
    assert advice.ways
    assert 'name="model_layers" type="text" inputmode="decimal" value="28"' in flat(answer.content.decode())


@pytest.mark.parametrize(
    ("text", "said"), [("many", "A whole number."), ("-3", "A whole number."), ("2.5", "A whole number.")]
)
def test_what_is_no_number_is_told_at_its_box(odd: None, alice: User, text: str, said: str) -> None:
    answer = panel(alice, **{**NUMBERS, "model_layers": text})

    advice = answer.context["advice"]
    assert advice.fits == ()
    assert [number.error for number in advice.numbers] == [said, "", "", ""]


def test_a_gated_model_can_be_estimated_by_who_knows_it(hub: list[str], alice: User) -> None:
    make.make_check("hf://org/gated", result="gated", facts={}, commit="", message="gated", remedy="")

    url, gated = reverse("deployment-preflight"), {"source_uri": "hf://org/gated"}
    weights = {"model_weights_bytes": "14,2"}
    advice = signed_in(alice).post(url, typed(**gated, **NUMBERS, **weights)).context["advice"]

    assert [one.word for one in advice.fits] == ["fits"]
    assert advice.fits[0].fit.weights_gib == 14.2


def test_a_model_that_is_not_there_is_not_asked_about(hub: list[str], alice: User) -> None:
    answer = signed_in(alice).post(reverse("deployment-preflight"), typed(source_uri="hf://org/none"))

    assert answer.context["advice"].numbers == ()


def test_numbers_are_kept_nowhere_and_the_request_is_sent_without(odd: None, alice: User) -> None:
    sent = signed_in(alice).post(reverse("deployment-create"), typed(source_uri=ODD, **NUMBERS))

    assert sent.status_code == 302
    latest = Deployment.objects.get().latest
    assert latest is not None
    assert "layers" not in str(latest.spec)

"""What the request form says when something is wrong: at the right field, once, and without wiping the rest."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse

from deployments.models import CatalogEntry, Deployment, User
from tests.deployments import factories as make
from tests.deployments.test_views_request import typed
from tests.deployments.viewing import flat, signed_in


def live(person: User, **changes: str) -> Any:
    """The advice beside a form while one types."""
    return signed_in(person).post(reverse("deployment-preflight"), typed(**changes))


def said(answer: Any, field: str) -> list[dict[str, Any]]:
    """The messages beside one field."""
    messages: list[dict[str, Any]] = answer.context["fields"][field]["messages"]
    return messages


def test_what_is_missing_is_asked_for_in_words(hub: list[str], alice: User) -> None:
    answer = signed_in(alice).post(reverse("deployment-create"), typed(name="", source_uri=""))

    assert [entry["message"] for entry in said(answer, "source_uri")] == [
        "Name the model, for example hf://Qwen/Qwen2.5-7B-Instruct."
    ]
    assert [entry["message"] for entry in said(answer, "name")] == ["Give it a name, for example “chat”."]
    text = answer.content.decode()
    assert "data-refused" in text
    assert 'name="name" value="" required autocomplete="off" spellcheck="false"' in flat(text)
    assert text.count('aria-invalid="true"') == 2


@pytest.mark.parametrize("change", [{"replicas_min": "3"}, {"replicas_min": "0"}, {"replicas_max": "99"}])
def test_a_mistake_in_the_replicas_wipes_nothing_else(hub: list[str], alice: User, change: dict[str, str]) -> None:
    answer = live(alice, **change)

    advice = answer.context["advice"]
    assert [one.word for one in advice.fits] == ["fits"]
    assert advice.model is not None
    assert advice.ways
    assert advice.quota is not None
    assert {way.month for way in advice.ways} == {None} or change == {"replicas_max": "99"}
    assert any(
        entry["severity"] == "error" for name in ("replicas_min", "replicas_max") for entry in said(answer, name)
    )


def test_a_decimal_comma_is_a_decimal_comma(hub: list[str], alice: User) -> None:
    signed_in(alice).post(reverse("deployment-create"), typed(gpu_memory_utilization="0,8", max_model_len="8,192"))

    latest = Deployment.objects.get().latest
    assert latest is not None
    assert latest.spec["engine"]["args"]["gpu-memory-utilization"] == 0.8
    assert latest.spec["engine"]["args"]["max-model-len"] == 8192


@pytest.mark.parametrize("share", ["90", "1.5", "much"])
def test_nothing_fits_into_a_share_that_cannot_be(hub: list[str], alice: User, share: str) -> None:
    advice = live(alice, gpu_memory_utilization=share).context["advice"]

    assert advice.fits == ()
    assert advice.ways == []


@pytest.mark.parametrize(("size", "fix"), [("3", "2"), ("64", "4")])
def test_a_split_that_cannot_be_made_is_no_way_and_has_one_fix(
    hub: list[str], alice: User, size: str, fix: str
) -> None:
    answer = live(alice, tensor_parallel_size=size, replicas_max="1")

    advice = answer.context["advice"]
    assert advice.fits == ()
    assert advice.ways
    assert all(not way.label.startswith(f"{size} ×") and way.sets for way in advice.ways)
    fixes = [entry["set"] for name in answer.context["fields"] for entry in said(answer, name) if entry.get("set")]
    assert fixes == [fix]
    fixed = live(alice, tensor_parallel_size=fix, replicas_max="1").context
    assert [one.word for one in fixed["advice"].fits] == ["fits"]
    assert not fixed["form"].errors
    assert not any(finding.is_error for finding in fixed["form"].findings)


def test_an_edit_sends_no_boxes_for_fields_it_does_not_have(hub: list[str], alice: User) -> None:
    client = signed_in(alice)
    client.post(reverse("deployment-create"), typed())

    url = reverse("deployment-edit-preflight", args=[Deployment.objects.get().pk])
    text = client.post(url, typed(max_model_len="8192")).content.decode()

    assert 'id="msg-max_model_len"' in text
    assert 'id="msg-name"' not in text
    assert 'id="msg-team"' not in text


def test_a_gated_model_says_once_what_it_needs(hub: list[str], alice: User) -> None:
    make.make_check("hf://org/gated", result="gated", facts={}, commit="", message="gated", remedy="")

    answer = live(alice, source_uri="hf://org/gated")

    (only,) = said(answer, "credential")
    assert (only["severity"], only["message"]) == ("warning", "gated")
    assert said(answer, "source_uri") == said(answer, "args") == []
    assert "Ask anyway" not in answer.content.decode()
    sent = signed_in(alice).post(reverse("deployment-create"), typed(source_uri="hf://org/gated"))
    assert sent.status_code == 422
    assert said(sent, "credential")[0]["severity"] == "error"


def test_the_verdict_stands_at_the_button_too(hub: list[str], alice: User) -> None:
    page = flat(signed_in(alice).post(reverse("deployment-create"), typed(name="")).content.decode())
    part = live(alice).content.decode()

    assert page.index('id="verdict"') < page.index('type="submit">Ask for it')
    verdict = part[part.index('id="verdict"') :]
    assert 'hx-swap-oob="morph"' in verdict[:40]
    assert "fits · 1 × " in verdict


def test_a_catalogue_entry_proposes_a_name_that_may_be_sent(hub: list[str], alice: User) -> None:
    CatalogEntry.objects.create(
        slug="qwen2.5-0.5b", name="Qwen", uri=make.QWEN, summary="", parameters_billion=0.5, flavor="h100-80gb", args={}
    )

    answer = signed_in(alice).get(reverse("deployment-create"), {"model": "qwen2.5-0.5b"})

    assert answer.context["values"]["name"] == "qwen2-5-0-5b"

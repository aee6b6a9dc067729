"""Models that an admin added to the catalogue are changed and taken out again; those that come with Slipway stay."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse

from deployments.models import CatalogEntry, Event, User
from deployments.services import catalogue, catalogue_edits
from deployments.services.errors import ConflictError, InvalidError, MissingError, NotAllowedError
from portal.management import platform
from tests.deployments import factories as make
from tests.deployments.apis import Api
from tests.deployments.viewing import signed_in

OWN = "hf://org/own"
NEWER = "b" * 40


@pytest.fixture
def own(hub: list[str], carol: User) -> CatalogEntry:
    """A model that an admin added, beside one that came with Slipway; its hub knows another version too."""
    make.make_flavor("l4-24gb")
    platform.make_catalog()
    known = make.make_check(OWN)
    newer = {**known.facts, "sha": NEWER, "layers": 80, "weights_bytes": 60_000_000_000, "max_position": 16_384}
    make.make_check(OWN, "v2", facts=newer, commit=NEWER)
    make.make_check(OWN, "gone", result="not_found", facts={}, message="The hub has no such revision.", remedy="Look.")
    return catalogue.add(principal=make.principal(carol), uri=OWN, summary="Good.", capabilities=["chat"])


def test_what_is_said_of_it_changes_and_the_audit_tells(own: CatalogEntry, carol: User, alice: User) -> None:
    address = reverse("catalogue-edit", args=[own.pk])
    browser = signed_in(carol)
    page = browser.get(address)
    assert page.context["text"] == {"revision": own.revision, "name": "own", "summary": "Good."}

    sent = {"revision": own.revision, "name": "Ours", "summary": "Better.", "capabilities": ["code", "chat"]}
    assert browser.post(address, sent).status_code == 302

    row = CatalogEntry.objects.get(pk=own.pk)
    assert (row.name, row.summary, row.capabilities) == ("Ours", "Better.", ["chat", "code"])
    assert (row.revision, row.presets) == (own.revision, own.presets), "looked up for another version alone"
    (event,) = Event.objects.filter(kind="catalogue_edited")
    assert event.data["before"] == {"name": "own", "summary": "Good.", "capabilities": ["chat"]}
    assert event.data["after"] == {"name": "Ours", "summary": "Better.", "capabilities": ["chat", "code"]}
    browser.post(address, sent)
    assert Event.objects.filter(kind="catalogue_edited").count() == 1, "the same again is no change"
    assert "Better." in signed_in(alice).get(reverse("catalogue")).content.decode()


def test_another_version_is_looked_up_and_gets_settings_anew(own: CatalogEntry, carol: User) -> None:
    row = catalogue_edits.edit(principal=make.principal(carol), slug=own.slug, revision="v2")

    assert (row.revision, row.context, row.facts["layers"]) == (NEWER, 16_384, 80)
    sizes = {preset.flavor: preset.per_replica for preset in row.choices}
    assert sizes == {"h100-80gb": 1, "l4-24gb": 4}
    assert (row.name, row.capabilities) == ("own", ["chat"])
    after = Event.objects.get(kind="catalogue_edited").data["after"]
    assert after["revision"] == NEWER
    assert {"presets", "context", "facts"} <= after.keys()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"summary": "x" * 301}, "summary"),
        ({"name": 7}, "name"),
        ({"capabilities": ["flying"]}, "capabilities"),
        ({"revision": "gone"}, "revision"),
    ],
)
def test_what_is_wrong_is_said_at_its_field_and_nothing_changes(
    own: CatalogEntry, carol: User, change: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidError) as refused:
        catalogue_edits.edit(principal=make.principal(carol), slug=own.slug, **change)
    assert refused.value.field == field
    row = CatalogEntry.objects.get(pk=own.pk)
    assert (row.name, row.summary, row.revision) == (own.name, own.summary, own.revision)


def test_the_form_says_it_at_the_field_and_keeps_what_was_typed(own: CatalogEntry, carol: User) -> None:
    sent = {"revision": "gone", "name": "Ours", "summary": "Kept."}
    answer = signed_in(carol).post(reverse("catalogue-edit", args=[own.pk]), sent)

    text = answer.content.decode()
    assert answer.status_code == 422
    assert "The hub has no such revision." in text
    assert 'value="Kept."' in text
    assert answer.context["errors"].keys() == {"revision"}


def test_it_is_removed_after_a_question(own: CatalogEntry, carol: User) -> None:
    browser, address = signed_in(carol), reverse("catalogue-remove", args=[own.pk])
    assert address in browser.get(reverse("catalogue")).content.decode()
    assert "go on running" in browser.get(address).content.decode()
    assert CatalogEntry.objects.filter(pk=own.pk).exists()

    assert browser.post(address).status_code == 302

    assert not CatalogEntry.objects.filter(pk=own.pk).exists()
    event = Event.objects.get(kind="catalogue_removed")
    assert (event.data["before"]["uri"], event.data["model"]) == (OWN, "own")
    assert catalogue.add(principal=make.principal(carol), uri=OWN).slug == "own"


def test_what_comes_with_slipway_is_hidden_and_neither_changed_nor_removed(own: CatalogEntry, carol: User) -> None:
    seeded, who = CatalogEntry.objects.get(slug="qwen3-8b"), make.principal(carol)
    for act in (
        lambda: catalogue_edits.edit(principal=who, slug=seeded.slug, summary="Mine."),
        lambda: catalogue_edits.delete(principal=who, slug=seeded.slug),
    ):
        with pytest.raises(ConflictError) as refused:
            act()
        assert refused.value.code == "comes_with_slipway"
    for name in ("catalogue-edit", "catalogue-remove"):
        address = reverse(name, args=[seeded.pk])
        assert signed_in(carol).get(address).status_code == 404
        assert address not in signed_in(carol).get(reverse("catalogue")).content.decode()


def test_others_change_nothing(own: CatalogEntry, alice: User, carol: User) -> None:
    for who in (make.principal(alice), make.principal(carol, "read", "write")):
        with pytest.raises(NotAllowedError):
            catalogue_edits.edit(principal=who, slug=own.slug, summary="Mine.")
        with pytest.raises(NotAllowedError):
            catalogue_edits.delete(principal=who, slug=own.slug)
    with pytest.raises(MissingError):
        catalogue_edits.delete(principal=make.principal(carol), slug="no-such")
    page = signed_in(alice).get(reverse("catalogue")).content.decode()
    assert reverse("catalogue-edit", args=[own.pk]) not in page


def test_the_same_over_the_api(own: CatalogEntry, alice: User, carol: User) -> None:
    admin = Api(carol)
    assert admin("get", "catalog/own/").json()["own"] is True
    assert admin("get", "catalog/qwen3-8b/").json()["own"] is False
    body = {"name": "Ours", "revision": "v2", "pinned": True}
    answer = admin("patch", "catalog/own/", body).json()
    assert (answer["name"], answer["revision"], answer["pinned"]) == ("Ours", NEWER, True)
    wrong = admin("patch", "catalog/own/", {"revision": "gone"})
    assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "/revision")
    wrong = admin("patch", "catalog/own/", {"capabilities": ["chat", {"tools": True}]})
    (said,) = wrong.json()["errors"]
    assert (wrong.status_code, said["pointer"], said["field"]) == (422, "/capabilities/1", "capabilities")
    for method, body in (("patch", {"name": "Mine"}), ("delete", None)):
        answer = admin(method, "catalog/qwen3-8b/", body)
        assert (answer.status_code, answer.json()["code"]) == (409, "comes_with_slipway")
    assert Api(alice)("delete", "catalog/own/").status_code == 403

    assert admin("delete", "catalog/own/").status_code == 204

    assert admin("get", "catalog/own/").status_code == 404

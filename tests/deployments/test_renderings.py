"""What a newer Slipway would render differently: shown to admins, and asked for as any other revision."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse

from deployments.manifests import standard
from deployments.models import Deployment, EngineProfile, Event, Team, User
from deployments.services import renderings
from deployments.services.errors import ConflictError, MissingError, NotAllowedError, StaleError
from tests.deployments import factories as make
from tests.deployments.test_approvals import ask, decide, revise
from tests.deployments.viewing import flat, signed_in

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("hub")]


@pytest.fixture
def approved(hub: list[str], team: Team, ann: User, carol: User) -> Deployment:
    row = ask(ann, team)
    decide(carol, row)
    row.refresh_from_db()
    return row


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch, approved: Deployment) -> None:
    """A newer Slipway writes one label more on every object."""
    build = standard.build

    def renders(wish: Any) -> list[dict[str, Any]]:
        objects = build(wish)
        return [
            {**obj, "metadata": {**obj["metadata"], "labels": {**obj["metadata"]["labels"], "new": "yes"}}}
            for obj in objects
        ]

    monkeypatch.setattr(standard, "build", renders)


def renew(user: User, row: Deployment, digest: str = "") -> Any:
    assert row.approved is not None
    return renderings.renew(principal=make.principal(user), deployment_id=row.pk, digest=digest or row.approved.digest)


def test_nothing_would_change_while_slipway_is_the_same(approved: Deployment, carol: User) -> None:
    EngineProfile.objects.update(image="vllm/other@sha256:" + "6" * 64)  # The image that was signed stays.

    found = renderings.changes(make.principal(carol))

    assert (found.rows, found.looked, found.after) == ([], 1, 0)
    with pytest.raises(ConflictError, match="Nothing would change"):
        renew(carol, approved)


@pytest.mark.usefixtures("newer")
def test_what_would_change_is_named_value_by_value(approved: Deployment, carol: User) -> None:
    (change,) = renderings.changes(make.principal(carol)).rows

    assert (change.deployment, change.revision, change.why) == (approved, approved.approved, "")
    assert {(one.path, one.old, one.new) for one in change.differences} == {("metadata.labels.new", None, "yes")}
    assert len(change.differences) == len(approved.approved.objects_json)


@pytest.mark.usefixtures("newer")
def test_a_new_revision_has_the_same_spec_and_resolution_and_waits(approved: Deployment, carol: User) -> None:
    EngineProfile.objects.update(image="vllm/other@sha256:" + "6" * 64)
    old = approved.approved

    revision = renew(carol, approved)

    approved.refresh_from_db()
    assert (revision.number, revision.verdict, approved.latest, approved.approved) == (2, "pending", revision, old)
    assert old is not None
    assert (revision.spec, revision.resolution) == (old.spec, old.resolution)
    assert revision.digest != old.digest
    assert all(obj["metadata"]["labels"]["new"] == "yes" for obj in revision.objects_json)
    event = Event.objects.filter(kind="revised").get()
    assert (event.actor, event.data["before"], event.data["after"]) == (
        carol,
        {"digest": old.digest},
        {"digest": revision.digest},
    )


@pytest.mark.usefixtures("newer")
def test_who_asked_for_it_does_not_approve_it(approved: Deployment, carol: User) -> None:
    renew(carol, approved)

    with pytest.raises(NotAllowedError, match="somebody else"):
        decide(carol, approved)
    assert decide(make.make_user("erin", admin=True), approved).approved
    assert renderings.changes(make.principal(carol)).rows == []


@pytest.mark.usefixtures("newer")
def test_what_runs_is_what_is_compared_and_a_waiting_edit_is_not_overtaken(
    approved: Deployment, ann: User, carol: User
) -> None:
    with pytest.raises(StaleError):
        renew(carol, approved, "0" * 64)
    revise(ann, approved, 2)

    with pytest.raises(ConflictError, match="Revision 2 is newer"):
        renew(carol, approved)


@pytest.mark.usefixtures("newer")
def test_it_is_for_admins_whose_token_reaches_the_team(
    approved: Deployment, alice: User, bob: User, carol: User
) -> None:
    for person in (alice, bob):
        assert renderings.changes(make.principal(person)).rows == []
        with pytest.raises(NotAllowedError):
            renew(person, approved)
    bound = make.Principal(user=carol, team_ids=frozenset())
    assert approved.approved is not None
    with pytest.raises(MissingError):
        renderings.renew(principal=bound, deployment_id=approved.pk, digest=approved.approved.digest)


@pytest.mark.usefixtures("newer")
def test_a_revision_that_cannot_be_rendered_any_more_hides_no_other(
    approved: Deployment, team: Team, ann: User, carol: User
) -> None:
    other = make.make_deployment(team, ann, name="old", approved=True)  # Its resolution lacks what builders need.

    found = {change.deployment.pk: change for change in renderings.changes(make.principal(carol)).rows}

    assert set(found) == {approved.pk, other.pk}
    assert "cannot render it" in found[other.pk].why


@pytest.mark.usefixtures("newer")
def test_the_page_asks_for_a_wave(approved: Deployment, team: Team, ann: User, carol: User) -> None:
    second = ask(ann, team, "second")
    decide(make.make_user("erin", admin=True), second)
    second.refresh_from_db()
    url = reverse("approvals-renderings")
    rows = [row for row in (approved, second) if row.approved is not None]
    items = [f"{row.pk}:{row.approved.digest}" for row in rows if row.approved]

    text = flat(signed_in(carol).get(url).content.decode())
    assert "metadata.labels.new" in text
    answer = signed_in(carol).post(url, {"item": items, "wave": "1"})

    assert [revision.number for _, _, revision, _ in answer.context["results"]] == [2]
    assert signed_in(carol).post(url, {"wave": "5"}).status_code == 422
    assert signed_in(carol).post(url, {"item": ["x", "1:\x00"], "wave": "9" * 30}).status_code in {200, 422}


def test_an_empty_page_says_what_it_looked_at(approved: Deployment, carol: User) -> None:
    text = flat(signed_in(carol).get(reverse("approvals-renderings")).content.decode())

    assert "renders 1 approved deployment exactly as they run" in text

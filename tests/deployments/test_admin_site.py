"""Django's admin shows, changes nothing and has no door of its own; admins alone give GPUs back without proof."""

from __future__ import annotations

import pytest
from django.contrib import admin
from django.test import Client
from django.urls import reverse

from deployments.models import Deployment, Event
from deployments.services import ledger
from tests.deployments import factories as make
from tests.deployments.apis import Api, pointers, problem

pytestmark = pytest.mark.django_db


def test_django_admin_shows_and_changes_nothing(client, ann, carol, team):
    deployment = make.make_deployment(team, ann)
    carol.is_staff = True
    carol.save()
    ann.is_staff = True
    ann.save()
    page = f"/django-admin/deployments/deployment/{deployment.pk}/change/"
    client.force_login(ann)
    assert client.get(page).status_code == 403
    client.force_login(carol)
    assert client.get(page).status_code == 200
    assert client.get("/django-admin/deployments/deployment/").status_code == 200
    assert client.post(page, {"name": "other"}).status_code == 403
    assert client.get("/django-admin/deployments/deployment/add/").status_code == 403
    assert b"pbkdf2" not in client.get(f"/django-admin/deployments/user/{carol.pk}/change/").content


def test_django_admin_has_no_door_of_its_own(client, ann):
    page = "/django-admin/login/?next=/django-admin/"
    answer = client.get(page)
    assert (answer.status_code, answer["Location"].partition("?")[0]) == (302, "/accounts/login/")
    assert client.post(page, {"username": "ann", "password": "guess"}).status_code == 302
    client.force_login(ann)
    assert client.get(page).status_code == 403


@pytest.fixture
def stuck(ann, team, h100) -> Deployment:
    """A stopped deployment whose pods nobody can prove to be gone."""
    deployment = make.make_deployment(team, ann, gpus=2, approved=True)
    ledger.reserve(deployment=deployment, revision=deployment.latest, gpus=2)
    Deployment.objects.filter(pk=deployment.pk).update(wanted="stopped")
    return deployment


def test_an_admin_gives_gpus_back_without_proof_and_says_why(ann_api, carol, carol_api, stuck):
    path = f"deployments/{stuck.pk}/release/"
    assert problem(ann_api("post", path, {"reason": "the node burnt"}), 403)
    assert problem(Api(carol, "read", "write")("post", path, {"reason": "the node burnt"}), 403)
    assert pointers(carol_api("post", path, {})) == {"/reason": "required"}
    assert ledger.held_by(stuck) == 2
    given = carol_api("post", path, {"reason": "the node burnt"})
    assert given.status_code == 200
    assert [(row["kind"], row["delta"], row["actor"]) for row in given.json()] == [("force", -2, "carol")]
    assert ledger.held_by(stuck) == 0
    assert Event.objects.get(kind="gpus_forced").data["reason"] == "the node burnt"
    assert carol_api("post", path, {"reason": "again"}).json() == []


@pytest.fixture
def carols_admin(client, carol) -> Client:
    carol.is_staff = True
    carol.save()
    client.force_login(carol)
    return client


def test_the_admins_button_gives_gpus_back_after_a_reason(carols_admin, carol, stuck):
    page = "/django-admin/deployments/deployment/"
    sent = {"action": "force_release", "_selected_action": [stuck.pk]}
    asked = carols_admin.post(page, sent)
    assert "2 GPUs" in asked.content.decode()
    carols_admin.post(page, {**sent, "confirmed": "yes", "reason": " "})
    assert ledger.held_by(stuck) == 2
    carols_admin.post(page, {**sent, "confirmed": "yes", "reason": "the node burnt"})
    assert ledger.held_by(stuck) == 0
    event = Event.objects.get(kind="gpus_forced")
    assert (event.actor, event.data["reason"]) == (carol, "the node burnt")


def test_no_admin_writes_or_shows_secrets(carols_admin, carol, rf):
    request = rf.get("/django-admin/")
    carol.is_superuser = True
    request.user = carol
    shown = set()
    for model, each in admin.site._registry.items():
        writes = (each.has_add_permission, each.has_change_permission, each.has_delete_permission)
        assert not any(may(request) for may in writes), model
        shown |= {f"{model.__name__}.{name}" for name in each.get_fields(request)}
        assert set(each.get_fields(request)) <= set(each.get_readonly_fields(request)), model
        names = (model._meta.app_label, model._meta.model_name)
        listed = reverse("admin:{}_{}_changelist".format(*names))
        assert carols_admin.get(listed).status_code == 200, model
        assert carols_admin.post(reverse("admin:{}_{}_add".format(*names))).status_code == 403, model
    assert shown & {"User.password", "ApiToken.digest", "SocialAccount.extra_data"} == set()
    assert not {model.__name__ for model in admin.site._registry} & {"SocialApp", "SocialToken"}

"""Pages and API of credentials: what they show, what they refuse, and the request form that names them."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from deployments.models import Credential, Deployment, SecretVersion, Team, User
from tests.deployments import factories as make
from tests.deployments.apis import Api, problem
from tests.deployments.sealing_keys import COMMIT, CONFIG, GATED, TOKEN, add, naming, use_keys
from tests.deployments.viewing import signed_in

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def keys(settings: Any) -> None:
    use_keys(settings)


def stored(credential: Credential, **tested: Any) -> Credential:
    """As a worker leaves it: the Secret is there."""
    version = credential.versions.order_by("-number")[0]
    version.sealed.delete()
    SecretVersion.objects.filter(pk=version.pk).update(uid="u-1", made_at=timezone.now())
    values = {"tested_at": timezone.now(), "test_code": "found", "test_message": "The hub accepts this token."}
    Credential.objects.filter(pk=credential.pk).update(current=version, **{**values, **tested})
    return Credential.objects.told().get(pk=credential.pk)


def test_an_empty_page_teaches_and_offers_a_lead_to_add(team: Team, alice: User, ann: User) -> None:
    page = signed_in(alice).get(reverse("credentials")).content.decode()
    assert "Public models need none." in page
    assert reverse("credentials-create") in page
    page = signed_in(ann).get(reverse("credentials")).content.decode()
    assert "Leads of a team add them." in page
    assert reverse("credentials-create") not in page


def test_the_list_says_how_each_stands(team: Team, alice: User, ann: User, bob: User, h100: Any) -> None:
    stored(add(make.principal(alice), team))
    add(make.principal(alice), team, "fresh")
    again = add(make.principal(alice), team, "again")
    again.versions.get().sealed.delete()
    Credential.objects.filter(pk=again.pk).update(problem="expired")
    naming(team, ann)
    page = signed_in(ann).get(reverse("credentials")).content.decode()
    for words in ("ready", "being stored", "enter again", "The hub accepts this token.", "Enter it again.", "chat"):
        assert words in page
    assert 'hx-trigger="every 2s"' in page, "looked at again while one is on its way"
    assert reverse("credentials-rotate", args=[again.pk]) not in page
    assert (
        reverse("credentials-rotate", args=[again.pk]) in signed_in(alice).get(reverse("credentials")).content.decode()
    )
    assert "hub" not in signed_in(bob).get(reverse("credentials") + "?team=search").content.decode().split("<main")[1]


def test_many_credentials_cost_no_more_queries(team: Team, alice: User) -> None:
    def count() -> int:
        with CaptureQueriesContext(
            connection,
        ) as seen:
            assert signed_in(alice).get(reverse("credentials")).status_code == 200
        return len([query for query in seen if "django_session" not in query["sql"]])

    add(make.principal(alice), team, "c0")
    few = count()
    for number in range(1, 12):
        add(make.principal(alice), team, f"c{number}")
    assert count() == few


def test_a_form_keeps_what_is_no_secret(team: Team, alice: User) -> None:
    value = {"access_key_id": "AKIAX", "secret_access_key": "geheim12"}
    where = {"endpoint": "https://s3.example.com", "region": "eu-central-1"}
    form = {"team": "search", "kind": "s3", "name": "Bad Name", **value, **where}
    answer = signed_in(alice).post(reverse("credentials-create"), form)
    page = answer.content.decode()
    assert answer.status_code == 422
    for kept in ("Bad Name", "https://s3.example.com", "eu-central-1", "lower-case letters", "enter it again"):
        assert kept in page
    assert "geheim12" not in page
    assert "AKIAX" not in page
    done = signed_in(alice).post(reverse("credentials-create"), {**form, "name": "bucket"})
    assert done["Location"] == reverse("credentials") + "?team=search"
    assert SecretVersion.objects.get().settings == {"endpoint": "https://s3.example.com", "region": "eu-central-1"}


def test_deleting_asks_and_says_who_uses_it(team: Team, alice: User, h100: Any) -> None:
    made = add(make.principal(alice), team)
    client, path = signed_in(alice), reverse("credentials-delete", args=[made.pk])
    assert "Nothing uses it now." in client.get(path).content.decode()
    chat = naming(team, alice)
    assert "chat uses it" in client.get(path).content.decode()
    client.post(path)
    assert Credential.objects.kept().exists()
    Deployment.objects.filter(pk=chat.pk).update(deleted_at=timezone.now())
    client.post(path)
    assert not Credential.objects.kept().exists()


def test_without_a_sealing_key_the_page_says_what_is_missing(team: Team, alice: User, settings: Any) -> None:
    settings.SEAL_PUBLIC_KEY = ""
    page = signed_in(alice).get(reverse("credentials")).content.decode()
    assert "SLIPWAY_SEAL_PUBLIC_KEY" in page
    assert reverse("credentials-create") not in page


def test_the_life_of_a_credential_over_the_api(team: Team, alice: User, ann: User, bob: User) -> None:
    api = Api(alice)
    made = api("post", "credentials/", {"team": "search", "name": "hub", "kind": "hf", "token": TOKEN}).json()
    assert (made["state"], made["tested"], made["used_by"], made["settings"]) == ("pending", None, [], {})
    assert len(made["fingerprint"]) == 12
    stored(Credential.objects.get(), test_uri=GATED)
    one = Api(ann, "read")("get", f"credentials/{made['id']}/").json()
    assert (one["state"], one["tested"]["code"], one["tested"]["uri"]) == ("ready", "found", GATED)
    assert [row["name"] for row in Api(ann, "read")("get", "credentials/?team=search").json()["results"]] == ["hub"]
    assert Api(bob)("get", f"credentials/{made['id']}/").status_code == 404
    assert Api(bob)("get", "credentials/").json()["results"] == []
    again = api("post", f"credentials/{made['id']}/rotate/", {"token": "hf_fresh_value"})
    assert (again.status_code, again.json()["state"]) == (200, "ready")
    assert again.json()["fingerprint"] == made["fingerprint"], "of the value in use"
    assert api("delete", f"credentials/{made['id']}/").status_code == 204
    assert api("get", f"credentials/{made['id']}/").status_code == 404


def gated_check(**fields: Any) -> None:
    """What the hub says of a gated model to somebody without a token."""
    facts = {"id": GATED.removeprefix("hf://"), "sha": COMMIT, "gated": True, "weights_bytes": 16_060_522_496}
    make.make_check(GATED, result="gated", message="It is gated.", remedy="Choose a credential.", facts=facts, **fields)


def asked(api: Api, **source: Any) -> Any:
    spec = make.a_spec(source={"uri": GATED, **source})
    return api("post", "deployments/", {"team": "search", "name": "llama", "spec": spec})


def codes(answer: Any) -> list[str]:
    return [error["code"] for error in problem(answer, 422)["errors"]]


def test_a_gated_model_needs_a_credential_of_the_team_that_opens_it(hub: Any, team: Team, alice: User) -> None:
    gated_check()
    api = Api(alice)
    assert "source_gated" in codes(asked(api))
    assert "credential_unknown" in codes(asked(api, credential="hub"))
    made = add(make.principal(alice), team)
    made.versions.get().sealed.delete()
    assert "credential_not_stored" in codes(asked(api, credential="hub"))
    other = add(make.principal(alice), team, "bucket")
    Credential.objects.filter(pk=other.pk).update(kind="s3")
    assert "credential_kind" in codes(asked(api, credential="bucket"))
    labs = make.make_team("labs2")
    stored(add(make.principal(make.make_user("dan", team=labs, lead=True)), labs, "theirs"))
    assert "credential_unknown" in codes(asked(api, credential="theirs"))
    assert not Deployment.objects.exists()


def test_a_gated_model_is_asked_for_with_a_token_that_nobody_tried_on_it(hub: Any, team: Team, alice: User) -> None:
    gated_check()
    stored(add(make.principal(alice), team))
    answer = asked(Api(alice), credential="hub")
    assert answer.status_code == 201, answer.json()
    revision = Deployment.objects.get().latest
    assert (revision.spec["source"]["credential"], revision.resolution["commit"]) == ("hub", COMMIT)
    assert [item["code"] for item in revision.findings if item["code"] == "gated_not_asked"] == ["gated_not_asked"]


def test_what_the_token_saw_counts_for_the_fit(hub: Any, team: Team, alice: User) -> None:
    from deployments.sources.huggingface import model_facts

    gated_check()
    facts = model_facts(GATED.removeprefix("hf://"), {"sha": "1" * 40, "gated": "manual"}, CONFIG).as_json()
    stored(add(make.principal(alice), team), test_uri=GATED, test_facts=facts)
    spec = make.a_spec(source={"uri": GATED, "credential": "hub"})
    answer = Api(alice)("post", "preflight/", {"team": "search", "name": "llama", "spec": spec}).json()
    found = [finding["code"] for finding in answer["findings"]]
    assert "gated_not_asked" not in found
    assert "source_gated" not in found
    assert answer["fit"] is not None
    assert asked(Api(alice), credential="hub").status_code == 201
    # The newest commit is what everybody sees, not what it was when the token was entered.
    assert Deployment.objects.get().latest.resolution["commit"] == COMMIT


def test_a_token_without_the_licence_is_refused_before_anything_starts(hub: Any, team: Team, alice: User) -> None:
    gated_check()
    stored(
        add(make.principal(alice), team),
        test_uri=GATED,
        test_code="gated",
        test_message="It is gated, and this credential has no access to it.",
    )
    assert "source_gated" in codes(asked(Api(alice), credential="hub"))


def test_the_form_offers_the_teams_credentials_and_keeps_the_choice(hub: Any, team: Team, alice: User) -> None:
    stored(add(make.principal(alice), team))
    client = signed_in(alice)
    page = client.get(reverse("deployment-create")).content.decode()
    assert '<option value="hub">hub (Search)</option>' in page
    gated_check()
    form = {"team": "search", "name": "llama", "source_uri": GATED, "strategy": "standard", "flavor": "h100-80gb",
            "profile": "vllm-0.32.0", "tensor_parallel_size": "1", "max_model_len": "8192"}  # fmt: skip
    refused = client.post(reverse("deployment-create"), form)
    assert refused.status_code == 422
    assert "Choose a credential" in refused.content.decode()
    done = client.post(reverse("deployment-create"), {**form, "credential": "hub"})
    assert done.status_code == 302, done.content.decode()
    row = Deployment.objects.get()
    assert row.latest.spec["source"]["credential"] == "hub"
    edit = client.get(reverse("deployment-edit", args=[row.pk])).content.decode()
    assert '<option value="hub" selected>' in edit

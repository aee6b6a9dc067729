"""The tab of manifests and its API: what is applied, what changes, what kubectl would do; and no value of a secret."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from deployments.models import Credential, Deployment, Revision, SecretVersion, Team, User
from deployments.services import requests
from deployments.spec import DeploymentSpec
from tests.deployments import factories as make
from tests.deployments.viewing import flat, signed_in

MASKED = ("slipway.dev/spec-hash", "slipway.dev/revision")


@pytest.fixture
def chat(hub: list[str], team: Team, ann: User) -> Deployment:
    """A deployment with two revisions as they are asked for; the first is the one that runs."""
    who = make.principal(ann)
    row = requests.submit(principal=who, team=team, name="chat", spec=spec())
    Deployment.objects.filter(pk=row.pk).update(applied=row.latest)
    row.refresh_from_db()
    requests.revise(principal=who, deployment=row, spec=spec(length=4096), base_revision=1)
    row.refresh_from_db()
    return row


def spec(length: int = 8192) -> DeploymentSpec:
    return DeploymentSpec.from_json(make.a_spec(engine={"profile": "vllm-0.32.0", "args": {"max-model-len": length}}))


def page(person: User, row: Deployment, **query: Any) -> Any:
    return signed_in(person).get(reverse("deployment-manifests", args=[row.pk]), query)


def api(person: User, row: Deployment, **query: Any) -> Any:
    return signed_in(person).get(f"/api/v1/deployments/{row.pk}/manifests/", query)


def test_what_changes_is_shown_against_what_runs(chat: Deployment, alice: User):
    text = flat(page(alice, chat).content.decode())

    assert "What changes against revision 1" in text
    assert "<del>- - --max-model-len=8192</del>" in text
    assert "<ins>+ - --max-model-len=4096</ins>" in text
    changed = text.partition('id="changes"')[2].partition('aria-labelledby="kubectl-h"')[0]
    assert not any(word in changed for word in MASKED), "these differ in every object of every revision"
    assert "style=" not in changed


def test_any_two_revisions_can_be_compared_and_the_address_says_which(chat: Deployment, alice: User):
    back = page(alice, chat, revision="1", against="2").context
    assert [line.text for line in back["files"].changes[-1].lines if line.side == "new"] == [
        "+      - --max-model-len=8192"
    ]

    same = flat(page(alice, chat, revision="1").content.decode())
    assert "This revision runs" in same
    assert "choose another revision above" in same


def test_before_anything_runs_all_of_it_is_new(hub: list[str], team: Team, ann: User, alice: User):
    row = requests.submit(principal=make.principal(ann), team=team, name="fresh", spec=spec())

    text = page(alice, row).content.decode()

    assert "Nothing of it was applied yet" in text
    assert "kubectl apply --server-side --field-manager=slipway --force-conflicts -f fresh-revision-1.yaml" in text


def test_one_file_holds_the_account_and_what_was_signed(chat: Deployment, alice: User):
    answer = page(alice, chat, format="yaml")

    account, *objects = yaml.safe_load_all(answer.content)
    assert answer["Content-Disposition"] == 'attachment; filename="chat-revision-2.yaml"'
    assert (account["kind"], account["metadata"]["name"]) == ("ServiceAccount", "chat")
    assert chat.latest is not None
    assert objects == chat.latest.objects_json


@pytest.mark.parametrize("query", [{"revision": "99"}, {"revision": "x"}, {"against": "99"}, {"against": "-1"}])
def test_revisions_that_are_not_there_give_the_page_all_the_same(chat: Deployment, alice: User, query: dict[str, str]):
    assert page(alice, chat, **query).status_code == 200


def test_the_page_takes_few_queries(chat: Deployment, alice: User):
    client = signed_in(alice)
    address = reverse("deployment-manifests", args=[chat.pk])
    client.get(address)
    with CaptureQueriesContext(connection) as found:
        client.get(address)
    assert len(found) <= 20


def test_the_api_says_the_same(chat: Deployment, alice: User):
    answer = api(alice, chat).json()

    assert chat.latest is not None
    assert (answer["revision"], answer["running"], answer["against"]) == (2, 1, 1)
    assert answer["objects"] == chat.latest.objects_json
    assert list(yaml.safe_load_all(answer["yaml"])) == [answer["account"], *answer["objects"]]
    assert "-      - --max-model-len=8192\n+      - --max-model-len=4096\n" in answer["diff"]
    assert answer["kubectl"]["get"].endswith(f"-n search-x7k2p -l slipway.dev/deployment={chat.pk}")
    assert api(alice, chat)["ETag"] == f'"{chat.latest.digest}"'


def test_the_api_compares_any_two_and_knows_which_there_are(chat: Deployment, alice: User):
    assert api(alice, chat, revision="1").json()["diff"] == ""
    assert "+      - --max-model-len=8192" in api(alice, chat, revision="1", against="2").json()["diff"]
    assert api(alice, chat, revision="9").status_code == 404
    assert api(alice, chat, against="9").status_code == 404
    assert api(alice, chat, revision="one").status_code == 422
    assert api(alice, chat, sort="name").status_code == 422


def test_strangers_find_nothing(chat: Deployment, bob: User):
    assert page(bob, chat).status_code == 404
    assert page(bob, chat, format="yaml").status_code == 404
    assert api(bob, chat).status_code == 404


def test_of_a_credential_only_the_name_of_its_secret_is_shown(chat: Deployment, alice: User, team: Team):
    row = chat.latest
    assert row is not None
    Revision.objects.create(
        deployment=chat,
        number=3,
        spec={**row.spec, "source": {**row.spec["source"], "credential": "hub"}},
        resolution=row.resolution,
        objects_json=row.objects_json,
        digest="0" * 64,
        flavor=row.flavor,
        gpus=1,
        author=alice,
    )
    hub = Credential.objects.create(team=team, name="hub", kind="hf", created_by=alice)
    assert api(alice, chat).json()["account"]["secrets"] == [], "its value was not stored yet"
    version = SecretVersion.objects.create(
        credential=hub, number=1, fingerprint="0f", namespace=team.namespace, name="hub-x7k2p", entered_by=alice
    )
    Credential.objects.filter(pk=hub.pk).update(current=version)

    answer = api(alice, chat).json()

    assert answer["account"]["secrets"] == [{"name": "hub-x7k2p"}]
    assert "kind: Secret\n" not in answer["yaml"]
    assert "fingerprint" not in str(answer)
    assert "name: hub-x7k2p" in page(alice, chat).content.decode()

"""A model whose config.json nobody can read is asked for all the same: what is not known is named, and asked back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.urls import reverse

from deployments.models import Credential, Deployment, Team, User
from deployments.services import model_checks, tokens
from deployments.sources import Reply
from tests.deployments import factories as make
from tests.deployments.test_views_request import typed
from tests.deployments.viewing import signed_in

ODD = "hf://org/odd"
BYTES = 15_231_271_856
FILES = [{"rfilename": "model.safetensors", "size": BYTES}, {"rfilename": "config.json", "size": 5}]
METADATA = Reply(200, {"sha": make.COMMIT, "siblings": FILES, "gated": False})
SHAPE = {"layers": 28, "heads": 28, "kv_heads": 4, "head_dim": 128}
WHOLE = {"weights_bytes": BYTES, **SHAPE}
# What the hub answers about the model and its configuration, what the wish says beside its name, and what is missing.
KINDS: dict[str, tuple[Reply, Reply, dict[str, str], dict[str, int]]] = {
    "gated": (METADATA, Reply(401), {"credential": "token"}, SHAPE),
    "unknown architecture": (METADATA, Reply(200, {"model_type": "odd", "blocks": [1, 2]}), {}, SHAPE),
    "hub away": (Reply(0, error="no route"), Reply(0), {"source_revision": make.COMMIT}, WHOLE),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, hub: list[str], team: Team, ann: User, monkeypatch: pytest.MonkeyPatch) -> str:
    """The hub as it is, and a token of the team."""
    metadata, config, _, _ = KINDS[request.param]
    monkeypatch.setattr(model_checks, "_get", lambda path: metadata if path.startswith("/api/") else config)
    token = Credential.objects.create(team=team, name="token", kind=Credential.Kind.HF, created_by=ann)
    token.current = token.versions.create(
        number=1, namespace=team.namespace, name="slipway-token-1", uid="u", entered_by=ann
    )
    token.save()
    return str(request.param)


def test_over_the_form(kind: str, alice: User) -> None:
    _, _, beside, missing = KINDS[kind]
    form = typed(source_uri=ODD, **beside)
    look, numbers = reverse("deployment-preflight"), {f"model_{name}": str(value) for name, value in missing.items()}

    asked = signed_in(alice).post(look, form).context
    assert asked["advice"].fits == ()
    assert [number.name for number in asked["advice"].numbers] == list(numbers)
    said = " ".join(entry["message"] for entry in asked["fields"]["source_uri"]["messages"])
    assert "Not known of this model:" in said
    assert "its layers" in said
    if "model_weights_bytes" in numbers:
        numbers["model_weights_bytes"] = "14.2"
    advice = signed_in(alice).post(look, {**form, **numbers}).context["advice"]
    assert [one.word for one in advice.fits] == ["fits"]

    sent = signed_in(alice).post(reverse("deployment-create"), form)
    assert sent.status_code == 302
    latest = Deployment.objects.get().latest
    assert latest is not None
    assert latest.resolution["storage_uri"] == f"{ODD}:{make.COMMIT}"
    assert "not_checked" in {finding["code"] for finding in latest.findings}


def test_over_the_api(kind: str, ann: User, client: Any) -> None:
    _, _, beside, missing = KINDS[kind]
    source = {"uri": ODD, "credential": beside.get("credential"), "revision": beside.get("source_revision")}
    wish = {"team": "search", "name": "odd", "spec": make.a_spec(source=source)}
    _, token = tokens.create(principal=make.principal(ann), name="ci", scopes=["read", "write"])

    def post(path: str, body: dict[str, Any]) -> Any:
        headers = {"Authorization": f"Bearer {token}"}
        return client.post(f"/api/v1/{path}/", json.dumps(body), content_type="application/json", headers=headers)

    answer = post("preflight", wish).json()
    assert (answer["ok"], answer["fit"], answer["missing"]) == (True, None, list(missing))
    (told,) = [finding for finding in answer["findings"] if finding["code"] == "not_checked"]
    assert "its layers" in told["message"]
    answer = post("preflight", {**wish, "model": missing}).json()
    assert (answer["fit"]["state"], answer["fit"]["kv_bytes_per_token"]) == ("fits", 57_344)
    assert answer["missing"] == list(missing)
    for model, pointer in (
        ({"layers": 0}, "/model/layers"),
        ({"layers": "many"}, "/model/layers"),
        ({"layers": 10**16}, "/model/layers"),
        ({"colour": 1}, "/model/colour"),
        ([28], "/model"),
    ):
        refused = post("preflight", {**wish, "model": model})
        assert refused.status_code == 422
        assert [error["pointer"] for error in refused.json()["errors"]] == [pointer]
    assert post("deployments", {**wish, "model": missing}).status_code == 422
    assert not Deployment.objects.exists()

    assert post("deployments", wish).status_code == 201


def test_a_hub_that_is_away_and_no_commit_is_refused_with_what_helps(
    hub: list[str], alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_checks, "_get", lambda path: Reply(0, error="no route"))

    answer = signed_in(alice).post(reverse("deployment-create"), typed(source_uri=ODD))

    (said,) = answer.context["fields"]["source_revision"]["messages"]
    assert answer.status_code == 422
    assert (said["severity"], "enter the commit" in said["remedy"]) == ("error", True)
    assert not Deployment.objects.exists()

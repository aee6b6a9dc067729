"""Gated models with a token of the team: tested, stored as a Secret that nobody reads, rotated under what runs."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.models import Credential, Principal
from deployments.services import credentials
from deployments.services.errors import RefusedError
from tests.deployments import factories as make
from tests.deployments.sealing_keys import add, told, use_keys
from tests.scenarios.stage import Says, Stage, engine

pytestmark = pytest.mark.django_db

GATED = "hf://meta-llama/Llama-3.1-8B-Instruct"


@pytest.fixture(autouse=True)
def keys(settings: Any) -> None:
    use_keys(settings)


@pytest.fixture
def lead(stage: Stage) -> Principal:
    return make.principal(make.make_user("lead", team=stage.team, lead=True))


def gated(credential: str | None) -> dict[str, Any]:
    source = {"uri": GATED, "credential": credential}
    return {"source": source, "flavor": "l40s-48gb", "engine": engine(max_model_len=8192)}


def stored(stage: Stage, credential: Credential) -> Any:
    """Play the worker until what was entered is tested and stored, or refused."""
    for _ in range(200):
        stage.work()
        row = told(credential)
        if not row.waiting:
            return row
    raise AssertionError(f"not stored: {row.problem}")


def reads(pod: dict[str, Any]) -> set[str]:
    """The Secrets that the pod's initializer reads."""
    variables = [item for each in pod["spec"].get("initContainers") or () for item in each.get("env") or ()]
    return {
        item["valueFrom"]["secretKeyRef"]["name"] for item in variables if "secretKeyRef" in item.get("valueFrom", {})
    }


def test_a_gated_model_with_a_credential(stage: Stage, lead: Principal):
    with pytest.raises(RefusedError, match="gated"):
        stage.ask(**gated(None))
    stage.open_namespace()
    row = stored(stage, add(lead, stage.team, "refused", token="hf_invalid_and_never_issued"))
    assert (row.state, row.problem) == (Credential.State.ENTER_AGAIN, "bad_token")
    row = stored(stage, add(lead, stage.team, "unaccepted", token="hf_unaccepted_by_its_account", test_uri=GATED))
    assert (row.state, row.test_code) == (Credential.State.READY, "gated")
    with pytest.raises(RefusedError, match="no access"):
        stage.ask(**gated("unaccepted"))

    row = stored(stage, add(lead, stage.team, token="hf_of_an_account_that_accepted", test_uri=GATED))
    assert (row.state, row.test_code, row.test_facts["layers"]) == (Credential.State.READY, "found", 32)
    chat = stage.comes_to(stage.ask(**gated("hub")), Says("Running"), within=120)
    [pod] = stage.pods()
    assert reads(pod) == {row.current.name}
    assert stage.ground.read("ServiceAccount", chat.name, stage.namespace)["secrets"] == [{"name": row.current.name}]


def test_a_credential_is_rotated_under_what_runs(stage: Stage, lead: Principal):
    stage.open_namespace()
    made = add(lead, stage.team, token="hf_of_an_account_that_accepted")
    old = stored(stage, made).current
    chat = stage.comes_to(stage.ask(**gated("hub")), Says("Running"), within=120)
    credentials.rotate(principal=lead, credential_id=made.pk, fields={"token": "hf_another_of_that_account"})
    new = stored(stage, made).current
    assert new.name != old.name

    def rolled() -> bool:
        pods = stage.pods()
        return len(pods) == 1 and reads(pods[0]) == {new.name} and stage.fresh(chat).state == "Running"

    chat = stage.comes_to_pass(chat, rolled, within=120)
    assert chat.latest.number == 1, "nobody had to approve anything"

    def gone() -> bool:
        stage.sweep(chat)
        return stage.ground.read("Secret", old.name, stage.namespace) is None

    stage.until(chat, gone, within=60)
    assert stage.ground.read("Secret", new.name, stage.namespace) is not None
    chat = stage.delete(chat)
    stage.until(chat, lambda: stage.fresh(chat).state == "Deleted", within=60)
    credentials.delete(principal=lead, credential_id=made.pk)
    stage.until(chat, lambda: stage.ground.read("Secret", new.name, stage.namespace) is None, within=30)

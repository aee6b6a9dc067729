"""LoRA adapters that not everybody may read: asked for and fetched with the team's own token."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from deployments.findings import Severity
from deployments.manifests import Object, Wish, build, with_keys
from deployments.manifests.deployment import marked
from deployments.models import Credential, Deployment
from deployments.preflight import CredentialFacts, check
from deployments.preflight.objects import check_objects
from deployments.services import (
    adapter_checks,
    credential_facts,
    credential_records,
    credential_trials,
    credentials,
    model_checks,
)
from deployments.services import requests as asking
from deployments.services.errors import InvalidError, RefusedError
from deployments.services.sealing import Opened
from deployments.sources import Reply, SourceCheck, SourceCode
from deployments.sources.adapters import AdapterFacts, check_adapter, opened
from deployments.spec import DeploymentSpec
from tests.deployments import factories as make
from tests.deployments.preflighting import the
from tests.deployments.sealing_keys import GATED, TOKEN, HubOfTokens, add, use_keys
from tests.deployments.wishes import LLAMA, facts_of, spec_of, wish_of

OURS = {"name": "ours", "uri": "hf://owner/ours"}
SHA, OLDER = "b" * 40, "e" * 40
FILES = [{"rfilename": name} for name in ("adapter_config.json", "adapter_model.safetensors")]
CONFIG = {"peft_type": "LORA", "r": 64, "base_model_name_or_path": LLAMA.id}
HIDDEN = AdapterFacts("owner/ours", SourceCode.GATED, "Hidden.", remedy="Choose a credential.")
TESTED = AdapterFacts("owner/ours", SourceCode.FOUND, "", SHA, 64, LLAMA.id)
SOURCE = {"uri": "hf://" + LLAMA.id, "revision": None, "credential": "hub"}


# What the hub says to a token


@pytest.mark.parametrize(
    ("status", "config", "with_token", "code", "words"),
    [
        (401, 200, False, SourceCode.GATED, "private or gated"),
        (401, 200, True, SourceCode.BAD_TOKEN, "does not accept"),
        (403, 200, True, SourceCode.GATED, "no access"),
        (404, 200, True, SourceCode.NOT_FOUND, "may see"),
        (404, 200, False, SourceCode.NOT_FOUND, "no adapter owner/ours at “v1”"),
        (0, 200, True, SourceCode.UNREACHABLE, "did not answer"),
        (200, 401, False, SourceCode.GATED, "private or gated"),
        (200, 403, True, SourceCode.GATED, "no access"),
        (200, 200, True, SourceCode.FOUND, ""),
    ],
)
def test_answers_to_a_token_and_to_anybody_are_told_apart(
    status: int, config: int, with_token: bool, code: SourceCode, words: str
):
    def get(path: str) -> Reply:
        return Reply(status, {"sha": SHA, "siblings": FILES}) if path.startswith("/api") else Reply(config, CONFIG)

    facts = check_adapter("owner/ours", "v1", get, with_token=with_token)
    assert (facts.code, facts.revision) == (code, "v1")
    assert words in facts.message
    assert bool(facts.remedy) is (code is not SourceCode.FOUND)
    # Of a gated one everybody sees the commit, of a private one nobody.
    assert facts.sha == (SHA if status == 200 else "")
    assert AdapterFacts.from_json(json.loads(json.dumps(facts.as_json()))) == facts


@pytest.mark.parametrize(
    ("asked", "tested", "revision", "code", "sha", "private"),
    [
        (None, [], None, None, None, None),
        (HIDDEN, [], None, SourceCode.GATED, "", False),
        (HIDDEN, [TESTED], None, SourceCode.FOUND, SHA, True),
        # Gated, and somebody has written to it since the test.
        (dataclasses.replace(HIDDEN, sha=OLDER), [TESTED], None, SourceCode.FOUND, OLDER, True),
        # Of another version than the tested one only a commit that is named itself is known.
        (HIDDEN, [TESTED], "v2", SourceCode.FOUND, "", True),
        (HIDDEN, [TESTED], OLDER, SourceCode.FOUND, OLDER, True),
        (HIDDEN, [TESTED, dataclasses.replace(TESTED, revision="v2", sha=OLDER)], "v2", SourceCode.FOUND, OLDER, True),
        (HIDDEN, [dataclasses.replace(TESTED, code="gated")], None, SourceCode.GATED, SHA, True),
        # What everybody sees needs no token.
        (TESTED, [dataclasses.replace(TESTED, code="gated")], None, SourceCode.FOUND, SHA, False),
    ],
)
def test_what_was_tested_counts_where_nobody_else_is_told(
    asked: Any, tested: Any, revision: Any, code: Any, sha: Any, private: Any
):
    found = opened(asked, tested, revision)
    assert (found and (found.code, found.sha, found.private)) == (code and (code, sha, private))


class HubWithAdapters(HubOfTokens):
    """The same hub with an adapter that only `licensed` tokens see."""

    def __call__(self, path: str, token: str) -> Reply:
        if "owner/ours" not in path or self.down or token not in self.accepted:
            return super().__call__(path, token)
        self.asked.append((path, token))
        if token not in self.licensed:
            return Reply(404)
        return Reply(200, {"sha": SHA, "siblings": FILES} if path.startswith("/api") else CONFIG)


def test_a_token_is_tested_with_a_model_and_with_adapters(monkeypatch: pytest.MonkeyPatch):
    hub, value = HubWithAdapters(monkeypatch), Opened({"token": TOKEN}, {})
    found = credential_trials.try_out("hf", value, f"{GATED} hf://owner/ours")
    assert (found.code, found.model and found.model.layers) == (SourceCode.FOUND, 32)
    assert found.message == "The hub accepts this token, and it opens meta-llama/Llama-3.1-8B-Instruct and owner/ours."
    assert [AdapterFacts.from_json(each).rank for each in found.adapters] == [64]
    # Nothing is asked twice.
    assert len(hub.asked) == len({path for path, _ in hub.asked}) == 5

    alone = credential_trials.try_out("hf", value, "hf://owner/ours")
    assert (alone.code, alone.model, alone.message) == (
        SourceCode.FOUND,
        None,
        "The hub accepts this token, and it opens owner/ours.",
    )
    hub.accepted.clear()
    assert credential_trials.try_out("hf", value, "hf://owner/ours").code is SourceCode.BAD_TOKEN


def test_a_slow_hub_holds_no_worker_longer_than_its_lease(monkeypatch: pytest.MonkeyPatch):
    hub, now = HubWithAdapters(monkeypatch), [100.0]

    def slow(path: str, token: str) -> Reply:
        now[0] += 4
        return hub(path, token)

    monkeypatch.setattr(credential_trials, "_hub_get", slow)
    monkeypatch.setattr(credential_trials.time, "monotonic", lambda: now[0])
    many = " ".join(f"hf://owner/ours-{number}" for number in range(8))
    credential_trials.try_out("hf", Opened({"token": TOKEN}, {}), many)
    assert now[0] - 100 <= credential_trials.ADDRESS_SECONDS + credential_trials.SECONDS < 25


# What preflight says


def said(known: AdapterFacts | None, credential: CredentialFacts | None, **more: Any) -> Any:
    spec = spec_of(adapters=[OURS], source={**SOURCE, "credential": "hub" if credential else None}, **more)
    facts = facts_of(adapters={"ours": known} if known else {}, credentials={"hub": credential} if credential else {})
    return check(spec, "chat", "search", facts)


def test_without_a_credential_what_is_hidden_is_refused_with_the_way_out():
    finding = the("adapter_gated", said(HIDDEN, None))
    assert (finding.severity, finding.pointer, finding.field) == (
        Severity.ERROR,
        "/spec/adapters/0/uri",
        "adapters",
    )
    assert finding.remedy == HIDDEN.remedy


def test_with_a_token_that_was_not_tested_with_it_it_is_taken_with_a_warning():
    finding = the("adapter_not_asked", said(HIDDEN, CredentialFacts()))
    assert finding.severity is Severity.WARNING
    assert "hf://owner/ours" in finding.remedy
    assert not [item for item in said(HIDDEN, CredentialFacts()) if item.is_error]


@pytest.mark.parametrize("code", ["gated", "not_found", "unusable"])
def test_what_the_token_was_told_is_said(code: str):
    refused = dataclasses.replace(TESTED, code=code, message="So it is.", private=True)
    finding = the(f"adapter_{code}", said(refused, CredentialFacts(adapters=(refused,))))
    assert (finding.is_error, finding.message) == (True, "ours: So it is.")


def test_a_token_that_opens_it_leaves_nothing_to_say():
    known = dataclasses.replace(TESTED, private=True)
    assert said(known, CredentialFacts(asked=True, adapters=(TESTED,))) == []
    # It goes by what lies there as for any other.
    wide = dataclasses.replace(known, rank=1024)
    assert the("adapter_rank", said(wide, CredentialFacts(asked=True, adapters=(TESTED,)))).is_error


def test_a_refused_token_or_one_of_another_kind_opens_no_adapter():
    assert the("adapter_gated", said(HIDDEN, CredentialFacts(refused=True))).is_error
    keys = the("adapter_gated", said(HIDDEN, CredentialFacts(kind="s3")))
    assert "“hub” is no Hugging Face token" in keys.message


# What is built


def wish(access: bool = True, **source: Any) -> Wish:
    plain = wish_of(spec_of(adapters=[OURS, {**OURS, "name": "open"}], source={**SOURCE, **source}))
    token = {"access": "credential"} if access else {}
    adapters = ({"name": "ours", "uri": f"hf://owner/ours:{SHA}"} | token, {"name": "open", "uri": f"hf://o/o:{SHA}"})
    return dataclasses.replace(plain, resolution=dataclasses.replace(plain.resolution, adapters=adapters, lora_rank=64))


def initializer(objects: list[Object]) -> Any:
    (service,) = (obj for obj in objects if obj["kind"] == "InferenceService")
    return service["spec"]["predictor"]["initContainers"][0]


def test_the_token_comes_when_it_is_applied_and_is_no_part_of_what_is_signed():
    signed = build(wish())
    assert "secret" not in json.dumps(signed).lower().replace("slipway.dev/secrets", "")
    assert check_objects(signed) == []
    applied = marked(with_keys(signed, "hf", "slipway-abc", {}), ["slipway-abc"])
    env = initializer(applied)["env"]
    assert env[-1] == {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"key": "HF_TOKEN", "name": "slipway-abc"}}}
    # Nothing else of the container is another, and what was signed is left as it was.
    assert {**initializer(applied), "env": env[:-1]} == initializer(signed)
    assert initializer(build(wish())) == initializer(signed)


def test_public_adapters_get_no_token_and_stay_as_they_were_signed():
    signed = build(wish(access=False))
    assert initializer(with_keys(signed, "hf", "slipway-abc", {})) == initializer(signed)
    assert "slipway.dev/token-for" not in json.dumps(signed)
    assert initializer(with_keys(build(wish()), "s3", "slipway-abc", {})) == initializer(build(wish()))


# From the token to what an approval signs


@pytest.mark.django_db
class TestAsking:
    @pytest.fixture(autouse=True)
    def hidden(self, monkeypatch: pytest.MonkeyPatch, settings: Any, hub: Any) -> None:
        use_keys(settings)
        usual = model_checks._get
        monkeypatch.setattr(adapter_checks, "_get", lambda path: Reply(401) if "owner/ours" in path else usual(path))

    def stored(self, row: Credential, *adapters: AdapterFacts) -> None:
        """Play the worker: the token was tested, and is in use."""
        code = SourceCode(adapters[0].code) if adapters else SourceCode.FOUND
        test = SourceCheck(code, "Tested.", adapters=tuple(each.as_json() for each in adapters))
        uris = " ".join(f"hf://{each.id}" for each in adapters)
        Credential.objects.filter(pk=row.pk).update(
            current=row.versions.get(), **credential_records._tested(test, uris)
        )

    def ask(self, user: Any, team: Any, **adapter: Any) -> Deployment:
        spec = make.a_spec(adapters=[OURS | adapter])
        spec["source"]["credential"] = "hub"
        return asking.submit(
            principal=make.principal(user), team=team, name="chat", spec=DeploymentSpec.from_json(spec)
        )

    def test_what_is_signed_names_the_commit_that_the_token_was_told(self, alice: Any, ann: Any, team: Any):
        self.stored(add(make.principal(alice), team, test_uri="hf://owner/ours"), TESTED)
        revision = self.ask(ann, team).latest
        assert revision is not None
        assert revision.resolution["adapters"] == [
            {"name": "ours", "uri": f"hf://owner/ours:{SHA}", "access": "credential"}
        ]
        assert revision.resolution["lora_rank"] == 64
        assert TOKEN not in json.dumps(revision.objects_json)

    def test_without_the_commit_nothing_is_signed(self, alice: Any, ann: Any, team: Any):
        self.stored(add(make.principal(alice), team))
        with pytest.raises(RefusedError) as refused:
            self.ask(ann, team)
        (finding,) = (item for item in refused.value.findings if item.is_error)
        assert (finding.code, finding.pointer) == ("source_not_pinned", "/spec/adapters/0/revision")
        assert "tested with hf://owner/ours" in finding.remedy
        # Named, it is taken: whether the token opens it shows when it is downloaded.
        revision = self.ask(ann, team, revision=OLDER).latest
        assert revision is not None
        assert revision.resolution["adapters"][0]["uri"] == f"hf://owner/ours:{OLDER}"
        assert "adapter_not_asked" in {item["code"] for item in revision.findings}

    def test_a_token_without_access_is_refused_before_it_costs_a_gpu(self, alice: Any, ann: Any, team: Any):
        without = AdapterFacts("owner/ours", SourceCode.NOT_FOUND, "Not for this credential.")
        self.stored(add(make.principal(alice), team, test_uri="hf://owner/ours"), without)
        with pytest.raises(RefusedError, match="Not for this credential"):
            self.ask(ann, team)

    def test_a_test_of_adapters_alone_says_nothing_of_the_model(self, alice: Any, ann: Any, team: Any):
        without = AdapterFacts("owner/ours", SourceCode.NOT_FOUND, "Not for this credential.")
        row = add(make.principal(alice), team, test_uri="hf://owner/ours")
        self.stored(row, without)
        spec = make.a_spec()
        spec["source"]["credential"] = "hub"
        credentials_known, check = credential_facts.known_of(team, DeploymentSpec.from_json(spec), None)
        assert (check, credentials_known["hub"].asked) == (None, False)
        asking.submit(principal=make.principal(ann), team=team, name="chat", spec=DeploymentSpec.from_json(spec))

    def test_several_addresses_are_kept_as_they_are_asked(self, alice: Any, team: Any):
        row = add(make.principal(alice), team, test_uri=f" {GATED}\n hf://owner/ours  hf://owner/ours ")
        assert row.versions.get().sealed.test_uri == f"{GATED} hf://owner/ours"
        for uri in (" ".join(f"hf://owner/a{number}" for number in range(10)), f"{GATED} s3://bucket/adapter"):
            with pytest.raises(InvalidError) as wrong:
                credentials.rotate(
                    principal=make.principal(alice), credential_id=row.pk, fields={"token": TOKEN}, test_uri=uri
                )
            assert wrong.value.field == "test_uri"

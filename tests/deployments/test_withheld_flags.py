"""A flag that nobody can set is told so, with what to use instead, whatever its value looks like."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.urls import reverse

from deployments.document_values import DocumentError
from deployments.documents import valid_spec
from deployments.engine.flags import FlagClass, check_args, flags_of, withheld
from deployments.models import Deployment, EngineProfile, User
from deployments.preflight import check_raw
from deployments.spec_errors import parse_spec
from deployments.wish_text import read_wish, write
from tests.deployments import factories as make
from tests.deployments.test_api import wish
from tests.deployments.test_views_request import typed
from tests.deployments.viewing import signed_in
from tests.deployments.wishes import facts_of, roles_json, spec_json

pytestmark = pytest.mark.django_db

VERSION = "0.32.0"
SPECULATION = '{"method":"ngram"}'
# What people write for flags that take JSON, and what nothing may ever be.
VALUES: list[Any] = [SPECULATION, {"method": "ngram"}, ["a"], None, "", "$(id)", "{{x}}", "a" * 5_000, "two words", -1]


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize(
    ("flag", "code", "instead"),
    [
        ("speculative-config", "flag_forbidden", "spec-method"),
        ("limit-mm-per-prompt", "flag_forbidden", ""),
        ("hf-overrides", "flag_forbidden", ""),
        ("compilation-config", "flag_forbidden", ""),
        ("kv-transfer-config", "flag_managed", ""),
        ("lora-modules", "flag_managed", ""),
        ("swap-space", "flag_removed", "kv-offloading-size"),
    ],
)
def test_whatever_its_value_the_flag_is_what_is_wrong(flag: str, code: str, instead: str, value: Any) -> None:
    (truth,) = check_args(VERSION, {flag: "x"})
    spec, problems = parse_spec(spec_json(args={flag: value}))

    known = [problem.as_finding() for problem in problems] if spec is None else check_args(VERSION, {flag: value})
    assert known == [truth]
    assert (truth.code, truth.instead) == (code, instead)


@pytest.mark.parametrize("version", ["0.17.0", VERSION])
def test_every_flag_that_nobody_can_set_is_answered_as_one(version: str) -> None:
    nobody = {name for name, flag in flags_of(version).items() if flag.cls in {FlagClass.MANAGED, FlagClass.FORBIDDEN}}
    assert len(nobody) > 50
    for name in nobody:
        spec, (problem,) = parse_spec(spec_json(args={name: {"a": 1}}), version)
        assert spec is None
        assert problem.as_finding() == withheld(version, name)


def test_a_value_of_a_flag_that_can_be_set_is_still_what_is_wrong() -> None:
    spec, (problem,) = parse_spec(spec_json(args={"max-model-len": {"a": 1}}))
    assert (spec, problem.code) == (None, "invalid")
    assert problem.message == "Must be a number, true or false, or a word."


def test_a_name_with_dashes_says_what_the_flag_is_too() -> None:
    found = {problem.pointer: problem for problem in parse_spec(spec_json(args={"--speculative_config": {"a": 1}}))[1]}
    assert found["/spec/engine/args/--speculative_config"].instead == "spec-method"


def test_a_role_is_told_at_its_own_flag() -> None:
    wrong = roles_json()
    wrong["decode"]["args"] = {"speculative-config": {"method": "ngram"}}
    (finding,) = check_raw({"team": "search", "name": "chat", "spec": wrong}, facts_of())[1]
    assert (finding.pointer, finding.code) == ("/spec/decode/args/speculative-config", "flag_forbidden")
    assert finding.remedy == "Remove it. spec-method can be set."


def test_files_are_told_with_the_remedy() -> None:
    given = spec_json(args={"speculative-config": {"method": "ngram"}})
    (problem,) = read_wish(write(given)).problems
    assert problem.message.endswith("Remove it. spec-method can be set.")
    assert "ngram" not in problem.message
    with pytest.raises(DocumentError, match="spec-method can be set"):
        valid_spec(given)


def test_the_api_says_it_and_stores_nothing(ann_api: Any) -> None:
    given = wish(spec=make.a_spec(engine={"args": {"speculative-config": SPECULATION}}))
    answer = ann_api("post", "deployments/", given)
    (said,) = answer.json()["errors"]
    assert (said["code"], said["pointer"]) == ("flag_forbidden", "/spec/engine/args/speculative-config")
    assert "ngram" not in answer.content.decode()
    assert not Deployment.objects.exists()


def test_the_flags_are_those_of_the_engine_that_is_stored_by_that_name(ann_api: Any) -> None:
    EngineProfile.objects.create(slug="ours", name="Ours", version="0.17.0", image="r.example/v@sha256:" + "a" * 64)
    spec = make.a_spec(engine={"profile": "ours", "args": {"speculative-config": SPECULATION}})
    (said,) = ann_api("post", "deployments/", wish(spec=spec)).json()["errors"]
    assert said["code"] == "flag_forbidden"
    assert said["remedy"] == withheld("0.17.0", "speculative-config").remedy  # type: ignore[union-attr]


def test_the_form_says_it_beside_the_box_and_keeps_what_was_typed(hub: list[str], alice: User) -> None:
    text = f"--speculative-config={SPECULATION}"
    answer = signed_in(alice).post(reverse("deployment-create"), typed(args=text))

    (said,) = [each["message"] for each in answer.context["fields"]["args"]["messages"]]
    assert said.startswith("--speculative-config: “speculative-config” cannot be set here")
    assert said.endswith("spec-method can be set.")
    assert answer.context["values"]["args"] == text
    assert json.dumps(SPECULATION)[1:-1] not in said

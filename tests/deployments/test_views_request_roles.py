"""The request form with the strategy disaggregated: fields of its own for each role, and no others of theirs."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse

from deployments.forms.request import DeploymentForm, initial_of, with_value
from deployments.forms.roles import preset_within
from deployments.manifests import build, gpus_of
from deployments.models import Deployment, Flavor, Team, User
from deployments.spec import DeploymentSpec
from tests.deployments import factories as make
from tests.deployments.test_views_request import typed
from tests.deployments.viewing import signed_in
from tests.deployments.wishes import roles_json, wish_of

ROLES = {
    "strategy": "disaggregated",
    "prefill_tensor_parallel_size": "2",
    "prefill_replicas_min": "1",
    "prefill_replicas_max": "1",
    "prefill_args": "--max-num-batched-tokens=32768",
    "decode_tensor_parallel_size": "1",
    "decode_replicas_min": "1",
    "decode_replicas_max": "2",
    "decode_args": "--max-num-seqs=128",
}


def test_roles_become_parts_of_the_wish(hub: list[str], alice: User) -> None:
    answer = signed_in(alice).post(reverse("deployment-create"), typed(**ROLES))

    assert answer.status_code == 302
    latest = Deployment.objects.get().latest
    assert latest is not None
    assert latest.spec["prefill"] == {
        "replicas": {"min": 1, "max": 1},
        "args": {"max-num-batched-tokens": 32768, "tensor-parallel-size": 2},
    }
    assert latest.spec["decode"] == {
        "replicas": {"min": 1, "max": 2},
        "args": {"max-num-seqs": 128, "tensor-parallel-size": 1},
    }
    # How both split is theirs alone; the fields of *standard* are not read.
    assert latest.spec["engine"]["args"] == {"max-model-len": 16384, "gpu-memory-utilization": 0.9}
    assert "replicas" not in latest.spec
    assert {obj["kind"] for obj in latest.objects_json} >= {"LLMInferenceService", "LLMInferenceServiceConfig"}
    # Both roles at their most; on top what two running pods and one more of each hold while a revision rolls out.
    assert (latest.gpus, latest.surge) == (2 + 2, (2 * 2 + 2 * 1) - 4)


def test_targets_of_scaling_count_for_both_roles(hub: list[str], alice: User) -> None:
    targets = {"scaling_concurrency": "20", "scaling_percent": "60"}
    answer = signed_in(alice).post(reverse("deployment-create"), typed(**ROLES, **targets))

    assert answer.status_code == 302
    latest = Deployment.objects.get().latest
    assert latest is not None
    assert latest.spec["scaling"] == {"concurrency": 20, "percent": 60}
    # Whoever edits it finds them again.
    assert {name: initial_of(latest.spec)[name] for name in targets} == targets


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("prefill_tensor_parallel_size", "two", "Must be a whole number."),
        ("prefill_tensor_parallel_size", "3", "cannot share evenly"),
        ("prefill_replicas_max", "0", "Must be at least 1."),
        ("decode_replicas_min", "9", "must not be below the fewest (9)"),
        ("decode_replicas_max", "x", "Must be a whole number."),
        ("prefill_args", "max-num-seqs", "Line 1: write “--flag=value”"),
        ("decode_args", "--dtype=half", "dtype is not the same in prefill and decode"),
        ("decode_args", "--tensor-parallel-size=2", "has a field of its own above"),
        ("decode_args", "--no-such-flag=1", "no-such-flag"),
    ],
)
def test_what_is_wrong_in_a_role_is_said_in_that_role_and_nothing_is_lost(
    hub: list[str], alice: User, field: str, value: str, words: str
) -> None:
    sent = typed(**{**ROLES, field: value})
    answer = signed_in(alice).post(reverse("deployment-create"), sent)

    assert answer.status_code == 422
    assert not Deployment.objects.exists()
    said = {name: box["messages"] for name, box in answer.context["fields"].items()}
    role = field.partition("_")[0]
    mine = [entry["message"] for name, entries in said.items() if name.startswith(role) for entry in entries]
    assert any(words in message for message in mine), mine
    assert {name: answer.context["values"][name] for name in ROLES} == {name: sent[name] for name in ROLES}


def test_fields_of_roles_are_left_alone_by_other_strategies(hub: list[str], alice: User) -> None:
    sent = typed(**{**ROLES, "strategy": "standard", "prefill_replicas_max": "nonsense"})

    assert signed_in(alice).post(reverse("deployment-create"), sent).status_code == 302
    latest = Deployment.objects.get().latest
    assert latest is not None
    assert {"prefill", "decode"}.isdisjoint(latest.spec)


def test_a_new_form_offers_what_usually_works_for_each_role(
    hub: list[str], team: Team, h100: Flavor, alice: User
) -> None:
    make.make_grant(team, h100, 60)
    values = signed_in(alice).get(reverse("deployment-create")).context["values"]

    found = {name: values[f"{name}"] for name in ROLES if name not in {"strategy", "prefill_args", "decode_args"}}
    assert found == {
        "prefill_tensor_parallel_size": "2",
        "prefill_replicas_min": "2",
        "prefill_replicas_max": "8",
        "decode_tensor_parallel_size": "1",
        "decode_replicas_min": "4",
        "decode_replicas_max": "20",
    }
    assert values["prefill_args"].splitlines() == ["--max-num-batched-tokens=32768", "--max-num-seqs=256"]


def test_an_edit_begins_with_what_the_roles_have(hub: list[str], alice: User) -> None:
    client = signed_in(alice)
    client.post(reverse("deployment-create"), typed(**ROLES))
    url = reverse("deployment-edit", args=[Deployment.objects.get().pk])

    values = client.get(url, {"set": ["decode_max_num_seqs=64", "prefill_replicas_max=3"]}).context["values"]

    assert {name: values[name] for name in ROLES} == {
        **ROLES,
        "decode_args": "--max-num-seqs=64",
        "prefill_replicas_max": "3",
    }


def test_a_role_reads_back_what_it_wrote() -> None:
    spec: dict[str, Any] = {
        "source": {"uri": make.QWEN},
        "strategy": "disaggregated",
        "flavor": "h100-80gb",
        "engine": {"args": {}},
        "prefill": {"replicas": {"min": 1, "max": 2}, "args": {"seed": 7}},
        "decode": {"replicas": {"min": 3, "max": 4}, "args": {"tensor-parallel-size": 4, "enforce-eager": True}},
    }
    values = initial_of(spec)

    assert (values["prefill_args"], values["prefill_tensor_parallel_size"]) == ("--seed=7", "")
    assert (values["decode_args"], values["decode_tensor_parallel_size"]) == ("--enforce-eager", "4")
    assert set(values) <= set(DeploymentForm.base_fields)
    assert with_value(values, "prefill_seed", "8")["prefill_args"] == "--seed=8"
    assert with_value(values, "prefill_seed", "")["prefill_args"] == ""
    assert with_value(values, "decode_max_num_seqs", "9")["decode_args"] == "--enforce-eager\n--max-num-seqs=9"


def test_targets_of_scaling_become_part_of_the_wish(hub: list[str], alice: User) -> None:
    sent = typed(scaling_concurrency="20", scaling_percent="70")
    signed_in(alice).post(reverse("deployment-create"), sent)

    latest = Deployment.objects.get().latest
    assert latest is not None
    assert latest.spec["scaling"] == {"concurrency": 20, "percent": 70}
    assert initial_of(latest.spec)["scaling_percent"] == "70"


def test_a_target_that_is_none_is_said_at_its_field(hub: list[str], alice: User) -> None:
    answer = signed_in(alice).post(reverse("deployment-create"), typed(scaling_percent="5"))

    assert answer.status_code == 422
    [said] = answer.context["fields"]["scaling_percent"]["messages"]
    assert said["message"] == "Must be at least 10."


def test_a_check_without_scripts_leaves_the_strategy_as_it_is(hub: list[str], alice: User) -> None:
    answer = signed_in(alice).post(reverse("deployment-create"), typed(**ROLES, set="check"))

    assert answer.status_code == 200
    assert answer.context["values"]["strategy"] == "disaggregated"
    assert 'name="set" value="check"' in answer.content.decode()
    assert not Deployment.objects.exists()


@pytest.mark.parametrize(
    ("free", "prefill", "decode"),
    [
        (60, ("2", "8"), ("4", "20")),
        (45, ("2", "8"), ("4", "20")),
        (44, ("2", "8"), ("4", "19")),
        (16, ("2", "2"), ("4", "6")),
        (10, ("1", "1"), ("3", "3")),
        (0, ("1", "1"), ("1", "1")),
    ],
)
def test_as_much_of_the_preset_is_proposed_as_the_free_quota_holds(
    free: int, prefill: tuple[str, str], decode: tuple[str, str]
) -> None:
    made = preset_within(free)
    assert (made["prefill_replicas_min"], made["prefill_replicas_max"]) == prefill
    assert (made["decode_replicas_min"], made["decode_replicas_max"]) == decode
    assert (made["prefill_tensor_parallel_size"], made["decode_tensor_parallel_size"]) == ("2", "1")
    assert made["prefill_args"] == made["decode_args"] == "--max-num-batched-tokens=32768\n--max-num-seqs=256"


@pytest.mark.parametrize("free", range(6, 60))
def test_what_is_proposed_is_never_more_than_the_free_quota(free: int) -> None:
    made = preset_within(free)
    roles = {
        role: {
            "replicas": {end: int(made[f"{role}_replicas_{end}"]) for end in ("min", "max")},
            "args": {"tensor-parallel-size": int(made[f"{role}_tensor_parallel_size"])},
        }
        for role in ("prefill", "decode")
    }
    assert gpus_of(build(wish_of(DeploymentSpec.from_json(roles_json(**roles))))) <= free


def test_an_empty_form_begins_with_the_preset_the_team_can_hold(hub: list[str], h100: Flavor, alice: User) -> None:
    answer = signed_in(alice).get(reverse("deployment-create"))

    values = answer.context["values"]
    assert {name: values[name] for name in preset_within(4)} == preset_within(4)
    assert "2 to 8, of 2 GPUs each, are usual" in answer.content.decode()

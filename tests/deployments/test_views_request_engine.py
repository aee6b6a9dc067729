"""Engine settings in the request form: one table of fields, offered as the chosen vLLM version takes them."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse

from deployments.engine.flags import FlagClass, flags_of, versions
from deployments.forms.engine_fields import BY_FLAG, FIELDS, GROUPS, version_of
from deployments.forms.request import DeploymentForm, initial_of, with_value
from deployments.models import EngineProfile, Flavor, User
from deployments.spec import DeploymentSpec
from tests.deployments import factories as make
from tests.deployments.test_views_request import typed
from tests.deployments.viewing import flat, signed_in

NEWEST = versions()[-1]
OLDEST = versions()[0]


@pytest.fixture
def older(hub: list[str]) -> EngineProfile:
    """A second engine, of the oldest vLLM whose flags are known."""
    return EngineProfile.objects.create(
        slug=f"vllm-{OLDEST}", name=f"vLLM {OLDEST}", version=OLDEST, image="vllm/vllm-openai@sha256:" + "1" * 64
    )


def live(person: User, **changes: str) -> Any:
    """The advice beside a form while one types."""
    return signed_in(person).post(reverse("deployment-preflight"), typed(**changes))


def group_of(answer: Any, key: str) -> Any:
    """One group of settings as the answer shows it."""
    return next(group for group in answer.context["groups"] if group.key == key)


def shown_in(answer: Any, flag: str) -> Any:
    """The field of one flag as the answer shows it."""
    fields = group_of(answer, BY_FLAG[flag].group).fields
    return next(each for each in fields if each.field.flag == flag)


def usual_value(flag: str) -> Any:
    """A value that the newest version takes."""
    known = flags_of(NEWEST)[flag]
    if known.kind == "choice":
        return known.choices[-1]
    return {"bool": True, "float": 0.5, "int": 2}[known.kind]


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.flag)
def test_each_setting_is_one_of_the_newest_engine_and_people_may_set_it(field: Any) -> None:
    flag = flags_of(NEWEST)[field.flag]

    assert flag.cls in {FlagClass.OPEN, FlagClass.GUARDED}
    assert field.group in GROUPS
    assert field.help or flag.help
    assert {"choice": str, "bool": bool, "int": int, "float": float}[flag.kind] is field.kind


def test_every_setting_comes_back_as_it_was_stored(hub: list[str], alice: User) -> None:
    args = {field.flag: usual_value(field.flag) for field in FIELDS} | {"seed": 7}
    spec = DeploymentSpec.from_json(make.a_spec(engine={"profile": f"vllm-{NEWEST}", "args": args}))

    values = initial_of(spec.to_json())
    again = DeploymentForm({**values, "team": "search", "name": "chat"}, principal=make.principal(alice)).spec

    assert values["args"] == "--seed=7"
    assert again == spec


def test_roles_keep_what_they_have_no_field_for_as_a_line() -> None:
    role = {"replicas": {"min": 1, "max": 1}, "args": {}}
    spec = {"strategy": "disaggregated", "engine": {"args": {"pipeline-parallel-size": 2, "dtype": "half"}}}

    values = initial_of({**spec, "prefill": role, "decode": role})

    assert (values["args"], values["dtype"]) == ("--pipeline-parallel-size=2", "half")
    assert "pipeline_parallel_size" not in values


def test_choices_are_those_of_the_engine_that_is_chosen(older: EngineProfile, alice: User) -> None:
    answers = {version: live(alice, profile=f"vllm-{version}") for version in (NEWEST, OLDEST)}

    for version, answer in answers.items():
        for flag in ("attention-backend", "tool-call-parser", "reasoning-parser", "dtype", "quantization"):
            offered = [value for value, _ in shown_in(answer, flag).options]
            assert offered == ["", *flags_of(version)[flag].choices]
    assert shown_in(answers[NEWEST], "spec-method").options[1:] == (("mtp", "mtp"), ("ngram", "ngram"))
    gone = shown_in(answers[OLDEST], "spec-method")
    assert (gone.offer.missing, gone.offer.help) == (True, f"vLLM {OLDEST} has no such setting.")


def test_another_engine_brings_its_own_settings_while_one_types(older: EngineProfile, alice: User) -> None:
    offered = live(alice, profile=f"vllm-{NEWEST}").context["offered"]
    same = live(alice, profile=f"vllm-{NEWEST}", offered=offered).content.decode()
    other = live(alice, profile=f"vllm-{OLDEST}", offered=offered).content.decode()

    assert 'id="engine-groups"' not in same
    assert 'id="said-features"' in same
    assert 'id="engine-groups" class="stack" hx-swap-oob="morph"' in other
    assert f'name="offered" value="{OLDEST}"' in other


def test_a_kv_cache_that_no_kernels_keep_on_the_gpu_is_not_offered(hub: list[str], alice: User) -> None:
    product = {"name": "T4", "product": "Tesla-T4", "memory_mib": 15360, "compute_capability": "7.5"}
    Flavor.objects.create(slug="t4", **product)
    newer, older = (live(alice, flavor=gpu) for gpu in ("h100-80gb", "t4"))
    kinds = [[value for value, _ in shown_in(answer, "kv-cache-dtype").options] for answer in (newer, older)]

    assert {"", "auto", "fp8", "turboquant_k8v4"} <= set(kinds[0])
    assert {"ultraquant_4bit", "nvfp4_4over6"}.isdisjoint(kinds[0])
    assert {"", "auto", "float16"} <= set(kinds[1])
    assert {"fp8", "bfloat16", "nvfp4"}.isdisjoint(kinds[1])
    # On the page they change with the GPU, and what is chosen already stays to be put right.
    changed = live(alice, flavor="t4", kv_cache_dtype="fp8", offered=newer.context["offered"])
    assert 'id="engine-groups"' in changed.content.decode()
    assert ("fp8", "fp8") in shown_in(changed, "kv-cache-dtype").options
    assert changed.context["fields"]["kv_cache_dtype"]["messages"][0]["set"] == "auto"


def test_a_stored_value_that_the_engine_does_not_know_stays_and_is_told(older: EngineProfile, alice: User) -> None:
    new = next(
        c for c in flags_of(NEWEST)["tool-call-parser"].choices if c not in flags_of(OLDEST)["tool-call-parser"].choices
    )

    answer = signed_in(alice).post(
        reverse("deployment-create"), typed(profile=older.slug, tool_call_parser=new, spec_method="ngram")
    )

    assert answer.status_code == 422
    assert f'<option value="{new}" selected>{new} (not of vLLM {OLDEST})</option>' in flat(answer.content.decode())
    assert "error" in {said["severity"] for said in answer.context["fields"]["tool_call_parser"]["messages"]}
    assert "does not know “spec-method” yet" in answer.context["fields"]["spec_method"]["messages"][0]["message"]
    assert shown_in(answer, "spec-method").options[-1] == ("ngram", f"ngram (not of vLLM {OLDEST})")


def test_folded_groups_say_what_is_set_and_open_where_something_is_wrong(hub: list[str], alice: User) -> None:
    answer = signed_in(alice).post(
        reverse("deployment-create"),
        typed(name="", dtype="half", enable_chunked_prefill="false", args="--seed=7", attention_backend="FASTEST"),
    )

    types, features, expert = (group_of(answer, key) for key in ("types", "features", "expert"))
    assert (types.said, types.open, types.wrong) == ("Number type half", False, 0)
    assert (features.said, features.open, features.wrong) == ("Chunked prefill off, Attention backend FASTEST", True, 1)
    assert (expert.said, expert.open) == ("1 flag", False)
    assert group_of(answer, "parallelism").said.startswith("1 GPU per replica")
    text = flat(answer.content.decode())
    assert '<details class="more group" id="group-features" open>' in text
    assert '<details class="more group" id="group-types">' in text


def test_more_than_three_settings_are_counted(hub: list[str], alice: User) -> None:
    changes = {"kv_cache_dtype": "fp8", "max_num_seqs": "64", "max_num_batched_tokens": "4,096"}

    said = group_of(live(alice, **changes), "memory").said

    assert said == "Longest context 16,384, GPU memory share 0.9, KV cache type fp8 and 2 more"


def test_a_fix_of_a_flag_that_is_written_as_a_line_changes_the_line(hub: list[str], alice: User) -> None:
    pressed = typed(args="--seed=7\n--max_num_batched_tokens=4") | {"set": "max_num_batched_tokens=4096"}

    answer = signed_in(alice).post(reverse("deployment-create"), pressed)

    values = answer.context["values"]
    assert (values["args"], values["max_num_batched_tokens"]) == ("--seed=7\n--max-num-batched-tokens=4096", "")
    assert with_value({"args": "--no-enable-prefix-caching"}, "enable_prefix_caching", "true") == {
        "args": "--enable-prefix-caching=true"
    }


@pytest.mark.parametrize(
    ("field", "value", "fix"),
    [
        ("dtype", "fp99", None),
        ("max_num_batched_tokens", "2", None),
        ("enable_chunked_prefill", "perhaps", None),
        ("pipeline_parallel_size", "two", None),
        ("quantization", "fp88", "fp8"),
    ],
)
def test_what_is_wrong_stands_at_its_own_field(
    hub: list[str], alice: User, field: str, value: str, fix: str | None
) -> None:
    answer = live(alice, **{field: value})

    messages = answer.context["fields"][field]["messages"]
    assert "error" in {said["severity"] for said in messages}
    assert fix is None or fix in {said["set"] for said in messages}
    assert f'id="msg-{field}" hx-swap-oob="morph"' in answer.content.decode()
    assert answer.context["fields"]["args"]["messages"] == []


@pytest.mark.parametrize(
    ("profile", "version", "offered"),
    [("ours", OLDEST, OLDEST), (f"vllm-{OLDEST}", "", OLDEST), ("ours", "99.0", NEWEST), ("", "", NEWEST)],
)
def test_an_engine_whose_flags_are_not_known_is_offered_the_newest(profile: str, version: str, offered: str) -> None:
    assert version_of(profile, version) == offered

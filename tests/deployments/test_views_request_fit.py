"""Beside the request form: how each role sits in memory, and other ways for roles and for replicas over nodes."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import pytest
from django.template.loader import render_to_string
from django.urls import reverse

from deployments.engine.facts import GIB, ModelFacts
from deployments.engine.gpus import gpu_facts
from deployments.engine.sizing import fit
from deployments.models import Flavor, Team, User
from deployments.views.advice import Advice
from deployments.views.fits import WORDS, RoleFit
from deployments.views.ways import HOURS_A_MONTH, ORDER
from tests.deployments import factories as make
from tests.deployments.test_views_request import typed
from tests.deployments.test_views_request_roles import ROLES
from tests.deployments.viewing import flat, signed_in
from tests.deployments.wishes import LLAMA

pytestmark = pytest.mark.django_db


def looked_at(user: User, **fields: str) -> Any:
    return signed_in(user).post(reverse("deployment-preflight"), typed(**fields))


def advice_for(user: User, **fields: str) -> Advice:
    advice = looked_at(user, **fields).context["advice"]
    assert isinstance(advice, Advice)
    return advice


def said_of_parallelism(answer: Any) -> str:
    return str(next(group.said for group in answer.context["groups"] if group.key == "parallelism"))


def test_each_role_has_a_bar_of_its_own_under_its_name(hub: list[str], alice: User, h100: Flavor) -> None:
    answer = looked_at(alice, **ROLES)

    prefill, decode = answer.context["advice"].fits
    assert [(one.title, one.gpus, one.word) for one in (prefill, decode)] == [
        ("Prefill", 2, "fits"),
        ("Decode", 1, "fits"),
    ]
    shared: dict[str, Any] = {"max-model-len": 16384, "gpu-memory-utilization": 0.9}
    model = answer.context["advice"].model
    gpu = gpu_facts(h100.product, h100.memory_mib, 9.0)
    assert prefill.fit == fit(model, gpu, {**shared, "max-num-batched-tokens": 32768, "tensor-parallel-size": 2})
    assert decode.fit == fit(model, gpu, {**shared, "max-num-seqs": 128, "tensor-parallel-size": 1})
    assert prefill.bar_label.startswith("GPU memory of prefill: weights 7.2 GiB")
    assert decode.bar_label.startswith("GPU memory of decode: weights 14.2 GiB")
    text = flat(answer.content.decode())
    assert [text.count(f">{title}</h3>") for title in ("Prefill", "Decode")] == [1, 1]
    # The line at the end of the form, for narrow screens, names both too.
    assert "Prefill fits · 2 × H100-80GB" in text
    assert "Decode fits · 1 × H100-80GB" in text


def test_a_role_that_does_not_fit_is_named(hub: list[str], alice: User) -> None:
    advice = advice_for(alice, **{**ROLES, "decode_args": "--gpu-memory-utilization=0.15"})

    assert [(one.title, one.word, one.tone) for one in advice.fits] == [
        ("Prefill", "fits", "green"),
        ("Decode", "does not fit", "red"),
    ]
    # A way is as good as the worse of its roles.
    [current] = [way for way in advice.ways if way.current]
    assert (current.word, current.at_once) == ("does not fit", 0)


def test_the_folded_line_says_what_each_role_takes(hub: list[str], alice: User) -> None:
    """What stays in the field of *standard*, which is not shown then, is not said."""
    assert said_of_parallelism(looked_at(alice, **ROLES)) == "Prefill 2 GPUs, decode 1 GPU per replica"
    assert said_of_parallelism(looked_at(alice)) == "1 GPU per replica, Tensor parallel size 1"


def test_other_ways_are_those_of_both_roles(hub: list[str], alice: User, h100: Flavor) -> None:
    make.make_flavor("l4-24gb")
    Flavor.objects.update(price_per_hour=2)

    advice = advice_for(alice, **ROLES)

    ways = {way.label: way for way in advice.ways}
    current = ways["2 + 1 × H100-80GB"]
    assert (current.current, current.sets) == (True, "")
    # One replica of prefill at most, and two of decode.
    assert current.month == pytest.approx(2 * (2 * 1 + 1 * 2) * HOURS_A_MONTH)
    decode = advice.fits[1].fit
    assert current.at_once == int(decode.at_once)
    assert ways["2 + 1 × H100-80GB, fp8 KV"].at_once == pytest.approx(2 * current.at_once, abs=2)
    other = next(way for way in advice.ways if "L4" in way.label)
    sets = dict(parse_qsl(other.sets))
    assert set(sets) == {"flavor", "prefill_tensor_parallel_size", "decode_tensor_parallel_size"}

    pressed = signed_in(alice).post(reverse("deployment-create"), typed(**ROLES) | {"way": other.sets})

    after = pressed.context["advice"]
    assert [str(one.gpus) for one in after.fits] == [
        sets["prefill_tensor_parallel_size"],
        sets["decode_tensor_parallel_size"],
    ]
    worst = max((one.fit.state for one in after.fits), key=ORDER.index)
    assert WORDS[worst][0] == other.word


def test_a_replica_over_nodes_is_a_way_too(hub: list[str], alice: User, team: Team, h100: Flavor) -> None:
    wide = {"nodes": "2", "tensor_parallel_size": "4", "pipeline_parallel_size": "2"}

    answer = looked_at(alice, **wide)

    [one] = answer.context["advice"].fits
    assert (one.title, one.gpus, one.nodes) == ("", 8, 2)
    assert said_of_parallelism(answer).startswith("8 GPUs per replica on 2 nodes")
    assert "8 × H100-80GB on 2 nodes" in flat(answer.content.decode())
    ways = {way.label: way for way in answer.context["advice"].ways}
    assert ways["8 × H100-80GB on 2 nodes"].current
    # On one node both stages stand side by side, each on as few GPUs as hold it.
    assert dict(parse_qsl(ways["2 × H100-80GB"].sets)) == {
        "flavor": "h100-80gb",
        "tensor_parallel_size": "1",
        "nodes": "1",
    }


def test_the_panel_reserves_what_a_rollout_takes_too(hub: list[str], alice: User, h100: Flavor) -> None:
    fields = {f"{role}_replicas_{end}": "1" for role in ("prefill", "decode") for end in ("min", "max")}
    answer = looked_at(alice, **(ROLES | fields))
    advice = answer.context["advice"]
    # Two GPUs of prefill and one of decode, and as many again while both are rolled.
    assert (advice.needed, advice.surge) == (6, 3)
    assert "6 GPUs, 3 of them while a new revision rolls out" in flat(answer.content.decode())


def test_of_a_model_without_attention_no_tokens_of_a_cache_are_told() -> None:
    mamba = ModelFacts(id="state-spaces/mamba2", weights_bytes=5 * GIB, layers=64, linear_layers=64, hidden=2560)
    seats = {
        model.id: RoleFit("", fit(model, gpu_facts("NVIDIA-L4"), {"max-model-len": 4096}), 1)
        for model in (LLAMA, mamba)
    }
    texts = {
        name: flat(render_to_string("parts/fit.html", {"each": seat, "advice": None})) for name, seat in seats.items()
    }
    assert "Full-length requests at once" in texts[LLAMA.id]
    assert "the model keeps no keys and values" in texts[mamba.id]
    assert "Full-length requests at once" not in texts[mamba.id]

"""Prefill and decode sit in memory of their own: each is told by name, over the API and on the command line."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from deployments.commandline import check_document
from deployments.fitting import BAR_WIDTH, fit_document, fit_text
from tests.deployments import factories as make
from tests.deployments.test_people_api import api
from tests.deployments.wishes import LLAMA_CONFIG, roles_json, spec_json

# A context that two of the smaller GPUs hold together, and one does not.
LONG = {"max-model-len": 65536}


def document(**changes: Any) -> dict[str, Any]:
    spec = {"flavor": "l4-24gb", "args": LONG, "prefill": {"args": {"tensor-parallel-size": 2}}, **changes}
    return {"team": "search", "name": "chat", "spec": roles_json(**spec), "model": {"config": LLAMA_CONFIG}}


def test_spec_fit_tells_each_role_and_decode_where_there_is_one_answer():
    answer = fit_document(document())
    prefill, decode = answer["roles"]
    assert [(own["role"], own["state"], own["gpus"]) for own in answer["roles"]] == [
        ("prefill", "fits", 2),
        ("decode", "no", 1),
    ]
    assert (prefill["weights_gib"], decode["weights_gib"]) == (7.59, 14.96)
    assert {name: value for name, value in answer.items() if name != "roles"} == {
        name: value for name, value in decode.items() if name != "role"
    }


def test_other_ways_are_at_the_places_of_their_role():
    short = document(prefill={"args": {"tensor-parallel-size": 1}}, decode={"args": {"max-model-len": 4096}})
    prefill, decode = fit_document(short)["roles"]
    assert (prefill["state"], decode["state"], decode["alternatives"]) == ("no", "fits", [])
    assert {(way["pointer"], way["value"]) for way in prefill["alternatives"]} >= {
        ("/spec/engine/args/max-model-len", 31744),
        ("/spec/prefill/args/tensor-parallel-size", 2),
    }


def test_spec_check_tells_each_role():
    answer = check_document(document())
    assert [(own["role"], own["fit"]["state"]) for own in answer["roles"]] == [("prefill", "fits"), ("decode", "no")]
    assert answer["fit"] == answer["roles"][-1]["fit"]
    assert [own["role"] for own in check_document(spec_json())["roles"]] == ["both"]


def test_one_answer_needs_no_roles():
    assert "roles" not in fit_document(
        {"spec": spec_json(flavor="l4-24gb", args=LONG), "model": {"config": LLAMA_CONFIG}}
    )


def test_what_an_engine_measured_counts_for_the_roles_that_run_the_same():
    measured = {"measured": {"weights_gib": 15.0}}
    prefill, decode = fit_document(document() | measured)["roles"]
    assert (prefill["weights_gib"], decode["weights_gib"]) == (7.59, 15.0)
    alike = fit_document(document(prefill={}) | measured)["roles"]
    assert [own["weights_gib"] for own in alike] == [15.0, 15.0]


def test_room_for_adapters_counts_as_in_the_check():
    haiku = {"name": "haiku", "uri": "hf://owner/haiku", "revision": "a" * 40}
    wish = document(adapters=[haiku])
    checked = [own["fit"]["overhead_gib"] for own in check_document(wish)["roles"]]
    assert [own["overhead_gib"] for own in fit_document(wish)["roles"]] == checked
    plain = [own["overhead_gib"] for own in fit_document(document())["roles"]]
    assert all(more > less for more, less in zip(checked, plain, strict=True))


def test_the_table_has_a_bar_and_figures_for_each_role(tmp_path: Path):
    path = tmp_path / "wish.json"
    path.write_text(json.dumps(document()))
    out = StringIO()
    call_command("spec", "fit", str(path), "--table", stdout=out)
    prefill, decode = out.getvalue().split("\n\n")
    assert prefill.startswith("Prefill: fits on NVIDIA-L4, 2 GPUs per replica\n")
    assert decode.startswith("Decode: does not fit on NVIDIA-L4, 1 GPU per replica\n")
    assert "W weights 7.59" in prefill
    assert "would fit" not in prefill
    assert "would fit with max-model-len 31,744" in decode
    bars = [text.split("|")[1] for text in (prefill, decode)]
    assert [len(bar) for bar in bars] == [BAR_WIDTH, BAR_WIDTH]
    # 7.59 and 14.96 of 22 GiB.
    assert [bar.count("W") for bar in bars] == [21, 41]


def test_the_table_of_one_kind_of_pods_and_of_a_model_nobody_knows():
    alone = fit_text(fit_document({"config": LLAMA_CONFIG, "gpu": "L4", "args": {"max-model-len": 8192}}))
    assert alone.startswith("Fits on NVIDIA-L4, 1 GPU per replica\n")
    unknown = fit_text(fit_document({"spec": document()["spec"]}))
    assert unknown.count("whether it fits on NVIDIA-L4 is not known") == 2
    assert "weights_bytes, layers" in unknown


@pytest.mark.django_db
@pytest.mark.usefixtures("hub")
def test_preflight_tells_each_role_and_ways_at_its_own_places(ann, team):
    spec = make.a_spec(
        strategy="disaggregated",
        prefill={"args": {"tensor-parallel-size": 2}},
        decode={"args": {"gpu-memory-utilization": 0.2}},
    )
    del spec["replicas"]
    answer = api(ann)("post", "preflight/", {"team": "search", "name": "pd", "spec": spec}).json()
    prefill, decode = answer["roles"]
    assert [(own["role"], own["gpus_per_replica"], own["fit"]["state"]) for own in answer["roles"]] == [
        ("prefill", 2, "fits"),
        ("decode", 1, "no"),
    ]
    assert prefill["fit"]["weights_gib"] < decode["fit"]["weights_gib"]
    assert (answer["fit"], answer["options"]) == (decode["fit"], decode["options"])
    assert "/spec/decode/args/tensor-parallel-size" in {way["pointer"] for way in decode["options"]}
    assert "/spec/decode/args/tensor-parallel-size" not in {way["pointer"] for way in prefill["options"]}


@pytest.mark.django_db
@pytest.mark.usefixtures("hub")
def test_preflight_has_one_role_where_pods_do_both_and_none_of_what_is_no_spec(ann, team):
    answer = api(ann)("post", "preflight/", {"team": "search", "name": "chat", "spec": make.a_spec()}).json()
    assert [(own["role"], own["fit"], own["options"]) for own in answer["roles"]] == [
        ("both", answer["fit"], answer["options"])
    ]
    assert answer["options"]
    nothing = api(ann)("post", "preflight/", {"team": "search", "name": "chat", "spec": {"flavor": 3}}).json()
    assert (nothing["roles"], nothing["fit"], nothing["options"]) == ([], None, [])

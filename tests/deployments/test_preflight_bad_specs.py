"""The wrong specs that KServe was seen to admit or refuse: as a wish, each is refused by name or cannot be said."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments import commandline
from deployments.findings import Finding
from deployments.manifests import build
from deployments.preflight import ClusterFacts, check_raw
from deployments.preflight.cluster import surge_of
from deployments.preflight.objects import check_objects
from deployments.spec import DeploymentSpec
from tests.deployments.random_wishes import wishes
from tests.deployments.schemas import complaints
from tests.deployments.wishes import facts_of, spec_json, wish_of

RECORDED = yaml.safe_load((Path(__file__).parents[1] / "data/kserve-0.20.0/bad-specs.yaml").read_text())
APART = {"strategy": "disaggregated", "prefill": {}, "decode": {}}

# The same mistake as a wish: its name or parts of its spec, and the codes of which one must refuse it.
REFUSED: dict[str, tuple[dict[str, Any], set[str]]] = {
    "min-gt-max": ({"replicas": {"min": 3, "max": 1}}, {"invalid"}),
    "negative-min": ({"replicas": {"min": -1, "max": 1}}, {"invalid"}),
    "unknown-runtime": ({"engine": {"profile": "no-such-runtime"}}, {"profile_unknown"}),
    "uri-mlflow": ({"source": {"uri": "models:/chat/3"}}, {"source_unresolved"}),
    "uri-unknown-scheme": ({"source": {"uri": "ftp://host/x"}}, {"source_scheme"}),
    "uri-hf-one-part": ({"source": {"uri": "hf://Qwen"}}, {"source_form"}),
    "uri-relative": ({"source": {"uri": "Qwen/Qwen2.5"}}, {"source_scheme"}),
    "uri-pvc-missing": ({"source": {"uri": "pvc://no-such-claim/m"}}, {"claim_unknown"}),
    "name-upper": ({"name": "Qwen"}, {"name_form"}),
    "name-dot": ({"name": "qwen2.5"}, {"name_form"}),
    "name-64": ({"name": "q" * 64}, {"name_length"}),
    "name-starts-digit": ({"name": "7b-qwen"}, {"name_form"}),
    "unknown-field": ({"sharedMemory": "1Gi"}, {"unknown_field"}),
    "fraction-gpu": ({"engine": {"args": {"tensor-parallel-size": 0.5}}}, {"flag_type"}),
    "mode-bad": ({"strategy": "Nonsense"}, {"invalid"}),
    "mode-serverless": ({"strategy": "serverless"}, {"invalid"}),
    "llm-uri-gs": ({**APART, "source": {"uri": "gs://bucket/m"}}, {"source_strategy"}),
    "llm-uri-https": ({**APART, "source": {"uri": "https://host.example/m.tar.gz"}}, {"source_strategy"}),
    "llm-uri-mlflow": ({**APART, "source": {"uri": "models:/chat/3"}}, {"source_unresolved"}),
    "llm-no-uri": ({**APART, "source": {"uri": ""}}, {"invalid"}),
    "llm-neg-replicas": ({**APART, "decode": {"replicas": {"min": -1, "max": 1}}}, {"invalid"}),
}
# What no wish can say, and why: the field one would try, and what holds in the objects in its place.
UNSAID: dict[str, tuple[dict[str, Any], str]] = {
    "unknown-format-no-runtime": ({"model_format": "nonsense"}, "the builder writes format and runtime"),
    "lowercase-vllm-format": ({"model_format": "vllm"}, "the builder writes “vLLM”"),
    "gpu-only-in-requests": ({"resources": {}}, "the builder writes GPUs as limits, equal to the requests"),
    "gpu-limit-lt-request": ({"resources": {}}, "the builder writes GPUs as limits, equal to the requests"),
    "no-serviceaccount": ({"service_account": "no-such-sa"}, "each deployment gets an account of its own"),
    "mode-absent": ({"deployment_mode": None}, "the builder always writes Standard"),
    "autoscaler-class-bad": ({"autoscaler_class": "nonsense"}, "the builder writes one of those KServe knows"),
    "llm-bad-baseref": ({"base_refs": [{"name": "nope"}]}, "no wish names a preset"),
}


def said_of(change: dict[str, Any]) -> list[Finding]:
    change = copy.deepcopy(change)
    name = change.pop("name", "chat")
    engine = {"args": {"max-model-len": 8192}} | change.pop("engine", {})
    spec = {**spec_json(), "engine": engine, **change}
    facts = facts_of(cluster=ClusterFacts(sandbox=True, claims=frozenset({"weights"})))
    return check_raw({"team": "search", "name": name, "spec": spec}, facts)[1]


def test_every_recorded_mistake_is_in_one_of_the_tables():
    assert set(REFUSED) | set(UNSAID) == set(RECORDED)
    assert not set(REFUSED) & set(UNSAID)


@pytest.mark.parametrize("name", REFUSED)
def test_the_mistake_is_refused_by_a_named_rule(name: str):
    change, codes = REFUSED[name]
    found = [finding for finding in said_of(change) if finding.is_error]
    assert {finding.code for finding in found} & codes
    assert all(finding.message for finding in found)


@pytest.mark.parametrize("name", UNSAID)
def test_the_mistake_cannot_be_said(name: str):
    change, why = UNSAID[name]
    assert why
    (pointer,) = (f"/spec/{field}" for field in change)
    assert [finding.code for finding in said_of(change) if finding.pointer == pointer] == ["unknown_field"]


def test_and_the_objects_of_a_wish_make_none_of_them():
    assert check_objects(build(wish_of())) == []


def objects_with(change: dict[str, Any]) -> list[dict[str, Any]]:
    """The objects of a wish with a recorded change made to its service."""
    objects = copy.deepcopy(build(wish_of()))
    service = next(obj for obj in objects if obj["kind"] == "InferenceService")
    for path, value in change.items():
        if path.startswith("@"):
            key = f"serving.kserve.io/{path[1:]}"
            if value is None:
                del service["metadata"]["annotations"][key]
            else:
                service["metadata"]["annotations"][key] = value
            continue
        place = service
        *steps, last = path.split(".")
        for step in steps:
            place = place[step]
        if isinstance(value, dict):
            value = {**({} if last == "limits" else place.get(last, {})), **value}
        place[last] = value
    return objects


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("unknown-runtime", "object_runtime"),
        ("unknown-format-no-runtime", "object_runtime"),
        ("lowercase-vllm-format", "object_format"),
        ("uri-mlflow", "object_uri"),
        ("uri-unknown-scheme", "object_uri"),
        ("uri-hf-one-part", "object_uri"),
        ("uri-relative", "object_uri"),
        ("name-64", "object_name"),
        ("gpu-only-in-requests", "object_gpus"),
        ("gpu-limit-lt-request", "object_gpus"),
        ("fraction-gpu", "object_gpus"),
        ("no-serviceaccount", "object_account"),
        ("mode-bad", "object_mode"),
        ("mode-serverless", "object_mode"),
        ("mode-absent", "object_mode"),
        ("autoscaler-class-bad", "object_mode"),
    ],
)
def test_a_builder_that_wrote_it_would_be_found_out(name: str, code: str):
    assert code in {finding.code for finding in check_objects(objects_with(RECORDED[name]["change"]))}


def test_no_wish_that_passes_makes_one():
    """Wishes of every strategy, source, flag, role, adapter and model: what is not refused makes good objects."""
    passed: Counter[str] = Counter()
    for place, (document, facts) in enumerate(wishes(seed=7, count=700)):
        answer = commandline.check_document(document, facts)
        if not answer["ok"]:
            assert [item for item in answer["findings"] if item["severity"] == "error" and item["message"]]
            continue
        rendered = commandline.render_document(document, facts)
        assert rendered["problems"] == [], document
        reserved = answer["gpus"] + surge_of(DeploymentSpec.from_json(document["spec"]))
        assert rendered["gpus"] <= reserved, document
        if place % 20 == 0:
            # Each kind's own schema, with its rules in CEL: slower, so not of all.
            wrong = {obj["kind"]: said for obj in rendered["objects"] if (said := complaints(obj))}
            assert wrong == {}, document
        spec = document["spec"]
        passed[spec["strategy"]] += 1
        passed["nodes"] += spec.get("nodes", 1) > 1
        passed["adapters"] += bool(spec.get("adapters"))
        passed["fetched ahead"] += bool(spec["source"].get("cache"))
        passed["a revision"] += bool(spec["source"].get("revision"))
        passed["quantised"] += "quantization" in spec["engine"]["args"]
        passed["other flags"] += len(spec["engine"]["args"]) > 3
    # None of them is left out because it is refused anyway.
    assert min(passed.values()) >= 3, passed
    assert len(passed) == 9

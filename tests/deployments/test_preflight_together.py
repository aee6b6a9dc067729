"""Several refusals of one wish propose one thing: each proposal leads on, alone and with all others.

Wishes over the catalogue's models, and two that are too large for one node or for any, on GPUs of every kind.
"""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from bench.fit.costs import R1
from deployments import preflight
from deployments.engine.facts import ModelFacts
from deployments.findings import Change, Finding
from deployments.preflight import Facts, FlavorFacts, QuotaFacts, check
from deployments.preflight.storage import MANY, StorageFacts
from deployments.preflight.trials import with_changes
from deployments.services.catalogue_edits import DATA
from deployments.spec import DeploymentSpec, Role
from deployments.spec_errors import parse_spec
from tests.deployments.preflighting import SERVED, with_cluster
from tests.deployments.wishes import facts_of

L405 = ModelFacts(
    id="meta-llama/Llama-3.1-405B-Instruct",
    architecture="LlamaForCausalLM",
    weights_bytes=811_706_974_208,
    layers=126,
    heads=128,
    kv_heads=8,
    head_dim=128,
    hidden=16_384,
    intermediate=53_248,
    vocab=128_256,
    max_position=131_072,
)
CATALOGUE = [
    ModelFacts.from_json({"id": row["uri"], **row["facts"]})
    for row in json.loads((DATA / "catalog.json").read_text())["models"]
]
MODELS = [*CATALOGUE, R1, R1, L405]
LWS = {**SERVED, "leaderworkerset.x-k8s.io": ("v1",)}
DIGEST = "@sha256:" + "1" * 64
SEED, WISHES = 20261126, 120


def kind(
    slug: str, product: str, memory: int, capability: float, *, per_node: int, nodes: int, resource: str = "gpu"
) -> FlavorFacts:
    total, name = per_node * nodes, f"nvidia.com/{resource}"
    return FlavorFacts(
        slug, product, memory, capability, per_node, resource_name=name, total=total, free=total, nodes=nodes
    )


H100 = kind("h100", "NVIDIA-H100-80GB-HBM3", 81_559, 9.0, per_node=4, nodes=1)
H100X8 = kind("h100x8", "NVIDIA-H100-80GB-HBM3", 81_559, 9.0, per_node=8, nodes=4)
H200 = kind("h200", "NVIDIA-H200", 143_771, 9.0, per_node=8, nodes=2)
L40S = kind("l40s", "NVIDIA-L40S", 46_068, 8.9, per_node=8, nodes=1)
L4 = kind("l4", "NVIDIA-L4", 23_034, 8.9, per_node=8, nodes=2)
T4 = kind("t4", "Tesla-T4", 15_360, 7.5, per_node=4, nodes=2)
A100 = kind("a100", "NVIDIA-A100-SXM4-40GB", 40_960, 8.0, per_node=8, nodes=2)
SLICE = kind("mig", "NVIDIA-H100-80GB-HBM3-MIG-3g.40gb", 40_448, 9.0, per_node=4, nodes=1, resource="mig-3g.40gb")
SHARED = kind("shared", "NVIDIA-L4-SHARED", 23_034, 8.9, per_node=8, nodes=1, resource="gpu.shared")
ALL = (H100X8, H200, A100, T4, SLICE, SHARED, L4)
PLATFORMS = {"demo": (H100, L40S, L4), "all": ALL, "small": (T4, L4), "four": (H100,), "eight": (H100X8,)}


def known(model: ModelFacts, flavors: tuple[FlavorFacts, ...], *, groups: Any = None) -> Facts:
    cluster = with_cluster(groups=LWS if groups is None else groups, storage=(StorageFacts("files", mode=MANY),))
    return facts_of(
        model=model,
        flavors={flavor.slug: flavor for flavor in flavors},
        quotas={flavor.slug: QuotaFacts(limit=16) for flavor in flavors},
        cluster=cluster.cluster,
    )


def wish(flavor: str, args: dict[str, Any], *, strategy: str = "standard", replicas: int = 1, **more: Any) -> Any:
    """A wish as JSON; of two roles each splits as `args` say."""
    several = {"min": replicas, "max": replicas}
    uri = f"oci://registry.example.com/a/b{DIGEST}" if strategy == "oci-volume" else "hf://a/b"
    spec: dict[str, Any] = {"source": {"uri": uri}, "strategy": strategy, "flavor": flavor, **more}
    if strategy == "disaggregated":
        own = {flag: value for flag, value in args.items() if flag.endswith("-parallel-size")}
        args = {flag: value for flag, value in args.items() if flag not in own}
        spec |= {role: {"replicas": several, "args": own} for role in ("prefill", "decode")}
    else:
        spec["replicas"] = several
    return {**spec, "engine": {"profile": "vllm-0.32.0", "args": args}}


def random_wish(dice: random.Random, flavors: tuple[FlavorFacts, ...]) -> Any:
    strategy = dice.choice(["standard"] * 3 + ["disaggregated", "oci-volume"])
    args: dict[str, Any] = {
        "tensor-parallel-size": dice.choice([1, 1, 2, 3, 4, 8, 8, 16]),
        "pipeline-parallel-size": dice.choice([1, 1, 1, 2, 3]),
        "data-parallel-size": dice.choice([1, 1, 1, 2, 4]),
        "max-model-len": dice.choice([2048, 8192, 32_768, 131_072, 1_000_000]),
        "dtype": dice.choice(["auto", "auto", "half", "bfloat16", "float32"]),
        **dice.choice([{}, {}, {"quantization": dice.choice(["fp8", "awq", "bitsandbytes"])}]),
        **dice.choice([{}, {"kv-cache-dtype": "fp8"}, {"enable-expert-parallel": True}]),
        **dice.choice([{}, {}, {"decode-context-parallel-size": 2}, {"kv-cache-memory-bytes": 2**33}]),
    }
    more: dict[str, Any] = {}
    if strategy == "standard":
        more |= {"nodes": dice.choice([1, 1, 2, 3]), "surge": dice.choice([0, 0, 0, 1])}
        more |= {"source": {"uri": dice.choice(["hf://a/b", "hf://a/b", "gs://bucket/m"])}}
    if dice.random() < 0.15:
        more["adapters"] = [{"name": "x", "uri": "hf://o/x"}]
    return wish(dice.choice(flavors).slug, args, strategy=strategy, replicas=dice.choice([1, 1, 2, 10]), **more)


def refused(spec: DeploymentSpec, facts: Facts) -> list[Finding]:
    return [finding for finding in check(spec, "chat", "search", facts) if finding.is_error]


def changes_of(finding: Finding) -> list[Change]:
    return [(finding.pointer, finding.value), *finding.also]


def followed(spec: DeploymentSpec, facts: Facts, fixes: list[Finding], before: list[Finding]) -> None:
    """Carry out what these propose: less is refused, nothing new, and nothing of what they are about."""
    changes = [change for fix in fixes for change in changes_of(fix)]
    sets: dict[str, Any] = {}
    assert all(sets.setdefault(pointer, value) == value for pointer, value in changes), changes
    changed = with_changes(spec, changes)
    assert changed is not None, changes
    after = refused(changed, facts)
    assert len(after) < len(before), (spec.to_json(), changes, after)
    assert {item.code for item in after} <= {item.code for item in before}, (spec.to_json(), changes, after)
    left = {(item.code, item.pointer) for item in after}
    assert not left & {(fix.code, fix.pointer) for fix in fixes}, (spec.to_json(), changes, after)


@pytest.mark.parametrize("part", range(4))
def test_each_proposal_leads_on_alone_and_with_all_others(part: int):
    dice, several = random.Random(SEED + part), 0
    for _ in range(WISHES // 4):
        model, flavors = dice.choice(MODELS), dice.choice(list(PLATFORMS.values()))
        facts = known(model, flavors, groups=dice.choice([LWS, LWS, SERVED]))
        spec, _ = parse_spec(random_wish(dice, flavors))
        before = refused(spec, facts) if spec is not None else []
        fixes = [finding for finding in before if finding.value is not None]
        for fix in fixes:
            assert spec is not None
            followed(spec, facts, [fix], before)
        if len(fixes) > 1:
            assert spec is not None
            followed(spec, facts, fixes, before)
            several += 1
    assert several > WISHES // 16, "the wishes are such that several things are wrong with most"


@pytest.mark.parametrize("flavor", ALL, ids=lambda flavor: flavor.slug)
@pytest.mark.parametrize("strategy", ["standard", "disaggregated"])
@pytest.mark.parametrize("size", [1, 8, 16])
def test_deepseek_r1_is_led_to_what_holds_it(flavor: FlavorFacts, strategy: str, size: int):
    """671B in fp8: eight H200s hold it, and with all layers in stages sixteen H100s do; nothing else here."""
    facts = known(R1, ALL)
    data = wish(flavor.slug, {"tensor-parallel-size": size, "max-model-len": 8192}, strategy=strategy)
    spec = DeploymentSpec.from_json(data)
    before = refused(spec, facts)
    assert (before == []) is (flavor is H200 and size == 8)
    for finding in before:
        assert finding.value is not None, (finding.code, finding.remedy)
        changed = with_changes(spec, changes_of(finding))
        assert changed is not None
        followed(spec, facts, [finding], before)
    sets = [change for finding in before for change in changes_of(finding)]
    whole = with_changes(spec, sets)
    assert whole is not None
    assert refused(whole, facts) == []
    assert (whole.flavor, whole.gpus_per_replica) in {("h200", 8), ("h100x8", 16)}


def test_deepseek_r1_on_nodes_of_eight_h100s_has_one_proposal():
    """Not sixteen GPUs of one node, nor eight that do not hold it: two nodes of eight."""
    facts = known(R1, (H100X8,))
    data = wish("h100x8", {"tensor-parallel-size": 16, "pipeline-parallel-size": 1, "max-model-len": 8192}, replicas=3)
    spec = DeploymentSpec.from_json(data)
    before = refused(spec, facts)
    assert {finding.code for finding in before} >= {"gpus_per_node"}
    for finding in before:
        changed = with_changes(spec, changes_of(finding))
        assert changed is not None
        assert refused(changed, facts) == []
        assert (changed.nodes, changed.gpus_per_replica, changed.gpus_per_pod) == (2, 16, 8)


@pytest.mark.parametrize("size", [8, 16])
def test_where_nothing_holds_it_no_proposal_says_that_something_does(size: int):
    facts = known(R1, (H100, L40S, L4))
    data = wish("h100", {"tensor-parallel-size": size, "max-model-len": 8192})
    for finding in refused(DeploymentSpec.from_json(data), facts):
        assert finding.value is None or "Change together" not in finding.remedy
    last = refused(DeploymentSpec.from_json({**data, "flavor": "l40s"}), facts)[-1]
    assert (last.code, last.value) == ("memory", None)


@pytest.mark.parametrize("model", [*CATALOGUE[:1], *CATALOGUE[10:12], R1, L405], ids=lambda model: model.id)
@pytest.mark.parametrize("strategy", ["standard", "disaggregated"])
def test_ways_that_fit_are_admitted_whole(model: ModelFacts, strategy: str):
    offered = 0
    for flavor in ALL:
        for size in (1, 3, 8):
            facts = known(model, ALL)
            args = {"tensor-parallel-size": size, "max-model-len": 131_072, "dtype": "float32"}
            spec = DeploymentSpec.from_json(wish(flavor.slug, args, strategy=strategy))
            for role, ways in preflight.ways(spec, "chat", "search", facts).items():
                for way in ways:
                    changed = with_changes(spec, way.changes)
                    assert changed is not None
                    assert refused(changed, facts) == [], (flavor.slug, size, role, way.text)
                    offered += 1
    # In float32 both roles of 405B are more than there is.
    assert (offered > 3) is (model is not L405 or strategy == "standard")


def test_a_way_of_one_role_says_what_the_other_needs():
    facts = known(R1, ALL)
    args = {"tensor-parallel-size": 1, "max-model-len": 8192}
    spec = DeploymentSpec.from_json(wish("h100x8", args, strategy="disaggregated"))
    texts = [way.text for way in preflight.ways(spec, "chat", "search", facts)[Role.PREFILL]]
    assert any("h200" in text and "with decode tensor-parallel-size 8" in text for text in texts), texts

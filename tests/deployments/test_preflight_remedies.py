"""What the rules offer is tried through the rules: no remedy leads to what the next one refuses."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from django.template.loader import render_to_string
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployments import preflight
from deployments.engine.facts import ModelFacts
from deployments.findings import Finding
from deployments.preflight import Facts, FlavorFacts, QuotaFacts, check
from deployments.preflight.trials import with_changes
from deployments.spec import DeploymentSpec
from deployments.spec_errors import parse_spec
from tests.deployments.preflighting import SERVED, the, with_cluster
from tests.deployments.wishes import A100, H100, L4, LLAMA, T4, facts_of, roles_json, spec_json, spec_of

LARGE = dataclasses.replace(
    LLAMA, id="org/large", weights_bytes=141_107_412_992, layers=80, heads=64, hidden=8192, intermediate=28_672
)
GIANT = dataclasses.replace(LARGE, id="org/giant", weights_bytes=811_706_974_208, layers=126, heads=128)
LWS = {**SERVED, "leaderworkerset.x-k8s.io": ("v1",)}


def facts_with(model: ModelFacts, *flavors: FlavorFacts, groups: Any = None) -> Facts:
    return facts_of(
        model=model,
        flavors={flavor.slug: flavor for flavor in flavors},
        quotas={flavor.slug: QuotaFacts(limit=1000) for flavor in flavors},
        cluster=with_cluster(groups=LWS if groups is None else groups).cluster,
    )


def carried_out(spec: DeploymentSpec, finding: Finding) -> DeploymentSpec:
    assert finding.value is not None
    changed = with_changes(spec, ((finding.pointer, finding.value), *finding.also))
    assert changed is not None
    return changed


def refused(spec: DeploymentSpec, facts: Facts) -> list[Finding]:
    return [finding for finding in check(spec, "chat", "search", facts) if finding.is_error]


@pytest.mark.parametrize(
    ("code", "model", "other"),
    [
        ("gpu_vendor", LARGE, dataclasses.replace(H100, slug="big", gpus_per_node=8, resource_name="amd.com/gpu")),
        (
            "quantization_gpu",
            dataclasses.replace(LARGE, quantization="mxfp4"),
            dataclasses.replace(T4, slug="big", memory_mib=200_000, gpus_per_node=8, total=8),
        ),
        (
            "quantised_blocks",
            dataclasses.replace(LARGE, quantization="fp8", quant_block=128, intermediate=128 * 3),
            dataclasses.replace(H100, slug="big", gpus_per_node=8, total=8),
        ),
        ("never_whole", LARGE, dataclasses.replace(H100, slug="big", gpus_per_node=8, total=1)),
        ("slices_apart", LARGE, dataclasses.replace(H100, slug="big", gpus_per_node=8, product="NVIDIA-H100-SHARED")),
    ],
)
def test_memory_names_no_way_that_another_rule_refuses(code: str, model: ModelFacts, other: FlavorFacts):
    small = dataclasses.replace(L4, gpus_per_node=1, nodes=1)
    facts, spec = facts_with(model, small, other), spec_of(flavor="l4", args={"max-model-len": 4096})
    # The way itself is there, and it is that rule which refuses it.
    there = with_changes(spec, (("/spec/flavor", "big"), ("/spec/engine/args/tensor-parallel-size", 4)))
    assert there is not None
    assert code in {finding.code for finding in refused(there, facts)}

    finding = the("memory", check(spec, "chat", "search", facts))

    assert finding.value is None
    assert "big" not in finding.remedy
    assert "No flavor here is large enough" in finding.remedy
    if code != "quantised_blocks":  # of the model itself
        fine = dataclasses.replace(H100, slug="fine", title="Fine", gpus_per_node=8, total=8)
        facts = facts_with(model, small, other, fine)
        finding = the("memory", check(spec, "chat", "search", facts))
        assert (finding.pointer, finding.value) == ("/spec/flavor", "fine")
        assert refused(carried_out(spec, finding), facts) == []


def test_fewer_gpus_than_it_starts_with_names_no_flavor_that_is_refused():
    other = dataclasses.replace(H100, slug="amd", total=100, gpus_per_node=8, resource_name="amd.com/gpu")
    facts = facts_with(LLAMA, H100, other)
    finding = the("never_whole", check(spec_of(replicas={"min": 9, "max": 9}), "chat", "search", facts))
    assert (finding.pointer, finding.value) == ("/spec/replicas/min", 4)
    assert other.label not in finding.remedy


def test_what_no_node_holds_is_spread_over_several():
    h100 = dataclasses.replace(H100, gpus_per_node=8, nodes=4, total=32)
    facts, spec = facts_with(GIANT, L4, h100), spec_of(flavor="h100", args={"max-model-len": 8192})
    finding = the("memory", check(spec, "chat", "search", facts))
    assert (finding.pointer, finding.value) == ("/spec/nodes", 2)
    assert finding.also == (
        ("/spec/engine/args/tensor-parallel-size", 8),
        ("/spec/engine/args/pipeline-parallel-size", 2),
    )
    assert "2 nodes, with 8 GPUs of each" in finding.remedy
    changed = carried_out(spec, finding)
    assert (changed.nodes, changed.gpus_per_pod) == (2, 8)
    assert refused(changed, facts) == []
    (ways,) = preflight.ways(spec, "chat", "search", facts).values()
    assert [way.changes for way in ways] == [((finding.pointer, finding.value), *finding.also)]


def test_spread_over_nodes_it_is_one_replica_where_there_are_no_gpus_for_more():
    h100 = dataclasses.replace(H100, gpus_per_node=8, nodes=2, total=16)
    spec = spec_of(flavor="h100", replicas={"min": 2, "max": 10}, args={"max-model-len": 8192})
    facts = facts_with(GIANT, h100)
    finding = the("memory", check(spec, "chat", "search", facts))
    assert "one replica on 2 nodes" in finding.remedy
    changed = carried_out(spec, finding)
    assert (changed.nodes, changed.replicas.min, changed.replicas.max) == (2, 1, 1)
    assert refused(changed, facts) == []


@pytest.mark.parametrize(
    ("flavor", "groups", "changes"),
    [
        (dataclasses.replace(H100, gpus_per_node=8, nodes=1, total=8), LWS, {}),
        (dataclasses.replace(H100, gpus_per_node=8, nodes=4, total=32), SERVED, {}),
        (
            dataclasses.replace(H100, gpus_per_node=8, nodes=4, total=32),
            LWS,
            {"strategy": "oci-volume", "source": {"uri": "oci://registry.example.com/a/b@sha256:" + "1" * 64}},
        ),
        (dataclasses.replace(H100, gpus_per_node=8, nodes=4, total=32), LWS, {"source": {"uri": "gs://bucket/giant"}}),
    ],
    ids=["one node", "no LeaderWorkerSet", "strategy", "source"],
)
def test_nodes_are_not_offered_where_a_replica_cannot_span_them(
    flavor: FlavorFacts, groups: Any, changes: dict[str, Any]
):
    spec = spec_of(**{"flavor": "h100", "args": {"max-model-len": 8192}, **changes})
    for finding in check(spec, "chat", "search", facts_with(GIANT, flavor, groups=groups)):
        if finding.code == "memory":
            assert finding.pointer != "/spec/nodes"
            assert "nodes" not in finding.remedy


def test_a_role_is_given_what_its_wish_admits():
    spec = DeploymentSpec.from_json(roles_json(flavor="l4", args={"max-model-len": 8192}))
    facts = facts_with(LARGE, dataclasses.replace(L4, gpus_per_node=8, total=64))
    finding = next(item for item in check(spec, "chat", "search", facts) if item.code == "memory")
    assert finding.value == 8
    changed = carried_out(spec, finding)
    assert {role.tensor_parallel for role in changed.by_role().values()} >= {8}


@pytest.mark.parametrize(
    ("code", "flavor", "args", "nodes", "changes"),
    [
        ("heads_not_divisible", H100, {"tensor-parallel-size": 3}, 3, [("tensor-parallel-size", 2), ("nodes", 1)]),
        ("heads_not_divisible", H100, {"tensor-parallel-size": 6}, 2, [("tensor-parallel-size", 4)]),
        ("engines_across_nodes", H100, {"data-parallel-size": 2}, 2, [("data-parallel-size", 1), ("nodes", 1)]),
        (
            "engines_across_nodes",
            H100,
            {"data-parallel-size": 2, "tensor-parallel-size": 2},
            4,
            [("data-parallel-size", 1), ("nodes", 1)],
        ),
        (
            "slices_apart",
            dataclasses.replace(H100, product="NVIDIA-H100-MIG-3g.40gb"),
            {"tensor-parallel-size": 2},
            2,
            [("tensor-parallel-size", 1), ("nodes", 1)],
        ),
    ],
)
def test_a_split_that_is_put_right_still_goes_over_the_nodes(
    code: str, flavor: FlavorFacts, args: dict[str, int], nodes: int, changes: list[tuple[str, int]]
):
    spec = spec_of(args={"max-model-len": 4096, **args}, nodes=nodes)
    finding = the(code, check(spec, "chat", "search", facts_with(LLAMA, flavor)))
    sets = [(finding.pointer, finding.value), *finding.also]
    assert [(pointer.rpartition("/")[2], value) for pointer, value in sets] == changes
    assert code not in {item.code for item in refused(carried_out(spec, finding), facts_with(LLAMA, flavor))}


def test_two_roles_that_become_standard_leave_their_parts_behind():
    spec = DeploymentSpec.from_json(roles_json(decode={"args": {"max-num-seqs": 64}}))
    facts = facts_with(LLAMA, dataclasses.replace(H100, total=1, gpus_per_node=1, nodes=1))
    finding = the("never_whole", check(spec, "chat", "search", facts))
    assert (finding.pointer, finding.value) == ("/spec/strategy", "standard")
    assert finding.also == (
        ("/spec/prefill", None),
        ("/spec/decode", None),
        ("/spec/engine/args/max-num-seqs", 64),
    )
    assert refused(carried_out(spec, finding), facts) == []


def test_a_source_that_roles_cannot_load_leads_to_a_whole_wish():
    spec = DeploymentSpec.from_json(roles_json(source={"uri": "gs://bucket/model"}))
    finding = the("source_strategy", check(spec, "chat", "search", facts_with(LLAMA, H100)))
    changed = carried_out(spec, finding)
    assert (changed.strategy.value, changed.prefill, changed.decode) == ("standard", None, None)


@pytest.mark.parametrize(
    ("changes", "flavor", "groups", "spread"),
    [
        ({}, {}, LWS, 2),
        ({}, {"nodes": 1}, LWS, None),
        ({}, {}, SERVED, None),
        ({"source": {"uri": "gs://bucket/model"}}, {}, LWS, None),
        ({"adapters": [{"name": "haiku", "uri": "hf://owner/adapter"}]}, {}, LWS, 2),
        ({"strategy": "oci-volume", "source": {"uri": "oci://registry.example.com/a/b:1"}}, {}, LWS, None),
        ({}, {"product": "NVIDIA-H100-MIG-3g.40gb"}, LWS, None),
        ({"args": {"max-model-len": 8192, "tensor-parallel-size": 16}}, {"nodes": 2, "total": 8}, LWS, None),
        ({"args": {"max-model-len": 8192, "tensor-parallel-size": 16}}, {"nodes": 4}, LWS, 4),
    ],
    ids=["there", "one node", "no controller", "source", "adapters", "strategy", "slices", "two of four", "four"],
)
def test_more_nodes_are_named_only_where_a_replica_can_span_them(
    changes: dict[str, Any], flavor: dict[str, Any], groups: Any, spread: int | None
):
    card = dataclasses.replace(H100, gpus_per_node=4, **{"nodes": 4, "total": 16, **flavor})
    spec = spec_of(**{"args": {"max-model-len": 8192, "tensor-parallel-size": 8}, **changes})
    found = check(spec, "chat", "search", facts_with(LARGE, card, groups=groups))
    finding = the("gpus_per_node", found)
    assert ("let a replica span" in finding.remedy) is (spread is not None)
    if spread is None:
        assert "nodes" not in finding.remedy
    else:
        assert finding.remedy.endswith(f"; or let a replica span {spread} nodes.")
    if spread:
        facts = facts_with(LARGE, card, groups=groups)
        changed = with_changes(spec, [("/spec/nodes", spread)])
        assert changed is not None
        assert refused(changed, facts) == []


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(
    args=st.fixed_dictionaries(
        {"tensor-parallel-size": st.sampled_from([1, 2, 3, 4, 6, 8, 99])},
        optional={
            "max-model-len": st.sampled_from([2048, 10**9]),
            "pipeline-parallel-size": st.sampled_from([1, 2, 3, 200]),
            "data-parallel-size": st.sampled_from([1, 2, 3]),
            "dtype": st.sampled_from(["half", "int8"]),
        },
    ),
    nodes=st.sampled_from([1, 2, 3, 4]),
    card=st.sampled_from([H100, L4, dataclasses.replace(L4, product="NVIDIA-L4-SHARED")]),
    uri=st.sampled_from(["hf://a/b", "gs://bucket/model", "oci://registry.example.com/a/b:1"]),
    roles=st.booleans(),
    replicas=st.sampled_from([1, 3, 40]),
)
def test_every_value_that_is_offered_makes_a_wish(
    args: dict[str, Any], nodes: int, card: FlavorFacts, uri: str, roles: bool, replicas: int
):
    several = {"min": replicas, "max": replicas}
    data = roles_json(args=args) if roles else spec_json(args=args, nodes=nodes, replicas=several)
    spec, _ = parse_spec({**data, "flavor": card.slug, "source": {"uri": uri}})
    if spec is None:
        return
    for finding in check(spec, "chat", "search", facts_with(LLAMA, card)):
        if finding.value is not None:
            carried_out(spec, finding)


MODELS = st.builds(
    dataclasses.replace,
    st.sampled_from([LLAMA, LARGE, GIANT]),
    quantization=st.sampled_from([None, None, "fp8", "awq", "mxfp4"]),
    quant_block=st.sampled_from([None, 128]),
    intermediate=st.sampled_from([14_336, 28_672, 384 * 128]),
    heads=st.sampled_from([24, 32, 64]),
    kv_heads=st.sampled_from([1, 4, 8]),
    architecture=st.sampled_from(["LlamaForCausalLM", "Gemma3ForCausalLM"]),
)
CARDS = [
    *(H100, L4, T4, A100),
    dataclasses.replace(H100, slug="h100x8", gpus_per_node=8, nodes=2, total=16),
    dataclasses.replace(H100, slug="amd", gpus_per_node=8, total=64, resource_name="amd.com/gpu"),
    dataclasses.replace(L4, slug="shared", product="NVIDIA-L4-SHARED"),
]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(
    model=MODELS,
    cards=st.lists(st.sampled_from(CARDS), min_size=1, max_size=5, unique_by=lambda card: card.slug),
    args=st.fixed_dictionaries(
        {"max-model-len": st.sampled_from([2048, 32_768, 131_072])},
        optional={
            "tensor-parallel-size": st.sampled_from([1, 2, 4]),
            "dtype": st.sampled_from(["auto", "half", "bfloat16", "float32"]),
            "kv-cache-dtype": st.sampled_from(["auto", "fp8"]),
        },
    ),
    replicas=st.sampled_from([1, 2, 8]),
)
def test_whatever_memory_or_room_offers_is_refused_by_nothing_new(
    model: ModelFacts, cards: list[FlavorFacts], args: dict[str, Any], replicas: int
):
    facts = facts_with(model, *cards)
    spec = spec_of(flavor=cards[0].slug, args=args, replicas={"min": replicas, "max": replicas})
    before = {finding.message for finding in refused(spec, facts)}
    for finding in refused(spec, facts):
        if finding.code in {"memory", "never_whole"} and finding.value is not None:
            after = refused(carried_out(spec, finding), facts)
            # Where both are said, one remedy leaves the other to do.
            assert {item.message for item in after if item.code not in {"memory", "never_whole"}} <= before, finding
            if finding.code == "memory":
                assert "memory" not in {item.code for item in after}


def test_an_answer_tells_all_that_a_remedy_sets():
    h100 = dataclasses.replace(H100, gpus_per_node=8, nodes=4, total=32)
    document = spec_json(flavor="h100", args={"max-model-len": 8192})
    spec, found = preflight.check_raw({"name": "chat", "team": "search", "spec": document}, facts_with(GIANT, h100))
    assert spec is not None
    assert the("memory", found).as_json()["also"] == [
        {"pointer": "/spec/engine/args/tensor-parallel-size", "field": "tensor_parallel_size", "value": 8},
        {"pointer": "/spec/engine/args/pipeline-parallel-size", "field": "pipeline_parallel_size", "value": 2},
    ]


def test_one_press_sets_all_that_belongs_together():
    fields = {"message": "Does not fit.", "remedy": "", "severity": "error", "set": "2", "field": "nodes"}
    both = {**fields, "shown": "nodes 2, tensor-parallel-size 8", "sets": "nodes=2&tensor_parallel_size=8"}
    page = render_to_string("parts/messages.html", {"messages": [both]})
    assert 'name="way"' in page
    assert 'value="nodes=2&amp;tensor_parallel_size=8"' in page
    assert "data-set-field" not in page
    page = render_to_string("parts/messages.html", {"messages": [{**fields, "shown": "2", "sets": ""}]})
    assert 'name="set"' in page
    assert 'value="nodes=2"' in page
    assert "data-set-many" not in page

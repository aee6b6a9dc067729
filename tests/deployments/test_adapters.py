"""LoRA adapters: what a wish says of them, what the hub says, what is built, and what they take."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from deployments.engine.lora import RANKS, Slots, lora_gib, rank_for
from deployments.engine.sizing import fit
from deployments.findings import Severity
from deployments.forms.adapters import AdapterTextError, format_adapters, parse_adapters
from deployments.kube.observe import observe
from deployments.kube.pod_causes import from_pod
from deployments.kube.reasons import Code
from deployments.manifests import Object, Wish, build, gpus_of
from deployments.manifests.common import Resolution
from deployments.manifests.images import ImageMode
from deployments.models import Deployment
from deployments.preflight import check, estimate
from deployments.preflight.objects import check_objects
from deployments.services import adapter_checks, model_checks, requests
from deployments.services.errors import RefusedError
from deployments.sources import Reply, SourceCode
from deployments.sources.adapters import AdapterFacts, check_adapter
from deployments.spec import MAX_ADAPTERS, DeploymentSpec
from deployments.spec_errors import parse_spec
from sandbox.lite.admission.podsecurity import violations
from tests.deployments import factories as make
from tests.deployments.preflighting import codes, the
from tests.deployments.wishes import H100, LLAMA, facts_of, roles_json, spec_json, spec_of, wish_of

HAIKU = {"name": "haiku", "uri": "hf://owner/haiku-lora"}
SHA = "b" * 40
KNOWN = AdapterFacts("owner/haiku-lora", SourceCode.FOUND, "", SHA, 32, LLAMA.id)
RESOLVED = ({"name": "haiku", "uri": f"hf://owner/haiku-lora:{SHA}"}, {"name": "code", "uri": f"hf://o/code:{SHA}"})


def wish(**changes: Any) -> Wish:
    plain = wish_of(spec_of(adapters=[HAIKU]))
    resolution = dataclasses.replace(plain.resolution, adapters=RESOLVED, lora_rank=32, **changes)
    return dataclasses.replace(plain, resolution=resolution)


def parts(objects: list[Object]) -> tuple[Any, Any]:
    """Predictor and runtime."""
    found = {obj["kind"]: obj["spec"] for obj in objects}
    return found["InferenceService"]["predictor"], found["ServingRuntime"]


def found(known: AdapterFacts | None = KNOWN, name: str = "chat", **spec: Any) -> Any:
    facts = facts_of(adapters={"haiku": known} if known else {})
    return check(spec_of(**{"adapters": [HAIKU], **spec}), name, "search", facts)


# The wish


def test_a_wish_without_adapters_has_the_digest_it_had_before():
    assert "adapters" not in spec_of().to_json()
    spec = spec_of(adapters=[HAIKU])
    assert spec.to_json()["adapters"] == [{**HAIKU, "revision": None}]
    assert DeploymentSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("data", "pointer"),
    [
        (spec_json(adapters=[HAIKU, HAIKU]), "/spec/adapters/1/name"),
        (spec_json(adapters=[{**HAIKU, "name": "a b"}]), "/spec/adapters/0/name"),
        (spec_json(adapters=[{**HAIKU, "uri": "hf://{{a}}"}]), "/spec/adapters/0/uri"),
        (spec_json(adapters=[{"name": "a"}]), "/spec/adapters/0/uri"),
        (spec_json(adapters=[{**HAIKU, "ur": 1}]), "/spec/adapters/0/ur"),
        (spec_json(adapters="haiku"), "/spec/adapters"),
        (spec_json(adapters=[{**HAIKU, "name": f"a{n}"} for n in range(MAX_ADAPTERS + 1)]), "/spec/adapters"),
        (roles_json(adapters=[HAIKU, HAIKU]), "/spec/adapters/1/name"),
    ],
)
def test_what_cannot_be_an_adapter_is_said_at_its_place(data: dict[str, Any], pointer: str):
    spec, errors = parse_spec(data)
    assert spec is None
    assert [(error.pointer, error.field) for error in errors] == [(pointer, "adapters")]


def test_text_of_the_form_and_adapters_are_the_same():
    text = "haiku=hf://owner/haiku-lora\ncode=hf://o/code@main"
    read = parse_adapters(f"{text}\n\n# one more\n")
    assert read == [{**HAIKU, "revision": None}, {"name": "code", "uri": "hf://o/code", "revision": "main"}]
    assert format_adapters(read) == text
    assert parse_adapters("a=owner/b")[0]["uri"] == "hf://owner/b"
    with pytest.raises(AdapterTextError, match="Line 2"):
        parse_adapters("a=owner/b\nowner/b")


# What the hub says

CONFIG = {"peft_type": "LORA", "r": 32, "base_model_name_or_path": LLAMA.id}
FILES = ["adapter_config.json", "adapter_model.safetensors"]


def hub(
    metadata: int = 200, config: Any = CONFIG, files: list[str] | None = None, status: int = 200
) -> list[tuple[str, Reply]]:
    names = [{"rfilename": name} for name in (FILES if files is None else files)]
    return [("/api/models", Reply(metadata, {"sha": SHA, "siblings": names})), ("/owner", Reply(status, config))]


@pytest.mark.parametrize(
    ("replies", "code"),
    [
        (hub(), SourceCode.FOUND),
        (hub(404), SourceCode.NOT_FOUND),
        (hub(401), SourceCode.GATED),
        (hub(0), SourceCode.UNREACHABLE),
        (hub(files=["config.json", "model.safetensors"]), SourceCode.UNUSABLE),
        (hub(config={**CONFIG, "peft_type": "IA3"}), SourceCode.UNUSABLE),
        (hub(config="nonsense"), SourceCode.UNREACHABLE),
        (hub(status=403), SourceCode.GATED),
    ],
)
def test_what_a_hub_says_of_an_adapter(replies: list[tuple[str, Reply]], code: SourceCode):
    facts = check_adapter(
        "owner/haiku-lora", None, lambda path: next(reply for start, reply in replies if path.startswith(start))
    )
    assert facts.code == code
    assert bool(facts.message) is (code is not SourceCode.FOUND)
    assert AdapterFacts.from_json(json.loads(json.dumps(facts.as_json()))) == facts
    if facts.found:
        assert (facts.rank, facts.base, facts.sha) == (32, LLAMA.id, SHA)


def test_ranks_are_those_that_the_engine_takes():
    assert [rank_for(rank) for rank in (1, 9, 64, 65, 512)] == [1, 16, 64, 128, 512]
    assert rank_for(RANKS[-1] + 1) is None


# What preflight says


def test_an_adapter_made_for_this_model_is_taken():
    assert found() == []
    assert found(None) == []


@pytest.mark.parametrize(
    ("known", "code", "severity"),
    [
        (dataclasses.replace(KNOWN, code="not_found", message="No."), "adapter_not_found", Severity.ERROR),
        (dataclasses.replace(KNOWN, code="gated", message="No."), "adapter_gated", Severity.ERROR),
        (dataclasses.replace(KNOWN, code="unreachable", message="No."), "adapter_unreachable", Severity.WARNING),
        (dataclasses.replace(KNOWN, rank=1024), "adapter_rank", Severity.ERROR),
        (dataclasses.replace(KNOWN, base="Qwen/Qwen3-8B"), "adapter_base", Severity.WARNING),
    ],
)
def test_what_is_wrong_with_an_adapter_is_said_before_it_costs_a_gpu(known: Any, code: str, severity: Severity):
    finding = the(code, found(known))
    assert (finding.severity, finding.field, finding.pointer) == (severity, "adapters", "/spec/adapters/0/uri")


def test_adapters_come_from_the_hub_and_have_names_of_their_own():
    elsewhere = the("adapter_source", found(None, adapters=[{**HAIKU, "uri": "s3://bucket/lora"}]))
    unreadable = the("adapter_form", found(None, adapters=[{**HAIKU, "uri": "owner/lora"}]))
    assert elsewhere.is_error
    assert unreadable.is_error
    assert the("adapter_name", found(name="haiku")).is_error


def test_an_engine_or_weights_that_take_none_are_refused(monkeypatch: pytest.MonkeyPatch):
    facts = facts_of(model=dataclasses.replace(LLAMA, format="gguf"))
    assert the("adapter_weights", check(spec_of(adapters=[HAIKU]), "chat", "search", facts)).is_error
    named = spec_of(adapters=[HAIKU], source={"uri": "pvc://claim/chat.gguf"})
    assert the("adapter_weights", check(named, "chat", "search", facts_of(model=None))).is_error
    monkeypatch.setattr("deployments.preflight.adapters.flags_of", lambda version: {"enable-lora": None})
    finding = the("adapter_engine", found())
    assert (finding.field, finding.is_error) == ("profile", True)
    assert "lora-modules" in finding.message


def test_adapters_of_roles_are_taken_with_a_word_about_the_hand_over():
    facts = facts_of(adapters={"haiku": KNOWN})
    spec = DeploymentSpec.from_json(roles_json(adapters=[HAIKU]))
    said = [item for item in check(spec, "chat", "search", facts) if item.field == "adapters"]
    assert [(item.code, item.severity) for item in said] == [("adapter_hand_over", Severity.INFO)]
    wide = check(spec, "chat", "search", facts_of(adapters={"haiku": dataclasses.replace(KNOWN, rank=1024)}))
    assert the("adapter_rank", wide).is_error
    # Each role makes room for them.
    alone, beside = (
        estimate(DeploymentSpec.from_json(roles_json(adapters=adapters)), facts) for adapters in ([], [HAIKU])
    )
    assert alone is not None
    assert beside is not None
    assert beside.overhead_gib - alone.overhead_gib == pytest.approx(lora_gib(LLAMA, Slots(1, 32), {}), abs=0.02)


def test_adapters_are_part_of_the_memory_estimate():
    # 81,920 rows and columns in all of a layer's linear layers, 32 layers, 4 slots of rank 512 in 16 bits.
    assert lora_gib(LLAMA, Slots(4, 512), {}) == 81_920 * 32 * 4 * 512 * 2 / 1024**3 == 10.0
    alone = fit(LLAMA, H100.gpu, {})
    facts = facts_of(adapters={"haiku": dataclasses.replace(KNOWN, rank=512)})
    estimated = estimate(spec_of(adapters=[HAIKU], args={}), facts)
    assert estimated is not None
    assert estimated.overhead_gib - alone.overhead_gib == pytest.approx(lora_gib(LLAMA, Slots(1, 512), {}), abs=0.02)
    assert estimated.kv_tokens < alone.kv_tokens


# What is built


def test_adapters_are_fetched_before_the_engine_starts_and_named_to_it():
    predictor, runtime = parts(build(wish()))
    (container,) = predictor["initContainers"]
    assert container["args"] == [
        f"hf://owner/haiku-lora:{SHA}",
        "/mnt/adapters/haiku",
        f"hf://o/code:{SHA}",
        "/mnt/adapters/code",
    ]
    assert predictor["model"]["args"][-7:] == [
        "--enable-lora",
        "--max-loras=2",
        "--max-cpu-loras=2",
        "--max-lora-rank=32",
        "--lora-modules",
        "haiku=/mnt/adapters/haiku",
        "code=/mnt/adapters/code",
    ]
    (engine,) = runtime["containers"]
    for place in ("/mnt/adapters/haiku", "/mnt/adapters/code"):
        (mine,) = (item for item in container["volumeMounts"] if item["mountPath"] == place)
        (theirs,) = (item for item in engine["volumeMounts"] if item["mountPath"] == place)
        assert (mine["name"], theirs["readOnly"]) == (theirs["name"], True)


def test_pods_with_adapters_pass_the_restricted_level_and_hold_no_more_gpus():
    objects = build(wish())
    predictor, runtime = parts(objects)
    pod = {**predictor, "containers": runtime["containers"], "volumes": runtime["volumes"]}
    assert violations(pod, "restricted") == ""
    assert check_objects(objects) == []
    assert gpus_of(objects) == 1


def test_beside_an_image_adapters_are_still_fetched():
    uri = "oci://registry.example.com/m@sha256:" + "c" * 64
    objects = build(wish(image_mode=ImageMode.MODELCAR.value, storage_uri=uri))
    predictor, _ = parts(objects)
    assert [item["name"] for item in predictor["initContainers"]] == ["modelcar", "adapter-initializer"]
    (policy,) = (obj["spec"] for obj in objects if obj["kind"] == "NetworkPolicy")
    assert len(policy["egress"]) == 1


def of_llm(**spec: Any) -> tuple[Any, list[Object]]:
    """An LLMInferenceService with both adapters, and all objects."""
    data = roles_json(adapters=[HAIKU]) if "nodes" not in spec else spec_json(adapters=[HAIKU], **spec)
    plain = wish_of(DeploymentSpec.from_json(data))
    resolution = dataclasses.replace(plain.resolution, adapters=RESOLVED, lora_rank=32)
    objects = build(dataclasses.replace(plain, resolution=resolution))
    (service,) = (obj["spec"] for obj in objects if obj["kind"] == "LLMInferenceService")
    return service, objects


FLAGS = "--enable-lora --max-loras=2 --max-cpu-loras=2 --max-lora-rank=32 --lora-modules haiku=/mnt/lora/haiku "
FLAGS += "code=/mnt/lora/code"


def test_kserve_fetches_adapters_for_both_roles_and_each_engine_is_told_of_them():
    service, objects = of_llm()
    assert service["model"]["lora"] == {"adapters": list(RESOLVED)}
    for role in (service, service["prefill"]):
        (engine,) = role["template"]["containers"]
        words = next(item["value"] for item in engine["env"] if item["name"] == "VLLM_ADDITIONAL_ARGS")
        # Another flag ends the list of adapters.
        assert f"{FLAGS} '--kv-transfer-config=" in words
        assert role["template"]["initContainers"][0]["name"] == "storage-initializer"
    assert check_objects(objects) == []


def test_every_node_of_a_replica_gets_the_adapters():
    service, objects = of_llm(nodes=2, args={"pipeline-parallel-size": 2})
    assert service["model"]["lora"] == {"adapters": list(RESOLVED)}
    for pod in ("template", "worker"):
        words = service[pod]["containers"][0]["args"]
        # No shell takes quotes off here, in which KServe's own flags would come; and a flag ends the list.
        assert f"{FLAGS} --nnodes=2" in " ".join(words)
    assert check_objects(objects) == []


def test_a_resolution_with_adapters_is_read_as_it_was_written():
    resolution = wish().resolution
    assert Resolution.from_json(json.loads(json.dumps(resolution.as_json()))) == resolution
    assert not {"adapters", "lora_rank"} & set(wish_of().resolution.as_json())


# From the wish to what an approval signs


@pytest.mark.django_db
class TestAsking:
    @pytest.fixture(autouse=True)
    def answers(self, monkeypatch: pytest.MonkeyPatch, hub: Any) -> list[str]:
        asked: list[str] = []
        usual = model_checks._get

        def get(path: str) -> Reply:
            if "haiku-lora" not in path:
                return usual(path)
            asked.append(path)
            start = "/api" if path.startswith("/api") else "/owner"
            names = [{"rfilename": name} for name in FILES]
            return Reply(200, {"sha": SHA, "siblings": names} if start == "/api" else CONFIG)

        monkeypatch.setattr(adapter_checks, "_get", get)
        return asked

    def ask(self, ann: Any, team: Any) -> Deployment:
        spec = DeploymentSpec.from_json(make.a_spec(adapters=[HAIKU]))
        return requests.submit(principal=make.principal(ann), team=team, name="chat", spec=spec)

    def test_what_is_signed_names_adapters_by_commit(self, ann: Any, team: Any, answers: list[str]):
        revision = self.ask(ann, team).latest
        assert revision is not None
        assert revision.resolution["adapters"] == [{"name": "haiku", "uri": f"hf://owner/haiku-lora:{SHA}"}]
        assert revision.resolution["lora_rank"] == 32
        assert "adapter_base" in {item["code"] for item in revision.findings}
        before = len(answers)
        adapter_checks.look_up(DeploymentSpec.from_json(revision.spec))
        assert len(answers) == before == 2, "it was asked a moment ago"

    def test_without_an_answer_nothing_is_signed(self, ann: Any, team: Any, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(adapter_checks, "_get", lambda path: Reply(0))
        with pytest.raises(RefusedError) as refused:
            self.ask(ann, team)
        assert ("source_not_pinned", "adapters") in {(item.code, item.field) for item in refused.value.findings}


def test_trouble_with_adapters_is_said_at_their_field():
    def pod(state: dict[str, Any]) -> Any:
        status = {"phase": "Pending", "initContainerStatuses": [{"name": "adapter-initializer", "state": state}]}
        return observe(pods=[{"metadata": {"name": "p", "namespace": "n"}, "spec": {}, "status": status}]).pods[0]

    coming, failed = (
        from_pod(pod({"running": {}})),
        from_pod(pod({"terminated": {"exitCode": 1, "message": "RepositoryNotFoundError: 404 Client Error."}})),
    )
    assert coming is not None
    assert failed is not None
    assert (coming.code, "adapters" in coming.title) == (Code.DOWNLOADING, True)
    assert failed.field == "adapters"
    assert codes([]) == set()

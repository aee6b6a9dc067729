"""The cases whose objects are kept as files. `python -m tests.deployments.manifest_cases` writes them anew.

Each is held against the schemas of its kinds (test_manifest_golden.py) and applied to every ground of the scenarios,
where KServe makes its children of it (tests/scenarios/test_manifests.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from deployments.manifests import (
    Object,
    Platform,
    TeamWish,
    Wish,
    build,
    build_cluster_objects,
    build_service_account,
    build_team,
    stopped,
    with_keys,
)
from deployments.manifests.deployment import marked
from deployments.manifests.sharing import build_sharing
from deployments.manifests.text import all_as_yaml
from deployments.spec import DeploymentSpec
from tests.deployments.wishes import roles_json, spec_of, wish_of

FOLDER = Path(__file__).parent.parent / "data" / "manifests"
SECRETS = ("hf-x1",)
TEAM = TeamWish("install", "search", "search-ab3de", {"nvidia.com/gpu": 4, "nvidia.com/mig-3g.40gb": 2})
IMAGE = "oci://registry.example.com/models/granite@sha256:" + "c" * 64
STORE = "https://store.example.com:9000"
BATCH = {"max-num-batched-tokens": 32768, "max-num-seqs": 256}


def wish(spec: DeploymentSpec | None = None, **resolved: Any) -> Wish:
    """A wish whose resolution says this."""
    made = wish_of(spec)
    return dataclasses.replace(made, resolution=dataclasses.replace(made.resolution, **resolved))


def in_image(mode: str, surge: int = 0, **source: str) -> Wish:
    """A wish whose weights come as an image."""
    spec = spec_of(strategy="oci-volume", source={"uri": IMAGE, **source}, surge=surge)
    return wish(spec, commit=IMAGE.partition("@")[2], storage_uri=IMAGE, image_mode=mode)


SEVERAL = {"min": 2, "max": 10}
# What the form proposes for roles.
PRESET = DeploymentSpec.from_json(
    roles_json(
        prefill={"replicas": {"min": 2, "max": 8}, "args": {**BATCH, "tensor-parallel-size": 2}},
        decode={"replicas": {"min": 4, "max": 20}, "args": BATCH},
    )
)
# What a person may ask for: each becomes the objects of one deployment.
WISHES: dict[str, Wish] = {
    "one-gpu": wish(),
    "split": wish(spec_of(args={"max-model-len": 8192, "tensor-parallel-size": 4}, replicas={"min": 1, "max": 2})),
    "stages": wish(spec_of(args={"tensor-parallel-size": 2, "pipeline-parallel-size": 2})),
    "engines": wish(spec_of(args={"tensor-parallel-size": 2, "data-parallel-size": 2, "enable-expert-parallel": True})),
    "new-pod-first": wish(spec_of(surge=1)),
    "scaled-by-keda": wish(spec_of(replicas=SEVERAL), autoscaler="keda"),
    "scaled-by-load": wish(spec_of(replicas=SEVERAL, scaling={"percent": 60}), autoscaler="hpa"),
    "scaled-by-nothing": wish(spec_of(replicas=SEVERAL)),
    "gated": wish(spec_of(source={"uri": "hf://meta-llama/Llama-3.1-8B-Instruct", "credential": "hf"})),
    "every-kind-of-flag": wish(
        spec_of(
            args={
                "max-model-len": 4096,
                "gpu-memory-utilization": 0.85,
                "enable-prefix-caching": False,
                "enable-chunked-prefill": True,
                "kv-cache-dtype": "fp8",
                "cpu-offload-gb": 8,
            }
        )
    ),
    "slice": wish(
        resource_name="nvidia.com/mig-3g.40gb",
        node_selector={"pool": "a"},
        tolerations=({"key": "team", "operator": "Exists"},),
        storage_uri="hf://a/b:" + "b" * 40,
        engine_version="0.32.0",
    ),
    "time-slice": wish(
        spec_of(args={"max-model-len": 2048, "gpu-memory-utilization": 0.22}),
        resource_name="nvidia.com/gpu.shared",
        product="NVIDIA-L4",
        node_selector={"nvidia.com/device-plugin.config": "shared-4"},
    ),
    "elsewhere": dataclasses.replace(
        wish(spec_of(replicas=SEVERAL), autoscaler="keda"),
        platform=Platform(
            gateway_name="edge",
            gateway_namespace="net",
            gateway_pods_namespace="envoy-gateway-system",
            gateway_pods_labels=(("gateway.envoyproxy.io/owning-gateway-name", "edge"),),
            monitoring_namespace="observability",
            prometheus_url="http://prometheus.observability.svc:9090",
            cluster_cidrs=("100.96.0.0/11",),
            scrape_interval_seconds=30,
        ),
    ),
    # Where KServe mounts the image itself; where the runtime does; and where a sidecar hands the weights over.
    "image": in_image("volume"),
    "image-of-files-alone": in_image("volume", folder="/"),
    "image-new-pod-first": in_image("volume", surge=1),
    "image-by-sidecar": in_image("modelcar", folder="/weights"),
    "bucket": wish(
        spec_of(source={"uri": "s3://models/chat", "credential": "hf"}), commit="", storage_uri="s3://models/chat/"
    ),
    "bucket-of-anybody": wish(
        spec_of(source={"uri": "s3://models/chat"}), commit="", storage_uri="s3://models/chat/", endpoint=STORE
    ),
    "fetched-ahead": wish(
        spec_of(
            source={"uri": "hf://meta-llama/Llama-3.1-8B-Instruct", "credential": "hf", "cache": "claim"},
            replicas={"min": 1, "max": 2},
        ),
        claim_gib=20,
        claim_class="files",
        claim_mode="ReadWriteMany",
    ),
    "claim": wish(spec_of(source={"uri": "pvc://weights/chat"}), commit="", storage_uri="pvc://weights/chat"),
    "one-file": wish(
        spec_of(source={"uri": "https://example.com/chat.Q4_K_M.gguf"}),
        commit="",
        storage_uri="https://example.com/chat.Q4_K_M.gguf",
        file="chat.Q4_K_M.gguf",
    ),
    "adapters": wish(
        spec_of(adapters=[{"name": name, "uri": f"hf://example/{name}"} for name in ("sql", "tone")]),
        adapters=tuple({"name": name, "uri": f"hf://example/{name}:{'d' * 40}"} for name in ("sql", "tone")),
        lora_rank=16,
    ),
    "adapters-of-the-team": wish(
        spec_of(
            source={"uri": "hf://meta-llama/Llama-3.1-8B-Instruct", "credential": "hf"},
            adapters=[{"name": "sql", "uri": "hf://example/sql"}],
        ),
        adapters=({"name": "sql", "uri": f"hf://example/sql:{'d' * 40}", "access": "credential"},),
        lora_rank=16,
    ),
    "adapters-across-nodes": wish(
        spec_of(nodes=2, args={"pipeline-parallel-size": 2}, adapters=[{"name": "sql", "uri": "hf://example/sql"}]),
        adapters=({"name": "sql", "uri": f"hf://example/sql:{'d' * 40}"},),
        lora_rank=16,
    ),
    "across-nodes": wish(spec_of(nodes=2, args={"tensor-parallel-size": 4, "pipeline-parallel-size": 2})),
    "across-nodes-scaled": wish(
        spec_of(nodes=2, args={"tensor-parallel-size": 4, "pipeline-parallel-size": 2}, replicas={"min": 1, "max": 3}),
        autoscaler="keda",
    ),
    "disaggregated": wish(DeploymentSpec.from_json(roles_json())),
    "disaggregated-fetched-ahead": wish(
        DeploymentSpec.from_json(
            roles_json(source={"uri": "hf://meta-llama/Llama-3.1-8B-Instruct", "cache": "claim"}),
        ),
        claim_gib=20,
        claim_class="files",
        claim_mode="ReadWriteMany",
    ),
    "disaggregated-adapters": wish(
        DeploymentSpec.from_json(
            roles_json(
                source={"uri": "hf://meta-llama/Llama-3.1-8B-Instruct", "credential": "hf"},
                adapters=[{"name": name, "uri": f"hf://example/{name}"} for name in ("sql", "tone")],
            )
        ),
        adapters=tuple({"name": name, "uri": f"hf://example/{name}:{'d' * 40}"} for name in ("sql", "tone")),
        lora_rank=32,
    ),
    # Weights are mounted, and adapters are all that an initializer of engines has to fetch.
    "disaggregated-adapters-beside-an-image": wish(
        DeploymentSpec.from_json(
            roles_json(source={"uri": IMAGE}, adapters=[{"name": "sql", "uri": "hf://example/sql"}]),
        ),
        commit=IMAGE.partition("@")[2],
        storage_uri=IMAGE,
        image_mode="volume",
        adapters=({"name": "sql", "uri": f"hf://example/sql:{'d' * 40}"},),
        lora_rank=16,
    ),
    "disaggregated-preset": wish(PRESET, autoscaler="keda"),
    "disaggregated-by-load": wish(PRESET, autoscaler="hpa"),
}


def of_deployment(name: str, wish: Wish) -> list[Object]:
    """What a worker applies of a wish: the account, and the signed objects with the mark of their Secret."""
    if wish.spec.source.credential is not None:
        objects = with_keys(build(wish), "hf", SECRETS[0], {})
        return [build_service_account(wish, SECRETS), *marked(objects, SECRETS)]
    return [build_service_account(wish), *build(wish)]


# What is made once per cluster and per team, and what becomes of a deployment that is stopped.
OTHERS: Mapping[str, Callable[[], list[Object]]] = {
    "cluster": lambda: build_cluster_objects("install"),
    "team": lambda: build_team(TEAM),
    "team-with-presets": lambda: build_team(dataclasses.replace(TEAM, presets=True)),
    "sharing": lambda: build_sharing("install", namespace="gpu-operator", slices=4),
    "stopped": lambda: stopped(build(WISHES["one-gpu"])),
    "disaggregated-stopped": lambda: stopped(build(WISHES["disaggregated"])),
    "disaggregated-preset-stopped": lambda: stopped(build(WISHES["disaggregated-preset"])),
    "registry-login": lambda: [build_service_account(WISHES["one-gpu"], ("login-x1",), pulls=True)],
}
NAMES = [*WISHES, *OTHERS]


def case(name: str) -> list[Object]:
    """The objects of one case."""
    return OTHERS[name]() if name in OTHERS else of_deployment(name, WISHES[name])


def children(wish: Wish) -> dict[str, set[str]]:
    """What KServe makes of a deployment, by kind; the autoscaler where one is asked for."""
    name, scaled = wish.name, wish.spec.replicas.min < wish.spec.replicas.max
    if wish.spec.prefill is not None:
        workloads = {f"{name}-kserve", f"{name}-kserve-prefill", f"{name}-kserve-router-scheduler"}
        services = {f"{name}-kserve-workload-svc", f"{name}-epp-service"}
        return {"Deployment": workloads, "Service": services, "InferencePool": {f"{name}-inference-pool"}}
    if wish.spec.nodes > 1:
        return {"LeaderWorkerSet": {f"{name}-kserve-mn"}}
    made = {"Deployment": {f"{name}-predictor"}, "Service": {f"{name}-predictor"}}
    scaler = {"keda": "ScaledObject", "hpa": "HorizontalPodAutoscaler"}.get(wish.resolution.autoscaler)
    return {**made, scaler: {f"{name}-predictor"}} if scaler and scaled else made


if __name__ == "__main__":
    for each in NAMES:
        (FOLDER / f"{each}.yaml").write_text(all_as_yaml(case(each)))

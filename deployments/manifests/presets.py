"""KServe's presets for LLMInferenceServices, as copies that a revision signs.

KServe lays presets under every LLMInferenceService, by fixed names, and looks for them in the service's namespace
before its own. A change of the cluster's presets would therefore move what runs. Two things keep them apart: the team's
namespace holds an empty preset under each fixed name, which is the same for ever, and each deployment names a copy of
its own, with images by digest, in `baseRefs`.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from deployments.engine.profiles import DATA
from deployments.labels import LABEL_INSTALL, LABEL_TEAM, MANAGED_BY
from deployments.manifests.common import Object, TeamWish, Wish, metadata_of, short_hash
from deployments.manifests.guards import PORT_NAME
from deployments.spec import canonical

API_VERSION = "serving.kserve.io/v1alpha2"
KIND = "LLMInferenceServiceConfig"
PREFIX = "kserve-config-llm-"
PARTS = DECODE, PREFILL, SCHEDULER = "decode-template", "prefill-template", "scheduler"
# KServe asks for the last one for replicas that span nodes, and ships none.
NAMES = (*PARTS, "worker-pipeline-parallel")
ENGINE, SIDECAR, PICKER, TOKENIZER = "main", "llm-d-routing-sidecar", "main", "tokenizer"


def build_presets(wish: TeamWish) -> list[Object]:
    """The empty presets of a team's namespace."""
    labels = {
        "app.kubernetes.io/managed-by": MANAGED_BY,
        LABEL_INSTALL: wish.install_id,
        LABEL_TEAM: wish.team,
    }
    return [
        {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": PREFIX + name, "namespace": wish.namespace, "labels": labels},
            "spec": {},
        }
        for name in NAMES
    ]


def build_preset(wish: Wish) -> Object:
    """A deployment's own copy: what KServe ships for prefill, decode and scheduler, with images by digest."""
    decode, prefill, scheduler = (_preset(name) for name in PARTS)
    engine = wish.resolution.image
    for template in (decode["template"], prefill["prefill"]["template"]):
        main = _set_image(template["containers"], ENGINE, engine)
        # Discovery finds the engine's port by its name.
        main["ports"][0]["name"] = PORT_NAME
    _set_image(decode["template"]["initContainers"], SIDECAR, wish.platform.sidecar_image or _image("routing_sidecar"))
    picking = scheduler["router"]["scheduler"]["template"]["containers"]
    _set_image(picking, PICKER, wish.platform.picker_image or _image("endpoint_picker"))
    _set_image(picking, TOKENIZER, wish.platform.tokenizer_image or _image("tokenizer"))
    for container in picking:
        # KServe's controller writes the object again to hold it, and amounts then as text: they would become its own.
        container["resources"] = {
            kind: {name: str(amount) for name, amount in amounts.items()}
            for kind, amounts in container["resources"].items()
        }
    # Routing by a header would open a way in beside Slipway's own route.
    spec = {
        "template": decode["template"],
        "prefill": {"template": prefill["prefill"]["template"]},
        "router": scheduler["router"],
    }
    name = f"slipway-llm-{short_hash(wish.deployment_id, canonical(spec).decode())}"
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata_of(wish, name), "spec": spec}


def _set_image(containers: list[dict[str, Any]], name: str, image: str) -> dict[str, Any]:
    found = next(item for item in containers if item["name"] == name)
    found["image"] = image
    return found


def _preset(name: str) -> dict[str, Any]:
    # Read anew each time, because it is written into: many times faster than copying what was read.
    found: dict[str, Any] = json.loads(_presets()[name])
    return found


@cache
def _presets() -> dict[str, str]:
    presets: dict[str, Any] = json.loads((DATA / "llm-presets.json").read_text())["presets"]
    return {name: json.dumps(preset) for name, preset in presets.items()}


@cache
def _image(name: str) -> str:
    return str(json.loads((DATA / "engine_profiles.json").read_text())[name])

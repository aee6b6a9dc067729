"""What KServe's webhooks do to an InferenceService before it is stored: defaults, and refusals in their words.

Pure: `default` returns the object to store, `validate` the sentences of refusal. The API server puts
`admission webhook "inferenceservice.kserve-webhook-server.validator" denied the request: ` in front of them.
"""

from __future__ import annotations

import copy
import re

from sandbox.client import Obj
from sandbox.lite.controllers import scaling_children
from sandbox.lite.controllers.kserve_config import KServeConfig
from sandbox.lite.controllers.meta import annotations_of

WEBHOOK = "inferenceservice.kserve-webhook-server.validator"
MODE = "serving.kserve.io/deploymentMode"
AUTOSCALER = "serving.kserve.io/autoscalerClass"
STANDARD, KNATIVE = "Standard", "Knative"
_LEGACY = {"RawDeployment": STANDARD, "Serverless": KNATIVE}
_CLASSES = ("hpa", "keda", "external", "none")
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_SHIPPED = KServeConfig()


def mode_of(isvc: Obj, default_mode: str = KNATIVE) -> str:
    """Return the deployment mode: the status' once there is one, else the annotation's if it is a known one."""
    said = (isvc.get("status") or {}).get("deploymentMode") or annotations_of(isvc).get(MODE, "")
    said = _LEGACY.get(said, said)
    return said if said in (STANDARD, KNATIVE) else _LEGACY.get(default_mode, default_mode)


def default(isvc: Obj) -> Obj:
    """Return the InferenceService as the mutating webhook completes it."""
    fresh: Obj = copy.deepcopy(isvc)
    annotations = fresh["metadata"].setdefault("annotations", {})
    if annotations.get(MODE) in _LEGACY:
        annotations[MODE] = _LEGACY[annotations[MODE]]
    predictor = (fresh.get("spec") or {}).get("predictor")
    model = predictor.get("model") if isinstance(predictor, dict) else None
    if isinstance(model, dict):
        _complete_model(model)
        framework = model.get("modelFormat") or {}
        if framework.get("name"):
            annotations["modelFormat"] = framework["name"]
    if not annotations:
        del fresh["metadata"]["annotations"]
    return fresh


def _complete_model(model: Obj) -> None:
    model.setdefault("name", "")
    resources = model.setdefault("resources", {})
    for kind in ("requests", "limits"):
        amounts = resources.get(kind) or {}
        resources[kind] = {"cpu": _SHIPPED.default_cpu, "memory": _SHIPPED.default_memory, **amounts}
    if "vllmserver" in (model.get("runtime") or ""):
        model.setdefault("protocolVersion", "v2")


def validate(isvc: Obj, old: Obj | None) -> list[str]:
    """Return why the validating webhook refuses; empty when it does not. The first sentence is the one shown."""
    predictor = (isvc.get("spec") or {}).get("predictor") or {}
    checks = (
        _name_problem(isvc),
        _autoscaler_problem(isvc),
        _implementation_problem(predictor),
        _replica_problem(predictor),
        _storage_problem(predictor),
        _strategy_problem(isvc, predictor),
        _scaling_problem(isvc, predictor),
        _mode_problem(isvc, old),
    )
    return [problem for problem in checks if problem]


def _name_problem(isvc: Obj) -> str | None:
    name = isvc["metadata"].get("name", "")
    if _NAME.fullmatch(name):
        return None
    return (
        f'the InferenceService "{name}" is invalid: a InferenceService name must consist of lower case '
        "alphanumeric characters or '-', and must start with alphabetical character. (e.g. \"my-name\" or "
        "\"abc-123\", regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
    )


def _autoscaler_problem(isvc: Obj) -> str | None:
    chosen = annotations_of(isvc).get(AUTOSCALER)
    if chosen is None or chosen in _CLASSES:
        return None
    return f"[{chosen}] is not a supported autoscaler class type"


def _implementation_problem(predictor: Obj) -> str | None:
    model = predictor.get("model")
    if model is None:
        return None if predictor.get("containers") else "exactly one implementation of predictor must be specified"
    if model.get("name"):
        return "the container name of the model must not be set"
    if any(item.get("name") == "PYTHONPATH" for item in model.get("env") or []):
        return "the environment variable PYTHONPATH is not allowed"
    return None


def _replica_problem(predictor: Obj) -> str | None:
    least, most = predictor.get("minReplicas"), predictor.get("maxReplicas")
    if least is not None and least < 0:
        return "'MinReplicas' cannot be less than 0"
    if most is not None and most < 0:
        return "'MaxReplicas' cannot be less than 0"
    if most and (1 if least is None else least) > most:
        return "'MinReplicas' cannot be greater than MaxReplicas"
    return None


def _storage_problem(predictor: Obj) -> str | None:
    if (predictor.get("model") or {}).get("storageUri") and predictor.get("storageUris"):
        return "storageUri and storageUris cannot be specified at the same time"
    return None


def _strategy_problem(isvc: Obj, predictor: Obj) -> str | None:
    if predictor.get("deploymentStrategy") and mode_of(isvc) != STANDARD:
        return "customizing deploymentStrategy is only supported for raw deployment mode"
    return None


def _scaling_problem(isvc: Obj, predictor: Obj) -> str | None:
    """Without the annotation nothing is checked, though an HPA is made."""
    if annotations_of(isvc).get(MODE) != STANDARD:
        return None
    return scaling_children.problem(predictor, annotations_of(isvc).get(AUTOSCALER, ""))


def _mode_problem(isvc: Obj, old: Obj | None) -> str | None:
    recorded = ((old or {}).get("status") or {}).get("deploymentMode")
    asked = annotations_of(isvc).get(MODE)
    if not recorded or not asked or _LEGACY.get(asked, asked) == recorded:
        return None
    return f"update rejected: deploymentMode cannot be changed from '{recorded}' to '{asked}'"

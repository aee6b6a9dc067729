"""Runs in an environment of its own: what KServe's Python client makes of InferenceServices, as JSON.

python tests/scenarios/peer.py KUBECONFIG reads namespace and name from each line of its input and prints a line
for it: what it imports takes longer than all its readings.
"""

from __future__ import annotations

import json
import re
import sys
import traceback
from types import SimpleNamespace
from typing import Any

import kserve.models  # type: ignore[import-not-found]
from kserve import KServeClient
from kubernetes import client


def main(config: str) -> None:
    """Answer each line."""
    reader = KServeClient(config_file=config)
    for line in sys.stdin:
        namespace, name = line.split()
        try:
            told = {"read": _read(reader, namespace, name)}
        except Exception:  # whatever it is, the test shows it
            told = {"failed": traceback.format_exc()}
        print(json.dumps(told), flush=True)


def _read(reader: KServeClient, namespace: str, name: str) -> dict[str, Any]:
    found = reader.get(name, namespace=namespace)
    predictor = _typed(found["spec"], "V1beta1InferenceServiceSpec").predictor
    status = found.get("status", {})
    return {
        "ready": reader.is_isvc_ready(name, namespace=namespace),
        "source": predictor.model.storage_uri,
        "runtime": predictor.model.runtime,
        "gpus": (predictor.model.resources.limits or {}).get("nvidia.com/gpu"),
        "replicas": predictor.min_replicas,
        "conditions": {item["type"]: item["status"] for item in status.get("conditions", ())},
        "model": status.get("modelStatus", {}).get("transitionStatus"),
        "failure": status.get("modelStatus", {}).get("lastFailureInfo", {}).get("reason"),
    }


def _typed(value: Any, kind: str) -> Any:
    """A part of an object as KServe's own generated classes read it; they refuse what their schema does not know.

    Its status cannot be read so: it names classes of Knative that no package brings.
    """
    client.models.__getattr__ = _model
    return client.ApiClient().deserialize(SimpleNamespace(data=json.dumps(value)), kind)


def _model(name: str) -> Any:
    """A class that the Kubernetes client lacks: KServe's, or its own under the longer name that KServe calls it by."""
    if hasattr(kserve.models, name):
        return getattr(kserve.models, name)
    short = re.sub(r"^K8sIo[A-Za-z]*?(?=V\d)", "", name)
    if short == name:
        raise AttributeError(name)
    return getattr(client.models, short)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Write `tests/data/model-registry-<version>/<name>.json`: what a Kubeflow Model Registry answers to Slipway.

    python scripts/record_model_registry.py http://127.0.0.1:8080 0.2.22 mysql
    python scripts/record_model_registry.py http://127.0.0.1:8080 0.2.22 starting --no-models

The registry must be empty: the models below are registered in it, then each entry is resolved as the portal does it,
and every answer is taken down. So a recording has just the requests that the portal sends, and a few that it never
should. How a server is brought up stands in README.md beside the recordings. `--no-models` takes down one that is not
ready, and registers nothing.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from deployments.sources import Reply, kubeflow

DATA = Path(__file__).resolve().parent.parent / "tests" / "data"
Object = dict[str, Any]

HUB_FILE = "https://huggingface.co/ibm-granite/granite-3.1-2b-instruct/resolve/{}/model.safetensors"
# Custom properties of every kind; a number is written as text.
PROPERTIES = {
    "accuracy": {"metadataType": "MetadataDoubleValue", "double_value": 0.97},
    "licence": {"metadataType": "MetadataStringValue", "string_value": "apache-2.0 “as is”"},
    "layers": {"metadataType": "MetadataIntValue", "int_value": "40"},
    "gated": {"metadataType": "MetadataBoolValue", "bool_value": False},
    "card": {"metadataType": "MetadataStructValue", "struct_value": "eyJhIjogMX0="},
}
MODEL, DOCUMENT = "model-artifact", "doc-artifact"


def model(uri: str | None, **more: Any) -> Object:
    """An artifact that is weights."""
    return {"artifactType": MODEL, **({} if uri is None else {"uri": uri}), **more}


def document(uri: str) -> Object:
    """An artifact that only describes."""
    return {"artifactType": DOCUMENT, "uri": uri}


# By model and version the artifacts, oldest first.
WORLD: dict[str, dict[str, list[Object]]] = {
    # What the scenarios serve.
    "smol": {"v1": [model("s3://weights/smol")]},
    "granite": {
        "replaced": [model("s3://models/granite/1"), model("s3://models/granite/2")],
        "hub": [model("hf://ibm-granite/granite-3.1-8b-instruct", modelFormatName="vLLM", modelFormatVersion="1")],
        "claim": [model("pvc://models/granite")],
        "image": [model("oci://registry.example.com/models/granite:1.0")],
        # As the registry's own client writes them (s3_uri_from, register_hf_model).
        "client": [model("s3://models/granite?endpoint=https://minio.example.com&defaultRegion=us-east-1")],
        "hub-file": [model(HUB_FILE.format("main"))],
        "hub-commit": [model(HUB_FILE.format("0a1b2c3"))],
        "hub-gguf": [model("https://huggingface.co/ibm-granite/granite-gguf/resolve/main/granite-q4.gguf")],
        "bare": [],
        "described": [model("s3://models/granite/1"), document("https://docs.example.com/granite")],
        "papers": [document("https://docs.example.com/granite")],
        "long": [model("s3://models/granite/1"), *[document(f"https://docs.example.com/{i}") for i in range(50)]],
        "coming": [model("s3://models/granite/1", state="LIVE"), model(None, state="PENDING")],
        "gone": [model("s3://models/granite/1", state="DELETED"), model("s3://models/granite/2", state="ABANDONED")],
        "stored": [model(None, storageKey="minio", storagePath="granite/1")],
        "retired": [model("s3://models/granite/0")],
    },
    "granite-2": {"v1": [model("s3://models/granite-2")]},
    "Qwen/Qwen2.5 7B “é”": {"1.0+cu12: beta & more?": [model("s3://models/qwen")]},
}
ARCHIVED = {"granite-2": None, "granite": "retired"}
ENTRIES = [(name, version) for name, versions in WORLD.items() for version in versions]
MISSING = [("none", "v1"), ("granite", "v99"), ("GRANITE", "hub"), ("granite", "HUB")]
# What the portal never asks: a name and a parent left out, no number for an id, an id of nothing, no such path.
WRONG = ("registered_model", "model_version?name=v1", "model_versions/-/artifacts", "model_versions/999/artifacts")
NOWHERE = "/api/model_registry/v0/registered_model?name=smol"


class Recorder:
    """Asks a server, and keeps what it answers; stands in for the outbound door."""

    def __init__(self, server: str) -> None:
        self.host = urlsplit(server).netloc
        self.exchanges: dict[str, Object] = {}

    def __call__(self, url: str, *, headers: Mapping[str, str] | None = None, method: str = "GET") -> Reply:
        parts = urlsplit(url)
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        status, kind, text = self.send(method, path)
        is_json = kind.startswith("application/json")
        content = {"json": json.loads(text)} if is_json else {"text": text}
        self.exchanges[path] = {"method": method, "path": path, "status": status, "content_type": kind, **content}
        return Reply(status, content.get("json"))

    def send(self, method: str, path: str, body: Object | None = None) -> tuple[int, str, str]:
        """Status, content type and text of an answer."""
        connection = http.client.HTTPConnection(self.host, timeout=30)
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"Content-Type": "application/json"} if content else {})
            answer = connection.getresponse()
            return answer.status, answer.headers.get("Content-Type", ""), answer.read().decode()
        finally:
            connection.close()

    def write(self, method: str, path: str, body: Object) -> Object:
        """What was made or changed; it is not kept."""
        status, _, text = self.send(method, f"{kubeflow.API}/{path}", body)
        if status not in {200, 201}:
            raise SystemExit(f"{method} {path}: {status} {text}")
        made: Object = json.loads(text)
        return made


def register(recorder: Recorder) -> None:
    """Make the world in a registry that is empty."""
    for name, versions in WORLD.items():
        about = {"customProperties": PROPERTIES, "owner": "ann"} if name == "granite" else {}
        parent = recorder.write("POST", "registered_models", {"name": name, **about})
        for version, artifacts in versions.items():
            made = recorder.write("POST", "model_versions", {"name": version, "registeredModelId": parent["id"]})
            for number, artifact in enumerate(artifacts, 1):
                entry = {"name": f"{name} {version} {number}", **artifact}
                recorder.write("POST", f"model_versions/{made['id']}/artifacts", entry)
            if ARCHIVED.get(name) == version:
                recorder.write("PATCH", f"model_versions/{made['id']}", {"state": "ARCHIVED"})
        if name in ARCHIVED and ARCHIVED[name] is None:
            recorder.write("PATCH", f"registered_models/{parent['id']}", {"state": "ARCHIVED"})


def read(recorder: Recorder, server: str, entries: list[tuple[str, str]]) -> None:
    """Resolve entries as the portal does."""
    for name, version in entries:
        found = kubeflow.resolve(f"{kubeflow.PREFIX}{quote(name, safe='')}/{quote(version, safe='')}", recorder, server)
        print(f"{found.code.value:12} {found.message}")


def main() -> None:
    """Register, read, and write what was read."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("server")
    options.add_argument("version", help="the registry's release; it tells no one itself")
    options.add_argument("name", help="of the recording: the database, or what is the matter")
    options.add_argument("--no-models", action="store_true")
    chosen = options.parse_args()
    recorder = Recorder(chosen.server)
    if chosen.no_models:
        read(recorder, chosen.server, [("smol", "v1")])
    else:
        register(recorder)
        read(recorder, chosen.server, ENTRIES + MISSING)
        for path in (*(f"{kubeflow.API}/{path}" for path in WRONG), NOWHERE):
            recorder(chosen.server + path)
    folder = DATA / f"model-registry-{chosen.version}"
    folder.mkdir(exist_ok=True)
    text = ",\n".join(json.dumps(row, ensure_ascii=False, sort_keys=True) for row in recorder.exchanges.values())
    (folder / f"{chosen.name}.json").write_text(f"[\n{text}\n]\n")


if __name__ == "__main__":
    main()

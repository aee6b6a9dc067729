"""Weights from a bucket, a volume claim, a web server: from the wish to Running, each by its own way."""

from __future__ import annotations

import io
import json
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from deployments.models import Principal
from deployments.services import credentials
from sandbox.hub import catalog
from tests import servers
from tests.deployments import factories as make
from tests.deployments.sealing_keys import use_keys
from tests.scenarios.stage import RESTRICTED, Says, Stage, engine
from tests.scenarios.test_credentials import reads, stored

pytestmark = [pytest.mark.django_db, pytest.mark.timeout(400)]

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
BUCKET, CLAIM = "weights", "models"


def files() -> dict[str, bytes]:
    """A model as small as one can be: the shape of a real one, and weights that are a few bytes."""
    config = catalog.load()[MODEL].config
    return {"config.json": json.dumps(config).encode(), "model.safetensors": b"x" * 4096, "tokenizer.json": b"{}"}


@pytest.fixture(scope="module")
def s3() -> Iterator[servers.S3]:
    with servers.s3() as running:
        running.put(BUCKET, {f"smol/{name}": content for name, content in files().items()})
        yield running


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder."""

    def log_message(self, *words: object) -> None:
        """Nothing is printed."""


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A web server with the model as an archive; yields its address."""
    folder: Path = tmp_path_factory.mktemp("downloads")
    with tarfile.open(folder / "smol.tar.gz", "w:gz") as archive:
        for name, content in files().items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def lead(stage: Stage) -> Principal:
    return make.principal(make.make_user("lead", team=stage.team, lead=True))


def test_weights_from_a_bucket_a_claim_and_a_download(
    stage: Stage, lead: Principal, s3: servers.S3, downloads: str, settings: Any
):
    use_keys(settings)
    settings.OBJECT_STORES, settings.DOWNLOAD_SERVERS = [s3.url], [downloads]
    stage.open_namespace()
    keys = s3.user(f"reader-{stage.namespace}", {"Effect": "Allow", "Action": ["s3:*"], "Resource": "*"})
    uri = f"s3://{BUCKET}/smol"
    made = credentials.create(
        principal=lead,
        team=stage.team,
        name="store",
        kind="s3",
        fields={**keys, "endpoint": s3.url, "region": "us-east-1"},
        test_uri=uri,
    )
    store = stored(stage, made)
    assert (store.test_code, store.test_facts["layers"]) == ("found", 30)
    fill(stage)

    bucket = stage.ask("bucket", source={"uri": uri, "credential": "store"}, engine=engine(max_model_len=2048))
    claim = stage.ask("claim", source={"uri": f"pvc://{CLAIM}/smol"})
    download = stage.ask("download", source={"uri": f"{downloads}/smol.tar.gz"})
    for row in (bucket, claim, download):
        stage.comes_to(row, Says("Running"), within=120, note=row.name)

    pods = {pod["metadata"]["labels"].get("serving.kserve.io/inferenceservice"): pod for pod in stage.pods()}
    assert reads(pods["bucket"]) == {store.current.name}
    assert not reads(pods["download"])
    assert "initContainers" not in pods["claim"]["spec"]
    assert stage.fresh(bucket).applied.resolution["storage_uri"] == f"{uri}/"


def fill(stage: Stage) -> None:
    """A volume claim, and a pod that brings a model into it, as whoever owns the volume would."""
    size = {"storage": "10Gi"}
    volume = f"models-{stage.namespace}"
    stage.ground.create(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": volume},
            "spec": {
                "capacity": size,
                "accessModes": ["ReadWriteMany"],
                "storageClassName": "",
                "hostPath": {"path": f"/tmp/{volume}"},
                "claimRef": {"namespace": stage.namespace, "name": CLAIM},
            },
        }
    )
    stage.ground.create(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": CLAIM, "namespace": stage.namespace},
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "storageClassName": "",
                "volumeName": volume,
                "resources": {"requests": size},
            },
        }
    )
    pod = stage.ground.create(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "fill", "namespace": stage.namespace},
            "spec": {
                "restartPolicy": "Never",
                # There are nodes with GPUs alone.
                "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
                "volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": CLAIM}}],
                "containers": [
                    {
                        "name": "storage-initializer",
                        "image": "kserve/storage-initializer:v0.20.0",
                        "args": [f"hf://{MODEL}", "/mnt/claim/smol"],
                        "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
                        "securityContext": RESTRICTED,
                        "volumeMounts": [{"name": "models", "mountPath": "/mnt/claim"}],
                    }
                ],
            },
        }
    )

    def phase() -> dict[str, Any]:
        seen = stage.ground.read("Pod", pod["metadata"]["name"], stage.namespace) or {}
        return {"phase": seen.get("status", {}).get("phase")}

    stage.see(phase, {"phase": "Succeeded"}, within=90, note="a claim filled")
    stage.ground.remove("Pod", "fill", stage.namespace)

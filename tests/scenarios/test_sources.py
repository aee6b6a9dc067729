"""Weights from buckets, a volume claim, a web server, a registry's entry: from the wish to Running."""

from __future__ import annotations

import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from deployments.models import Credential, EngineProfile, Flavor, Principal
from deployments.services import credentials, facts, source_checks
from deployments.services.errors import RefusedError
from deployments.sources import SourceCheck, SourceCode, kubeflow
from sandbox.hub import catalog
from sandbox.node.images import model_image
from tests import servers
from tests.deployments import factories as make
from tests.deployments.sealing_keys import use_keys
from tests.deployments.test_source_formats import gguf
from tests.model_registry import Recording
from tests.scenarios.grounds import Object
from tests.scenarios.stage import RESTRICTED, Says, Stage, engine
from tests.scenarios.test_credentials import reads, stored

pytestmark = [pytest.mark.django_db, pytest.mark.timeout(400)]

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
BUCKET, CLAIM = "weights", "models"
NEWEST, OLDER = "vllm-0.32.0", "vllm-0.20.0"
# The same shape as a GGUF file says it.
GGUF = gguf(
    ("general.architecture", "llama"),
    ("llama.block_count", 30),
    ("llama.embedding_length", 576),
    ("llama.feed_forward_length", 1536),
    ("llama.attention.head_count", 9),
    ("llama.attention.head_count_kv", 3),
    ("llama.context_length", 8192),
    ("llama.vocab_size", 49152),
)


def files() -> dict[str, bytes]:
    """A model as small as one can be: the shape of a real one, and weights that are a few bytes."""
    config = catalog.load()[MODEL].config
    return {"config.json": json.dumps(config).encode(), "model.safetensors": b"x" * 4096, "tokenizer.json": b"{}"}


@pytest.fixture(scope="module")
def s3() -> Iterator[servers.S3]:
    with buckets() as running:
        yield running


@contextmanager
def buckets() -> Iterator[servers.S3]:
    """An S3 server with the model in a bucket, as a folder and as a file."""
    with servers.s3() as running:
        running.put(BUCKET, {f"smol/{name}": content for name, content in files().items()})
        running.put(BUCKET, {"smol.gguf": GGUF})
        running.put(BUCKET, {f"beside/{name}": files()[name] for name in ("config.json", "tokenizer.json")})
        running.put(BUCKET, {"beside/smol.gguf": GGUF})
        yield running


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder, where of a query only the version counts, and a model registry as one was recorded."""

    def do_GET(self) -> None:
        if self.path.startswith(kubeflow.API):
            Recording().serve(self)
        else:
            super().do_GET()

    def translate_path(self, path: str) -> str:
        version = parse_qs(urlsplit(path).query).get("version", [""])[0]
        file = super().translate_path(path)
        return f"{file}.{version}" if Path(f"{file}.{version}").is_file() else file

    def log_message(self, *words: object) -> None:
        """Nothing is printed."""


class Google(BaseHTTPRequestHandler):
    """The part of Google's API that buckets are read by, with one public bucket."""

    objects = {f"smol/{name}": content for name, content in files().items()}

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        _, bucket, _, key = f"{parts.path.partition('/b')[2]}/".split("/", 3)
        query = parse_qs(parts.query)
        found = self.objects.get(unquote(key.rstrip("/")))
        listed = [{"name": name, "size": str(len(body))} for name, body in self.objects.items()]
        prefix = query.get("prefix", [""])[0]
        listing = json.dumps({"items": [item for item in listed if item["name"].startswith(prefix)]}).encode()
        body = listing if not key else found
        self.send_response(200 if bucket == BUCKET and body is not None else 404)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body or b"{}")

    def log_message(self, *words: object) -> None:
        """Nothing is printed."""


@contextmanager
def serving(handler: Callable[..., Any], port: int = 0) -> Iterator[str]:
    """A web server; yields its address."""
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with website(tmp_path_factory.mktemp("web")) as url:
        yield url


@contextmanager
def website(folder: Path) -> Iterator[str]:
    """A web server with the model as an archive and as a file, and two model registries that know it in its bucket."""
    with tarfile.open(folder / "smol.tar.gz", "w:gz") as archive:
        for name, content in files().items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    tracked = folder / "api/2.0/mlflow/model-versions"
    tracked.mkdir(parents=True)
    for version, store in (("3", "s3"), ("4", "gs")):
        at = {"artifact_uri": f"{store}://{BUCKET}/smol"}
        (tracked / f"get-download-uri.{version}").write_text(json.dumps(at))
    (folder / "smol.gguf").write_bytes(GGUF)
    with serving(partial(Quiet, directory=str(folder))) as url:
        yield url


@pytest.fixture
def lead(stage: Stage) -> Principal:
    return make.principal(make.make_user("lead", team=stage.team, lead=True))


def test_weights_from_everywhere(stage: Stage, lead: Principal, s3: servers.S3, web: str, settings: Any):
    uri = f"s3://{BUCKET}/smol"
    make.make_older_profile()
    store = opened(stage, lead, s3, web, settings)
    assert (store.test_code, store.test_facts["layers"]) == ("found", 30)
    fill(stage)

    rows = {
        "bucket": {"uri": uri, "credential": "store"},
        "file": {"uri": f"s3://{BUCKET}/smol.gguf", "credential": "store"},
        "entry": {"uri": "model-registry://smol/v1", "credential": "store"},
        "claim": {"uri": f"pvc://{CLAIM}/smol"},
        "download": {"uri": f"{web}/smol.tar.gz"},
        "google": {"uri": f"gs://{BUCKET}/smol"},
    }
    with serving(Google, stage.ground.agents.google_port) as settings.GS_URL:
        asked = [
            stage.ask(name, source=source, engine=engine(OLDER if name == "file" else NEWEST, max_model_len=2048))
            for name, source in rows.items()
        ]
        for row in asked:
            stage.comes_to(row, Says("Running"), within=120, note=row.name)

    pods = {pod["metadata"]["labels"].get("serving.kserve.io/inferenceservice"): pod for pod in stage.pods()}
    assert {name: reads(pods[name]) == {store.current.name} for name in rows} == {
        name: source.get("credential") == "store" for name, source in rows.items()
    }
    assert "initContainers" not in pods["claim"]["spec"]
    fetched = {row.name: stage.fresh(row).applied.resolution["storage_uri"] for row in asked}
    assert fetched == {
        "bucket": f"s3://{BUCKET}/smol/",
        "file": f"s3://{BUCKET}/smol.gguf",
        "entry": f"s3://{BUCKET}/smol/",
        "claim": f"pvc://{CLAIM}/smol",
        "download": f"{web}/smol.tar.gz",
        "google": f"gs://{BUCKET}/smol",
    }
    (model,) = (word for word in pods["file"]["spec"]["containers"][0]["args"] if word.startswith("--model="))
    assert model == "--model=/mnt/models/smol.gguf"


def test_weights_for_roles_and_across_nodes(stage: Stage, lead: Principal, s3: servers.S3, web: str, settings: Any):
    """What else brings weights to each kind of service, on each kind of GPU, all at once."""
    make.make_older_profile()
    opened(stage, lead, s3, web, settings)
    settings.MLFLOW_URL = web
    for flavor in Flavor.objects.all():
        make.make_grant(stage.team, flavor, 8)
    fill(stage, f"{web}/smol.gguf")
    image = f"oci://{model_image(MODEL, '1.0').canonical}"
    one = {"replicas": {"min": 1, "max": 1}, "args": {}}
    apart = {"strategy": "disaggregated", "prefill": one, "decode": one, "engine": engine(max_model_len=2048)}
    wide = {"nodes": 2, "engine": engine(max_model_len=2048, pipeline_parallel_size=2)}
    alone = {"engine": engine(OLDER, max_model_len=2048)}
    wishes: dict[str, tuple[dict[str, str], str, dict[str, Any]]] = {
        "claimed-file": ({"uri": f"pvc://{CLAIM}/smol.gguf"}, "l4-24gb", alone),
        "fetched-file": ({"uri": f"{web}/smol.gguf"}, "l4-24gb", alone),
        "roles-entry": ({"uri": "model-registry://smol/v1", "credential": "store"}, "l40s-48gb", apart),
        "roles-claim": ({"uri": f"pvc://{CLAIM}/smol"}, "h100-80gb", apart),
        "roles-image": ({"uri": image}, "l4-24gb", apart),
        "wide-entry": ({"uri": "models:/smol/3", "credential": "store"}, "l4-24gb", wide),
        "wide-claim": ({"uri": f"pvc://{CLAIM}/smol"}, "h100-80gb", wide),
        "wide-image": ({"uri": image}, "l4-24gb", wide),
    }

    asked = [stage.ask(name, source=source, flavor=flavor, **more) for name, (source, flavor, more) in wishes.items()]
    for row in asked:
        stage.comes_to(row, Says("Running"), within=180, note=row.name)

    fetched = {row.name: stage.fresh(row).applied.resolution["storage_uri"] for row in asked}
    assert fetched["roles-entry"] == fetched["wide-entry"] == f"s3://{BUCKET}/smol/"
    products = {pod["spec"]["nodeSelector"]["nvidia.com/gpu.product"] for pod in stage.pods() if gpus(pod)}
    assert len(products) == 3


def gpus(pod: Object) -> int:
    """GPUs that a pod holds."""
    limits = [container.get("resources", {}).get("limits", {}) for container in pod["spec"]["containers"]]
    return sum(int(limit.get("nvidia.com/gpu", 0)) for limit in limits)


def opened(stage: Stage, lead: Principal, s3: servers.S3, web: str, settings: Any, folder: str = "smol") -> Credential:
    """The servers vouched for, and keys of the team's to the bucket, tested and stored."""
    use_keys(settings)
    settings.OBJECT_STORES, settings.DOWNLOAD_SERVERS, settings.MODEL_REGISTRY_URL = [s3.url], [web], web
    stage.open_namespace()
    keys = s3.user(f"reader-{stage.namespace}", {"Effect": "Allow", "Action": ["s3:*"], "Resource": "*"})
    made = credentials.create(
        principal=lead,
        team=stage.team,
        name="store",
        kind="s3",
        fields={**keys, "endpoint": s3.url, "region": "us-east-1"},
        test_uri=f"s3://{BUCKET}/{folder}",
    )
    return stored(stage, made)


def test_an_image_that_lacks_the_plugin_it_was_said_to_have(
    stage: Stage, lead: Principal, s3: servers.S3, web: str, settings: Any
):
    """Preflight takes an admin at their word; what the engine then says of the file names the plugin and a way on."""
    store = opened(stage, lead, s3, web, settings, "beside")
    assert (store.test_facts["file"], store.test_facts["described"]) == ("smol.gguf", True)
    make.make_profile()
    source = {"uri": f"s3://{BUCKET}/beside", "credential": "store"}
    with pytest.raises(RefusedError, match="vllm-gguf-plugin"):
        stage.ask("early", source=source, engine=engine(max_model_len=2048))

    EngineProfile.objects.filter(slug=NEWEST).update(plugins=["gguf"])
    row = stage.ask(source=source, engine=engine(max_model_len=2048))

    row = stage.comes_to(row, Says("Failed", "plugin_missing", "profile"), within=60)
    assert "/mnt/models/smol.gguf" in row.reason["evidence"]
    EngineProfile.objects.filter(slug=NEWEST).update(image=f"ghcr.io/slipway-engines/vllm-openai-gguf@{make.DIGEST}")
    row = stage.revise(row, source=source, engine=engine(max_model_len=1024))
    stage.comes_to(row, Says("Running"), within=60, note="with an image that has it")


def test_a_public_bucket_is_asked_as_anybody(stage: Stage):
    """The bucket is one of Amazon's, where no test goes: what counts is how the cluster would ask for it."""
    there = SourceCheck(SourceCode.FOUND, "There.", loads="s3://open-weights/smol/")
    stage.patch.setattr(source_checks.s3, "check", lambda *words: there)
    row = stage.ask("public", source={"uri": "s3://open-weights/smol"})
    stage.until(row, stage.pods, what="a pod")

    (pod,) = stage.pods()
    (initializer,) = pod["spec"]["initContainers"]
    assert initializer["args"] == ["s3://open-weights//smol/", "/mnt/models"]
    assert {"name": "awsAnonymousCredential", "value": "true"} in initializer["env"]
    assert not reads(pod)


def fill(stage: Stage, file: str = "") -> None:
    """A volume claim, and a pod that brings a model into it, and a file beside it, as its owner would."""
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
    wanted = [f"hf://{MODEL}", "/mnt/claim/smol", *([file, "/mnt/claim"] if file else [])]
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
                        "args": wanted,
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

    def followed() -> dict[str, Any]:
        stage.turn()
        known = facts.gather(team=stage.team, name="any").cluster.claims
        return {"claim": known is None or CLAIM in known}

    stage.see(phase, {"phase": "Succeeded"}, within=90, note="a claim filled")
    stage.ground.remove("Pod", "fill", stage.namespace)
    stage.see(followed, {"claim": True}, note="a claim that the watcher has seen")

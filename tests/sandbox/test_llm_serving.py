"""LLMInferenceServices from end to end on the lite ground: controllers, gateway and node agent, and a request answered.

Words come from the engines' own filler (the header of background traffic), so that no language model is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from sandbox.asgi import listen
from sandbox.client import Client, resource_path
from sandbox.gateway.cluster import Cluster
from sandbox.gateway.proxy import Gateway
from sandbox.hub.app import Hub
from sandbox.lite.testing import running_cluster
from sandbox.node import open_ports, shell
from sandbox.node.agent import Agent
from sandbox.nodes import SHAPES
from tests.sandbox.ground import create, ensure_namespace, items
from tests.sandbox.node_support import FAST
from tests.sandbox.recordings import read, read_all

LLM = "serving.kserve.io/v1alpha2"
TEAM = "team-a"
PATIENCE = 40.0  # seconds
PREFIX = f"127.{90 + os.getpid() % 9}"
TRAFFIC = {"x-slipway-traffic": "1"}
CHAT = {"messages": [{"role": "user", "content": "word " * 400}], "max_tokens": 8}


@dataclass
class Stage:
    """Everything that runs."""

    client: Client
    http: httpx.AsyncClient  # through the gateway
    agents: list[Agent]

    async def until(self, look: Callable[[], Awaitable[Any]], what: str) -> Any:
        """Look until the answer is true."""
        end = asyncio.get_running_loop().time() + PATIENCE
        while not (found := await look()):
            if asyncio.get_running_loop().time() > end:
                pytest.fail(f"never seen: {what}; {await self.trouble()}")
            await asyncio.sleep(0.05)
        return found

    async def trouble(self) -> str:
        """What is there, in short, for a test that fails."""
        services = await items(self.client, "llminferenceservices", TEAM, LLM)
        told = [
            f"{item['type']}={item['status']} {item.get('message', '')}"
            for service in services
            for item in (service.get("status") or {}).get("conditions", [])
        ]
        for pod in await items(self.client, "pods", TEAM):
            status = pod.get("status") or {}
            states = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
            shown = {item["name"]: (item["ready"], item["state"], item["restartCount"]) for item in states}
            told.append(f"{pod['metadata']['name']} {status.get('phase')} {shown or status.get('conditions')}")
        return "\n".join(told)

    async def ready(self, name: str) -> bool:
        """Whether a service is ready."""
        found = await self.client.get(resource_path(LLM, "llminferenceservices", TEAM, name))
        said = {item["type"]: item["status"] for item in (found.get("status") or {}).get("conditions", [])}
        return said.get("Ready") == "True"


@pytest.fixture(scope="module")
def kubeconfig() -> Iterator[Path]:
    with running_cluster() as running:
        yield running.kubeconfig


@contextlib.asynccontextmanager
async def stage(kubeconfig: Path, *nodes: str) -> AsyncIterator[Stage]:
    """Bring up hub, nodes and gateway."""
    client = Client.from_kubeconfig(kubeconfig)
    hub = await listen(Hub(), "127.0.0.1", 0)
    hub_url = f"http://127.0.0.1:{hub.address[1]}"
    agents = [
        Agent(SHAPES[name], PREFIX, client, hub_url=hub_url, model_url="http://127.0.0.1:1", pace=FAST)
        for name in nodes
    ]
    opened = [port for agent in agents for port in await open_ports(agent, 0)]
    tasks = [asyncio.create_task(agent.run()) for agent in agents]
    cluster = Cluster(client)
    tasks.append(asyncio.create_task(cluster.run()))
    app = Gateway(cluster, None)
    door = await listen(app, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{door.address[1]}"
    await ensure_namespace(client, TEAM)
    async with httpx.AsyncClient(base_url=address, timeout=20, trust_env=False) as http:
        try:
            yield Stage(client, http, agents)
        finally:
            for item in await items(client, "llminferenceservices", TEAM, LLM):
                await client.delete(resource_path(LLM, "llminferenceservices", TEAM, item["metadata"]["name"]))
            async with asyncio.timeout(PATIENCE):
                while await items(client, "pods", TEAM):
                    await asyncio.sleep(0.05)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for name in nodes:
                await client.delete(resource_path("v1", "nodes", None, name))
            for port in [*opened, hub, door]:
                port.close()
            await app.close()
            await client.close()


def play(kubeconfig: Path, scene: Callable[[Stage], Awaitable[None]], *nodes: str) -> None:
    async def main() -> None:
        async with stage(kubeconfig, *nodes) as on:
            await scene(on)

    asyncio.run(main())


def example(name: str) -> dict[str, Any]:
    """Return an example whose pods, the scheduler's too, tolerate the taint of nodes with GPUs: there are no others."""
    found = next(item for item in read_all(f"examples/{name}.yaml") if item["kind"] == "LLMInferenceService")
    spec, tolerations = found["spec"], [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    spec["router"]["scheduler"]["template"] = {"containers": [], "tolerations": tolerations}
    for key in ("template", "worker"):
        if key in spec:
            spec[key]["tolerations"] = tolerations
    return found


async def metric(on: Stage, pod: dict[str, Any], port: int, name: str, **labels: str) -> float:
    """Read one value off an engine."""
    async with httpx.AsyncClient(trust_env=False) as http:
        text = (await http.get(f"http://{pod['status']['podIP']}:{port}/metrics")).text
    for line in text.splitlines():
        if line.startswith(f"{name}{{") and all(f'{key}="{value}"' in line for key, value in labels.items()):
            return float(line.rpartition(" ")[2])
    return 0.0


def test_a_single_node_service_answers_under_all_its_addresses(kubeconfig: Path) -> None:
    async def scene(on: Stage) -> None:
        await create(on.client, example("07-llmisvc-single-node"), namespace=TEAM)
        await on.until(lambda: on.ready("qwen25-7b"), "a ready service")
        model = "Qwen/Qwen2.5-7B-Instruct"
        for path, headers in (
            (f"/{TEAM}/qwen25-7b", {}),
            (f"/publishers/{TEAM}/models/{model}", {}),
            ("", {"X-Gateway-Model-Name": f"publishers/{TEAM}/models/{model}"}),
        ):
            answer = await on.http.post(
                f"{path}/v1/chat/completions", json={**CHAT, "model": model}, headers={**TRAFFIC, **headers}
            )
            assert answer.status_code == 200, (path, answer.text)
            assert answer.json()["usage"]["completion_tokens"] > 0
        listing = (await on.http.get(f"/{TEAM}/qwen25-7b/v1/models")).json()
        assert [item["id"] for item in listing["data"]] == [model, f"publishers/{TEAM}/models/{model}"]

    play(kubeconfig, scene, "gpu-h100-1")


def test_a_disaggregated_service_computes_prompts_on_one_engine_and_words_on_another(kubeconfig: Path) -> None:
    async def scene(on: Stage) -> None:
        await create(on.client, example("08-llmisvc-pd"), namespace=TEAM)
        await on.until(lambda: on.ready("qwen25-14b-pd"), "a ready service")
        body = {**CHAT, "model": "Qwen/Qwen2.5-14B-Instruct"}
        whole = await on.http.post(f"/{TEAM}/qwen25-14b-pd/v1/chat/completions", json=body, headers=TRAFFIC)
        assert whole.status_code == 200, whole.text
        prompt = whole.json()["usage"]["prompt_tokens"]
        streamed = await on.http.post(
            f"/{TEAM}/qwen25-14b-pd/v1/chat/completions", json={**body, "stream": True}, headers=TRAFFIC
        )
        assert streamed.text.endswith("data: [DONE]\n\n")

        pods = await items(on.client, "pods", TEAM)
        by_role: dict[str, list[dict[str, Any]]] = {}
        for pod in pods:
            by_role.setdefault(pod["metadata"]["labels"].get("llm-d.ai/role", "scheduler"), []).append(pod)
        (decode,) = by_role["decode"]
        by_source = "vllm:prompt_tokens_by_source_total"
        assert await metric(on, decode, 8001, by_source, source="external_kv_transfer") >= prompt - 1
        prefilled = [await metric(on, pod, 8000, "vllm:prompt_tokens_total") for pod in by_role["prefill"]]
        assert sum(prefilled) == 2 * prompt
        made = [await metric(on, pod, 8000, "vllm:generation_tokens_total") for pod in by_role["prefill"]]
        assert sum(made) == 2, "one token for each prompt"
        sidecars = {item["name"]: item["ready"] for item in decode["status"]["initContainerStatuses"]}
        assert sidecars == {"llm-d-routing-sidecar": True, "storage-initializer": True}

    play(kubeconfig, scene, "gpu-h100-1")


def test_a_caller_cannot_choose_who_prefills(kubeconfig: Path) -> None:
    async def scene(on: Stage) -> None:
        await create(on.client, example("08-llmisvc-pd"), namespace=TEAM)
        await on.until(lambda: on.ready("qwen25-14b-pd"), "a ready service")
        heard = asyncio.Event()

        async def stranger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.set()
            writer.close()

        server = await asyncio.start_server(stranger, "127.0.0.1", 0)
        where = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        body = {**CHAT, "model": "Qwen/Qwen2.5-14B-Instruct"}
        answer = await on.http.post(
            f"/{TEAM}/qwen25-14b-pd/v1/chat/completions", json=body, headers={**TRAFFIC, "x-prefiller-host-port": where}
        )
        server.close()
        assert answer.status_code == 200
        assert not heard.is_set()

    play(kubeconfig, scene, "gpu-h100-1")


def test_a_service_over_two_nodes_comes_up_and_answers(kubeconfig: Path) -> None:
    given = example("21-llmisvc-multinode")
    given["spec"]["model"] = {"uri": "hf://Qwen/Qwen2.5-7B-Instruct", "name": "big"}
    given["spec"]["parallelism"] = {"data": 16, "dataLocal": 8, "tensor": 1}

    async def scene(on: Stage) -> None:
        await create(on.client, given, namespace=TEAM)
        await on.until(lambda: on.ready("big"), "a ready service")
        pods = {item["metadata"]["name"]: item for item in await items(on.client, "pods", TEAM)}
        assert pods["big-kserve-mn-0"]["spec"]["nodeName"] != pods["big-kserve-mn-0-1"]["spec"]["nodeName"]
        answer = await on.http.post(f"/{TEAM}/big/v1/chat/completions", json={**CHAT, "model": "big"}, headers=TRAFFIC)
        assert answer.status_code == 200, answer.text

    play(kubeconfig, scene, "gpu-l4-1", "gpu-l4-2")


# The preset's scripts ---------------------------------------------------------------------------------------


def _engine(recording: str, pod: str) -> tuple[str, list[str], dict[str, str]]:
    found = next(o for o in read(recording)["objects"] if o["kind"] == "Pod" and o["metadata"]["name"].startswith(pod))
    container = found["spec"]["containers"][0]
    words = [*container["command"], *container.get("args", [])]
    made = shell.script_of(words)
    assert made is not None
    return *made, {item["name"]: item.get("value", "") for item in container["env"]}


def test_a_presets_script_ends_in_the_engines_command() -> None:
    script, arguments, environment = _engine("objects/08-llmisvc-pd.yaml", "qwen25-14b-pd-kserve-5")

    words = shell.command(script, arguments, environment)

    assert words[:3] == ["vllm", "serve", "/mnt/models"]
    assert words[3:6] == [
        "--served-model-name", "Qwen/Qwen2.5-14B-Instruct", "publishers/r2-08/models/Qwen/Qwen2.5-14B-Instruct",
    ]  # fmt: skip
    assert words[words.index("--disable-access-log-for-endpoints") + 1] == "/health,/metrics,/ping"
    assert words[words.index("--tensor-parallel-size") + 1] == "2"
    config = json.loads(words[words.index("--kv-transfer-config") + 1])
    assert config == {"kv_connector": "NixlConnector", "kv_role": "kv_consumer"}


def test_a_workers_script_counts_its_ranks_and_names_its_leader() -> None:
    script, arguments, environment = _engine("objects/21-llmisvc-multinode.yaml", "big-kserve-mn-0-1")

    words = shell.command(script, arguments, environment)

    assert words[words.index("--data-parallel-start-rank") + 1] == "8"
    assert words[words.index("--data-parallel-address") + 1] == "big-kserve-mn-0.big-kserve-mn.team-a"
    assert "--headless" in words


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ('A="x y"\neval "exec vllm serve $A ${B:-z} $@"', ["vllm", "serve", "x", "y", "z", "--one", "two words"]),
        ('if [ "$C" = "on" ]; then\n  D=1\nelse\n  D=2\nfi\nexec vllm serve --d $D', ["vllm", "serve", "--d", "1"]),
        (
            "for i in 1 2; do\n  exec vllm serve wrong\ndone\nexec vllm serve \\\n  right  # so",
            ["vllm", "serve", "right"],
        ),
        ("N=$(( ${I:-0} * 4 ))\nvllm serve $N", ["vllm", "serve", "12"]),
        ("echo 'exec vllm serve' # no\nsleep 1", []),
        ('exec vllm serve "unclosed', []),
    ],
)
def test_scripts_are_read_as_far_as_presets_go(script: str, words: list[str]) -> None:
    assert shell.command(script, ["--one", "'two words'"], {"C": "on", "I": "3"}) == words


def test_plain_pods_behind_a_pool_answer_while_nobody_picks(kubeconfig: Path) -> None:
    """Examples 19 and 20: no KServe, and no endpoint picker, so the pool fails open."""
    objects = [*read_all("examples/20-plain-pd.yaml"), *read_all("examples/19-inferencepool-objective.yaml")]
    plurals = {"HTTPRoute": "httproutes", "ServiceAccount": "serviceaccounts"}

    async def scene(on: Stage) -> None:
        for item in objects:
            if item["kind"] == "HTTPRoute":
                item["spec"]["parentRefs"] = [{"name": "kserve-ingress-gateway", "namespace": "kserve"}]
            plural = plurals.get(item["kind"], f"{item['kind'].lower()}s")
            await on.client.create(resource_path(item["apiVersion"], plural, TEAM), item)

        async def up() -> bool:
            found = await items(on.client, "deployments", TEAM, "apps/v1")
            return len(found) == 2 and all(
                item.get("status", {}).get("readyReplicas") == item["spec"]["replicas"] for item in found
            )

        await on.until(up, "all replicas ready")
        body = {**CHAT, "model": "Qwen/Qwen2.5-14B-Instruct"}
        answers = [await on.http.post("/v1/chat/completions", json=body, headers=TRAFFIC) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 200]
        path = resource_path("inference.networking.k8s.io/v1", "inferencepools", TEAM, "qwen-pool")
        (parent,) = (await on.client.get(path))["status"]["parents"]
        told = {item["type"]: (item["status"], item["reason"]) for item in parent["conditions"]}
        assert told == {"Accepted": ("True", "Accepted"), "ResolvedRefs": ("False", "InvalidExtensionRef")}
        for name in ("qwen-prefill", "qwen-decode"):
            await on.client.delete(resource_path("apps/v1", "deployments", TEAM, name))

    play(kubeconfig, scene, "gpu-h100-1")

"""The node agent on a lite cluster: pods live, fail, heal and end as on a real node."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import httpx
import pytest
import yaml

from sandbox.client import ApiError, resource_path
from sandbox.lite import cells
from sandbox.node.machine import Pace
from tests.sandbox.node_support import (
    FAST,
    NAMESPACE,
    NODE,
    PREFIX,
    cluster,
    engine_pod,
    ground,
    init_status,
    is_ready,
    main_status,
    start_agent,
    until,
    waiting_reason,
)

RECORDED = Path(__file__).parents[1] / "data" / "kserve-0.20.0" / "objects" / "01-isvc-standard-vllm.yaml"


@pytest.fixture(scope="module")
def kubeconfig():
    with cluster() as path:
        yield path


def play(kubeconfig, scene, *, pace: Pace = FAST):
    """Run `scene(ground)` with a node of its own."""

    async def main():
        async with ground(kubeconfig, pace=pace) as run:
            await scene(run)
            for item in (await run.client.list(resource_path("v1", "pods", NAMESPACE)))["items"]:
                try:
                    await run.delete(item["metadata"]["name"], grace=0)
                except ApiError as error:
                    if error.status != 404:  # its end came first
                        raise

    asyncio.run(main())


def secret(name, **data):
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": NAMESPACE}, "data": encoded}


def token_from(name, optional=False):
    return [
        {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": name, "key": "HF_TOKEN", "optional": optional}}}
    ]


def test_the_node_says_what_it_is(kubeconfig):
    async def scene(run):
        async def ready():
            nodes = (await run.client.list("/api/v1/nodes"))["items"]
            return next((node for node in nodes if node.get("status", {}).get("conditions")), None)

        node = await until(ready, "node")
        labels = node["metadata"]["labels"]
        assert labels["nvidia.com/gpu.product"] == "NVIDIA-L4"
        assert labels["nvidia.com/gpu.count"] == "8"
        assert node["status"]["allocatable"]["nvidia.com/gpu"] == "8"
        assert node["spec"]["taints"][0]["key"] == "nvidia.com/gpu"
        assert node["spec"]["podCIDR"] == f"{PREFIX}.3.0/24"
        assert {"type": "InternalIP", "address": f"{PREFIX}.255.3"} in node["status"]["addresses"]
        assert node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"] == run.agent.kubelet_port
        path = resource_path("coordination.k8s.io/v1", "leases", "kube-node-lease", NODE)

        async def lease():
            return (await run.client.list(path.rsplit("/", 1)[0]))["items"]

        found = await until(lease, "lease")
        assert found[0]["spec"]["holderIdentity"] == NODE

    play(kubeconfig, scene)


def test_a_pod_downloads_starts_serves_and_ends(kubeconfig):
    async def scene(run):
        name = await run.make(engine_pod("whole"))
        pod = await run.wait(name, is_ready)
        status = pod["status"]

        async with httpx.AsyncClient(trust_env=False, verify=False) as http:
            models = await http.get(f"http://{status['podIP']}:8080/v1/models")
        assert models.json()["data"][0]["id"] == "chat"
        assert status["phase"] == "Running"
        assert init_status(pod)["state"]["terminated"]["reason"] == "Completed"
        assert run.agent.node.gpus.free == 7
        for reason in ("Pulling", "Pulled", "Created", "Started"):
            await run.heard(name, reason)
        log = (await run.logs(name, "storage-initializer")).text
        assert "bytes)" in log
        assert "the sandbox takes" in log

        await run.delete(name)
        await run.gone(name)
        assert run.agent.node.gpus.free == 8
        assert await run.heard(name, "Killing") == "Stopping container kserve-container"
        assert run.agent.workers == {}

    play(kubeconfig, scene)


def test_a_pod_that_somebody_called_not_ready_is_called_ready_again(kubeconfig):
    """A node controller does that to the pods of a node that it has not heard from."""

    async def scene(run):
        name = await run.make(engine_pod("given-up"))
        pod = await run.wait(name, is_ready)
        assert not is_ready(await give_up(run, pod))

        await run.wait(name, is_ready)

    play(kubeconfig, scene)


def test_calling_it_not_ready_counts_also_before_the_agent_hears_that_its_own_word_arrived(kubeconfig):
    async def scene(run):
        contradicted = asyncio.Event()
        write = run.client.patch_status

        async def write_with_a_late_answer(path, body):
            answer = await write(path, body)
            if path.endswith("/late-answer") and is_ready(body):
                await asyncio.wait_for(contradicted.wait(), 20)
            return answer

        run.client.patch_status = write_with_a_late_answer
        name = await run.make(engine_pod("late-answer"))
        pod = await run.wait(name, is_ready)
        run.client.patch_status = write
        given_up = (await give_up(run, pod))["metadata"]["resourceVersion"]

        async def heard():
            return run.agent.pod(NAMESPACE, name).object["metadata"]["resourceVersion"] == given_up

        await until(heard, "the contradiction")
        contradicted.set()

        await run.wait(name, is_ready)

    play(kubeconfig, scene)


async def give_up(run, pod):
    """Call a pod not ready, as the node controller does."""
    conditions = [
        item | {"status": "False"} if item["type"] == "Ready" else item for item in pod["status"]["conditions"]
    ]
    path = resource_path("v1", "pods", NAMESPACE, pod["metadata"]["name"])
    return await run.client.patch_status(path, {"status": {"conditions": conditions}})


def test_phases_pass_one_after_the_other(kubeconfig):
    slower = Pace(speed=100.0, backoff_first=0.3, restart=0.02, retry=0.1)

    async def scene(run):
        name = await run.make(engine_pod("phases"))
        downloading = await run.wait(name, lambda pod: "running" in (init_status(pod).get("state") or {}))
        assert downloading["status"]["phase"] == "Pending"
        assert waiting_reason(main_status(downloading)) == "PodInitializing"
        conditions = {entry["type"]: entry for entry in downloading["status"]["conditions"]}
        assert conditions["Initialized"]["reason"] == "ContainersNotInitialized"
        assert conditions["PodScheduled"]["status"] == "True"

        starting = await run.wait(name, lambda pod: "running" in (main_status(pod).get("state") or {}))
        assert starting["status"]["phase"] == "Running"
        assert not main_status(starting)["ready"]
        assert not main_status(starting)["started"]
        assert (await run.wait(name, is_ready))["status"]["phase"] == "Running"

    play(kubeconfig, scene, pace=slower)


def test_the_status_has_the_fields_that_were_recorded(kubeconfig):
    recorded = next(entry for entry in yaml.safe_load(RECORDED.read_text())["objects"] if entry["kind"] == "Pod")[
        "status"
    ]

    async def scene(run):
        name = await run.make(engine_pod("fields"))
        ours = (await run.wait(name, is_ready))["status"]
        assert recorded.keys() <= ours.keys()
        for kind in ("containerStatuses", "initContainerStatuses"):
            assert recorded[kind][0].keys() <= ours[kind][0].keys()
            (state,) = recorded[kind][0]["state"]
            assert recorded[kind][0]["state"][state].keys() <= ours[kind][0]["state"][state].keys()
        theirs = {entry["type"]: entry["status"] for entry in recorded["conditions"]}
        assert theirs.items() <= {entry["type"]: entry["status"] for entry in ours["conditions"]}.items()

    play(kubeconfig, scene)


def test_a_gated_model_without_a_token_fails_its_download_again_and_again(kubeconfig):
    async def scene(run):
        name = await run.make(engine_pod("gated", source="hf://meta-llama/Llama-3.1-8B-Instruct"))
        pod = await run.wait(name, lambda pod: waiting_reason(init_status(pod)) == "CrashLoopBackOff")
        last = init_status(pod)["lastState"]["terminated"]
        assert last["exitCode"] == 1
        assert "GatedRepoError: 401 Client Error" in last["message"]
        assert "Please log in." in last["message"]
        assert "back-off" in init_status(pod)["state"]["waiting"]["message"]
        assert pod["status"]["phase"] == "Pending"
        pod = await run.wait(name, lambda pod: init_status(pod)["restartCount"] >= 2)
        await run.heard(name, "BackOff", "Back-off restarting failed container storage-initializer")

    play(kubeconfig, scene)


def test_a_token_from_a_secret_opens_a_gated_model(kubeconfig):
    async def scene(run):
        source = "hf://meta-llama/Llama-3.1-8B-Instruct"
        env = token_from("hub-token")
        name = await run.make(engine_pod("token", source=source, init_env=env, args=("--max-model-len=8192",)))
        pod = await run.wait(name, lambda pod: waiting_reason(init_status(pod)) == "CreateContainerConfigError")
        assert init_status(pod)["state"]["waiting"]["message"] == 'secret "hub-token" not found'

        await run.client.create(resource_path("v1", "secrets", NAMESPACE), secret("hub-token", HF_TOKEN="hf_good"))
        await run.wait(name, is_ready)

    play(kubeconfig, scene)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("hf://nobody/nothing", "RepositoryNotFoundError: 404 Client Error"),
        ("hf://Qwen/Qwen2.5-7B-Instruct:nope", "Invalid rev id: nope"),
        ("models:/name/3", "Cannot recognize storage type for models:/name/3"),
        ("hf://onlyone", "Invalid Hugging Face URI format"),
    ],
)
def test_wrong_sources_fail_with_their_own_words(kubeconfig, source, words):
    async def scene(run):
        name = await run.make(engine_pod("source", source=source))
        pod = await run.wait(name, lambda pod: (init_status(pod).get("lastState") or {}).get("terminated"))
        assert words in init_status(pod)["lastState"]["terminated"]["message"]

    play(kubeconfig, scene)


@pytest.mark.parametrize(
    ("image", "first", "words"),
    [
        ("vllm/vllm-openai:v9.9.9", "ErrImagePull", "docker.io/vllm/vllm-openai:v9.9.9: not found"),
        ("vllm/nothing:latest", "ErrImagePull", "pull access denied, repository does not exist"),
        ("registry.invalid/x:1", "ErrImagePull", "no such host"),
        ("Not/An image", "InvalidImageName", "invalid reference format"),
    ],
)
def test_images_that_cannot_be_pulled(kubeconfig, image, first, words):
    async def scene(run):
        name = await run.make(engine_pod("image", image=image))
        pod = await run.wait(name, lambda pod: waiting_reason(main_status(pod)) == first)
        assert words in main_status(pod)["state"]["waiting"]["message"]
        if first == "ErrImagePull":
            pod = await run.wait(name, lambda pod: waiting_reason(main_status(pod)) == "ImagePullBackOff")
            assert "Back-off pulling image" in main_status(pod)["state"]["waiting"]["message"]
            await run.heard(name, "Failed", words)

    play(kubeconfig, scene)


def test_an_engine_that_cannot_start_crash_loops_and_its_last_log_says_why(kubeconfig):
    async def scene(run):
        name = await run.make(engine_pod("crash", args=("--max-model-len=999999",)))
        pod = await run.wait(name, lambda pod: waiting_reason(main_status(pod)) == "CrashLoopBackOff")
        last = main_status(pod)["lastState"]["terminated"]
        assert (last["exitCode"], last["reason"]) == (1, "Error")
        assert "message" not in last  # the policy is File, and nothing wrote one
        assert pod["status"]["phase"] == "Running"
        assert not is_ready(pod)
        log = (await run.logs(name, "kserve-container", previous="true")).text
        assert "User-specified max_model_len (999999) is greater than the derived max_model_len" in log

    play(kubeconfig, scene)


def test_too_little_memory_is_oom_killed(kubeconfig):
    async def scene(run):
        name = await run.make(engine_pod("oom", memory="1Gi"))
        pod = await run.wait(name, lambda pod: (main_status(pod).get("lastState") or {}).get("terminated"))
        last = main_status(pod)["lastState"]["terminated"]
        assert (last["exitCode"], last["reason"]) == (137, "OOMKilled")

    play(kubeconfig, scene)


def test_more_cards_than_are_free_fail_the_pod(kubeconfig):
    async def scene(run):
        await run.make(engine_pod("six", gpus=6, args=("-tp=2",)))
        await until_held(run, 6)
        name = await run.make(engine_pod("three", gpus=3))
        pod = await run.wait(name, lambda pod: pod["status"]["phase"] == "Failed")
        assert pod["status"]["reason"] == "UnexpectedAdmissionError"
        assert "Requested: 3, Available: 2" in pod["status"]["message"]

    play(kubeconfig, scene)


async def until_held(run, cards):
    async def held():
        return run.agent.node.gpus.free == 8 - cards

    await until(held, f"{cards} cards held")


def test_a_startup_probe_that_gives_up_restarts_the_container(kubeconfig):
    async def scene(run):
        pod = engine_pod("probe", startup_failures=1)
        pod["spec"]["containers"][0]["startupProbe"]["httpGet"]["port"] = 9999
        name = await run.make(pod)
        pod = await run.wait(name, lambda pod: main_status(pod).get("restartCount", 0) >= 1)
        assert main_status(pod)["lastState"]["terminated"]["exitCode"] == 137
        await run.heard(name, "Unhealthy", "connection refused")
        await run.heard(name, "Killing", "Container kserve-container failed startup probe, will be restarted")

    play(kubeconfig, scene)


def test_a_new_agent_takes_up_the_pods_of_the_one_before(kubeconfig):
    async def scene(run):
        name = await run.make(engine_pod("adopted"))
        before = await run.wait(name, is_ready)
        run.task.cancel()
        await asyncio.gather(run.task, return_exceptions=True)

        run.agent, run.task, ports = await start_agent(run.client, run.hub_url)
        after = await run.wait(name, lambda pod: main_status(pod)["restartCount"] == 1 and is_ready(pod))

        assert after["metadata"]["uid"] == before["metadata"]["uid"]
        assert after["status"]["podIP"] == before["status"]["podIP"]
        assert after["status"]["startTime"] == before["status"]["startTime"]
        assert main_status(after)["lastState"]["terminated"]["reason"] == "Unknown"
        assert init_status(after) == init_status(before)
        assert run.agent.node.gpus.free == 7
        async with httpx.AsyncClient(trust_env=False, verify=False) as http:
            assert (await http.get(f"http://{after['status']['podIP']}:8080/health")).status_code == 200
        for port in ports:
            port.close()

    play(kubeconfig, scene)


def test_a_pod_deleted_while_nobody_looked_is_removed_by_the_next_agent(kubeconfig):
    async def scene(run):
        name = await run.make(engine_pod("orphan"))
        await run.wait(name, is_ready)
        run.task.cancel()
        await asyncio.gather(run.task, return_exceptions=True)
        await run.delete(name)
        assert await run.pod(name) is not None

        run.agent, run.task, ports = await start_agent(run.client, run.hub_url)
        await run.gone(name)
        for port in ports:
            port.close()

    play(kubeconfig, scene)


def test_a_pod_deleted_by_force_leaves_nothing_behind(kubeconfig):
    async def scene(run):
        name = await run.make(engine_pod("forced"))
        address = (await run.wait(name, is_ready))["status"]["podIP"]
        await run.delete(name, grace=0)

        async def quiet():
            return run.agent.node.gpus.free == 8 and not run.agent.workers

        await until(quiet, "cards free")
        async with httpx.AsyncClient(trust_env=False, verify=False) as http:
            with pytest.raises(httpx.ConnectError):
                await http.get(f"http://{address}:8080/health")

    play(kubeconfig, scene)


def sidecar(**more):
    """A native sidecar: an init container that stays."""
    return {"name": "beside", "image": "registry.k8s.io/pause:3.10", "restartPolicy": "Always", **more}


def test_a_sidecar_starts_first_stays_and_counts_for_readiness(kubeconfig):
    async def scene(run):
        pod = engine_pod("with-sidecar", gpus=0)
        probe = {"tcpSocket": {"port": 9}, "periodSeconds": 1}  # nobody listens there
        pod["spec"]["initContainers"] = [sidecar(readinessProbe=probe)]
        pod["spec"]["containers"] = [{"name": "main", "image": "registry.k8s.io/pause:3.10"}]
        name = await run.make(pod)
        seen = await run.wait(name, lambda pod: main_status(pod).get("ready"))
        conditions = {entry["type"]: entry for entry in seen["status"]["conditions"]}
        assert conditions["Initialized"]["status"] == "True"
        assert conditions["Ready"]["message"] == "containers with unready status: [beside]"
        assert seen["status"]["phase"] == "Running"
        assert "running" in init_status(seen)["state"]
        assert (cells.pod_ready(seen), cells.pod_status(seen)) == ("1/2", "Running")
        await run.delete(name)
        await run.gone(name)

    play(kubeconfig, scene)


def test_a_sidecar_ends_with_the_containers_it_stands_beside(kubeconfig):
    async def scene(run):
        pod = engine_pod("job-with-sidecar", gpus=0)
        pod["spec"]["restartPolicy"] = "Never"
        pod["spec"]["containers"] = pod["spec"]["initContainers"]
        pod["spec"]["initContainers"] = [sidecar()]
        name = await run.make(pod)
        done = await run.wait(name, lambda pod: pod["status"]["phase"] == "Succeeded")
        assert main_status(done)["state"]["terminated"]["exitCode"] == 0
        ended = await run.wait(name, lambda pod: "terminated" in init_status(pod)["state"])
        assert init_status(ended)["restartCount"] == 0

    play(kubeconfig, scene)


def test_a_pod_that_may_end_succeeds(kubeconfig):
    async def scene(run):
        pod = engine_pod("job", gpus=0)
        pod["spec"]["restartPolicy"] = "Never"
        pod["spec"]["containers"] = pod["spec"].pop("initContainers")
        name = await run.make(pod)
        done = await run.wait(name, lambda pod: pod["status"]["phase"] == "Succeeded")
        assert main_status(done)["state"]["terminated"]["exitCode"] == 0

    play(kubeconfig, scene)


def test_logs_are_served_as_the_kubelet_serves_them(kubeconfig):
    async def scene(run):
        name = await run.make(engine_pod("logs"))
        await run.wait(name, is_ready)
        whole = (await run.logs(name, "kserve-container")).text
        assert "version 0.32.0" in whole

        tail = (await run.logs(name, "storage-initializer", tailLines="2")).text
        assert len(tail.splitlines()) == 2
        assert "Model downloaded in" in tail
        stamped = (await run.logs(name, "storage-initializer", tailLines="1", timestamps="true")).text
        assert stamped.startswith("20")
        assert "T" in stamped.split(" ")[0]
        short = await run.logs(name, "kserve-container", limitBytes="10")
        assert len(short.content) == 10
        assert (await run.logs(name, "kserve-container", previous="true")).status_code == 400
        assert (await run.logs(name, "nothing")).status_code == 404
        assert (await run.logs("nobody", "x")).status_code == 404
        assert (await run.logs(name, "kserve-container", tailLines="many")).status_code == 400

    play(kubeconfig, scene)


def test_a_log_is_followed_until_the_container_ends(kubeconfig):
    async def scene(run):
        name = await run.make(engine_pod("follow"))
        await run.wait(name, is_ready)
        follower = asyncio.create_task(run.logs(name, "kserve-container", follow="true", tailLines="0"))
        await asyncio.sleep(0.1)
        await run.delete(name)
        text = (await asyncio.wait_for(follower, 10)).text
        assert "[shutdown] API server: shutdown triggered" in text
        assert "version 0.32.0" not in text

    play(kubeconfig, scene)

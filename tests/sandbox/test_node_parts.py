"""The pure parts of the node agent."""

from __future__ import annotations

import asyncio

import pytest

from sandbox.node import images, probes, quantity, status
from sandbox.node.environment import expand
from sandbox.node.images import InvalidImageName, PullError
from sandbox.node.kubelet import read_query
from sandbox.node.logs import MOST_BYTES, ContainerLogs, LogFile, LogQuery
from sandbox.node.machine import Addresses, GpuOwner, GpuSet
from sandbox.node.status import ContainerState, running, terminated, waiting
from sandbox.nodes import L4, SHAPES, allocatable, labels, node_object

DIGEST = "sha256:" + "a" * 64
NOW = "2026-11-25T12:00:00Z"


@pytest.mark.parametrize(
    ("reference", "canonical"),
    [
        ("vllm/vllm-openai", "docker.io/vllm/vllm-openai:latest"),
        ("vllm/vllm-openai:v0.32.0", "docker.io/vllm/vllm-openai:v0.32.0"),
        (f"quay.io/vllm/vllm-openai@{DIGEST}", f"quay.io/vllm/vllm-openai@{DIGEST}"),
        (f"vllm/vllm-openai:v0.32.0@{DIGEST}", f"docker.io/vllm/vllm-openai@{DIGEST}"),
        ("pause:3.10", "docker.io/library/pause:3.10"),
        ("localhost:5000/a/b:c", "localhost:5000/a/b:c"),
    ],
)
def test_references_are_read_as_containerd_reads_them(reference, canonical):
    assert images.parse(reference).canonical == canonical


@pytest.mark.parametrize("reference", ["Upper/case", "a b", "vllm/vllm-openai@sha256:short", "vllm/:tag", ""])
def test_broken_references_are_refused(reference):
    with pytest.raises(InvalidImageName):
        images.parse(reference)


def test_known_images_run_known_programs_and_any_digest_of_them_does():
    assert images.find(images.parse(f"vllm/vllm-openai@{DIGEST}")) is images.VLLM
    assert images.find(images.parse("kserve/storage-initializer:v0.20.0")) is images.INITIALIZER
    with pytest.raises(PullError, match="not found"):
        images.find(images.parse("vllm/vllm-openai:v1.0.0"))


def test_pulls_are_shortened():
    assert images.pull_seconds(images.VLLM) <= images.PULL_MOST_SECONDS
    assert images.pull_seconds(images.PAUSE) < 2


def test_variables_are_expanded_and_unknown_ones_stay():
    known = {"A": "1", "B_C": "2"}
    assert expand("x$(A)y$(B_C)$(NO)$$(A)", known) == "x1y2$(NO)$(A)"


@pytest.mark.parametrize(
    ("text", "number"), [("32Gi", 32 * 2**30), ("100m", 0.1), ("1500", 1500), ("2k", 2000), ("1", 1)]
)
def test_quantities(text, number):
    assert quantity.parse(text) == pytest.approx(number)


def test_a_log_keeps_its_newest_lines_within_its_size():
    log = LogFile()
    for number in range(20000):
        log.write(f"line {number} " + "x" * 40)

    kept = log.lines()
    assert sum(len(line.text) + 1 for line in kept) <= MOST_BYTES
    assert kept[-1].text.startswith("line 19999 ")
    assert log.end == 20000


def test_a_termination_message_is_the_end_of_the_log():
    log = LogFile()
    log.write("\n".join(f"line {number}" for number in range(200)))

    assert log.tail().split("\n")[0] == "line 120"
    assert log.tail().endswith("line 199")
    log.write("é" * 5000)
    assert len(log.tail().encode()) <= 2048


def test_a_new_run_makes_the_old_log_the_previous_one():
    logs = ContainerLogs()
    logs.start().write("first")
    second = logs.start()

    assert logs.previous is not None
    assert [line.text for line in logs.previous.lines()] == ["first"]
    assert logs.previous.closed
    assert logs.current is second


def test_followers_see_every_line_written_after_they_came():
    async def main():
        log = LogFile()
        log.write("before")
        seen: list[str] = []

        async def follow():
            async for line in log.follow():
                seen.append(line.text)

        tasks = [asyncio.create_task(follow()) for _ in range(2)]
        await asyncio.sleep(0)
        log.write("one")
        await asyncio.sleep(0)
        log.write("two\nthree")
        log.close()
        await asyncio.wait_for(asyncio.gather(*tasks), 5)
        return seen

    assert sorted(asyncio.run(main())) == sorted(["one", "two", "three"] * 2)


def test_log_options_are_read_and_applied():
    query = read_query({"tailLines": "2", "timestamps": "1", "previous": "true", "sinceTime": "2026-11-25T12:00:00Z"})
    assert (query.tail_lines, query.timestamps, query.previous, query.follow) == (2, True, True, False)
    assert query.since == 1795608000.0
    log = LogFile()
    log.write("a\nb\nc")
    assert [line.text for line in LogQuery(tail_lines=2).select(log.lines())] == ["b", "c"]
    assert LogQuery(since=log.lines()[0].at + 60).select(log.lines()) == []
    assert LogQuery(tail_lines=0).select(log.lines()) == []


def test_cards_are_handed_out_and_taken_back():
    gpus = GpuSet(4)
    first, second = GpuOwner("1", "a", "p", "c"), GpuOwner("2", "a", "q", "c")

    assert gpus.take(3, first) == [0, 1, 2]
    assert gpus.take(2, second) is None
    assert gpus.free == 1
    gpus.release("1")
    assert gpus.take(2, second) == [0, 1]


def test_addresses_are_kept_and_not_reused_at_once():
    addresses = Addresses("127.31.3.0/24")
    addresses.reserve("old", "127.31.3.2")

    assert addresses.take("a") == "127.31.3.3"
    assert addresses.take("a") == "127.31.3.3"
    assert addresses.take("old") == "127.31.3.2"
    addresses.release("a")
    assert addresses.take("b") == "127.31.3.4"
    assert addresses.take("c", "127.31.3.3") == "127.31.3.3"


def state(**changes: object) -> ContainerState:
    made = ContainerState("main", "image")
    for key, value in changes.items():
        setattr(made, key, value)
    return made


UP = {"state": running(NOW)}
DONE = {"state": terminated(0, "Completed", NOW, NOW, "")}
BROKEN = {"state": terminated(1, "Error", NOW, NOW, "")}


@pytest.mark.parametrize(
    ("inits", "containers", "policy", "ending", "phase"),
    [
        ([{}], [{}], "Always", False, "Pending"),
        ([UP], [{}], "Always", False, "Pending"),
        ([BROKEN], [{}], "Always", False, "Pending"),
        ([BROKEN], [{}], "Never", False, "Failed"),
        ([DONE], [{}], "Always", False, "Pending"),
        ([DONE], [UP], "Always", False, "Running"),
        ([DONE], [{"state": waiting("CrashLoopBackOff"), "restarts": 2}], "Always", False, "Running"),
        ([], [DONE], "Never", False, "Succeeded"),
        ([], [BROKEN], "Never", False, "Failed"),
        ([], [BROKEN], "OnFailure", False, "Running"),
        ([], [DONE], "Always", True, "Succeeded"),
        ([], [BROKEN], "Always", True, "Failed"),
    ],
)
def test_the_phase_follows_from_the_containers(inits, containers, policy, ending, phase):
    found = status.phase([state(**i) for i in inits], [state(**c) for c in containers], policy, ending=ending)

    assert found == phase


def test_transition_times_move_only_when_a_condition_does():
    before = status.conditions([], [state(**UP)], [], sandbox_ready=True, now="T1")
    same = status.conditions([], [state(**UP)], before, sandbox_ready=True, now="T2")
    ready = status.conditions([], [state(**UP, ready=True)], same, sandbox_ready=True, now="T3")

    assert same == before
    times = {entry["type"]: entry["lastTransitionTime"] for entry in ready}
    assert times["Ready"] == times["ContainersReady"] == "T3"
    assert times["PodScheduled"] == "T1"


def test_conditions_of_others_are_left_alone():
    gate = {"type": "example.com/gate", "status": "True", "lastTransitionTime": "T0"}

    assert gate in status.conditions([], [state()], [gate], sandbox_ready=True, now="T1")


def test_quality_of_service():
    def pod(**resources: dict[str, str]) -> dict[str, object]:
        return {"containers": [{"resources": resources}]}

    whole = {"cpu": "1", "memory": "1Gi"}
    assert status.qos_class(pod()) == "BestEffort"
    assert status.qos_class(pod(requests=whole, limits=whole)) == "Guaranteed"
    assert status.qos_class(pod(limits=whole)) == "Guaranteed"
    assert status.qos_class(pod(requests={"cpu": "1"}, limits=whole)) == "Guaranteed"
    assert status.qos_class(pod(requests={"cpu": "0.5"}, limits=whole)) == "Burstable"


def test_probes_are_read_with_the_defaults_of_kubernetes():
    container = {"ports": [{"name": "http1", "containerPort": 8080}]}
    probe = probes.read({"httpGet": {"path": "/health", "port": "http1"}}, container)

    assert probe == probes.Probe("httpGet", "/health", 8080, 0, 10, 1, 3, 1)
    assert probes.read(None, container) is None


def test_nodes_are_labelled_as_gpu_feature_discovery_does():
    shape = SHAPES["gpu-l4-2"]
    node = node_object(shape, "127.31")

    assert labels(shape)["nvidia.com/gpu.memory"] == str(L4.memory_mib)
    assert labels(shape)["nvidia.com/gpu.compute.major"] == "8"
    assert node["spec"]["podCIDR"] == "127.31.4.0/24"
    assert shape.address("127.31") == "127.31.255.4"
    assert allocatable(shape)["nvidia.com/gpu"] == "8"
    assert len({shape.index for shape in SHAPES.values()}) == len(SHAPES)

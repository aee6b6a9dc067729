"""What a pod, its containers and its events say: why it is not serving, or how far it has come."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping

from deployments.kube.image_causes import from_weights_image
from deployments.kube.log_causes import from_log
from deployments.kube.log_patterns import MAX_EVIDENCE, last_error
from deployments.kube.observe import FETCH, ContainerView, EventView, PodView
from deployments.kube.reasons import Code, Reason, Weight
from deployments.labels import ADAPTER_INITIALIZER

IMAGE_REASONS = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
)
CONFIG_REASONS = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
MOUNT_REASONS = frozenset({"FailedMount", "FailedAttachVolume", "FailedMapVolume"})
KILLED = 137
# “Fetching 12 files:  42%|…” of huggingface_hub, with the bytes after it where the loader says them.
PROGRESS = re.compile(r"Fetching \d+ files:\s+(?P<percent>\d{1,3})%(?:[^\r\n]*\((?P<done>\d+)/(?P<total>\d+) bytes\))?")
UNBOUND = "unbound immediate PersistentVolumeClaims"
NODES = re.compile(r"0/(?P<all>\d+) nodes are available")
CLAIM = re.compile(r'persistentvolumeclaim "(?P<claim>[a-z0-9][a-z0-9.-]{0,252})" not found')
PART = re.compile(r"(?P<count>\d+) (?:node\(s\) )?(?P<why>.+)")


def from_pod(pod: PodView, events: Iterable[EventView] = (), log: str = "") -> Reason | None:
    """Why this pod does not serve, or what it is doing; None when it serves, or has nothing to say.

    `log` is the end of its failing container's log, where somebody read it; else the pod's own last words count.
    """
    if pod.ready and pod.role != FETCH:  # whose pods count as ready while they fetch
        return None
    mine = [event for event in events if event.kind == "Pod" and event.name == pod.name]
    reason = (
        _placing(pod)
        or from_weights_image(pod)
        or _initializing(pod, mine, log)
        or _engine(pod, mine, log)
        or _waiting(pod, mine)
    )
    return dataclasses.replace(reason, pod=pod.name, revision=pod.revision) if reason else None


def _placing(pod: PodView) -> Reason | None:
    if pod.phase == "Failed" and pod.reason == "UnexpectedAdmissionError":
        return _make(
            Code.DEVICE_PLUGIN,
            Weight.FAILED,
            "The node could not hand out the GPUs it had promised.",
            "Ask for one GPU where GPUs are shared in time; else an admin has to look at the node’s device plugin.",
            evidence=pod.message,
        )
    if pod.phase == "Failed" and (pod.reason == "Evicted" or "ephemeral-storage" in pod.message):
        return _make(
            Code.EVICTED,
            Weight.FAILED,
            "The node threw the pod out because it ran short of disk or memory.",
            "Choose a smaller model, or have an admin look at the node’s disk.",
            evidence=pod.message,
        )
    if pod.scheduled is False:
        return unschedulable(pod.unschedulable, pod.gpus)
    return None


def unschedulable(message: str, gpus: int = 0) -> Reason:
    """Why the scheduler found no node, read from its sentence."""
    nodes = int(found["all"]) if (found := NODES.search(message)) else 0
    amounts = _amounts(message)
    wanting = {why.removeprefix("Insufficient "): n for why, n in amounts.items() if why.startswith("Insufficient ")}
    numbers: dict[str, int | float | str] = {"nodes": nodes, "gpus": gpus}
    if found := CLAIM.search(message):
        return _make(
            Code.VOLUME,
            Weight.STALLED,
            f"There is no volume claim called “{found['claim']}” in the team’s namespace.",
            "Check the name of the volume claim, or have an admin create it.",
            field="source_uri",
            numbers=numbers,
            evidence=message,
        )
    if UNBOUND in message:
        return _make(
            Code.VOLUME,
            Weight.STALLED,
            "The volume claim has no volume yet.",
            "The cluster makes one. If it stays so, an admin has to look at the storage class.",
            numbers=numbers,
            evidence=message,
        )
    many = f"{gpus} free GPUs" if gpus > 1 else "a free GPU" if gpus == 1 else "enough free GPUs"
    if any(name.startswith("nvidia.com/") for name in wanting):
        return _make(
            Code.NO_FREE_GPU,
            Weight.STALLED,
            f"No node has {many} of this kind at the moment.",
            "It starts by itself when GPUs become free. Use fewer GPUs or another flavor to start sooner.",
            field="flavor",
            numbers=numbers,
            evidence=message,
        )
    if wanting:
        what = " and ".join(sorted(wanting))
        return _make(
            Code.NODE_FULL,
            Weight.STALLED,
            f"The nodes with this GPU have not enough {what} left.",
            "It starts when other pods end. An admin can make room on the nodes.",
            numbers=numbers,
            evidence=message,
        )
    if "affinity/selector" in message or "untolerated taint" in message:
        return _make(
            Code.NO_MATCHING_NODE,
            Weight.STALLED,
            "No node of the cluster carries this kind of GPU, or its nodes are closed to this pod.",
            "Choose another flavor; an admin has to look at the flavor’s product label and at the nodes’ taints.",
            field="flavor",
            numbers=numbers,
            evidence=message,
        )
    return _make(
        Code.UNSCHEDULABLE,
        Weight.STALLED,
        "The scheduler finds no node for this pod.",
        "It is tried again. An admin should look at the nodes.",
        numbers=numbers,
        evidence=message,
    )


def _amounts(message: str) -> dict[str, int]:
    """How many nodes each obstacle rules out: “0/4 nodes are available: 1 Insufficient cpu, 3 …. no new claims …”."""
    sentence = message.split("preemption:", 1)[0].partition(": ")[2].split(". ", 1)[0].rstrip(". ")
    found: dict[str, int] = {}
    for part in sentence.split(", "):
        if match := PART.fullmatch(part.strip()):
            found[match["why"]] = found.get(match["why"], 0) + int(match["count"])
    return found


def _initializing(pod: PodView, events: list[EventView], log: str) -> Reason | None:
    container = pod.initializer
    if container is None or (container.state == "terminated" and container.exit_code == 0):
        return None
    if trouble := _not_created(container):
        return trouble
    failing = container.state == "terminated" or container.reason == "CrashLoopBackOff"
    of_adapters = container.name == ADAPTER_INITIALIZER
    if failing or (container.died and container.state != "running"):
        reason = download_failed(container, "" if _engine_died(pod) else log)
        if pod.role == FETCH and reason.code is Code.DOWNLOAD_DISK:
            return _claim_full(reason)
        return dataclasses.replace(reason, field="adapters") if of_adapters else reason
    if container.state == "running" and pod.role == FETCH:
        return _fetching(log)
    if container.state == "running":
        retries = f" (attempt {container.restarts + 1})" if container.restarts else ""
        return _make(
            Code.DOWNLOADING,
            Weight.PROGRESS,
            f"The {'adapters are' if of_adapters else 'model is'} being downloaded{retries}.",
            numbers={"restarts": container.restarts},
            evidence=container.last_message,
        )
    return _mount(events)


def _claim_full(reason: Reason) -> Reason:
    return dataclasses.replace(
        reason,
        title="The volume claim is full: what lies at the address is larger than what was looked up.",
        remedy="Save the deployment again, which looks the address up anew, or let each replica download by itself.",
        field="source_cache",
    )


def _fetching(log: str) -> Reason:
    """How far weights have come that are fetched ahead, by the loader's own last line about it."""
    percent = percent_in(log)
    if percent is None:
        return _make(Code.DOWNLOADING, Weight.PROGRESS, "The weights are being fetched ahead.")
    title = f"The weights are being fetched ahead: {percent} %."
    return _make(Code.DOWNLOADING, Weight.PROGRESS, title, numbers={"percent": percent})


def percent_in(log: str) -> int | None:
    """The last progress that a storage initializer wrote, in percent: by bytes where it says them, else by files."""
    last = None
    for match in PROGRESS.finditer(log):
        last = match
    if last is None:
        return None
    if last["total"] and int(last["total"]):
        return min(100, int(last["done"]) * 100 // int(last["total"]))
    return min(100, int(last["percent"]))


def download_failed(container: ContainerView, log: str = "") -> Reason:
    """Why the storage initializer ended, from its last words."""
    words = container.message if container.exit_code else container.last_message
    code = container.exit_code or container.last_exit_code
    killed = "OOMKilled" in (container.reason, container.last_reason)
    if killed or code == KILLED:
        return _make(
            Code.DOWNLOAD_MEMORY,
            Weight.FAILED,
            "The download was killed because it used more memory than it may.",
            "An admin has to raise the memory limit of the storage container.",
            numbers={"exit_code": code or KILLED},
        )
    named = from_log(log) or from_log(words) or from_log(container.last_message)
    if named is not None:
        return named
    return _make(
        Code.DOWNLOAD_FAILED,
        Weight.FAILED,
        "The model could not be downloaded.",
        "Read the log of the storage initializer; it is tried again.",
        field="source_uri",
        numbers={"exit_code": code or 0, "restarts": container.restarts},
        evidence=(last_error(log) or last_error(words) or words)[-MAX_EVIDENCE:],
    )


def _engine(pod: PodView, events: list[EventView], log: str) -> Reason | None:
    container = pod.engine
    if container is None:
        return None
    if trouble := _not_created(container):
        return trouble
    if "OOMKilled" in (container.reason, container.last_reason):
        return _make(
            Code.HOST_MEMORY,
            Weight.FAILED,
            "The engine was killed because it used more main memory than its pod may (this is not GPU memory).",
            "Lower cpu-offload-gb if it is set; else choose a smaller model or ask an admin.",
            field="cpu_offload_gb",
            numbers={"exit_code": KILLED, "restarts": container.restarts},
        )
    if container.state == "running" and not _killed_by_probe(events):
        if container.restarts and container.died and not container.started:
            return dataclasses.replace(_crash(container, log), weight=Weight.FAILED)
        return _starting(container)
    if container.died or container.reason == "CrashLoopBackOff":
        return _probe_kill(container, events, log) or _crash(container, log)
    if container.state == "running":
        return _starting(container)
    return None


def _crash(container: ContainerView, log: str) -> Reason:
    words = container.message if container.exit_code else container.last_message
    numbers: dict[str, int | float | str] = {
        "exit_code": container.exit_code or container.last_exit_code or 0,
        "restarts": container.restarts,
    }
    for text in (log, words, container.last_message):
        if named := from_log(text):
            return dataclasses.replace(named, numbers={**numbers, **named.numbers})
    return _make(
        Code.ENGINE_CRASH,
        Weight.FAILED,
        f"The engine starts and dies (exit code {numbers['exit_code']}).",
        "Read the log of the engine’s previous run.",
        numbers=numbers,
        evidence=(last_error(log) or last_error(words) or words)[-MAX_EVIDENCE:],
    )


def _probe_kill(container: ContainerView, events: list[EventView], log: str) -> Reason | None:
    if not _killed_by_probe(events) or from_log(log or container.last_message):
        return None
    return _make(
        Code.START_TOO_SLOW,
        Weight.FAILED,
        "The engine was stopped because it took too long to start.",
        "Large models load slowly: choose a faster load-format, or ask an admin for a longer start.",
        field="load_format",
        numbers={"restarts": container.restarts},
    )


def _killed_by_probe(events: list[EventView]) -> bool:
    return any(event.reason == "Killing" and "failed startup probe" in event.message for event in events)


def _starting(container: ContainerView) -> Reason:
    what = "The engine is loading the model." if not container.started else "The engine does not answer yet."
    return _make(Code.STARTING, Weight.PROGRESS, what, numbers={"restarts": container.restarts})


def _waiting(pod: PodView, events: list[EventView]) -> Reason | None:
    if pod.phase != "Pending":
        return None
    return _mount(events) or _make(Code.PULLING, Weight.PROGRESS, "The node is getting the images and volumes ready.")


def _mount(events: list[EventView]) -> Reason | None:
    for event in reversed(events):
        if event.reason in MOUNT_REASONS:
            return _make(
                Code.VOLUME,
                Weight.STALLED,
                "A volume of the pod cannot be mounted.",
                "Check the name of the volume claim, and that it can be used from several nodes.",
                field="source_uri",
                evidence=event.message,
            )
    return None


def _not_created(container: ContainerView) -> Reason | None:
    if container.state != "waiting":
        return None
    if container.reason in IMAGE_REASONS:
        return _make(
            Code.IMAGE_PULL,
            Weight.STALLED,
            "The node cannot get the image of the engine."
            if not container.init
            else "The node cannot get the image that downloads models.",
            "It is tried again. An admin has to check the image of the engine profile and the registry.",
            field="" if container.init else "profile",
            evidence=container.message,
        )
    if container.reason in CONFIG_REASONS:
        return _make(
            Code.CONFIG,
            Weight.FAILED,
            "The pod names a Secret or a setting that is not there.",
            "Enter the credential again; if none is used, an admin has to look at the pod.",
            field="credential",
            evidence=container.message,
        )
    return None


def _engine_died(pod: PodView) -> bool:
    return pod.engine is not None and pod.engine.died


def _make(
    code: Code,
    weight: Weight,
    title: str,
    remedy: str = "",
    *,
    field: str = "",
    numbers: Mapping[str, int | float | str] | None = None,
    evidence: str = "",
) -> Reason:
    return Reason(code, weight, title, remedy, field, None, dict(numbers or {}), evidence.strip()[-MAX_EVIDENCE:])

"""Jobs: pods until enough of them have succeeded, or too many have failed."""

from __future__ import annotations

from datetime import datetime, timedelta

from sandbox.client import Obj
from sandbox.lite.controllers.meta import (
    Key,
    condition,
    deleting,
    now,
    parse_stamp,
    pod_finished,
    pod_ready,
    stamp,
    uid_of,
)
from sandbox.lite.controllers.pod_owner import NotMade, PodHook, PodOwner, pod_from
from sandbox.lite.controllers.resources import JOBS
from sandbox.lite.controllers.runtime import Manager, TryAgain

SOURCE = "job-controller"
FIRST_BACKOFF, LONGEST_BACKOFF = 10.0, 600.0
ENDS = "Complete", "Failed"


class JobController(PodOwner):
    """Creates the pods of Jobs and says how they ended. Jobs with indexes or policies for failures are not played."""

    def __init__(self, manager: Manager, hooks: list[PodHook] | None = None) -> None:
        super().__init__(manager, JOBS, SOURCE, hooks)

    async def reconcile(self, key: Key) -> float | None:
        """Bring one Job a step further."""
        job = self._owners.get(*key)
        if job is None or deleting(job):
            return None
        if end_of(job) is not None:
            return await self._clean_up(job)
        pods = self._owned(job)
        again: float | None = None
        verdict = verdict_of(job, pods)
        if verdict is not None or job["spec"].get("suspend"):
            for pod in pods:
                if not pod_finished(pod) and not deleting(pod):
                    await self._gone(pod)
        else:
            again = backoff_left(pods, now())
            if again is None:
                await self._create(job, missing(job, pods))
        status = status_of(job, self._owned(job), verdict, now())
        if status != job.get("status"):
            changed = await self._client.update(f"{JOBS.of(job)}/status", {**job, "status": status})
            self._owners.remember(changed)
            if verdict is not None and end_of(changed) is not None:
                await self._say_end(changed, verdict)
        return again

    async def _create(self, job: Obj, number: int) -> None:
        for _ in range(number):
            try:
                made = await self._made(pod_from(job))
            except NotMade as refused:
                await self._say(job, "Warning", "FailedCreate", f"Error creating: {refused}")
                raise TryAgain(str(refused)) from refused
            if made is None:
                return
            await self._say(job, "Normal", "SuccessfulCreate", f"Created pod: {made['metadata']['name']}")

    async def _say_end(self, job: Obj, verdict: tuple[str, str, str]) -> None:
        kind, reason, message = verdict
        if kind == "Complete":
            await self._say(job, "Normal", "Completed", "Job completed")
        else:
            await self._say(job, "Warning", reason, message)

    async def _clean_up(self, job: Obj) -> float | None:
        """Delete a Job whose time after its end is over."""
        seconds, end = job["spec"].get("ttlSecondsAfterFinished"), end_of(job)
        if seconds is None or end is None:
            return None
        left = (parse_stamp(end["lastTransitionTime"]) + timedelta(seconds=seconds) - now()).total_seconds()
        if left > 0:
            return left
        options = {"propagationPolicy": "Foreground", "preconditions": {"uid": uid_of(job)}}
        await self._client.delete(JOBS.of(job), options)
        return None


def end_of(job: Obj) -> Obj | None:
    """The condition that says that a Job has ended."""
    known = (job.get("status") or {}).get("conditions") or []
    return next((item for item in known if item["type"] in ENDS and item["status"] == "True"), None)


def verdict_of(job: Obj, pods: list[Obj]) -> tuple[str, str, str] | None:
    """How a Job ends: the type of its last condition with reason and message; None while it goes on."""
    spec = job["spec"]
    done, failed = _count(pods, "Succeeded"), _count(pods, "Failed")
    running = sum(1 for pod in pods if not pod_finished(pod))
    enough = spec.get("completions")
    if (done >= enough) if enough is not None else (done > 0 and not running):
        return "Complete", "CompletionsReached", "Reached expected number of succeeded pods"
    if failed > spec.get("backoffLimit", 6) or _restarts(job, pods) > spec.get("backoffLimit", 6):
        return "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    return None


def missing(job: Obj, pods: list[Obj]) -> int:
    """How many pods to make now."""
    spec = job["spec"]
    active = sum(1 for pod in pods if not pod_finished(pod))
    wanted = spec.get("parallelism", 1)
    if spec.get("completions") is not None:
        wanted = min(wanted, spec["completions"] - _count(pods, "Succeeded"))
    elif _count(pods, "Succeeded"):
        wanted = 0
    return int(max(0, wanted - active))


def backoff_left(pods: list[Obj], moment: datetime) -> float | None:
    """Seconds until another pod may be made after the last that failed: 10 s, doubled with each that failed."""
    ends = [_ended(pod) for pod in pods if pod.get("status", {}).get("phase") == "Failed"]
    if not ends:
        return None
    pause = min(FIRST_BACKOFF * 2 ** (len(ends) - 1), LONGEST_BACKOFF)
    left = (max(ends) + timedelta(seconds=pause) - moment).total_seconds()
    return left if left > 0 else None


def status_of(job: Obj, pods: list[Obj], verdict: tuple[str, str, str] | None, moment: datetime) -> Obj:
    """Counts, times and conditions; the end is said once no pod runs any more."""
    old = job.get("status") or {}
    running = [pod for pod in pods if not pod_finished(pod)]
    status: Obj = {
        "startTime": old.get("startTime") or stamp(moment),
        "ready": sum(1 for pod in running if pod_ready(pod) and not deleting(pod)),
        "terminating": sum(1 for pod in running if deleting(pod)),
        "uncountedTerminatedPods": {},
    }
    for name, number in (
        ("active", sum(1 for pod in running if not deleting(pod))),
        ("succeeded", _count(pods, "Succeeded")),
        ("failed", _count(pods, "Failed")),
    ):
        if number:
            status[name] = number
    conditions = list(old.get("conditions") or [])
    if verdict is not None:
        kind, reason, message = verdict
        first = "SuccessCriteriaMet" if kind == "Complete" else "FailureTarget"
        for type_ in (first, *([] if running else [kind])):
            if condition(conditions, type_) is None:
                conditions.append(
                    {
                        "type": type_,
                        "status": "True",
                        "reason": reason,
                        "message": message,
                        "lastProbeTime": stamp(moment),
                        "lastTransitionTime": stamp(moment),
                    }
                )
        if kind == "Complete" and not running:
            status["completionTime"] = old.get("completionTime") or stamp(moment)
    if conditions:
        status["conditions"] = conditions
    return status


def _count(pods: list[Obj], phase: str) -> int:
    return sum(1 for pod in pods if pod.get("status", {}).get("phase") == phase)


def _restarts(job: Obj, pods: list[Obj]) -> int:
    """Of pods that are started again in place each restart counts as a failure."""
    if job["spec"]["template"]["spec"].get("restartPolicy") != "OnFailure":
        return 0
    statuses = [item for pod in pods for item in pod.get("status", {}).get("containerStatuses") or []]
    return sum(item.get("restartCount", 0) for item in statuses)


def _ended(pod: Obj) -> datetime:
    """When a pod ended, by its containers, else by when it was made."""
    statuses = pod.get("status", {}).get("containerStatuses") or []
    ends = [item["state"]["terminated"]["finishedAt"] for item in statuses if "terminated" in (item.get("state") or {})]
    return parse_stamp(max(ends, default=pod["metadata"]["creationTimestamp"]))

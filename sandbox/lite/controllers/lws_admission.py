"""What the webhooks of LeaderWorkerSet 0.9 do to a set before it is stored: defaults, and refusals. Pure."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

from sandbox.client import Obj
from sandbox.lite.controllers.meta import int_or_percent

_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_MOST = 2**31 - 1


def default(group: Obj) -> Obj:
    """Return the set as the mutating webhook completes it."""
    fresh: Obj = copy.deepcopy(group)
    spec = _section(fresh, "spec")
    spec.setdefault("replicas", 1)
    spec.setdefault("startupPolicy", "LeaderCreated")
    template = _section(spec, "leaderWorkerTemplate")
    template.setdefault("size", 1)
    policy = template.get("restartPolicy") or "RecreateGroupOnPodRestart"
    template["restartPolicy"] = "None" if policy == "Default" else policy
    rollout = _section(spec, "rolloutStrategy")
    rollout["type"] = rollout.get("type") or "RollingUpdate"
    configuration = _section(rollout, "rollingUpdateConfiguration")
    for name, value in (("maxUnavailable", 1), ("maxSurge", 0), ("partition", 0)):
        configuration.setdefault(name, value)
    _section(spec, "networkConfig").setdefault("subdomainPolicy", "Shared")
    return fresh


def _section(parent: Obj, name: str) -> Obj:
    """Return a part of the spec, made where it is missing; one of a wrong type is left for the schema to refuse."""
    found = parent.setdefault(name, {})
    return found if isinstance(found, dict) else {}


def validate(group: Obj, old: Obj | None) -> list[str]:
    """Return the sentence of refusal; empty when the set is admitted."""
    spec, template = group["spec"], group["spec"]["leaderWorkerTemplate"]
    name, replicas, size = group["metadata"].get("name", ""), spec["replicas"], template["size"]
    problems = []
    if not _NAME.fullmatch(name) or len(name) > 63:
        text = (
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic "
            "character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for "
            "validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
        )
        problems.append(_invalid("metadata.name", name, text))
    if replicas < 0:
        problems.append(_invalid("spec.replicas", replicas, "replicas must be equal or greater than 0"))
    if size < 1:
        problems.append(_invalid("spec.leaderWorkerTemplate.size", size, "size must be equal or greater than 1"))
    if replicas * size > _MOST:
        text = f"the product of replicas and worker replicas must not exceed {_MOST}"
        problems.append(_invalid("spec.replicas", replicas, text))
    configuration = spec["rolloutStrategy"]["rollingUpdateConfiguration"]
    unavailable = int_or_percent(configuration["maxUnavailable"], replicas, round_up=False)
    surge = int_or_percent(configuration["maxSurge"], replicas, round_up=True)
    if not unavailable and not surge and replicas:
        path = "spec.rolloutStrategy.rollingUpdateConfiguration.maxUnavailable"
        problems.append(_invalid(path, configuration["maxUnavailable"], "must not be 0 when `maxSurge` is 0"))
    if not problems:
        return []
    return [problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]"]


def _invalid(path: str, value: Any, detail: str) -> str:
    return f"{path}: Invalid value: {json.dumps(value)}: {detail}"

"""ResourceQuota: what the pods of a namespace may ask for together, and how many objects there may be."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sandbox.lite import errors
from sandbox.lite.admission.change import Change
from sandbox.lite.quantity import decimal, parse
from sandbox.lite.validation import is_extended

if TYPE_CHECKING:
    from sandbox.lite.cluster import Cluster

Obj = dict[str, Any]
Amounts = dict[str, Decimal]

_COUNTED = {
    "/pods": "pods",
    "/services": "services",
    "/secrets": "secrets",
    "/configmaps": "configmaps",
    "/persistentvolumeclaims": "persistentvolumeclaims",
    "/replicationcontrollers": "replicationcontrollers",
    "/resourcequotas": "resourcequotas",
}
_MUST_SAY = ("cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory")


def check(change: Change) -> None:
    """403 in Kubernetes' own words when a new object does not fit a quota of its namespace."""
    if not change.creating or not change.resource.namespaced:
        return
    quotas = change.cluster.read_all("/resourcequotas", change.namespace)
    if not quotas:
        return
    asked = usage(change.resource.storage_key, change.obj)
    for quota in quotas:
        hard = (quota.get("spec") or {}).get("hard") or {}
        if not _in_scope(quota, change):
            continue
        _must_say(change, quota, hard)
        wanted = {name: asked[name] for name in hard if asked.get(name)}
        if not wanted:
            continue
        used = used_in(change.cluster, change.namespace, list(hard))
        over = sorted(name for name, amount in wanted.items() if used[name] + amount > parse(hard[name]))
        if over:
            raise errors.forbidden(
                change.resource.group,
                change.resource.plural,
                change.shown_name,
                f"exceeded quota: {quota['metadata']['name']}, requested: {_say(over, wanted, hard)}, "
                f"used: {_say(over, used, hard)}, limited: {','.join(f'{name}={hard[name]}' for name in over)}",
            )


def used_in(cluster: Cluster, namespace: str, names: list[str]) -> Amounts:
    """Return how much of each named amount a namespace uses now; finished pods use nothing."""
    totals: Amounts = {name: Decimal(0) for name in names}
    for kind in cluster.storage.kinds():
        if kind != "/pods" and not any(name in totals for name in _count_names(kind)):
            continue
        for obj in cluster.read_all(kind, namespace):
            for name, amount in usage(kind, obj).items():
                if name in totals:
                    totals[name] += amount
    return totals


def usage(kind: str, obj: Obj) -> Amounts:
    """Return what one object of a storage key counts for."""
    counts = {name: Decimal(1) for name in _count_names(kind)}
    if kind == "/persistentvolumeclaims":
        asked = (((obj.get("spec") or {}).get("resources") or {}).get("requests") or {}).get("storage", "0")
        return counts | {"requests.storage": parse(asked)}
    if kind != "/pods":
        return counts
    if (obj.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return {}
    result = counts
    spec = obj["spec"]
    for list_name in ("requests", "limits"):
        for name, amount in _pod_total(spec, list_name).items():
            result[f"{list_name}.{name}"] = amount
            if list_name == "requests" and name in ("cpu", "memory", "ephemeral-storage"):
                result[name] = amount
    return {name: amount for name, amount in result.items() if not (name.startswith("limits.") and is_extended(name))}


def _pod_total(spec: Obj, list_name: str) -> Amounts:
    """Add up the containers; each init container must fit by itself, since they run before."""
    totals: Amounts = {}
    for container in spec.get("containers") or ():
        for name, amount in ((container.get("resources") or {}).get(list_name) or {}).items():
            totals[name] = totals.get(name, Decimal(0)) + parse(amount)
    for container in spec.get("initContainers") or ():
        for name, amount in ((container.get("resources") or {}).get(list_name) or {}).items():
            value = parse(amount)
            if container.get("restartPolicy") == "Always":
                totals[name] = totals.get(name, Decimal(0)) + value
            else:
                totals[name] = max(totals.get(name, Decimal(0)), value)
    return totals


def _count_names(kind: str) -> list[str]:
    group, _, plural = kind.partition("/")
    names = [f"count/{plural}.{group}" if group else f"count/{plural}"]
    return [*names, _COUNTED[kind]] if kind in _COUNTED else names


def _must_say(change: Change, quota: Obj, hard: Obj) -> None:
    """A quota on CPU or memory obliges every container to say how much of it."""
    if change.resource.storage_key != "/pods":
        return
    spec = change.obj["spec"]
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    silent: dict[str, list[str]] = {}
    for name in sorted(set(hard) & set(_MUST_SAY)):
        list_name, _, resource = name.rpartition(".")
        for container in containers:
            if resource not in ((container.get("resources") or {}).get(list_name or "requests") or {}):
                silent.setdefault(name, []).append(container["name"])
    if silent:
        words = "; ".join(f"{name} for: {','.join(sorted(who))}" for name, who in silent.items())
        text = f"failed quota: {quota['metadata']['name']}: must specify {words}"
        raise errors.forbidden("", "pods", change.shown_name, text)


def _in_scope(quota: Obj, change: Change) -> bool:
    """Whether a quota's scopes take in a pod; quotas without scopes take in everything."""
    scopes = (quota.get("spec") or {}).get("scopes") or ()
    if not scopes:
        return True
    if change.resource.storage_key != "/pods":
        return False
    spec, quality = change.obj["spec"], (change.obj.get("status") or {}).get("qosClass")
    answers = {
        "BestEffort": quality == "BestEffort",
        "NotBestEffort": quality != "BestEffort",
        "Terminating": spec.get("activeDeadlineSeconds") is not None,
        "NotTerminating": spec.get("activeDeadlineSeconds") is None,
    }
    return all(answers.get(scope, True) for scope in scopes)


def _say(names: list[str], amounts: Amounts, hard: Obj) -> str:
    return ",".join(f"{name}={_spell(amounts[name], str(hard[name]))}" for name in names)


def _spell(amount: Decimal, like: str) -> str:
    """Write an amount in the family of suffixes its limit uses."""
    from sandbox.lite.quantity import canonical

    if like.endswith("i") and amount == amount.to_integral_value() and amount >= 1024:
        return canonical(f"{int(amount) // 1024}Ki") if int(amount) % 1024 == 0 else str(int(amount))
    return decimal(amount)

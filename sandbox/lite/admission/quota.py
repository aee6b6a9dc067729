"""ResourceQuota: what the pods of a namespace may ask for together, and how many objects there may be.

As kube-apiserver does it goes by a quota's status, which is its controller's to keep true, and notes there what it
lets in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sandbox.lite import errors
from sandbox.lite.admission.change import Change
from sandbox.lite.quantity import parse
from sandbox.lite.quota_usage import CLAIMS, PODS, SERVICES, Amounts, added, counts, grown, in_scope, usage
from sandbox.lite.quotas import QUOTAS, write_status

if TYPE_CHECKING:
    from sandbox.lite.errors import StatusError

Obj = dict[str, Any]

_MAY_GROW = SERVICES, CLAIMS  # kinds of which an update may use more
_MUST_SAY = ("cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory")


def check(change: Change) -> None:
    """403 in Kubernetes' own words when a new object does not fit a quota of its namespace."""
    kind = change.resource.storage_key
    if change.request.subresource or not (change.creating or kind in _MAY_GROW) or not change.namespace:
        return
    quotas = [quota for quota in change.cluster.read_all(QUOTAS, change.namespace) if _takes_in(quota, kind, change)]
    for quota in quotas:
        _must_say(change, quota)
        _must_be_known(change, quota)
    if not quotas:
        return
    asked = grown(usage(kind, change.old) if change.old else {}, usage(kind, change.obj))
    noted: list[tuple[Obj, Amounts]] = []
    for quota in quotas:
        hard, used = _hard(quota), quota["status"].get("used") or {}
        wanted = {name: amount for name, amount in asked.items() if name in hard}
        total = used | {name: added(used, wanted)[name] for name in wanted}
        over = sorted(name for name in wanted if parse(total[name]) > parse(hard[name]))
        if over:
            words = f"requested: {_say(over, wanted)}, used: {_say(over, used)}, limited: {_say(over, hard)}"
            raise _forbidden(change, f"exceeded quota: {quota['metadata']['name']}, {words}")
        if total != used:
            noted.append((quota, total))
    if not change.request.dry_run:
        for quota, total in noted:
            write_status(change.cluster, quota, {**quota["status"], "used": total}, "kube-apiserver")


def _hard(quota: Obj) -> Amounts:
    found: Amounts = (quota.get("status") or {}).get("hard") or {}
    return found


def _takes_in(quota: Obj, kind: str, change: Change) -> bool:
    return any(counts(kind, name) for name in _hard(quota)) and in_scope(quota, kind, change.obj)


def _must_say(change: Change, quota: Obj) -> None:
    """A quota on CPU or memory obliges every container to say how much of it."""
    if change.resource.storage_key != PODS:
        return
    spec = change.obj["spec"]
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    silent: dict[str, list[str]] = {}
    for name in sorted(set(_hard(quota)) & set(_MUST_SAY)):
        list_name, _, resource = name.rpartition(".")
        for container in containers:
            if resource not in ((container.get("resources") or {}).get(list_name or "requests") or {}):
                silent.setdefault(name, []).append(container["name"])
    if silent:
        words = "; ".join(f"{name} for: {','.join(sorted(who))}" for name, who in silent.items())
        raise _forbidden(change, f"failed quota: {quota['metadata']['name']}: must specify {words}")


def _must_be_known(change: Change, quota: Obj) -> None:
    names = sorted(name for name in _hard(quota) if counts(change.resource.storage_key, name))
    if not set(names) <= set(quota["status"].get("used") or ()):
        text = f"status unknown for quota: {quota['metadata']['name']}, resources: {','.join(names)}"
        raise _forbidden(change, text)


def _say(names: list[str], amounts: Mapping[str, str]) -> str:
    return ",".join(f"{name}={amounts[name]}" for name in names)


def _forbidden(change: Change, text: str) -> StatusError:
    return errors.forbidden(change.resource.group, change.resource.plural, change.shown_name, text)

"""How much of a ResourceQuota is used. Pure.

A key that cannot be counted, such as `limits.nvidia.com/gpu`, never appears in `status.used`: that is how one
sees that it is not enforced.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sandbox.client import Obj
from sandbox.lite.controllers.meta import pod_finished, pod_resources, quantity, spell_quantity

_PLAIN = {"cpu", "memory", "ephemeral-storage"}
_COUNTED = {
    "pods": "pods",
    "services": "services",
    "configmaps": "configmaps",
    "secrets": "secrets",
    "persistentvolumeclaims": "persistentvolumeclaims",
}


def countable(key: str) -> bool:
    """Tell whether the quota controller knows how to count a key."""
    if key in _PLAIN or key in _COUNTED or key.removeprefix("count/") in _COUNTED:
        return True
    if key.startswith("limits."):
        return key.removeprefix("limits.") in _PLAIN
    name = key.removeprefix("requests.")
    return key.startswith("requests.") and (name in _PLAIN or "/" in name or name == "storage")


def used(hard: Mapping[str, str], objects: Mapping[str, Iterable[Obj]]) -> dict[str, str]:
    """Return `status.used` for the keys of `hard`; `objects` are the namespace's, by plural."""
    pods = [pod for pod in objects.get("pods", ()) if not pod_finished(pod)]
    return {key: spell_quantity(key, _amount(key, pods, objects)) for key in hard if countable(key)}


def _amount(key: str, pods: list[Obj], objects: Mapping[str, Iterable[Obj]]) -> float:
    plural = _COUNTED.get(key.removeprefix("count/"))
    if plural == "pods":
        return float(len(pods))
    if plural is not None:
        return float(len(list(objects.get(plural, ()))))
    if key == "requests.storage":
        claims = objects.get("persistentvolumeclaims", ())
        return sum(quantity(item["spec"]["resources"]["requests"]["storage"]) for item in claims)
    kind, name = ("limits", key.removeprefix("limits.")) if key.startswith("limits.") else ("requests", key)
    name = name.removeprefix("requests.")
    return sum(pod_resources(pod, kind).get(name, 0.0) for pod in pods)

"""Pod security standards: `baseline` and `restricted`, in the words of the real admission step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sandbox.lite import errors
from sandbox.lite.admission.change import Change

Obj = dict[str, Any]
Finding = tuple[str, str]  # the reason, and which containers or volumes are at fault

_LABEL = "pod-security.kubernetes.io/"
_TEMPLATED = ("apps/deployments", "apps/replicasets", "apps/statefulsets", "apps/daemonsets", "batch/jobs")
_DEFAULT_CAPABILITIES = {
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP",
    "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
}  # fmt: skip
_SAFE_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
    "image",
}  # fmt: skip
_SAFE_SYSCTLS = {
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
}  # fmt: skip


def check(change: Change) -> None:
    """403 for a pod below the level its namespace enforces; a warning where it only warns."""
    kind = change.resource.storage_key
    if change.request.subresource or not (change.is_new("/pods") or kind in _TEMPLATED):
        return
    namespace = change.cluster.read("/namespaces", "", change.namespace) or {"metadata": {}}
    labels = namespace["metadata"].get("labels") or {}
    warned = labels.get(f"{_LABEL}warn") or labels.get(f"{_LABEL}enforce", "privileged")
    spec = change.obj["spec"] if kind == "/pods" else ((change.obj.get("spec") or {}).get("template") or {}).get("spec")
    if kind == "/pods":
        level = labels.get(f"{_LABEL}enforce", "privileged")
        version = labels.get(f"{_LABEL}enforce-version", "latest")
        text = violations(change.obj["spec"], level)
        if text:
            raise errors.forbidden("", "pods", change.shown_name, f'violates PodSecurity "{level}:{version}": {text}')
    text = violations(spec or {}, warned)
    if text:
        version = labels.get(f"{_LABEL}warn-version", "latest")
        change.request.warnings.append(f'would violate PodSecurity "{warned}:{version}": {text}')


def violations(spec: Obj, level: str) -> str:
    """Return what a pod spec breaks of a level; empty when it is fine."""
    checks: Iterable[Callable[[Obj], Iterator[Finding]]] = ()
    if level == "baseline":
        checks = (*_BASELINE, _seccomp_baseline, _capabilities_baseline)
    elif level == "restricted":
        checks = (*_BASELINE, *_RESTRICTED)
    found = [finding for check_ in checks for finding in check_(spec)]
    return ", ".join(f"{reason} ({detail})" if detail else reason for reason, detail in found)


def _containers(spec: Obj) -> list[Obj]:
    return [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]


def _security(container: Obj) -> Obj:
    return container.get("securityContext") or {}


def _named(names: list[str], word: str = "container") -> str:
    quoted = ", ".join(f'"{name}"' for name in names)
    return f"{word} {quoted}" if len(names) == 1 else f"{word}s {quoted}"


def _capabilities_baseline(spec: Obj) -> Iterator[Finding]:
    names, added = [], set()
    for container in _containers(spec):
        extra = set((_security(container).get("capabilities") or {}).get("add") or ()) - _DEFAULT_CAPABILITIES
        if extra:
            names.append(container["name"])
            added |= extra
    if names:
        words = ", ".join(f'"{capability}"' for capability in sorted(added))
        yield (
            "non-default capabilities",
            f"{_named(names)} must not include {words} in securityContext.capabilities.add",
        )


def _host_namespaces(spec: Obj) -> Iterator[Finding]:
    used = [f"{name}=true" for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    if used:
        yield "host namespaces", ", ".join(used)


def _host_paths(spec: Obj) -> Iterator[Finding]:
    names = [volume["name"] for volume in spec.get("volumes") or () if volume.get("hostPath") is not None]
    if names:
        yield "hostPath volumes", _named(names, "volume")


def _host_ports(spec: Obj) -> Iterator[Finding]:
    names, ports = [], []
    for container in _containers(spec):
        own = [str(port["hostPort"]) for port in container.get("ports") or () if port.get("hostPort")]
        if own:
            names.append(container["name"])
            ports += own
    if names:
        word = "hostPort" if len(ports) == 1 else "hostPorts"
        yield "hostPort", f"{_named(names)} {'uses' if len(names) == 1 else 'use'} {word} {', '.join(ports)}"


def _privileged(spec: Obj) -> Iterator[Finding]:
    names = [c["name"] for c in _containers(spec) if _security(c).get("privileged")]
    if names:
        yield "privileged", f"{_named(names)} must not set securityContext.privileged=true"


def _proc_mount(spec: Obj) -> Iterator[Finding]:
    names = [c["name"] for c in _containers(spec) if _security(c).get("procMount") not in (None, "", "Default")]
    if names:
        yield "procMount", f'{_named(names)} must not set securityContext.procMount to "Unmasked"'


def _sysctls(spec: Obj) -> Iterator[Finding]:
    names = [s["name"] for s in (spec.get("securityContext") or {}).get("sysctls") or ()]
    unsafe = [name for name in names if name not in _SAFE_SYSCTLS]
    if unsafe:
        yield "forbidden sysctls", ", ".join(unsafe)


def _seccomp_baseline(spec: Obj) -> Iterator[Finding]:
    names = [c["name"] for c in _containers(spec) if _profile(_security(c)) == "Unconfined"]
    if _profile(spec.get("securityContext") or {}) == "Unconfined":
        yield "seccompProfile", 'pod must not set securityContext.seccompProfile.type to "Unconfined"'
    elif names:
        yield "seccompProfile", f'{_named(names)} must not set securityContext.seccompProfile.type to "Unconfined"'


def _privilege_escalation(spec: Obj) -> Iterator[Finding]:
    names = [c["name"] for c in _containers(spec) if _security(c).get("allowPrivilegeEscalation") is not False]
    if names:
        yield (
            "allowPrivilegeEscalation != false",
            f"{_named(names)} must set securityContext.allowPrivilegeEscalation=false",
        )


def _capabilities_restricted(spec: Obj) -> Iterator[Finding]:
    keeping, adding, added = [], [], set()
    for container in _containers(spec):
        capabilities = _security(container).get("capabilities") or {}
        if "ALL" not in (capabilities.get("drop") or ()):
            keeping.append(container["name"])
        extra = set(capabilities.get("add") or ()) - {"NET_BIND_SERVICE"}
        if extra:
            adding.append(container["name"])
            added |= extra
    details = []
    if keeping:
        details.append(f'{_named(keeping)} must set securityContext.capabilities.drop=["ALL"]')
    if adding:
        words = ", ".join(f'"{capability}"' for capability in sorted(added))
        details.append(f"{_named(adding)} must not include {words} in securityContext.capabilities.add")
    if details:
        yield "unrestricted capabilities", "; ".join(details)


def _volume_types(spec: Obj) -> Iterator[Finding]:
    bad = []
    for volume in spec.get("volumes") or ():
        kinds = [kind for kind in volume if kind != "name"]
        if kinds and kinds[0] not in _SAFE_VOLUMES:
            bad.append((volume["name"], kinds[0]))
    if bad:
        kinds = sorted({kind for _, kind in bad})
        uses = "uses" if len(bad) == 1 else "use"
        word = "type" if len(kinds) == 1 else "types"
        quoted = ", ".join(f'"{kind}"' for kind in kinds)
        names = _named([name for name, _ in bad], "volume")
        yield "restricted volume types", f"{names} {uses} restricted volume {word} {quoted}"


def _non_root(spec: Obj) -> Iterator[Finding]:
    whole = (spec.get("securityContext") or {}).get("runAsNonRoot")
    wrong = [c["name"] for c in _containers(spec) if _security(c).get("runAsNonRoot") is False]
    silent = [c["name"] for c in _containers(spec) if _security(c).get("runAsNonRoot") is None]
    details = []
    if whole is False:
        details.append("pod must not set securityContext.runAsNonRoot=false")
    if wrong:
        details.append(f"{_named(wrong)} must not set securityContext.runAsNonRoot=false")
    if not details and whole is None and silent:
        details.append(f"pod or {_named(silent)} must set securityContext.runAsNonRoot=true")
    if details:
        yield "runAsNonRoot != true", "; ".join(details)


def _root_user(spec: Obj) -> Iterator[Finding]:
    names = [c["name"] for c in _containers(spec) if _security(c).get("runAsUser") == 0]
    who = (["pod"] if (spec.get("securityContext") or {}).get("runAsUser") == 0 else []) + (
        [_named(names)] if names else []
    )
    if who:
        yield "runAsUser=0", f"{' and '.join(who)} must not set runAsUser=0"


def _seccomp_restricted(spec: Obj) -> Iterator[Finding]:
    allowed = ("RuntimeDefault", "Localhost")
    whole = _profile(spec.get("securityContext") or {})
    wrong = [c["name"] for c in _containers(spec) if _profile(_security(c)) not in (None, *allowed)]
    silent = [c["name"] for c in _containers(spec) if _profile(_security(c)) is None]
    details = []
    if whole not in (None, *allowed):
        details.append(f'pod must not set securityContext.seccompProfile.type to "{whole}"')
    if wrong:
        details.append(f'{_named(wrong)} must not set securityContext.seccompProfile.type to "Unconfined"')
    if not details and whole is None and silent:
        details.append(
            f'pod or {_named(silent)} must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
        )
    if details:
        yield "seccompProfile", "; ".join(details)


def _profile(security: Obj) -> str | None:
    return (security.get("seccompProfile") or {}).get("type")


_BASELINE = (_host_namespaces, _host_paths, _host_ports, _privileged, _proc_mount, _sysctls)
_RESTRICTED = (
    _privilege_escalation,
    _capabilities_restricted,
    _volume_types,
    _non_root,
    _root_user,
    _seccomp_restricted,
)

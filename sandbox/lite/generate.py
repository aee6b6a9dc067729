"""Makes the data files of the lite API server; run by hand when versions change.

    python -m sandbox.lite.generate builtins
    python -m sandbox.lite.generate pointers OPENAPI_V3_JSON ...
    python -m sandbox.lite.generate crds DIR_WITH_CRD_YAML ...

`builtins` needs the package kubernetes-validate. `pointers` reads documents that a kube-apiserver of
that version gave below /openapi/v3. Descriptions are dropped: they are nine tenths of the bytes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from sandbox.definitions import place_of

HERE = Path(__file__).parent
BUILTINS = HERE / "data" / "builtins.json"
POINTERS = HERE / "data" / "pointers.json"
KUBERNETES = "v1.36.0-local"

ROOTS = """
core.v1.Namespace core.v1.Node core.v1.Pod core.v1.Service core.v1.Endpoints core.v1.Secret core.v1.ConfigMap
core.v1.ServiceAccount core.v1.Event core.v1.ResourceQuota core.v1.LimitRange core.v1.PersistentVolumeClaim
core.v1.PersistentVolume core.v1.ReplicationController core.v1.Binding core.v1.PodTemplate
apps.v1.Deployment apps.v1.ReplicaSet apps.v1.StatefulSet apps.v1.DaemonSet apps.v1.ControllerRevision
batch.v1.Job batch.v1.CronJob autoscaling.v1.Scale autoscaling.v1.HorizontalPodAutoscaler
autoscaling.v2.HorizontalPodAutoscaler networking.v1.NetworkPolicy networking.v1.Ingress networking.v1.IngressClass
policy.v1.PodDisruptionBudget policy.v1.Eviction rbac.v1.Role rbac.v1.RoleBinding rbac.v1.ClusterRole
rbac.v1.ClusterRoleBinding coordination.v1.Lease events.v1.Event discovery.v1.EndpointSlice storage.v1.StorageClass
scheduling.v1.PriorityClass authentication.v1.TokenRequest authentication.v1.TokenReview
authentication.v1.SelfSubjectReview authorization.v1.SelfSubjectAccessReview
authorization.v1.SelfSubjectRulesReview authorization.v1.SubjectAccessReview
admissionregistration.v1.ValidatingAdmissionPolicy admissionregistration.v1.ValidatingAdmissionPolicyBinding
"""


def main(argv: list[str]) -> int:
    """Write the file or files asked for; returns the exit status."""
    if argv[:1] == ["builtins"]:
        write_builtins()
    elif argv[:1] == ["pointers"] and argv[1:]:
        write_pointers([Path(name) for name in argv[1:]])
    elif argv[:1] == ["crds"] and argv[1:]:
        for folder in argv[1:]:
            write_crds(Path(folder))
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


def write_builtins() -> None:
    """Copy the schemas of the served built-in kinds, and all they refer to, from kubernetes-validate."""
    import kubernetes_validate  # type: ignore[import-untyped]

    folder = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / KUBERNETES
    source = json.loads((folder / "_definitions.json").read_text())["$defs"]
    names = {_short(name): name for name in source}
    wanted, kept = ROOTS.split(), dict[str, Any]()
    while wanted:
        short = wanted.pop()
        if short in kept:
            continue
        if short not in names:
            raise SystemExit(f"no schema of {short}")
        kept[short] = _slim(source[names[short]])
        wanted += _references(kept[short])
    BUILTINS.write_text(json.dumps(dict(sorted(kept.items())), separators=(",", ":")) + "\n")


def write_pointers(documents: list[Path]) -> None:
    """List the fields of the served kinds that hold a pointer to a struct: a struct itself has a default."""
    served = set(json.loads(BUILTINS.read_text()))
    found: set[str] = set()
    for path in documents:
        for name, schema in json.loads(path.read_text())["components"]["schemas"].items():
            short = _short(name)
            for field, child in schema.get("properties", {}).items():
                if short in served and "allOf" in child and "default" not in child:
                    found.add(f"{short}.{field}")
    POINTERS.write_text(json.dumps(sorted(found), indent=0) + "\n")


def write_crds(folder: Path) -> None:
    """Copy every CustomResourceDefinition under `folder` as JSON."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for path in sorted(folder.rglob("*.yaml")):
        for document in yaml.load_all(path.read_text(), Loader=loader):
            if document and document.get("kind") == "CustomResourceDefinition":
                document.pop("status", None)
                document["metadata"].pop("creationTimestamp", None)
                document["spec"].pop("conversion", None)
                for version in document["spec"]["versions"]:
                    version["schema"] = _slim(version.get("schema", {}))
                place_of(document["metadata"]["name"]).write_text(json.dumps(document, separators=(",", ":")) + "\n")


def _short(name: str) -> str:
    """Shorten `io.k8s.api.core.v1.Pod` to `core.v1.Pod`."""
    for prefix in ("io.k8s.api.", "io.k8s.apimachinery.pkg.apis.", "io.k8s.apimachinery.pkg.", "io.k8s."):
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def _slim(schema: Any, *, of_properties: bool = False) -> Any:
    """Drop descriptions and the `null` that kubernetes-validate adds to types; keep property names."""
    if isinstance(schema, list):
        return [_slim(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result: dict[str, Any] = {}
    for key, value in schema.items():
        if not of_properties and key in ("description", "$schema", "title", "externalDocs", "example"):
            continue
        if not of_properties and key in ("default", "enum", "x-kubernetes-validations"):
            result[key] = value
        elif key == "$ref" and not of_properties:
            result[key] = _short(value.rsplit("/", 1)[1])
        elif key == "type" and isinstance(value, list) and not of_properties:
            kinds = [kind for kind in value if kind != "null"]
            result[key] = kinds[0] if len(kinds) == 1 else kinds
        else:
            result[key] = _slim(value, of_properties=key == "properties" and not of_properties)
    return result


def _references(schema: Any) -> list[str]:
    if isinstance(schema, list):
        return [name for item in schema for name in _references(item)]
    if not isinstance(schema, dict):
        return []
    own = [schema["$ref"]] if isinstance(schema.get("$ref"), str) else []
    return own + [name for value in schema.values() for name in _references(value)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

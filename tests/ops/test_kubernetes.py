"""k8s/portal: valid against Kubernetes' schemas, closed as promised, and no right more than is used."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from deployments.kube.kinds import kind_of
from deployments.manifests import TeamWish, build, build_service_account, build_team
from deployments.manifests.cluster import build_cluster_objects
from deployments.manifests.team import LIVE_ROLE, WORKER_ROLE
from portal.live.metered import HEADER
from tests.deployments import manifest_cases as cases

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "k8s" / "portal"
SCHEMAS = ROOT / "tests" / "data" / "schemas"
ENVOY_GATEWAY = ROOT / "tests" / "data" / "envoy-gateway-1.7.0"
KUBECTL = ROOT / ".venv" / "bin" / "kubectl"
PREFIX = "/live/authorize/"
CORE = "v1", "apps/v1", "policy/v1"
SECRET_READS = {"get", "list", "watch", "update", "patch", "deletecollection", "*"}
NEVER = {"*", "escalate", "impersonate", "deletecollection"}

Obj = dict[str, Any]


def rendered() -> list[Obj]:
    done = subprocess.run([KUBECTL, "kustomize", str(FOLDER)], capture_output=True, text=True, check=True)
    return [obj for obj in yaml.safe_load_all(done.stdout) if obj]


OBJECTS = rendered()


def of_kind(kind: str) -> dict[str, Obj]:
    return {obj["metadata"]["name"]: obj for obj in OBJECTS if obj["kind"] == kind}


def is_builtin(obj: Obj) -> bool:
    return obj["apiVersion"] in CORE or ".k8s.io/" in obj["apiVersion"].replace("gateway.networking.k8s.io", "")


@pytest.mark.parametrize(
    "obj", [o for o in OBJECTS if is_builtin(o)], ids=lambda o: f"{o['kind']}-{o['metadata']['name']}"
)
def test_objects_keep_to_the_schema(obj: Obj) -> None:
    kubernetes_validate.validate(obj, "1.36", strict=True)


def test_every_file_is_part_of_the_base() -> None:
    listed = set(yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"])
    assert listed == {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}


@pytest.mark.parametrize("name", ["web", "live", "meter", "worker", "beat", "watcher"])
def test_workloads_are_closed(name: str) -> None:
    pod = of_kind("Deployment")[name]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in (*pod["containers"], *pod.get("initContainers", ())):
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]
        assert container["image"].startswith("registry.example.com/slipway:")


def test_only_parts_with_business_on_the_cluster_have_an_account() -> None:
    pods = {name: obj["spec"]["template"]["spec"] for name, obj in of_kind("Deployment").items()}
    assert {name for name, pod in pods.items() if "serviceAccountName" in pod} == {"live", "worker", "watcher"}
    without = [pods[name] for name in ("web", "beat", "meter")]
    assert all(pod["automountServiceAccountToken"] is False for pod in without)


def test_nothing_runs_twice_that_must_be_one() -> None:
    for name in ("beat", "watcher"):
        spec = of_kind("Deployment")[name]["spec"]
        assert (spec["replicas"], spec["strategy"]["type"]) == (1, "Recreate")


def rules(role: str) -> list[Obj]:
    found: list[Obj] = of_kind("ClusterRole")[role]["rules"]
    return found


@pytest.mark.parametrize("role", ["slipway-worker", WORKER_ROLE, LIVE_ROLE, "slipway-watcher"])
def test_no_role_reads_secrets_or_holds_a_master_key(role: str) -> None:
    for rule in rules(role):
        assert not set(rule["verbs"]) & NEVER
        assert "*" not in rule["resources"]
        assert "*" not in rule["apiGroups"]
        if "secrets" in rule["resources"]:
            assert not set(rule["verbs"]) & SECRET_READS
        if "bind" in rule["verbs"]:
            assert set(rule["resourceNames"]) == {WORKER_ROLE, LIVE_ROLE}


def test_the_worker_cannot_change_a_namespace() -> None:
    verbs = {
        verb for role in ("slipway-worker", WORKER_ROLE) for rule in rules(role) if "namespaces" in rule["resources"]
        for verb in rule["verbs"]
    }  # fmt: skip
    assert verbs == {"get", "create"}


def test_the_worker_may_touch_only_what_is_built_or_counted() -> None:
    names = ("one-gpu", "disaggregated-preset", "disaggregated-by-load", "fetched-ahead")
    wishes = [cases.WISHES[name] for name in names]
    team = TeamWish(install_id="slipway", team="search", namespace="search-x", presets=True)
    objects = [*(obj for wish in wishes for obj in [*build(wish), build_service_account(wish)]), *build_team(team)]
    built = {obj["kind"]: obj["apiVersion"] for obj in objects}
    plurals = {kind_of(version, kind).plural for kind, version in built.items()}
    granted = {
        resource for role in ("slipway-worker", WORKER_ROLE) for rule in rules(role) for resource in rule["resources"]
    }
    # To bind roles, to see that no pod is left nor anything that would make one, and for credentials.
    makers = {"deployments", "replicasets", "statefulsets", "leaderworkersets"}
    assert granted == plurals | makers | {"clusterroles", "pods", "secrets"}


def test_the_watcher_and_live_only_read() -> None:
    for role in ("slipway-watcher", LIVE_ROLE):
        assert {verb for rule in rules(role) for verb in rule["verbs"]} <= {"get", "list", "watch"}
    assert rules(LIVE_ROLE) == [{"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]}]


def test_nobody_reads_logs_outside_namespaces_of_teams() -> None:
    wide = {obj["roleRef"]["name"] for obj in of_kind("ClusterRoleBinding").values()}
    assert "pods/log" not in {resource for role in wide for rule in rules(role) for resource in rule["resources"]}


def test_team_roles_are_bound_nowhere_but_where_the_worker_binds_them() -> None:
    bound = {obj["roleRef"]["name"] for obj in of_kind("ClusterRoleBinding").values()}
    assert bound == {"slipway-worker", "slipway-watcher"}
    assert not of_kind("RoleBinding")


def test_the_policy_holds_the_worker_to_namespaces_of_teams() -> None:
    policies, bindings = of_kind("ValidatingAdmissionPolicy"), of_kind("ValidatingAdmissionPolicyBinding")
    assert policies.keys() == bindings.keys()
    for name, policy in policies.items():
        assert policy["spec"]["failurePolicy"] == "Fail"
        assert bindings[name]["spec"] == {"policyName": name, "validationActions": ["Deny"]}
        (condition,) = policy["spec"]["matchConditions"]
        assert "system:serviceaccount:slipway-system:worker" in condition["expression"]
    expressions = [v["expression"] for v in policies["slipway-team-bindings"]["spec"]["validations"]]
    assert '"slipway.dev/team" in namespaceObject.metadata.labels' in expressions[0]
    assert f'["{WORKER_ROLE}", "{LIVE_ROLE}"]' in expressions[1]


def test_the_storage_container_is_the_one_that_builders_name() -> None:
    assert list(of_kind("ClusterStorageContainer").values()) == build_cluster_objects("slipway")


def closed(schema: Any) -> Any:
    """A schema of a kind of the cluster, as the API server takes it: an unknown field is refused."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    fields = {"additionalProperties": False} if "properties" in schema and "type" in schema else {}
    return {key: closed(value) for key, value in schema.items()} | fields


def schema_of(kind: str) -> Any:
    if kind == "ReferenceGrant":
        return json.loads((SCHEMAS / "referencegrant.json").read_text())
    (found,) = (path for path in ENVOY_GATEWAY.glob("*.json") if path.stem.startswith(kind.lower().removesuffix("y")))
    return closed(json.loads(found.read_text())["spec"]["versions"][0]["schema"]["openAPIV3Schema"])


@pytest.mark.parametrize("kind", ["SecurityPolicy", "EnvoyExtensionPolicy", "ReferenceGrant"])
def test_what_closes_endpoints_keeps_to_the_gateways_schema(kind: str) -> None:
    schema = schema_of(kind)
    for obj in of_kind(kind).values():
        jsonschema.validate(obj, schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**obj, "spec": {**obj["spec"], "failOpen": True}}, schema)


def _policy(kind: str) -> Obj:
    """The policy of the endpoints' Gateway; several of one name are of several kinds and namespaces."""
    (parent,) = of_kind("HTTPRoute")["slipway"]["spec"]["parentRefs"]
    policy = of_kind(kind)["slipway-endpoints"]
    assert [(ref["name"], policy["metadata"]["namespace"]) for ref in policy["spec"]["targetRefs"]] == [
        (parent["name"], parent["namespace"])
    ]
    return policy


def _reaches(policy: Obj, backends: list[Obj], grant: str) -> Obj:
    """The Service that a policy sends to, which it is granted to name."""
    (backend,) = backends
    service = of_kind("Service")[backend["name"]]
    assert backend["namespace"] == service["metadata"]["namespace"]
    assert backend["port"] == service["spec"]["ports"][0]["port"]
    granted = of_kind("ReferenceGrant")[grant]
    assert granted["metadata"]["namespace"] == backend["namespace"]
    (source,) = granted["spec"]["from"]
    assert (source["kind"], source["namespace"]) == (policy["kind"], policy["metadata"]["namespace"])
    assert [item["name"] for item in granted["spec"]["to"]] == [backend["name"]]
    return service


def test_the_gateway_asks_live_before_each_call_and_is_let_in() -> None:
    policy = _policy("SecurityPolicy")
    question = policy["spec"]["extAuth"]
    assert question["failOpen"] is False
    assert question["http"]["path"] + "/" == PREFIX
    # Who is charged is never the caller's to say: the gateway writes it over what came.
    assert HEADER in question["http"]["headersToBackend"]
    _reaches(policy, question["http"]["backendRefs"], "gateway-asks-live")
    (way_in,) = of_kind("NetworkPolicy")["from-the-gateway"]["spec"]["ingress"]
    (source,) = way_in["from"]
    proxies = {"gateway.envoyproxy.io/owning-gateway-name": policy["spec"]["targetRefs"][0]["name"]}
    (pods,) = [f"{name}={value}" for name, value in source["podSelector"]["matchLabels"].items()]
    namespace = source["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
    assert source["podSelector"]["matchLabels"] == proxies
    assert f"{namespace}/{pods}" == of_kind("ConfigMap")["slipway"]["data"]["GATEWAY_PODS"]


def test_the_gateway_alone_sends_by_the_meter() -> None:
    policy = _policy("EnvoyExtensionPolicy")
    (wish,) = policy["spec"]["extProc"]
    service = _reaches(policy, wish["backendRefs"], "gateway-sends-to-meter")
    container = of_kind("Deployment")["meter"]["spec"]["template"]["spec"]["containers"][0]
    port = service["spec"]["ports"][0]["port"]
    assert f"--port={port}" in container["args"]
    assert (
        [item["containerPort"] for item in container["ports"]]
        == [container["readinessProbe"]["grpc"]["port"]]
        == [port]
    )
    to_live, to_meter = (of_kind("NetworkPolicy")[f"{name}from-the-gateway"]["spec"] for name in ("", "meter-"))
    assert to_meter["ingress"] == [{**to_live["ingress"][0], "ports": [{"protocol": "TCP", "port": port}]}]
    assert to_meter["podSelector"]["matchLabels"] == service["spec"]["selector"]
    assert of_kind("ConfigMap")["slipway"]["data"]["SLIPWAY_METER"] == "1"


def test_the_migration_alone_has_the_address_of_the_databases_owner() -> None:
    holders = [
        (name, container["name"])
        for name, workload in of_kind("Deployment").items()
        for kind in ("initContainers", "containers")
        for container in workload["spec"]["template"]["spec"].get(kind, ())
        if any(mount["name"] == "owner" for mount in container["volumeMounts"])
    ]
    assert holders == [("beat", "migrate")]


@pytest.mark.parametrize(("kind", "part"), [("SecurityPolicy", "extAuth"), ("EnvoyExtensionPolicy", "extProc")])
def test_pages_are_neither_behind_the_question_nor_metered(kind: str, part: str) -> None:
    policy = of_kind(kind)["slipway"]
    assert [ref["name"] for ref in policy["spec"]["targetRefs"]] == list(of_kind("HTTPRoute"))
    assert part not in policy["spec"]


def test_services_and_policies_select_pods_that_exist() -> None:
    labels = [obj["spec"]["template"]["metadata"]["labels"] for obj in of_kind("Deployment").values()]
    for service in of_kind("Service").values():
        assert any(service["spec"]["selector"].items() <= pod.items() for pod in labels)
    for policy in of_kind("NetworkPolicy").values():
        selector = policy["spec"]["podSelector"]
        for wish in selector.get("matchExpressions", ()):
            assert set(wish["values"]) <= {pod["app.kubernetes.io/component"] for pod in labels}

"""What the server fills in and what it refuses, in the words of the recordings."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest

from tests.sandbox.conftest import Api, Obj, kubectl, named, pod
from tests.sandbox.recordings import read, read_all, recorded

ENFORCE = "pod-security.kubernetes.io/enforce"
EXAMPLE = "objects/01-isvc-standard-vllm.yaml"
HARDENED: Obj = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def message(answer: Any) -> str:
    return str(answer.json()["message"])


def gpus(amount: int, **more: str) -> Obj:
    amounts = {"nvidia.com/gpu": str(amount), **more}
    return {"requests": dict(amounts), "limits": dict(amounts)}


@pytest.fixture(scope="module")
def team(api: Api) -> str:
    return api.namespace("team-admission")


def test_a_pod_is_completed_as_recorded(api: Api, team: str) -> None:
    replica_set, expected = recorded(EXAMPLE, "ReplicaSet"), recorded(EXAMPLE, "Pod")
    assert replica_set is not None
    assert expected is not None
    template = replica_set["spec"]["template"]
    body = named("Pod", "recorded", labels=template["metadata"]["labels"], spec=template["spec"])

    made = api.post(f"{team}/pods", body).json()

    wanted = as_before_kserve_webhook(expected["spec"])
    assert canonical_token_volume(made["spec"]) == canonical_token_volume(wanted)
    assert made["status"] == {"phase": "Pending", "qosClass": expected["status"]["qosClass"]}


def as_before_kserve_webhook(spec: Obj) -> Obj:
    """Take away what KServe's webhook and the scheduler added to a recorded pod."""
    spec = copy.deepcopy(spec)
    for name in ("initContainers", "nodeName"):
        del spec[name]
    added = "kserve-provision-location"
    spec["volumes"] = [volume for volume in spec["volumes"] if volume["name"] != added]
    for container in spec["containers"]:
        container["volumeMounts"] = [mount for mount in container["volumeMounts"] if mount["name"] != added]
    return spec


def canonical_token_volume(spec: Obj) -> Obj:
    text = re.sub(r"kube-api-access-\w{5}", "kube-api-access-x", repr(spec))
    return dict(eval(text))


@pytest.mark.parametrize("kind", ["Deployment", "ReplicaSet", "Service", "Ingress"])
def test_recorded_objects_come_back_as_they_were(api: Api, team: str, kind: str) -> None:
    """The defaults in a recording are all there already: filling ours in must change nothing."""
    expected = recorded(EXAMPLE, kind)
    assert expected is not None
    plural = {"Ingress": "ingresses"}.get(kind, f"{kind.lower()}s")
    group = expected["apiVersion"]
    root = team if group == "v1" else team.replace("/api/v1", f"/apis/{group}")
    body = copy.deepcopy(expected)
    body.pop("status")
    body["metadata"] = {"name": expected["metadata"]["name"], "labels": expected["metadata"].get("labels") or {}}
    if kind == "Service":  # an address of the recorded cluster's range
        for name in ("clusterIP", "clusterIPs"):
            del body["spec"][name]

    made = api.post(f"{root}/{plural}", body)

    assert made.status_code == 201, made.text
    assert made.json()["spec"].keys() == expected["spec"].keys()
    assert made.json()["spec"] | body["spec"] == made.json()["spec"]


def test_nothing_is_made_in_a_namespace_that_is_not_there(api: Api) -> None:
    answer = api.post("/api/v1/namespaces/nowhere/pods", pod("x"))

    assert (answer.status_code, message(answer)) == (404, 'namespaces "nowhere" not found')


def test_nothing_is_made_in_a_namespace_that_is_going(api: Api) -> None:
    path = api.namespace("team-going")
    marked = api.delete(path).json()
    assert marked["status"]["phase"] == "Terminating"

    answer = api.post(f"{path}/configmaps", named("ConfigMap", "late"))

    assert answer.status_code == 403
    assert message(answer) == (
        'configmaps "late" is forbidden: unable to create new content in namespace team-going because it is being '
        "terminated"
    )
    assert answer.json()["details"]["causes"][0]["reason"] == "NamespaceTerminating"


def test_finalizing_an_empty_namespace_ends_it(api: Api) -> None:
    path = api.namespace("team-ended")
    marked = api.delete(path).json()

    api.put(f"{path}/finalize", marked | {"spec": {"finalizers": []}})

    assert api.get(path).status_code == 404


def test_the_default_namespace_stays(api: Api) -> None:
    answer = api.delete("/api/v1/namespaces/default")

    assert (answer.status_code, message(answer)) == (
        403,
        'namespaces "default" is forbidden: this namespace may not be deleted',
    )


def test_every_namespace_has_a_default_account_and_the_root_certificate(api: Api, team: str) -> None:
    assert api.get(f"{team}/serviceaccounts/default").status_code == 200
    assert "ca.crt" in api.get(f"{team}/configmaps/kube-root-ca.crt").json()["data"]


def test_a_pod_needs_its_account(api: Api, team: str) -> None:
    answer = api.post(f"{team}/pods", pod("orphan", {"serviceAccountName": "no-such-sa"}))

    assert (answer.status_code, message(answer)) == (
        403,
        'pods "orphan" is forbidden: error looking up service account team-admission/no-such-sa: '
        'serviceaccount "no-such-sa" not found',
    )


def test_quota_refuses_in_the_recorded_words(api: Api) -> None:
    path = api.namespace("team-quota")
    api.post(f"{path}/resourcequotas", named("ResourceQuota", "gpus", spec={"hard": {"requests.nvidia.com/gpu": "1"}}))
    assert api.post(f"{path}/pods", pod("one", resources=gpus(1))).status_code == 201
    assert api.post(f"{path}/pods", pod("none")).status_code == 201

    answer = api.post(f"{path}/pods", pod("qwen25-7b-predictor-7ff6f98458-zdnk5", resources=gpus(1)))

    assert answer.status_code == 403
    assert f"Error creating: {message(answer)}" in read("quota.yaml")["events"][2]


def test_quota_is_free_again_when_the_pod_is_done(api: Api) -> None:
    path = api.namespace("team-done")
    api.post(f"{path}/resourcequotas", named("ResourceQuota", "q", spec={"hard": {"requests.nvidia.com/gpu": "1"}}))
    api.post(f"{path}/pods", pod("job", resources=gpus(1)))
    assert api.post(f"{path}/pods", pod("next", resources=gpus(1))).status_code == 403

    api.patch(f"{path}/pods/job/status", {"status": {"phase": "Succeeded"}})

    assert api.post(f"{path}/pods", pod("next", resources=gpus(1))).status_code == 201


def test_a_quota_says_at_once_what_is_used(api: Api) -> None:
    path = api.namespace("team-used")
    hard = {
        "requests.nvidia.com/gpu": "4",
        "limits.nvidia.com/gpu": "4",
        "count/configmaps": "9",
        "services.nodeports": 3,
    }
    api.post(f"{path}/configmaps", named("ConfigMap", "one"))
    api.post(f"{path}/resourcequotas", named("ResourceQuota", "q", spec={"hard": hard}))
    api.post(f"{path}/pods", pod("job", resources=gpus(3)))
    api.post(f"{path}/pods", pod("tried", resources=gpus(1)), dryRun="All")

    def used() -> Obj:
        return dict(api.get(f"{path}/resourcequotas/q").json()["status"]["used"])

    # With the cluster's own root certificate; and nobody counts limits of what a plugin offers.
    assert used() == {"count/configmaps": "2", "requests.nvidia.com/gpu": "3", "services.nodeports": "0"}
    api.delete(f"{path}/pods/job", {"gracePeriodSeconds": 0})
    assert used()["requests.nvidia.com/gpu"] == "0"


def test_a_quotas_status_is_checked_and_kept_true(api: Api) -> None:
    path = f"{api.namespace('team-told')}/resourcequotas"
    api.post(path, named("ResourceQuota", "q", spec={"hard": {"secrets": "3"}}))

    wrong = api.patch(f"{path}/q/status", {"status": {"used": {"nope": "3"}}})
    api.patch(f"{path}/q/status", {"status": {"used": {"secrets": "3"}}})

    assert "status.used[nope]" in message(wrong)
    assert api.get(f"{path}/q").json()["status"] == {"hard": {"secrets": "3"}, "used": {"secrets": "0"}}


def test_an_apply_leaves_nothing_empty(api: Api) -> None:
    path = f"{api.namespace('team-empty')}/serviceaccounts/a"
    body = named("ServiceAccount", "a", labels={"app": "a"}) | {"secrets": []}
    api.apply(path, body)
    assert "secrets" not in api.apply(path, body | {"automountServiceAccountToken": False}).json()


def test_a_cpu_quota_obliges_containers_to_ask(api: Api) -> None:
    path = api.namespace("team-must")
    hard = {"requests.cpu": "2", "requests.memory": "4Gi", "count/configmaps": "2"}
    api.post(f"{path}/resourcequotas", named("ResourceQuota", "q", spec={"hard": hard}))

    silent = api.post(f"{path}/pods", pod("silent"))
    api.post(f"{path}/configmaps", named("ConfigMap", "one"))
    second = api.post(f"{path}/configmaps", named("ConfigMap", "two"))

    assert message(silent) == (
        'pods "silent" is forbidden: failed quota: q: must specify requests.cpu for: main; requests.memory for: main'
    )
    assert message(second) == (
        'configmaps "two" is forbidden: exceeded quota: q, requested: count/configmaps=1, used: count/configmaps=2, '
        "limited: count/configmaps=2"
    )


def test_a_limit_range_answers_for_silent_containers(api: Api) -> None:
    path = api.namespace("team-limits")
    item = {"type": "Container", "defaultRequest": {"cpu": "0.1", "memory": "256Mi"}, "max": {"cpu": "4"}}
    api.post(f"{path}/limitranges", named("LimitRange", "l", spec={"limits": [item | {"default": {"cpu": "1"}}]}))

    made = api.post(f"{path}/pods", pod("silent")).json()
    loud = api.post(f"{path}/pods", pod("loud", resources={"limits": {"cpu": "8"}}))

    assert made["spec"]["containers"][0]["resources"] == {
        "requests": {"cpu": "100m", "memory": "256Mi"},
        "limits": {"cpu": "1"},
    }
    assert message(loud) == 'pods "loud" is forbidden: maximum cpu usage per Container is 4, but limit is 8'


def test_default_limits_break_pods_that_only_request(api: Api) -> None:
    """The trap the facts on the control plane tell of."""
    path = api.namespace("team-trap")
    item = {"type": "Container", "default": {"cpu": "1"}}
    api.post(f"{path}/limitranges", named("LimitRange", "l", spec={"limits": [item]}))

    answer = api.post(f"{path}/pods", pod("trapped", resources={"requests": {"cpu": "4"}}))

    assert answer.status_code == 422
    assert message(answer).endswith('Invalid value: "4": must be less than or equal to cpu limit of 1')


def test_restricted_namespaces_refuse_soft_pods_in_the_real_words(api: Api) -> None:
    path = api.namespace("team-strict", **{ENFORCE: "restricted"})

    soft = api.post(f"{path}/pods", pod("soft"))
    hard = api.post(f"{path}/pods", pod("hard", securityContext=HARDENED))

    assert soft.status_code == 403
    assert message(soft) == (
        'pods "soft" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false '
        '(container "main" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities '
        '(container "main" must set securityContext.capabilities.drop=["ALL"]), runAsNonRoot != true (pod or container '
        '"main" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container "main" must set '
        'securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")'
    )
    assert hard.status_code == 201


def test_baseline_namespaces_refuse_the_host(api: Api) -> None:
    path = api.namespace("team-base", **{ENFORCE: "baseline"})
    volumes = [{"name": "root", "hostPath": {"path": "/"}}]

    answer = api.post(f"{path}/pods", pod("host", {"hostNetwork": True, "volumes": volumes}))

    assert message(answer) == (
        'pods "host" is forbidden: violates PodSecurity "baseline:latest": host namespaces (hostNetwork=true), '
        'hostPath volumes (volume "root")'
    )
    assert api.post(f"{path}/pods", pod("plain")).status_code == 201


def test_recorded_pods_fail_restricted_and_pass_baseline(api: Api) -> None:
    """As the recordings' README says of pods that KServe makes."""
    body = recorded(EXAMPLE, "Pod")
    assert body is not None
    outcomes = {}
    for level in ("restricted", "baseline"):
        path = api.namespace(f"team-kserve-{level}", **{ENFORCE: level})
        outcomes[level] = api.post(f"{path}/pods", named("Pod", "p", spec=body["spec"])).status_code

    assert outcomes == {"restricted": 403, "baseline": 201}


@pytest.mark.parametrize(
    ("requests", "limits", "wrong"),
    [
        (
            {"nvidia.com/gpu": "2"},
            {"nvidia.com/gpu": "1"},
            'spec.containers[0].resources.requests: Invalid value: "2": must be equal to nvidia.com/gpu limit of 1',
        ),
        (
            {"nvidia.com/gpu": "1"},
            {},
            "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
        ),
        (
            {"nvidia.com/gpu": "0.5"},
            {"nvidia.com/gpu": "0.5"},
            '[spec.containers[0].resources.limits[nvidia.com/gpu]: Invalid value: "500m": must be an integer, '
            'spec.containers[0].resources.requests[nvidia.com/gpu]: Invalid value: "500m": must be an integer]',
        ),
        (
            {"cpu": "4"},
            {"cpu": "1"},
            'spec.containers[0].resources.requests: Invalid value: "4": must be less than or equal to cpu limit of 1',
        ),
    ],
)
def test_impossible_amounts_are_refused_as_recorded(
    api: Api, team: str, requests: Obj, limits: Obj, wrong: str
) -> None:
    answer = api.post(f"{team}/pods", pod("amounts", resources={"requests": requests, "limits": limits}))

    assert (answer.status_code, message(answer)) == (422, f'Pod "amounts" is invalid: {wrong}')


def refused() -> list[Any]:
    specs = read("bad-specs.yaml")
    names = [n for n, bad in specs.items() if not bad["accepted"] and not n.startswith("llm-")]
    return [pytest.param(specs[name], id=name) for name in names]


@pytest.mark.parametrize("bad", refused())
def test_wrong_inference_services_are_refused_in_the_recorded_words(lite: Any, api: Api, bad: Obj) -> None:
    if api.get("/api/v1/namespaces/neg").status_code == 404:
        api.namespace("neg")
    case = next(name for name, entry in read("bad-specs.yaml").items() if entry == bad)
    body = changed_example(case, bad["change"])

    said = kubectl(lite, "create", "-f", "-", text=json.dumps(body))
    applied = kubectl(lite, "apply", "--server-side", "-f", "-", text=json.dumps(body))

    assert said.strip() == bad["message"].strip()
    assert applied.strip() == bad["apply_message"].strip()


def changed_example(name: str, change: Obj) -> Obj:
    """Return example 01 with the changes of one recorded case."""
    body = read_all("examples/01-isvc-standard-vllm.yaml")[0]
    body["metadata"] |= {"name": name, "namespace": "neg"}
    for path, value in change.items():
        if path.startswith("@"):
            target, last = body["metadata"]["annotations"], f"serving.kserve.io/{path[1:]}"
        else:
            *steps, last = path.split(".")
            target = body
            for step in steps:
                target = target[step]
        if value is None:
            del target[last]
        else:
            target[last] = value
    return body

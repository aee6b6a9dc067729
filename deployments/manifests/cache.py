"""Weights that are fetched ahead: a claim of the deployment's own, the Job that fills it, and its way to the weights.

The Job runs KServe's storage initializer with the same words as pods of engines would, once, into the claim; engines
mount it read-only and download nothing. Claim and Job are named by what is fetched: another version of a model gets
others beside them, and an edit of anything else keeps what was fetched.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from deployments.engine.facts import GIB
from deployments.labels import FETCH_COMPONENT, INITIALIZER, LABEL_COMPONENT, LABEL_REVISION
from deployments.manifests import downloads
from deployments.manifests.cluster import default_initializer_image
from deployments.manifests.common import Object, Wish, labels_of, metadata_of, short_hash
from deployments.manifests.guards import Rules, fetch_policy
from deployments.manifests.pods import container_security, node_selector, pod_security, tolerations
from deployments.manifests.secret import GOOGLE_FILE, s3_variables

# Where the Job mounts the claim, and the folder in it; a claim's own top may hold what its file system put there.
PLACE, FOLDER = "/mnt/claim", "model"
VOLUME = "weights"
# Attempts after the first: a hub that answers again, a node that went.
RETRIES = 3
# Of what lies in the hub, for what the loader keeps beside it while it works and what a file system takes.
MARGIN, LEAST_GIB = 1.1, 2
SECRETS = "/var/secrets/"


def gib_for(size: int) -> int:
    """The size of a claim for so many bytes, in GiB."""
    return math.ceil(size * MARGIN / GIB) + LEAST_GIB


def is_kept(wish: Wish) -> bool:
    """True where replicas mount what was fetched ahead."""
    return wish.resolution.claim_gib > 0


def name_of(wish: Wish) -> str:
    """The name of claim and Job."""
    made_of = wish.resolution
    parts = (downloads.address_of(wish), str(made_of.claim_gib), made_of.claim_class, made_of.claim_mode)
    return f"{wish.name}-weights-{short_hash(wish.deployment_id, *parts)}"


def uri_of(wish: Wish) -> str:
    """The address by which KServe mounts what was fetched."""
    return f"pvc://{name_of(wish)}/{FOLDER}"


def build(wish: Wish) -> list[Object]:
    """What has to be there before the service is: the way out, the claim, and the Job; nothing without a cache."""
    if not is_kept(wish):
        return []
    egress: Rules = downloads.way_to_store(wish)
    return [fetch_policy(wish, _selector(wish), egress=egress), _claim(wish), _job(wish)]


def with_keys(job: Object, kind: str, secret: str, settings: Mapping[str, str]) -> Object:
    """The same Job with the Secret of a credential, as KServe gives it to the initializers that it adds itself."""
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    if kind == "gs":
        mount = {"name": "user-gcp-sa", "mountPath": SECRETS, "readOnly": True}
        where = [{"name": "GOOGLE_APPLICATION_CREDENTIALS", "value": SECRETS + GOOGLE_FILE}]
        container = {**container, "volumeMounts": [*container["volumeMounts"], mount]}
        pod = {**pod, "volumes": [*pod["volumes"], {"name": "user-gcp-sa", "secret": {"secretName": secret}}]}
    elif kind == "s3":
        keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        where = [*_from(secret, keys), *({"name": name, "value": value} for name, value in s3_variables(settings))]
    else:
        where = _from(secret, ("HF_TOKEN",))
    pod = {**pod, "containers": [{**container, "env": [*container["env"], *where]}]}
    template = {**job["spec"]["template"], "spec": pod}
    return {**job, "spec": {**job["spec"], "template": template}}


def _from(secret: str, keys: Sequence[str]) -> list[dict[str, Any]]:
    return [{"name": key, "valueFrom": {"secretKeyRef": {"key": key, "name": secret}}} for key in keys]


def _claim(wish: Wish) -> Object:
    made_of = wish.resolution
    spec: dict[str, Any] = {
        "accessModes": [made_of.claim_mode],
        "resources": {"requests": {"storage": f"{made_of.claim_gib}Gi"}},
    }
    if made_of.claim_class:
        spec["storageClassName"] = made_of.claim_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata_of(wish, name_of(wish)),
        "spec": spec,
    }


def _labels(wish: Wish) -> dict[str, str]:
    """Of the Job and its pods: no revision, as an edit of anything else leaves it alone."""
    kept = {name: value for name, value in labels_of(wish).items() if name != LABEL_REVISION}
    return {**kept, LABEL_COMPONENT: FETCH_COMPONENT}


def _selector(wish: Wish) -> dict[str, Any]:
    return {"matchLabels": _labels(wish)}


def _job(wish: Wish) -> Object:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name_of(wish), "namespace": wish.namespace, "labels": _labels(wish)},
        "spec": {
            "backoffLimit": RETRIES,
            "template": {
                "metadata": {"labels": _labels(wish)},
                "spec": {
                    # Pods that failed stay, and with them what they said.
                    "restartPolicy": "Never",
                    "serviceAccountName": wish.name,
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "securityContext": pod_security(),
                    # Where engines will run: a volume may belong to a zone, or to one node.
                    "nodeSelector": node_selector(wish),
                    "tolerations": tolerations(wish),
                    "containers": [_initializer(wish)],
                    "volumes": [{"name": VOLUME, "persistentVolumeClaim": {"claimName": name_of(wish)}}],
                },
            },
        },
    }


def _initializer(wish: Wish) -> dict[str, Any]:
    return {
        "name": INITIALIZER,
        "image": wish.platform.initializer_image or default_initializer_image(),
        "args": [downloads.address_of(wish), f"{PLACE}/{FOLDER}"],
        "env": [
            {"name": "HOME", "value": "/tmp"},  # noqa: S108 - the only place besides that user may write to
            {"name": "HF_HOME", "value": "/tmp/huggingface"},  # noqa: S108
            *downloads.variables_of(wish),
        ],
        "resources": downloads.fetch_resources(wish.platform),
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": VOLUME, "mountPath": PLACE}],
    }

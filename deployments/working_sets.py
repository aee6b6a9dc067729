"""A request with everything that it stands on: what `kubectl apply` needs on a cluster that Slipway has never seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deployments.commandline import render_document
from deployments.documents import facts_from
from deployments.labels import LABEL_INSTALL, LABEL_TEAM
from deployments.manifests import Object, TeamWish, build_cluster_objects, build_team
from deployments.manifests.sharing import NODE_LABEL, OPERATOR, build_sharing, slices_of


def working_set(document: Mapping[str, Any], facts: Mapping[str, Any] | None = None) -> list[Object]:
    """The objects of a request in the order in which they are applied, those of cluster and namespace before it.

    A flavor on nodes that share their GPUs (`sharing.NODE_LABEL`) brings the configuration of that along. DocumentError
    for a document that is no request.
    """
    answer = render_document(document, facts)
    objects: list[Object] = answer["objects"]
    metadata = objects[0]["metadata"]
    flavor = facts_from(facts, document).flavors[document.get("spec", document)["flavor"]]
    install = metadata["labels"][LABEL_INSTALL]
    team = TeamWish(
        install_id=install,
        team=metadata["labels"][LABEL_TEAM],
        namespace=metadata["namespace"],
        gpus={flavor.resource_name: answer["gpus"]},
        presets=any(obj["kind"] == "LLMInferenceService" for obj in objects),
    )
    return [
        *_sharing(install, flavor.node_selector.get(NODE_LABEL, "")),
        *build_cluster_objects(install),
        *build_team(team),
        answer["service_account"],
        *objects,
    ]


def _sharing(install: str, config: str) -> list[Object]:
    slices = slices_of(config)
    return build_sharing(install, namespace=OPERATOR, slices=slices) if slices else []

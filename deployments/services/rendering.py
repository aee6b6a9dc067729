"""From a spec and its resolution to the objects that an approval signs: the one place that stores a revision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.conf import settings

from deployments import manifests
from deployments.findings import Finding
from deployments.manifests.common import Resolution, Wish
from deployments.manifests.count import gpus_of
from deployments.models import Credential, Deployment, Flavor, Revision, User
from deployments.services.platform import platform
from deployments.spec import DeploymentSpec, digest


def render(
    deployment: Deployment, *, number: int, spec: DeploymentSpec, resolution: Resolution
) -> list[dict[str, Any]]:
    """The objects of a revision, as this Slipway builds them for this platform."""
    return manifests.build(wish_of(deployment, number=number, spec=spec, resolution=resolution))


def account(deployment: Deployment, revision: Revision) -> dict[str, Any]:
    """The account that its pods run as: applied beside the signed objects, and lists the Secret in use by name."""
    spec = DeploymentSpec.model_validate(revision.spec)
    # Of what was resolved, an account says nothing.
    nothing = Resolution(commit="", image="", product="")
    wish = wish_of(deployment, number=revision.number, spec=spec, resolution=nothing)
    used = Credential.objects.kept().told().filter(team=deployment.team_id, name=spec.source.credential or "").first()
    if used is None or used.current is None:
        return manifests.build_service_account(wish)
    pulls = used.kind == Credential.Kind.REGISTRY
    return manifests.build_service_account(wish, (used.current.name,), pulls=pulls)


def wish_of(deployment: Deployment, *, number: int, spec: DeploymentSpec, resolution: Resolution) -> Wish:
    """Everything that the objects of a revision are built from."""
    return Wish(
        install_id=settings.SLIPWAY_INSTALL_ID,
        deployment_id=str(deployment.pk),
        name=deployment.name,
        namespace=deployment.team.namespace,
        team=deployment.team.slug,
        revision=number,
        spec=spec,
        resolution=resolution,
        platform=platform(),
    )


def store(
    deployment: Deployment,
    *,
    number: int,
    spec: DeploymentSpec,
    resolution: Resolution,
    author: User,
    note: str,
    guarded: Sequence[str],
    findings: Sequence[Finding] = (),
) -> Revision:
    """Render and store a revision that waits for a decision, as the newest. The caller holds the deployment's lock."""
    objects = render(deployment, number=number, spec=spec, resolution=resolution)
    revision = Revision.objects.create(
        deployment=deployment,
        number=number,
        spec=spec.to_json(),
        resolution=resolution.as_json(),
        objects_json=objects,
        digest=digest(spec, resolution.as_json(), objects),
        flavor=Flavor.objects.get(slug=spec.flavor),
        gpus=spec.gpus,
        # Counted on what will be applied, not on what the spec promises.
        surge=max(0, gpus_of(objects) - spec.gpus),
        guarded=list(guarded),
        findings=[finding.as_json() for finding in findings],
        author=author,
        note=note,
    )
    Deployment.objects.filter(pk=deployment.pk).update(latest=revision)
    deployment.latest = revision
    return revision

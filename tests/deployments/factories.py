"""Rows for tests, made directly: Alice belongs, Bob is a stranger, Carol is an admin."""

from __future__ import annotations

import hashlib
import itertools
from datetime import timedelta
from typing import Any
from uuid import uuid4

from django.db.models.functions import Now

from deployments.models import (
    Approval,
    Cluster,
    Deployment,
    EngineProfile,
    Flavor,
    Membership,
    ModelCheck,
    Principal,
    QuotaGrant,
    Reservation,
    Revision,
    Team,
    User,
)
from deployments.services import ledger
from deployments.services.convergence import Lease, database_now

_numbers = itertools.count(1)

QWEN = "hf://Qwen/Qwen2.5-7B-Instruct"
COMMIT = "a09a35458c702b33eeacc393d103063234e8bc28"
DIGEST = "sha256:" + "5" * 64


def a_name() -> str:
    """A name that nothing else has: living tokens and keys of one owner have different ones."""
    return f"name {next(_numbers)}"


def make_user(username: str = "", *, admin: bool = False, team: Team | None = None, lead: bool = False) -> User:
    user = User(username=username or f"user{next(_numbers)}", is_platform_admin=admin)
    user.set_unusable_password()
    user.save()
    if team is not None:
        join(user, team, lead=lead)
    return user


def join(user: User, team: Team, *, lead: bool = False) -> None:
    role = Membership.Role.LEAD if lead else Membership.Role.MEMBER
    Membership.objects.create(user=user, team=team, role=role)


def make_team(slug: str = "search", *, policy: str = Team.Policy.ASK) -> Team:
    return Team.objects.create(slug=slug, name=slug.title(), namespace=f"{slug}-x7k2p", policy=policy)


def make_flavor(slug: str = "h100-80gb") -> Flavor:
    product, memory, capability, size = {
        "h100-80gb": ("NVIDIA-H100-80GB-HBM3", 81559, "9.0", 4),
        "l40s-48gb": ("NVIDIA-L40S", 46068, "8.9", 8),
        "l4-24gb": ("NVIDIA-L4", 23034, "8.9", 8),
    }[slug]
    return Flavor.objects.create(
        slug=slug,
        name=slug.upper(),
        product=product,
        memory_mib=memory,
        compute_capability=capability,
        gpus_per_node=size,
    )


def make_grant(team: Team, flavor: Flavor, gpus: int, **fields: Any) -> QuotaGrant:
    return QuotaGrant.objects.create(team=team, flavor=flavor, gpus=gpus, **fields)


def make_cluster() -> Cluster:
    return Cluster.objects.get_or_create(name="main")[0]


def make_profile() -> EngineProfile:
    return EngineProfile.objects.get_or_create(
        slug="vllm-0.32.0",
        defaults={
            "name": "vLLM 0.32.0",
            "version": "0.32.0",
            "image": f"vllm/vllm-openai:v0.32.0@{DIGEST}",
        },
    )[0]


def make_older_profile() -> EngineProfile:
    """The older engine of the demo, which reads GGUF files by itself."""
    image = f"vllm/vllm-openai:v0.20.0@{DIGEST}"
    values = {"name": "vLLM 0.20.0", "version": "0.20.0", "image": image}
    return EngineProfile.objects.get_or_create(slug="vllm-0.20.0", defaults=values)[0]


def make_check(uri: str = QWEN, revision: str = "", **fields: Any) -> ModelCheck:
    """What the hub is known to have said about a model, so that nothing asks it."""
    facts = {
        "id": uri.removeprefix("hf://"),
        "sha": COMMIT,
        "architecture": "Qwen2ForCausalLM",
        "dtype": "bfloat16",
        "weights_bytes": 15_231_233_024,
        "params": 7_615_616_512,
        "layers": 28,
        "heads": 28,
        "kv_heads": 4,
        "head_dim": 128,
        "hidden": 3584,
        "intermediate": 18944,
        "vocab": 152_064,
        "max_position": 32_768,
        "license": "apache-2.0",
    }
    values = {"result": "found", "commit": COMMIT, "facts": facts, **fields}
    return ModelCheck.objects.update_or_create(uri=uri, revision=revision, defaults=values)[0]


def a_spec(**changes: Any) -> dict[str, Any]:
    """A spec that fits a team with H100s; keyword arguments replace whole top-level entries."""
    return {
        "source": {"uri": QWEN},
        "strategy": "standard",
        "flavor": "h100-80gb",
        "replicas": {"min": 1, "max": 1},
        "engine": {"profile": "vllm-0.32.0", "args": {"max-model-len": 16384}},
        **changes,
    }


def make_deployment(
    team: Team,
    author: User,
    *,
    name: str = "chat",
    flavor: Flavor | None = None,
    gpus: int = 1,
    approved: bool = False,
) -> Deployment:
    """A deployment with one revision, past every service. `approved` adds the approval, but reserves nothing."""
    deployment = Deployment.objects.create(team=team, name=name, cluster=make_cluster(), created_by=author)
    revision = add_revision(deployment, author, flavor=flavor, gpus=gpus)
    if approved:
        approve(revision)
    deployment.refresh_from_db()
    return deployment


def add_revision(
    deployment: Deployment, author: User, *, flavor: Flavor | None = None, gpus: int = 1, surge: int = 0
) -> Revision:
    number = deployment.revisions.count() + 1
    flavor = flavor or Flavor.objects.first() or make_flavor()
    revision = Revision.objects.create(
        deployment=deployment,
        number=number,
        spec=a_spec(flavor=flavor.slug, replicas={"min": 1, "max": gpus}),
        resolution={"commit": COMMIT},
        objects_json=[],
        digest=hashlib.sha256(f"{deployment.pk}/{number}".encode()).hexdigest(),
        flavor=flavor,
        gpus=gpus,
        surge=surge,
        author=author,
    )
    Deployment.objects.filter(pk=deployment.pk).update(latest=revision)
    deployment.latest = revision
    return revision


def approve(revision: Revision, *, current: bool = True) -> Approval:
    """Sign a revision and, unless told otherwise, make it the one that runs."""
    approval = Approval.objects.create(
        revision=revision, digest=revision.digest, kind=Approval.Kind.POLICY, approved=True
    )
    Revision.objects.filter(pk=revision.pk).update(verdict=Revision.Verdict.APPROVED)
    revision.verdict = Revision.Verdict.APPROVED
    if current:
        Deployment.objects.filter(pk=revision.deployment_id).update(approved=revision)
        revision.deployment.approved = revision
    return approval


def lease(deployment: Deployment) -> Lease:
    """The lease of a worker that has this deployment now, whoever had it before."""
    token = uuid4()
    Deployment.objects.filter(pk=deployment.pk).update(lease_token=token, lease_until=Now() + timedelta(seconds=25))
    return Lease(Deployment, deployment.pk, token)


def release(deployment: Deployment, *, gpus: int = 0, of_others: int = 0, down_to: int = 0) -> list[Reservation]:
    """Give back as a worker that has just listed the pods."""
    proof = ledger.Proof(database_now(), gpus, of_others)
    return ledger.release(deployment=deployment, lease=lease(deployment), proof=proof, down_to=down_to)


def principal(user: User, *scopes: str) -> Principal:
    return Principal(user=user, scopes=frozenset(scopes)) if scopes else Principal(user=user)

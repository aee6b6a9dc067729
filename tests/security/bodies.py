"""What is sent: for each address that writes a body with which somebody gets something done."""

from __future__ import annotations

import time

from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value

from .world import World


def form(world: World) -> dict[str, object]:
    """The request form, filled in."""
    spec = {"source_uri": world.uri, "strategy": "standard", "flavor": "h100-80gb", "profile": "vllm-0.32.0"}
    sizes = {"replicas_min": "1", "replicas_max": "1", "tensor_parallel_size": "1", "max_model_len": "8192"}
    return {"team": "search", "name": "fresh", **spec, **sizes}


def asked(world: World) -> dict[str, object]:
    """A request to the API."""
    return {"team": "search", "name": "fresh", "spec": world.spec}


def changed(world: World) -> dict[str, object]:
    """A new spec for the deployment that runs."""
    return {"spec": {**world.spec, "replicas": {"min": 1, "max": 2}}, "base_revision": 1}


def seen(world: World) -> dict[str, object]:
    """The digest that waits."""
    return {"digest": world.wish.digest, "comment": "No."}


def granted(world: World) -> dict[str, object]:
    """Two GPUs."""
    return {"team": "search", "flavor": "h100-80gb", "gpus": 2}


def offered(world: World) -> dict[str, object]:
    """Another kind of GPU."""
    size = {"memory_mib": 46068, "compute_capability": "8.9", "gpus_per_node": 8}
    return {"slug": "l40s-48gb", "name": "L40S", "product": "NVIDIA-L40S", **size}


def keyed(world: World) -> dict[str, object]:
    """A key of the whole team."""
    return {"team": "search", "name": "frontend", "days": "30", "reach": "every", "whose": "own"}


def urgent(world: World) -> dict[str, object]:
    """The digest of what an admin wrote, and why it cannot wait."""
    return {"digest": world.burning.digest, "reason": "It burns."}


def anew(world: World) -> dict[str, object]:
    """What a newer Slipway renders differently."""
    assert world.dated.approved is not None
    return {"item": f"{world.dated.pk}:{world.dated.approved.digest}", "wave": "5"}


def known(world: World) -> dict[str, object]:
    """A name and its password."""
    return {"login": "newcomer", "password": world.password}


def renewed(world: World) -> dict[str, object]:
    """The own password and another one, typed twice."""
    other = "another horse entirely"
    return {"oldpassword": world.password, "password1": other, "password2": other}


def told_by_app(world: World) -> dict[str, object]:
    """The code that an authenticator app shows now."""
    return {"code": format_hotp_value(hotp_value(world.totp, int(time.time()) // 30))}


def entered(world: World) -> dict[str, object]:
    """A credential of the team."""
    return {"team": "search", "name": "fresh", "kind": "hf", "token": "hf_of_somebody"}


PRICED = {"resource_name": "nvidia.com/gpu", "price_per_hour": "3"}

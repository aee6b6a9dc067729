"""What tests of pages share: signing in, and a platform with something on every page."""

from __future__ import annotations

import re
from typing import Any

from django.test import Client
from django.urls import reverse
from django.utils import timezone

from deployments.kube.observe import ContainerView, EventView, Observed, PodView
from deployments.models import Cluster, Deployment, Node, Status, User
from deployments.services.states import write_observed

# What htmx says of itself.
HTMX = {"HX-Request": "true"}


def signed_in(user: User, *, csrf: bool = False) -> Client:
    """A browser in which this person has signed in."""
    client = Client(enforce_csrf_checks=csrf)
    client.force_login(user)
    return client


def flat(html: str) -> str:
    """A page as browsers read it: each run of whitespace is one space, and none at the edges of an element."""
    return re.sub(r"(?<=>) | (?=</|>)", "", " ".join(html.split()))


def inbox(person: User, **params: Any) -> str:
    """The page of what waits for a decision, or with `show` another part of it."""
    return flat(signed_in(person).get(reverse("approvals"), params).content.decode())


def see_cluster(**changes: Any) -> Cluster:
    """A cluster that the watcher saw just now."""
    values = {"seen_at": timezone.now(), "version": "v1.36.2", **changes}
    return Cluster.objects.update_or_create(name="main", defaults=values)[0]


def add_node(name: str = "gpu-h100-1", *, gpus: int = 4, holders: list[dict[str, Any]] | None = None) -> Node:
    """A ready H100 node."""
    held = holders or []
    return Node.objects.create(
        cluster=see_cluster(),
        name=name,
        product="NVIDIA-H100-80GB-HBM3",
        memory_mib=81559,
        capacity=gpus,
        allocatable=gpus,
        requested=sum(holder["gpus"] for holder in held),
        holders=held,
        ready=True,
    )


def observe(deployment: Deployment, *, pods: tuple[PodView, ...], events: tuple[EventView, ...] = ()) -> Status:
    """Write down what the watcher would have seen."""
    seen = Observed(pods=pods, events=events, complete=True)
    return Status.objects.create(deployment=deployment, observed=write_observed(seen))


def pod(name: str = "chat-predictor-1", *, ready: bool = True, **changes: Any) -> PodView:
    """A pod of revision 1, serving unless told otherwise."""
    engine = ContainerView(name="kserve-container", state="running", ready=ready, started=ready)
    values: dict[str, Any] = {
        "phase": "Running",
        "node": "gpu-h100-1",
        "revision": 1,
        "scheduled": True,
        "ready": ready,
        "gpus": 1,
        "containers": (engine,),
    }
    return PodView(name=name, namespace="search-x7k2p", **(values | changes))

"""What every installation begins with: kinds of GPU, engines, recommended models. A second run adds what is missing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from django.db import transaction
from django.db.models import Max
from django.utils.text import slugify

from deployments.engine.flags import versions
from deployments.engine.gpus import catalog
from deployments.engine.profiles import DATA, seeded_profiles
from deployments.models import CatalogEntry, Cluster, EngineProfile, Flavor, Node
from deployments.services import engines

MODELS = DATA / "catalog.json"
DIGEST = re.compile(r"\S+@sha256:[0-9a-f]{64}")


def make_flavors(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Make the flavors that are not there, GPUs known by product; returns in words what was made."""
    made = []
    for row in rows:
        known = catalog()[row["product"]]
        values = {"memory_mib": known["nvml_mib"], "compute_capability": known["compute_capability"], **row}
        if Flavor.objects.get_or_create(slug=row["slug"], defaults=values)[1]:
            made.append(f"flavor {row['name']}")
    return made


def make_profiles() -> list[str]:
    """Make the engine profiles that come with Slipway; returns in words what was made."""
    made = []
    for profile in seeded_profiles().values():
        values = {"name": profile.title, "version": profile.version, "image": profile.image}
        if EngineProfile.objects.get_or_create(slug=profile.slug, defaults=values)[1]:
            made.append(profile.title)
    return made


def make_catalog() -> list[str]:
    """Make the recommended models that are not there, and give settings to those without; returns in words what it did.

    Whatever an admin hid or pinned stays so.
    """
    made = []
    for position, row in enumerate(json.loads(MODELS.read_text(encoding="utf-8"))["models"]):
        if CatalogEntry.objects.get_or_create(slug=row["slug"], defaults={**row, "position": position})[1]:
            made.append(f"model {row['name']}")
        elif CatalogEntry.objects.filter(slug=row["slug"], uri=row["uri"], presets=[]).update(**row, args={}):
            made.append(f"settings of {row['name']}")
    return made


def make_cluster() -> list[str]:
    """Make the row of the one cluster, which the watcher then fills in."""
    if Cluster.objects.exists():
        return []
    Cluster.objects.create(name="main")
    return ["cluster main"]


def flavor_row(product: str) -> dict[str, Any]:
    """What a flavor of this GPU is called; KeyError for a GPU that Slipway does not know."""
    for row in _seeded_flavors():
        if row["product"] == product:
            return {"slug": row["slug"], "name": row["title"], "product": product}
    known = catalog()[product]
    name = f"{known['name']} {round(known['nvml_mib'] / 1024)} GB"
    return {"slug": slugify(product.removeprefix("NVIDIA-"))[:40], "name": name[:60], "product": product}


def flavors_of_nodes() -> tuple[list[dict[str, Any]], list[str]]:
    """Flavors for the GPUs of the nodes that the watcher has seen, and products that Slipway does not know."""
    rows, strangers = [], []
    seen = Node.objects.exclude(product="").values("product", "resource_name")
    for node in seen.annotate(memory=Max("memory_mib"), most=Max("capacity")).order_by("product"):
        try:
            row = flavor_row(node["product"])
        except KeyError:
            strangers.append(node["product"])
            continue
        row |= {"resource_name": node["resource_name"], "gpus_per_node": max(node["most"], 1)}
        rows.append(row | ({"memory_mib": node["memory"]} if node["memory"] else {}))
    return rows, strangers


def set_image(image: str) -> list[str]:
    """Give the newest engine the image of the operator's registry, by digest; ValueError when it names none."""
    if not DIGEST.fullmatch(image):
        raise ValueError("Name the image by digest: registry/name:tag@sha256:…")
    return _moved(list(seeded_profiles())[-1], image, "image of ")


def add_engine(version: str, image: str) -> list[str]:
    """Offer a vLLM of another version beside the newest; ValueError for flags that are not known, or no digest."""
    if version not in versions():
        raise ValueError(f"The flags of vLLM {version} are not known. Known: {', '.join(versions())}.")
    if not DIGEST.fullmatch(image):
        raise ValueError("Name the image by digest: registry/name:tag@sha256:…")
    values = {"name": f"vLLM {version}", "version": version, "image": image, "active": True}
    row, new = EngineProfile.objects.get_or_create(slug=f"vllm-{version}", defaults=values)
    return [f"made engine {row.slug}: {image}"] if new else _moved(row.slug, image, "engine ")


def _moved(slug: str, image: str, thing: str) -> list[str]:
    """Give an engine another image, and say so with what is no more said of it."""
    with transaction.atomic():
        row = EngineProfile.objects.select_for_update(no_key=True).filter(slug=slug).first()
        before = list(row.plugins) if row is not None else []
        if row is None or not engines.move(row, image):
            return []
    said = [f"changed {thing}{slug}: {image}"]
    if before and not row.plugins:
        kept = f"{slug}={','.join(before)}"
        said.append(
            f"changed plugins of {slug}: none; {', '.join(before)} were said of another image. If this one has them "
            f"too, say so: --plugins {kept}"
        )
    return said


def set_plugins(slug: str, names: Iterable[str]) -> list[str]:
    """Say what the image of an engine has besides vLLM; ValueError for a plugin or an engine that is not known."""
    with transaction.atomic():
        row = EngineProfile.objects.select_for_update(no_key=True).filter(slug=slug).first()
        if row is None:
            known = ", ".join(EngineProfile.objects.order_by("slug").values_list("slug", flat=True))
            raise ValueError(f"There is no engine “{slug}”. Known: {known}.")
        changed = engines.give(row, names)
    return [f"changed plugins of {slug}: {', '.join(row.plugins) or 'none'}"] if changed else []


def close_placeholders() -> list[str]:
    """Take engines out of the form whose image stands for the sandbox's; returns their names."""
    stand_ins = {profile.slug: profile.image for profile in seeded_profiles().values() if profile.sandbox_only}
    closed = []
    for slug, image in stand_ins.items():
        if EngineProfile.objects.filter(slug=slug, image=image).update(active=False):
            closed.append(slug)
    return closed


@cache
def _seeded_flavors() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((DATA / "flavors.json").read_text(encoding="utf-8"))["flavors"]
    return rows

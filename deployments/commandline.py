"""The pure core as functions from JSON to JSON: what `manage.py spec` and `manage.py diagnose` print."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

from deployments.engine.facts import GIB, GpuFacts, ModelFacts
from deployments.engine.gpus import catalog, gpu_facts
from deployments.engine.options import Choice, options
from deployments.engine.profiles import DATA, EngineProfile, seeded_profiles
from deployments.engine.sizing import UnknownShapeError, fit
from deployments.kube.diagnose import diagnose
from deployments.kube.log_causes import from_log
from deployments.kube.log_patterns import last_error
from deployments.kube.observe import Observed, event_view, pod_view, service_view
from deployments.manifests import Resolution, Wish, build, build_service_account, gpus_of
from deployments.preflight import ClusterFacts, Facts, FlavorFacts, QuotaFacts, check_raw, estimate, has_errors
from deployments.sources.huggingface import model_facts
from deployments.spec import DeploymentSpec, digest
from deployments.spec_errors import parse_spec

T = TypeVar("T")

PLACEHOLDER_COMMIT = "0" * 40
PLACEHOLDER = {"install_id": "install", "deployment_id": "0", "namespace": "team-00000", "team": "team", "name": "name"}


class DocumentError(ValueError):
    """The document is not what this command reads; the message says what is missing."""


def check_document(document: Mapping[str, Any], facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Findings about a request `{team, name, spec}` or a bare spec."""
    known = facts_from(facts, document)
    request = _request(document)
    spec, findings = check_raw(request, known)
    estimated = estimate(spec, known) if spec is not None else None
    return {
        "ok": not has_errors(findings),
        "findings": [finding.as_json() for finding in findings],
        "gpus": spec.gpus if spec is not None else None,
        "fit": estimated.as_json() if estimated is not None else None,
    }


def render_document(document: Mapping[str, Any], facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The objects a request becomes, with fixed placeholders where no facts are given."""
    request = _request(document)
    spec = _spec(request.get("spec"))
    known = facts_from(facts, document)
    flavor = known.flavors.get(spec.flavor)
    profile = known.profiles.get(spec.engine.profile)
    if flavor is None or profile is None:
        raise DocumentError("The flavor or the engine profile of this spec is not known.")
    given = dict(PLACEHOLDER) | {key: str(value) for key, value in _mapping(facts or {}, "wish").items()}
    resolution = Resolution(
        commit=(known.model.sha if known.model and known.model.sha else PLACEHOLDER_COMMIT),
        image=profile.image,
        product=flavor.product,
        resource_name=flavor.resource_name,
        gpus_per_replica=spec.gpus_per_replica,
        weights_bytes=known.model.weights_bytes if known.model else None,
        engine_version=profile.version,
        node_selector=flavor.node_selector,
        tolerations=flavor.tolerations,
    )
    wish = Wish(
        install_id=given["install_id"],
        deployment_id=given["deployment_id"],
        name=str(request.get("name") or given["name"]),
        namespace=given["namespace"],
        team=str(request.get("team") or given["team"]),
        revision=int(given.get("revision", "1")),
        spec=spec,
        resolution=resolution,
    )
    objects = build(wish)
    return {
        "objects": objects,
        "service_account": build_service_account(wish),
        "gpus": gpus_of(objects),
        "digest": digest(spec, resolution.as_json(), objects),
    }


def fit_document(document: Mapping[str, Any], facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The memory estimate for a model on a GPU, with other ways where it does not fit."""
    known = facts_from(facts, document)
    model = model_from(document) or known.model
    if model is None:
        raise DocumentError("Give the model: its config.json as “config”, and “weights_bytes” where known.")
    spec = _spec(document["spec"]) if "spec" in document else None
    args = document.get("args") or (spec.engine.args if spec else {})
    if not isinstance(args, Mapping):
        raise DocumentError("“args” must be an object with one entry per flag.")
    slug = document.get("flavor") or (spec.flavor if spec else None)
    gpu, per_node = _gpu(document.get("gpu"), slug, known)
    try:
        result = fit(model, gpu, args)
    except UnknownShapeError as failure:
        raise DocumentError(str(failure)) from failure
    others = [Choice(item.slug, item.gpu, item.gpus_per_node) for item in known.flavors.values() if item.slug != slug]
    ways = [] if result.free_gib >= 0 else options(model, gpu, args, gpus_per_node=per_node, others=others)
    return {
        **result.as_json(),
        "model": model.as_json(),
        "gpu": dataclasses.asdict(gpu),
        "alternatives": [
            {"pointer": way.pointer, "value": way.value, "text": way.text, "fit": way.fit.as_json()} for way in ways
        ],
    }


def diagnose_documents(
    pod: Mapping[str, Any] | None = None, events: object = None, log: str = "", service: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The typed reasons of one pod, its events and its log, the weightiest first."""
    views = tuple(pod_view(item) for item in _items(pod))
    seen = Observed(
        pods=views,
        events=tuple(event_view(item) for item in _items(events)),
        log_tails={view.name: log for view in views} if log else {},
        service=service_view(service) if service else None,
    )
    reasons = diagnose(seen)
    if not views and log:
        named = from_log(log)
        reasons = [named] if named else []
    first = reasons[0].as_json() if reasons else _nothing(log if not views else "")
    return {**first, "reasons": [reason.as_json() for reason in reasons]}


def facts_from(facts: Mapping[str, Any] | None, document: Mapping[str, Any]) -> Facts:
    """Facts from a file, over the seeded flavors and profiles; quotas are open where none are given."""
    given = facts or {}
    flavors = {row["slug"]: _flavor(row) for row in _rows(given.get("flavors"), "slug")} or dict(seeded_flavors())
    quotas = {slug: _made(QuotaFacts, row) for slug, row in _mapping(given, "quotas").items()}
    if "quotas" not in given:
        quotas = {slug: QuotaFacts(limit=10_000) for slug in flavors}
    profiles = {row["slug"]: _made(EngineProfile, row) for row in _rows(given.get("profiles"), "slug")}
    return Facts(
        flavors=flavors,
        quotas=quotas,
        profiles=profiles or seeded_profiles(),
        model=model_from(given) or model_from(document),
        credentials=frozenset(given.get("credentials") or ()),
        name_taken=bool(given.get("name_taken")),
        namespace=str(given.get("namespace") or ""),
        cluster=ClusterFacts(sandbox=bool(given.get("sandbox", True)), missing=tuple(given.get("missing") or ())),
    )


@cache
def seeded_flavors() -> dict[str, FlavorFacts]:
    """The flavors that come with the sandbox, by slug."""
    rows = json.loads((DATA / "flavors.json").read_text())["flavors"]
    return {row["slug"]: _flavor(row) for row in rows}


def model_from(document: Mapping[str, Any]) -> ModelFacts | None:
    """A model from a document: stored facts, a `config.json`, or either below “model”; sizes beside them count."""
    section = document.get("model")
    section = section if isinstance(section, Mapping) else document
    config = section.get("config")
    if not isinstance(config, Mapping):
        config = section if "num_hidden_layers" in section or "text_config" in section else None
    if config is not None:
        model = model_facts(str(section.get("id") or config.get("_name_or_path") or "the model"), section, config)
    elif "layers" in section:
        model = ModelFacts.from_json({"id": "the model", **section})
    else:
        return None
    return dataclasses.replace(model, **{**_sizes(section), **_sizes(document)})


def _sizes(section: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("weights_bytes", "safetensors_bytes"):
        if section.get(name):
            found["weights_bytes"] = int(section[name])
    if section.get("weights_gib"):
        found["weights_bytes"] = int(float(section["weights_gib"]) * GIB)
    if section.get("params"):
        found["params"] = int(section["params"])
    if section.get("quantization"):
        found["quantization"] = str(section["quantization"])
    return found


def _gpu(given: object, slug: object, known: Facts) -> tuple[GpuFacts, int]:
    if isinstance(given, str):
        names = {str(row["name"]).lower(): product for product, row in catalog().items()}
        return gpu_facts(names.get(given.lower(), given)), 8
    if isinstance(given, Mapping):
        product = str(given.get("product") or given.get("name") or "GPU")
        memory = given.get("memory_mib")
        visible = given.get("visible_gib")
        capability = float(given.get("compute_capability") or 0) or None
        if memory is None and visible is not None:
            base = gpu_facts(product, int(float(visible) * 1024), capability)
            return dataclasses.replace(base, visible_gib=float(visible)), int(given.get("gpus_per_node", 8))
        return gpu_facts(product, memory, capability), int(given.get("gpus_per_node", 8))
    flavor = known.flavors.get(str(slug))
    if flavor is None:
        raise DocumentError(f"Give a GPU or a flavor; known flavors: {', '.join(sorted(known.flavors))}.")
    return flavor.gpu, flavor.gpus_per_node


def _flavor(row: Mapping[str, Any]) -> FlavorFacts:
    names = {field.name for field in dataclasses.fields(FlavorFacts)}
    return _made(FlavorFacts, {name: value for name, value in row.items() if name in names})


def _made(kind: type[T], row: object) -> T:
    try:
        return kind(**row)  # type: ignore[arg-type]
    except TypeError as failure:
        raise DocumentError(f"{kind.__name__}: {failure}") from failure


def _mapping(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = document.get(name) or {}
    if not isinstance(value, Mapping):
        raise DocumentError(f"“{name}” must be an object.")
    return value


def _request(document: Mapping[str, Any]) -> dict[str, Any]:
    if "spec" in document:
        return {**document, "name": document.get("name") or PLACEHOLDER["name"]}
    return {"team": PLACEHOLDER["team"], "name": PLACEHOLDER["name"], "spec": dict(document)}


def _spec(data: object) -> DeploymentSpec:
    spec, problems = parse_spec(data)
    if spec is None:
        said = "; ".join(f"{problem.pointer}: {problem.message}" for problem in problems)
        raise DocumentError(f"This is not a valid spec. {said}")
    return spec


def _rows(value: object, key: str) -> list[dict[str, Any]]:
    if isinstance(value, Mapping):
        return [{key: name, **row} for name, row in value.items()]
    return [dict(row) for row in value] if isinstance(value, list) else []


def _items(value: object) -> list[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        listed = value.get("items")
        return list(listed) if isinstance(listed, list) else [value]
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _nothing(log: str) -> dict[str, Any]:
    return {
        "code": None,
        "weight": None,
        "title": "Nothing wrong was found.",
        "remedy": "",
        "field": "",
        "value": None,
        "numbers": {},
        "evidence": last_error(log),
        "pod": "",
        "revision": None,
    }


__all__ = ["DocumentError", "check_document", "diagnose_documents", "fit_document", "render_document"]

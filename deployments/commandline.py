"""The pure core as functions from JSON to JSON: what `manage.py spec` and `manage.py diagnose` print."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from typing import Any

from deployments.document_values import DocumentError, dns_label, mapping, slug, whole
from deployments.documents import BESIDE, facts_from, valid_spec
from deployments.engine.lora import lora_rank
from deployments.findings import Severity
from deployments.kube.diagnose import diagnose
from deployments.kube.log_causes import from_log
from deployments.kube.log_patterns import last_error
from deployments.kube.observe import Observed, event_view, pod_view, service_view
from deployments.manifests import Resolution, Wish, build, build_service_account, gpus_of
from deployments.manifests.adapters import BY_TOKEN
from deployments.manifests.cache import gib_for
from deployments.manifests.images import mode_of
from deployments.manifests.scaling import KEDA, available
from deployments.preflight import Facts, check_raw, estimates, has_errors
from deployments.preflight.cluster import surge_of
from deployments.preflight.objects import check_objects
from deployments.preflight.storage import StorageFacts, chosen
from deployments.sources import RESOLVED, Scheme, SourceError, parse
from deployments.sources.huggingface import SHA
from deployments.sources.oci import digest_of
from deployments.sources.pinned import as_loaded, file_of, pinned
from deployments.spec import Adapter, DeploymentSpec, Source, digest

PLACEHOLDER_COMMIT, PLACEHOLDER_DIGEST = "0" * 40, "sha256:" + "0" * 64
# What is refused only because nobody looked: `render` puts a placeholder there.
PLACEHELD = frozenset({"source_not_pinned", "cache_size_unknown"})
PLACEHOLDER = {"install_id": "install", "deployment_id": "0", "namespace": "team-00000", "team": "team", "name": "name"}


def check_document(document: Mapping[str, Any], facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Findings about a request `{team, name, spec}` or a bare spec."""
    known = facts_from(facts, document)
    _identity(facts or {})  # What render would refuse.
    request = _request(document)
    spec, findings = check_raw(request, known)
    fits = estimates(spec, known) if spec is not None else {}
    shown = [{"role": role.value, "fit": each.as_json() if each else None} for role, each in fits.items()]
    return {
        "ok": not has_errors(findings),
        "findings": [finding.as_json() for finding in findings],
        "gpus": spec.gpus if spec is not None else None,
        "surge": surge_of(spec) if spec is not None else None,
        # Of two roles that of decode, which holds the caches longest.
        "fit": shown[-1]["fit"] if shown else None,
        "roles": shown,
    }


def refusals(document: Mapping[str, Any], facts: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """What keeps a request from being rendered: the errors of its check, but for what a placeholder stands in for."""
    found: list[dict[str, Any]] = check_document(document, facts)["findings"]
    return [item for item in found if item["severity"] == Severity.ERROR and item["code"] not in PLACEHELD]


def render_document(document: Mapping[str, Any], facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The objects a request becomes, with fixed placeholders where no facts are given."""
    request = _request(document)
    spec = valid_spec(request.get("spec"))
    known = facts_from(facts, document)
    flavor = known.flavors.get(spec.flavor)
    profile = known.profiles.get(spec.engine.profile)
    if flavor is None or profile is None:
        raise DocumentError("The flavor or the engine profile of this spec is not known.")
    pin, storage, mode = _source(spec, known)
    given = _identity(facts or {})
    resolution = Resolution(
        commit=pin,
        image=profile.image,
        product=flavor.product,
        resource_name=flavor.resource_name,
        gpus_per_replica=spec.gpus_per_replica,
        weights_bytes=known.model.weights_bytes if known.model else None,
        storage_uri=storage,
        engine_version=profile.version,
        node_selector=flavor.node_selector,
        tolerations=flavor.tolerations,
        # Without facts the cluster is taken for the sandbox, which has KEDA.
        autoscaler=available(known.cluster.groups or {KEDA}),
        image_mode=mode,
        file=file_of(storage, spec.source.folder) if storage else "",
        adapters=tuple(_adapters(spec, known)),
        lora_rank=lora_rank(known.adapters) if spec.adapters else 0,
        **_claim(spec, known),
    )
    wish = Wish(
        install_id=given["install_id"],
        deployment_id=given["deployment_id"],
        name=str(request.get("name") or given["name"]),
        namespace=given["namespace"],
        team=str(request.get("team") or given["team"]),
        revision=given["revision"],
        spec=spec,
        resolution=resolution,
    )
    objects = build(wish)
    return {
        "objects": objects,
        "problems": [finding.as_json() for finding in check_objects(objects)],
        "service_account": build_service_account(wish),
        "gpus": gpus_of(objects),
        "digest": digest(spec, resolution.as_json(), objects),
    }


def _adapters(spec: DeploymentSpec, known: Facts) -> Iterator[dict[str, str]]:
    """The adapters by name, each at the commit that its wish names or that is known, or at a placeholder."""
    for adapter in spec.adapters:
        found = known.adapters.get(adapter.name)
        by_token = spec.source.credential is not None and found is not None and not found.is_public
        uri = pinned(adapter.uri, _commit(adapter, found.sha if found else ""))
        yield {"name": adapter.name, "uri": uri} | (BY_TOKEN if by_token else {})


def _commit(named: Source | Adapter, known: str) -> str:
    """The commit of something on the hub. A branch or a tag is none: what it stands for is known to the hub alone."""
    revision = named.revision or parse(named.uri).revision or ""
    return revision if SHA.fullmatch(revision) else known or PLACEHOLDER_COMMIT


def _claim(spec: DeploymentSpec, known: Facts) -> dict[str, Any]:
    """The claim that weights are fetched into ahead; as large as the weights where nothing else is known."""
    size = (known.model.download_bytes or known.model.weights_bytes) if known.model else None
    if spec.source.cache is None:
        return {}
    storage = chosen(known.cluster.storage or ()) or StorageFacts("")
    return {"claim_gib": gib_for(size or 0), "claim_class": storage.name, "claim_mode": storage.mode}


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


def _source(spec: DeploymentSpec, known: Facts) -> tuple[str, str, str]:
    """Pin, address and way of an image into pods (the last two only for images); placeholders where nobody looked."""
    try:
        scheme = parse(spec.source.uri).scheme
    except SourceError as failure:
        raise DocumentError(failure.finding.message) from failure
    if scheme in RESOLVED:
        raise DocumentError("What an entry of a registry stands for is known to that registry: name the artifact.")
    if scheme not in {Scheme.HF, Scheme.OCI}:
        return "", as_loaded(spec.source.uri), ""
    if scheme is Scheme.HF:
        return _commit(spec.source, known.model.sha if known.model else ""), "", ""
    digest_ = digest_of(spec.source.uri) or PLACEHOLDER_DIGEST
    return digest_, pinned(spec.source.uri, digest_), mode_of(mounts_images=known.cluster.mounts_images).value


def _request(document: Mapping[str, Any]) -> dict[str, Any]:
    """The wish in a document, as the API takes it: without what only the files of these commands have beside it."""
    usual = {"team": PLACEHOLDER["team"], "name": PLACEHOLDER["name"]}
    if "spec" not in document:
        return usual | {"spec": _without(document, BESIDE)}
    given = {name: value for name, value in document.items() if name not in usual or value not in (None, "")}
    return usual | _without(given, BESIDE)


def _without(document: Mapping[str, Any], names: Set[str]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in names}


def _identity(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Under which names a request is rendered: “wish” of the facts, over placeholders."""
    given = mapping(facts, "wish")
    if unknown := sorted(str(name)[:60] for name in given if name not in {*PLACEHOLDER, "revision"}):
        raise DocumentError(f"“wish” does not know {', '.join(unknown)}; known: {', '.join(PLACEHOLDER)}, revision.")
    found: dict[str, Any] = {
        name: dns_label(given, name, usual) if name == "namespace" else slug(given, name, usual)
        for name, usual in PLACEHOLDER.items()
    }
    return found | {"revision": whole(given, "revision", 1)}


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


__all__ = ["DocumentError", "check_document", "diagnose_documents", "refusals", "render_document"]

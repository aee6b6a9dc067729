"""Facts and models as JSON documents carry them: flavors, quotas, profiles, clusters, configurations, figures."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from deployments.document_values import DocumentError, dns_label, known_only, made, mapping, number, rows, texts
from deployments.engine.facts import GIB, GpuFacts, ModelFacts
from deployments.engine.gpus import COMMON_NODE, catalog, gpu_facts
from deployments.engine.measured import Measured
from deployments.engine.plugins import plugins_from
from deployments.engine.profiles import DATA, EngineProfile, seeded_profiles
from deployments.preflight import ClusterFacts, CredentialFacts, Facts, FlavorFacts, QuotaFacts
from deployments.preflight.storage import SANDBOX_STORAGE, storage_of
from deployments.sources.huggingface import SHA, model_facts
from deployments.sources.stored import with_file
from deployments.spec import DeploymentSpec
from deployments.spec_errors import parse_spec

# Numbers of a model that may stand beside a configuration which does not say them, and words.
COUNTS = (
    "params",
    "layers",
    "heads",
    "kv_heads",
    "head_dim",
    "hidden",
    "intermediate",
    "vocab",
    "max_position",
    "max_position_stretched",
    "context_unasked",
    "experts",
    "expert_intermediate",
    "shared_intermediate",
    "dense_layers",
    "mtp_layers",
    "kv_lora_rank",
    "q_lora_rank",
    "rope_head_dim",
    "nope_head_dim",
    "v_head_dim",
    "sliding_window",
    "sliding_layers",
    "attention_chunk",
    "chunked_layers",
    "full_kv_heads",
    "full_head_dim",
    "value_head_dim",
    "full_value_head_dim",
    "linear_layers",
    "shared_layers",
    "index_layers",
    "index_head_dim",
)
WORDS = ("dtype", "quantization", "architecture")
# What only stored facts say of a model's kind: what runs it and reads its text, by name or by its own code.
NAMES = ("model_type", "tokenizer_class", "cache_dtype", "format")
ANSWERS = ("own_config", "own_model", "own_tokenizer", "tokenizer_json", "encoder_decoder", "pooled")

# What may stand beside a wish: its model (files of its repository, what a hub says of it, facts that are stored, or
# figures), and what its memory is estimated with.
SIZES = ("weights_bytes", "safetensors_bytes", "download_bytes", "weights_gib")
FILES = ("config", "tokenizer_config", "sentence_config", "hf_quant_config")
OF_HUB = ("id", "sha", "gated", "siblings", "safetensors", "cardData")
BESIDE = frozenset(
    {"model", "gpu", "measured", "vllm", *FILES, *OF_HUB, *SIZES, *COUNTS, *WORDS, *NAMES, *ANSWERS}
    | {field.name for field in dataclasses.fields(ModelFacts)}
)

# What a file of facts says besides.
FACTS = frozenset(
    {"flavors", "quotas", "profiles", "credentials", "name_taken", "namespace", "registries", "origins", "cluster"}
    | {"sandbox", "missing", "wish"}
)


def facts_from(facts: Mapping[str, Any] | None, document: Mapping[str, Any]) -> Facts:
    """Facts from a file, over the seeded flavors and profiles; quotas are open where none are given."""
    given = facts or {}
    known_only(given, FACTS | BESIDE, "facts")
    flavors = {row["slug"]: _flavor(row, f"flavors.{row['slug']}") for row in rows(given, "flavors", "slug")}
    flavors = flavors or dict(seeded_flavors())
    quotas = {slug: made(QuotaFacts, row, f"quotas.{slug}") for slug, row in mapping(given, "quotas").items()}
    if "quotas" not in given:
        quotas = {slug: QuotaFacts(limit=10_000) for slug in flavors}
    profiles = {row["slug"]: _profile(row) for row in rows(given, "profiles", "slug")}
    mapping(given, "model")
    return Facts(
        flavors=flavors,
        quotas=quotas,
        profiles=profiles or seeded_profiles(),
        model=model_from(given) or model_from(document),
        credentials={name: CredentialFacts(kind="") for name in texts(given, "credentials") or ()},
        name_taken=bool(given.get("name_taken")),
        namespace=dns_label(given, "namespace"),
        cluster=_cluster(given),
        registries=texts(given, "registries"),
        origins=texts(given, "origins") or (),
    )


@cache
def seeded_flavors() -> dict[str, FlavorFacts]:
    """The flavors that come with the sandbox, by slug."""
    listed = json.loads((DATA / "flavors.json").read_text())["flavors"]
    return {row["slug"]: _flavor(row, row["slug"]) for row in listed}


def model_from(document: Mapping[str, Any]) -> ModelFacts | None:
    """A model from a document: stored facts, a `config.json`, or either below “model”; figures beside them count.

    A `hf_quant_config.json` (ModelOpt up to 0.29) may stand beside the configuration, as `hf_quant_config`.
    """
    section = document.get("model")
    section = section if isinstance(section, Mapping) else document
    config = section.get("config")
    if not isinstance(config, Mapping):
        config = section if "num_hidden_layers" in section or "text_config" in section else None
    figures = {**_figures(section, deep=section is not document), **_figures(document, deep=False)}
    if config is not None:
        beside = section.get("hf_quant_config")
        if isinstance(beside, Mapping) and config.get("quantization_config") is None:
            config = with_file(config, beside)
        name = str(section.get("id") or config.get("_name_or_path") or "the model")
        model = model_facts(name, section, config, section.get("tokenizer_config"), section.get("sentence_config"))
    elif "layers" in section or (section is not document and figures):
        sha = str(section.get("sha") or "")
        model = ModelFacts(id=str(section.get("id") or "the model"), sha=sha if SHA.fullmatch(sha) else "")
        figures = {**_kind(section), **_figures(section, deep=True), **figures}
    else:
        return None
    return dataclasses.replace(model, **figures)


def valid_spec(data: object) -> DeploymentSpec:
    """The spec of a document; DocumentError names what is wrong with it."""
    spec, problems = parse_spec(data)
    if spec is None:
        said = "; ".join(f"{problem.pointer}: {problem.said}" for problem in problems)
        raise DocumentError(f"This is not a valid spec. {said}")
    return spec


def measured_from(document: Mapping[str, Any]) -> Measured | None:
    """Figures that an engine reported at its start, where the document gives some."""
    section = mapping(document, "measured")
    names = {field.name for field in dataclasses.fields(Measured)}
    if unknown := sorted(map(str, set(section) - names)):
        raise DocumentError(f"“measured” does not know {', '.join(unknown)}; known: {', '.join(sorted(names))}.")
    figures: dict[str, Any] = {name: number(section, name) for name in section}
    return Measured(**figures) if figures else None


def gpu_from(given: object, slug: object, known: Facts) -> tuple[GpuFacts, int]:
    """A GPU by name, by its own figures or by the flavor's slug; and how many of them a node has."""
    if isinstance(given, str):
        names = {str(row["name"]).lower(): product for product, row in catalog().items()}
        return _gpu(names.get(given.lower(), given)), COMMON_NODE
    if isinstance(given, Mapping):
        product = str(given.get("product") or given.get("name") or "GPU")
        figures = {
            name: number(given, name)
            for name in ("memory_mib", "visible_gib", "compute_capability", "gpus_per_node")
            if given.get(name)
        }
        visible, memory = figures.get("visible_gib"), figures.get("memory_mib")
        per_node = int(figures.get("gpus_per_node", COMMON_NODE))
        if memory is None and visible is not None:
            base = _gpu(product, int(visible * 1024), figures.get("compute_capability"))
            return dataclasses.replace(base, visible_gib=visible), per_node
        whole = int(memory) if memory is not None else None
        return _gpu(product, whole, figures.get("compute_capability")), per_node
    flavor = known.flavors.get(str(slug))
    if flavor is None:
        raise DocumentError(f"Give a GPU or a flavor; known flavors: {', '.join(sorted(known.flavors))}.")
    return flavor.gpu, flavor.gpus_per_node


def _gpu(product: str, memory_mib: int | None = None, compute_capability: float | None = None) -> GpuFacts:
    if memory_mib is None and product.removesuffix("-SHARED") not in catalog():
        names = list(dict.fromkeys(str(row["name"]) for row in catalog().values()))
        meant = [name for name in names if product.lower() in name.lower()] or names
        raise DocumentError(
            f"“{product[:60]}” is not a known GPU. Known: {', '.join(meant)}. "
            "Of another give its figures: an object with “memory_mib” and “compute_capability”."
        )
    return gpu_facts(product, memory_mib, compute_capability)


def _figures(section: Mapping[str, Any], *, deep: bool) -> dict[str, Any]:
    """Sizes of a model that somebody gives by hand; `deep`: its shape too, where the section is the model's own."""
    found: dict[str, Any] = {}
    for name in ("weights_bytes", "safetensors_bytes"):
        if section.get(name):
            found["weights_bytes"] = int(number(section, name))
    if section.get("download_bytes"):
        found["download_bytes"] = int(number(section, "download_bytes"))
    if section.get("weights_gib"):
        found["weights_bytes"] = int(number(section, "weights_gib") * GIB)
    for name in COUNTS if deep or "layers" in section else ("params",):
        if section.get(name):
            found[name] = int(number(section, name))
    for name in WORDS if deep or "layers" in section else ("quantization",):
        if section.get(name):
            found[name] = str(section[name])
    return found


def _kind(section: Mapping[str, Any]) -> dict[str, Any]:
    """What stored facts say of the kind of a model, as far as they have the right form."""
    found: dict[str, Any] = {name: section[name] for name in NAMES if isinstance(section.get(name), str)}
    found.update({name: section[name] for name in ANSWERS if isinstance(section.get(name), bool)})
    architectures = section.get("architectures")
    if isinstance(architectures, list):
        found["architectures"] = tuple(each for each in architectures if isinstance(each, str))
    if section.get("mtp_layers") == 0:
        found["mtp_layers"] = 0  # None at all, where nothing said is not known.
    return found


def _cluster(given: Mapping[str, Any]) -> ClusterFacts:
    """What the cluster can do: “cluster” with `groups` (a list of versions each), `version`, `claims`,
    `own_claims` (those of them that Slipway made), `missing`.

    `image_volumes`: true where an older version mounts images all the same. `storage`: a list of storage classes, each
    with `name`, `provisioner` and `default`; without it that of the sandbox.
    """
    section = mapping(given, "cluster")
    groups = mapping(section, "groups")
    rows(section, "storage", "name")
    claims, own_claims = texts(section, "claims"), texts(section, "own_claims")
    return ClusterFacts(
        seen=bool(section.get("seen", True)),
        sandbox=bool(section.get("sandbox", given.get("sandbox", True))),
        missing=(*(texts(given, "missing") or ()), *(texts(section, "missing") or ())),
        groups={group: texts(groups, group) or () for group in groups},
        version=str(section.get("version") or ""),
        claims=None if claims is None else frozenset(claims),
        own_claims=frozenset(own_claims or ()),
        image_volumes=section.get("image_volumes") is True,
        storage=storage_of(section.get("storage", SANDBOX_STORAGE)),
    )


def _flavor(row: Mapping[str, Any], place: str) -> FlavorFacts:
    names = {field.name for field in dataclasses.fields(FlavorFacts)}
    return made(FlavorFacts, {name: value for name, value in row.items() if name in names}, place)


def _profile(row: Mapping[str, Any]) -> EngineProfile:
    try:
        plugins = plugins_from(texts(row, "plugins") or ())
    except ValueError as failure:
        raise DocumentError(str(failure)) from failure
    return made(EngineProfile, {**row, "plugins": plugins}, f"profiles.{row['slug']}")

"""LoRA adapters of a hub: what their `adapter_config.json` says. Pure; whoever calls brings the HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from deployments.sources.checks import Reply, SourceCode, plain
from deployments.sources.huggingface import SHA, metadata_path

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
MOST_RANK = 100_000
REFUSALS = {401: SourceCode.GATED, 403: SourceCode.GATED, 404: SourceCode.NOT_FOUND}

Get = Callable[[str], Reply]


@dataclass(frozen=True)
class AdapterFacts:
    """What is known of an adapter. `base` is the model it was made for, `rank` the width of its matrices."""

    id: str
    code: str = SourceCode.UNREACHABLE.value
    message: str = ""
    sha: str = ""
    rank: int | None = None
    base: str = ""

    @property
    def found(self) -> bool:
        """True when the cluster can be expected to load it."""
        return self.code == SourceCode.FOUND

    def as_json(self) -> dict[str, Any]:
        """These facts as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Facts from stored JSON; names this version does not know are left out."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in data.items() if name in known})


def check_adapter(adapter_id: str, revision: str | None, get: Get) -> AdapterFacts:
    """Look an adapter up through `get`, and say what is there or why it cannot be used."""
    metadata = get(metadata_path(adapter_id, revision))
    if metadata.status != 200:
        return _refused(adapter_id, revision, metadata)
    sha = str(metadata.json.get("sha", "")) if isinstance(metadata.json, Mapping) else ""
    if not SHA.fullmatch(sha):
        return AdapterFacts(adapter_id, message="The hub's answer could not be read.")
    names = _names(metadata.json)
    if CONFIG not in names or not names & set(WEIGHTS):
        text = f"{adapter_id} is no LoRA adapter: it has no {CONFIG} with weights beside it."
        return AdapterFacts(adapter_id, SourceCode.UNUSABLE.value, text, sha)
    config = get(f"/{adapter_id}/resolve/{sha}/{CONFIG}")
    if config.status != 200 or not isinstance(config.json, Mapping):
        return _refused(adapter_id, revision, config, sha)
    kind = plain(config.json.get("peft_type")).upper() or "LORA"
    if kind != "LORA":
        text = f"{adapter_id} is an adapter of the kind {kind[:20]}; vLLM takes LoRA."
        return AdapterFacts(adapter_id, SourceCode.UNUSABLE.value, text, sha)
    rank, base = config.json.get("r"), config.json.get("base_model_name_or_path")
    known = isinstance(rank, int) and not isinstance(rank, bool) and 0 < rank < MOST_RANK
    made_for = plain(base, 200)
    return AdapterFacts(adapter_id, SourceCode.FOUND.value, "", sha, rank if known else None, made_for)


def _names(metadata: Mapping[str, Any]) -> set[str]:
    files = metadata.get("siblings")
    rows = files if isinstance(files, list) else []
    return {str(row.get("rfilename")) for row in rows if isinstance(row, Mapping)}


def _refused(adapter_id: str, revision: str | None, reply: Reply, sha: str = "") -> AdapterFacts:
    code = REFUSALS.get(reply.status, SourceCode.UNREACHABLE)
    message = {
        SourceCode.GATED: f"The hub has no public adapter {adapter_id}: adapters are fetched without a token.",
        SourceCode.NOT_FOUND: f"The hub has no adapter {adapter_id}" + (f" at “{revision}”." if revision else "."),
        SourceCode.UNREACHABLE: f"The hub did not answer about {adapter_id}.",
    }[code]
    return AdapterFacts(adapter_id, code.value, message, sha)

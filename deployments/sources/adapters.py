"""LoRA adapters of a hub: what their `adapter_config.json` says. Pure; whoever calls brings the HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
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
    """What is known of an adapter. `base` is the model it was made for, `rank` the width of its matrices.

    `revision` is the one that it was looked up at, empty for the newest; `sha` the commit that it stood for then.
    `private`: what is known was told to a credential, and not to everybody.
    """

    id: str
    code: str = SourceCode.UNREACHABLE.value
    message: str = ""
    sha: str = ""
    rank: int | None = None
    base: str = ""
    remedy: str = ""
    revision: str = ""
    private: bool = False

    @property
    def found(self) -> bool:
        """True when the cluster can be expected to load it."""
        return self.code == SourceCode.FOUND

    def as_json(self) -> dict[str, Any]:
        """These facts as plain JSON values."""
        return asdict(self)

    @property
    def is_public(self) -> bool:
        """True when the hub gave it to who asked as anybody."""
        return self.found and not self.private

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Facts from stored JSON; names this version does not know are left out."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in data.items() if name in known})


def check_adapter(adapter_id: str, revision: str | None, get: Get, *, with_token: bool = False) -> AdapterFacts:
    """Look an adapter up through `get`, and say what is there or why it cannot be used."""
    found = _check(adapter_id, revision, get, with_token)
    return replace(found, revision=revision or "")


def is_adapter(adapter_id: str, revision: str | None, get: Get) -> bool:
    """Whether what lies there is an adapter by its files: one has no `config.json`, as a whole model has."""
    metadata = get(metadata_path(adapter_id, revision))
    names = _names(metadata.json) if isinstance(metadata.json, Mapping) else set()
    return CONFIG in names and "config.json" not in names


def opened(asked: AdapterFacts | None, tested: Iterable[AdapterFacts], revision: str | None) -> AdapterFacts | None:
    """What is known of an adapter with a credential: what anybody is told, and what was tested with it.

    What everybody sees counts where it is enough. The commit is that of the revision that is wanted, or none: of a
    private adapter only what was tested is known.
    """
    mine = next((each for each in tested if each.revision == (revision or "")), next(iter(tested), None))
    if mine is None or (asked is not None and asked.found):
        return asked
    known = asked.sha if asked is not None else ""
    same = mine.revision == (revision or "")
    sha = known or (mine.sha if same else "") or (revision if revision and SHA.fullmatch(revision) else "")
    return replace(mine, sha=sha, private=True)


def _check(adapter_id: str, revision: str | None, get: Get, with_token: bool) -> AdapterFacts:
    metadata = get(metadata_path(adapter_id, revision))
    if metadata.status != 200:
        return _refused(adapter_id, revision, metadata, with_token)
    sha = str(metadata.json.get("sha", "")) if isinstance(metadata.json, Mapping) else ""
    if not SHA.fullmatch(sha):
        return AdapterFacts(adapter_id, message="The hub's answer could not be read.")
    names = _names(metadata.json)
    if CONFIG not in names or not names & set(WEIGHTS):
        text = f"{adapter_id} is no LoRA adapter: it has no {CONFIG} with weights beside it."
        return AdapterFacts(adapter_id, SourceCode.UNUSABLE.value, text, sha)
    config = get(f"/{adapter_id}/resolve/{sha}/{CONFIG}")
    if config.status != 200 or not isinstance(config.json, Mapping):
        return _refused(adapter_id, revision, config, with_token, sha)
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


def _refused(adapter_id: str, revision: str | None, reply: Reply, with_token: bool, sha: str = "") -> AdapterFacts:
    code = REFUSALS.get(reply.status, SourceCode.UNREACHABLE)
    if reply.status == 401 and with_token:
        code = SourceCode.BAD_TOKEN
    message, remedy = (_WITH_TOKEN if with_token else _AS_ANYBODY)[code]
    where = f"{adapter_id} at “{revision}”" if revision else adapter_id
    text = message.format(adapter=where if code is SourceCode.NOT_FOUND else adapter_id)
    return AdapterFacts(adapter_id, code.value, text, sha, remedy=remedy)


_SILENT = ("The hub did not answer about {adapter}.", "Try again later.")
_AS_ANYBODY = {
    # Of what is private the hub says the same to strangers as of what is not there.
    SourceCode.GATED: (
        "The hub shows {adapter} to nobody without a token: it is private or gated, or there is none of this name.",
        "Choose a credential with a token that may read it: the model's credential opens adapters too.",
    ),
    SourceCode.NOT_FOUND: ("The hub has no adapter {adapter}.", "Check owner, name and version."),
    SourceCode.UNREACHABLE: _SILENT,
}
_WITH_TOKEN = {
    SourceCode.GATED: (
        "{adapter} is gated, and this credential has no access to it.",
        "Have its owner give access to the account of that token, or accept its terms on the hub.",
    ),
    SourceCode.NOT_FOUND: (
        "The hub has no adapter {adapter} that this credential may see.",
        "Check owner, name and version, and whether the account of that token may read it.",
    ),
    SourceCode.BAD_TOKEN: ("The hub does not accept this credential.", "Enter the token again, or another."),
    SourceCode.UNREACHABLE: _SILENT,
}

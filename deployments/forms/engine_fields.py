"""Engine flags that have a field of their own: in which group, under which name, and what they may be set to.

One table says which; what a flag takes comes from the flag file of the vLLM version that is chosen, so another version
offers its own attention backends, parsers and number formats. Every other flag is written into the box for experts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from django import forms

from deployments.engine.attention import caches_without
from deployments.engine.facts import ModelFacts
from deployments.engine.flags import Flag, FlagClass, flags_of, versions
from deployments.engine.plugins import Plugin
from deployments.engine.quantization import methods_of
from deployments.forms.values import as_value, shown
from deployments.spec import PARALLEL

Kind = type[int] | type[float] | type[bool] | type[str]
LONGEST, LONGEST_NUMBER = 64, 20
MOST_SHOWN = 3
GROUPS = {
    "memory": "Memory",
    "parallelism": "Parallelism",
    "features": "Features",
    "types": "Quantization and type",
    "expert": "Expert",
}
# Most wishes are made of these two; the others begin folded.
UNFOLDED = frozenset({"memory", "parallelism"})


@dataclass(frozen=True)
class EngineField:
    """One flag with a field. `help` and `placeholder` take the place of what the flag file says.

    `apart`: the roles of a disaggregated deployment have it for themselves, or cannot have it; `fits`: the memory
    estimate depends on it.
    """

    flag: str
    group: str
    label: str
    kind: Kind
    help: str = ""
    placeholder: str = ""
    apart: bool = False
    fits: bool = True

    @property
    def name(self) -> str:
        """The form's name of this field."""
        return self.flag.replace("-", "_")


FIELDS = (
    EngineField("max-model-len", "memory", "Longest context", int, placeholder="as the model"),
    EngineField("gpu-memory-utilization", "memory", "GPU memory share", float),
    EngineField("kv-cache-dtype", "memory", "KV cache type", str),
    EngineField("max-num-seqs", "memory", "Requests at once", int),
    EngineField("max-num-batched-tokens", "memory", "Tokens of one step", int),
    EngineField("tensor-parallel-size", "parallelism", "Tensor parallel size", int, apart=True),
    EngineField("pipeline-parallel-size", "parallelism", "Pipeline parallel size", int, apart=True),
    EngineField("data-parallel-size", "parallelism", "Data parallel size", int, apart=True),
    EngineField("enable-expert-parallel", "parallelism", "Expert parallel", bool),
    EngineField("enable-chunked-prefill", "features", "Chunked prefill", bool),
    EngineField("enable-prefix-caching", "features", "Prefix caching", bool),
    EngineField("attention-backend", "features", "Attention backend", str, fits=False),
    EngineField("enable-auto-tool-choice", "features", "Tools called by itself", bool, fits=False),
    EngineField("tool-call-parser", "features", "Tool parser", str, fits=False),
    EngineField("reasoning-parser", "features", "Reasoning parser", str, fits=False),
    EngineField("spec-method", "features", "Speculative decoding", str, fits=False),
    EngineField("spec-tokens", "features", "Tokens proposed at once", int, fits=False),
    EngineField("quantization", "types", "Quantization", str, placeholder="as the weights are stored"),
    EngineField("dtype", "types", "Number type", str),
)
BY_FLAG: Mapping[str, EngineField] = {field.flag: field for field in FIELDS}
# Kinds of messages for which a group is unfolded.
LOUD = frozenset({"error", "warning"})


class EngineText(forms.CharField):
    """The text of one setting. Forms share it: nothing of it changes, and to copy twenty takes its time."""

    def __deepcopy__(self, memo: object) -> EngineText:
        return self


def form_fields() -> dict[str, forms.Field]:
    """A form field for each; what is typed is judged with the spec and by preflight, beside the field."""
    longest = {int: LONGEST_NUMBER, float: LONGEST_NUMBER}
    return {
        field.name: EngineText(max_length=longest.get(field.kind, LONGEST), label=field.label, required=False)
        for field in FIELDS
    }


@dataclass(frozen=True)
class Offer:
    """What a vLLM version has to say of a field; `missing` where it has no such flag."""

    help: str
    placeholder: str = ""
    options: tuple[tuple[str, str], ...] = ()
    missing: bool = False


@dataclass(frozen=True)
class Shown:
    """One field as the page shows it, for one vLLM version."""

    field: EngineField
    version: str
    value: str
    messages: list[dict[str, Any]]
    plugins: tuple[Plugin, ...] = ()
    without: frozenset[str] = frozenset()

    @property
    def offer(self) -> Offer:
        """What the version says of it."""
        return _offer(self.field, self.version, self.plugins)

    @property
    def options(self) -> tuple[tuple[str, str], ...]:
        """What a choice offers; what is stored stays among it, also where this version does not know it."""
        options = tuple(
            option for option in self.offer.options if option[0] not in self.without or option[0] == self.value
        )
        if not options or self.value in dict(options):
            return options
        return (*options, (self.value, f"{self.value} (not of vLLM {self.version})"))

    @property
    def mode(self) -> str:
        """Which keys a phone offers."""
        return "decimal" if self.field.kind is float else "numeric"


@dataclass(frozen=True)
class Group:
    """Fields that belong together, folded under a line that says what is set."""

    key: str
    title: str
    fields: list[Shown]
    said: str
    wrong: int
    open: bool


def groups(
    version: str,
    values: Mapping[str, str],
    messages: Mapping[str, list[dict[str, Any]]],
    plugins: tuple[Plugin, ...] = (),
    *,
    per_replica: str = "",
    roles: bool = False,
    without: Mapping[str, frozenset[str]] | None = None,
) -> list[Group]:
    """The groups of the form for a vLLM version, with what is in its fields and what is said beside them.

    `per_replica` says how many GPUs a replica takes, where that is known; with `roles` the fields that each of them
    has for itself count for nothing. `without` names choices of a flag that cannot be here. Names of `values` and
    `messages` are those of the form.
    """
    found = []
    for key, title in GROUPS.items():
        fields = [
            Shown(
                field,
                version,
                values.get(field.name, ""),
                messages.get(field.name, []),
                plugins,
                (without or {}).get(field.flag, frozenset()),
            )
            for field in FIELDS
            if field.group == key
        ]
        names = [shown.field.name for shown in fields] or ["args", "adapters"]
        severities = [said["severity"] for name in names for said in messages.get(name, ())]
        counting = [shown for shown in fields if not (roles and shown.field.apart)]
        set_here = _listed(counting) if fields else _counted(values)
        if key == "parallelism":
            set_here = ", ".join(filter(None, (per_replica, set_here)))
        opened = key in UNFOLDED or not LOUD.isdisjoint(severities)
        found.append(Group(key, title, fields, set_here, severities.count("error"), opened))
    return found


def version_of(profile: str, version: str = "") -> str:
    """The vLLM version whose flags are offered: the profile's, as far as they are known; else the newest."""
    known = versions()
    return next((one for one in (version, profile.removeprefix("vllm-")) if one in known), known[-1])


def not_here(version: str, model: ModelFacts | None, capability: float) -> dict[str, frozenset[str]]:
    """Choices that cannot be on a GPU of this compute capability with this model, by flag; 0: not known."""
    cache = "kv-cache-dtype"
    return {cache: caches_without(version, flags_of(version)[cache].choices, model, capability)}


def gpus_per_replica(values: Mapping[str, str]) -> int:
    """GPUs of one replica as the fields say; what cannot be read counts once."""
    sizes = (as_value(int, values.get(BY_FLAG[flag].name, "")) for flag in PARALLEL)
    return math.prod(size for size in sizes if isinstance(size, int) and size > 0)


@cache
def _offer(field: EngineField, version: str, plugins: tuple[Plugin, ...]) -> Offer:
    flag = flags_of(version).get(field.flag)
    chosen = field.kind in (bool, str)
    if flag is None or flag.cls not in {FlagClass.OPEN, FlagClass.GUARDED}:
        return Offer(
            f"vLLM {version} has no such setting.", "", (("", "vLLM's default"),) if chosen else (), missing=True
        )
    words = field.help or flag.help
    if flag.cls is FlagClass.GUARDED:
        words = f"{words} An admin approves it{' where it is on' if field.kind is bool else ''}.".strip()
    empty = field.placeholder or _default(flag)
    if not chosen:
        return Offer(words, empty)
    choices = tuple(sorted(methods_of(version, plugins))) if flag.name == "quantization" else flag.choices
    given = (("true", "On"), ("false", "Off")) if field.kind is bool else tuple((each, each) for each in choices)
    return Offer(words, empty, (("", empty[0].upper() + empty[1:] if field.placeholder else empty), *given))


def _default(flag: Flag) -> str:
    """What vLLM does where nothing is said, as far as it is one value for all models."""
    if flag.kind == "bool":
        return f"vLLM's default ({'off' if flag.default is False else 'usually on'})"
    if isinstance(flag.default, int | float) and not isinstance(flag.default, bool):
        return str(flag.default)
    return f"vLLM's default ({flag.default})" if flag.default else "vLLM's default"


def _listed(fields: Iterable[Shown]) -> str:
    """The fields that are set, the first of them with their values."""
    given = [f"{shown.field.label} {_value(shown)}" for shown in fields if shown.value]
    rest = len(given) - MOST_SHOWN
    return ", ".join(given[:MOST_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _value(field: Shown) -> str:
    for text, label in field.options:
        if text == field.value and field.field.kind is bool:
            return label.lower()
    value = as_value(field.field.kind, field.value) if field.field.kind is int else None
    return field.value if value is None else shown(value)


def _counted(values: Mapping[str, str]) -> str:
    """How many lines the boxes hold."""
    found = []
    for name, thing in (("args", "flag"), ("adapters", "adapter")):
        lines = (line.strip() for line in values.get(name, "").splitlines())
        if count := sum(1 for line in lines if line and not line.startswith("#")):
            found.append(_plural(count, thing))
    return ", ".join(found)


def _plural(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"

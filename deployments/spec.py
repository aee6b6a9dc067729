"""The closed shape of a wish: form, API, files and tests all build a `DeploymentSpec`, and nothing else.

Only the shape lives here. What a value means on this cluster, for this model and this team, is the business
of `deployments.preflight`.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

ArgValue: TypeAlias = int | float | bool | str

MAX_REPLICAS = 50
MAX_NODES = 16
MAX_SURGE = 1
MAX_ADAPTERS = 8
MAX_NAME = 40
MAX_LABEL = 63
MAX_ARGS = 64
MAX_NUMBER = 10**12
MAX_TEXT = 256
# Characters of single fields: the form, the API and what is stored take them from here.
MAX_URI = 512
MAX_REVISION = 128
MAX_FOLDER = 256
MAX_NOTE = 500

SLUG = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
FLAG_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
OPTIMIZATION = re.compile(r"-{0,2}O(=?[0-9])?")
REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
# What no name in Git has: a way up, an empty part, a part that begins or ends with a dot.
NO_REVISION = re.compile(r"\.\.|//|/\.|\.(?:/|\Z)|/\Z")
TEXT_VALUE = re.compile(r"[A-Za-z0-9._/:+-]*")
URI_TEXT = re.compile(r"[\x21-\x7e]+")
ADAPTER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
FOLDER = re.compile(r"/|(/[A-Za-z0-9_][A-Za-z0-9._-]*)+")
# Go templates (KServe), variable expansion (kubelet), a shell (presets): a value meets all three.
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
EXPANSIONS = ("{{", "}}", "$(", "${", "`")


class Strategy(StrEnum):
    """How a model is run on the cluster."""

    STANDARD = "standard"
    DISAGGREGATED = "disaggregated"
    OCI_VOLUME = "oci-volume"


class Role(StrEnum):
    """What a pod does for a request. Pods of the strategy *standard* do both."""

    BOTH = "both"
    PREFILL = "prefill"
    DECODE = "decode"


# Flags whose product is the GPUs of a replica.
PARALLEL = ("tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size")


def hazard(text: str) -> str | None:
    """Why this text must not reach the cluster, in words; None when it is harmless."""
    for marker in EXPANSIONS:
        if marker in text:
            return f"may not contain “{marker}”: it would be expanded on the cluster"
    if text.startswith("-"):
        return "may not begin with “-”: it would be read as another flag"
    if CONTROL.search(text):
        return "may not contain control characters"
    return None


def _closed_text(pattern: re.Pattern[str], allowed: str) -> BeforeValidator:
    def check(value: object) -> object:
        if isinstance(value, str):
            if reason := hazard(value):
                raise ValueError(f"This {reason}.")
            if value and not pattern.fullmatch(value):
                raise ValueError(f"Use {allowed} only.")
        return value

    return BeforeValidator(check)


Slug = Annotated[
    str,
    Field(min_length=1, max_length=MAX_LABEL),
    _closed_text(SLUG, "lower-case letters, digits, “-” and “.”"),
]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


Address = Annotated[
    str,
    Field(min_length=1, max_length=MAX_URI),
    _closed_text(URI_TEXT, "ASCII letters, digits and signs"),
]


def _revision(value: str) -> str:
    if NO_REVISION.search(value):
        raise ValueError(
            "A branch, tag or commit has no “..” or “//” in it, and no part that begins or ends with a dot."
        )
    return value


Revision = Annotated[
    str,
    Field(min_length=1, max_length=MAX_REVISION),
    _closed_text(REVISION, "letters, digits, “.”, “_”, “/” and “-”"),
    AfterValidator(_revision),
]

Cache = Annotated[Literal["claim"], WithJsonSchema({"type": "string", "enum": ["claim"]})]


class Source(_Closed):
    """Where the weights come from."""

    uri: Address
    revision: Revision | None = None
    credential: Slug | None = None
    # Where in an image the weights lie, from its root on; “/models” where nothing is said.
    folder: (
        Annotated[
            str,
            Field(min_length=1, max_length=MAX_FOLDER),
            _closed_text(FOLDER, "a path from the image's root on, as “/models”, of letters, digits, “.”, “_” and “-”"),
        ]
        | None
    ) = None
    # “claim”: fetched once into a volume claim, before replicas start, and mounted by all of them.
    cache: Cache | None = None


class Adapter(_Closed):
    """A LoRA adapter: small weights over those of the model, for requests that name it as their model."""

    name: Annotated[
        str,
        Field(min_length=1, max_length=MAX_LABEL),
        _closed_text(ADAPTER_NAME, "letters, digits, “.”, “_” and “-”"),
    ]
    uri: Address
    revision: Revision | None = None


class Replicas(_Closed):
    """Between how many copies the deployment may run: one, where nothing is said. The form begins with 2 to 10."""

    min: Annotated[int, Field(ge=1, le=MAX_REPLICAS)] = 1
    max: Annotated[int, Field(ge=1, le=MAX_REPLICAS)] = 1

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"The most replicas ({self.max}) must not be below the fewest ({self.min}).")
        return self


def _check_arg(name: str, value: object) -> ArgValue:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError("Must be a finite number.")
        if abs(value) > MAX_NUMBER:
            raise ValueError(f"Must be between -{MAX_NUMBER:,} and {MAX_NUMBER:,}.")
        return value
    if isinstance(value, str):
        if len(value) > MAX_TEXT:
            raise ValueError(f"At most {MAX_TEXT} characters, this has {len(value):,}.")
        if reason := hazard(value):
            raise ValueError(f"This {reason}.")
        if not value or not TEXT_VALUE.fullmatch(value):
            raise ValueError("Use letters, digits, “.”, “_”, “/”, “:”, “+” and “-” only.")
        return value
    raise ValueError("Must be a number, true or false, or a word.")


def _closed_args(args: dict[str, Any]) -> dict[str, ArgValue]:
    problems: dict[str, str] = {}
    checked: dict[str, ArgValue] = {}
    for name, value in args.items():
        if not FLAG_NAME.fullmatch(name) or len(name) > MAX_LABEL:
            problems[name] = flag_name_problem(name)
            continue
        try:
            checked[name] = _check_arg(name, value)
        except ValueError as error:
            problems[name] = str(error)
    if problems:
        raise ArgsError(problems)
    return checked


EngineArgs = Annotated[dict[str, Any], Field(max_length=MAX_ARGS), AfterValidator(_closed_args)]


class Engine(_Closed):
    """Which engine profile runs the model, and the flags given to it (vLLM's own names, without dashes)."""

    profile: Slug = "vllm-0.32.0"
    args: EngineArgs = Field(default_factory=dict)


class Scaling(_Closed):
    """When replicas are added: at `percent` of `concurrency` requests at once per replica."""

    concurrency: Annotated[int, Field(ge=1, le=10_000)] = 10
    percent: Annotated[int, Field(ge=10, le=100)] = 80


class RoleSpec(_Closed):
    """One role of a disaggregated deployment; its flags are laid over those of the engine."""

    replicas: Replicas = Replicas()
    args: EngineArgs = Field(default_factory=dict)


class ArgsError(ValueError):
    """Problems by engine flag; `spec_errors` takes them apart again."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        self.problems = dict(problems)
        super().__init__("; ".join(f"{name[:64]}: {text}" for name, text in problems.items()))


class PlacesError(ValueError):
    """Problems by JSON pointer below the model that raises it; `spec_errors` takes them apart again."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        self.problems = dict(problems)
        super().__init__("; ".join(f"{pointer}: {text}" for pointer, text in problems.items()))


def bare_flag(name: str) -> str:
    """The flag that somebody means who writes its dashes, underscores or value into its name; empty for none."""
    bare = name.lstrip("-").replace("_", "-").split("=", 1)[0].lower()
    return bare if FLAG_NAME.fullmatch(bare) and len(bare) <= MAX_LABEL else ""


def flag_name_problem(name: str) -> str:
    """Why `name` is not how an engine flag is written here."""
    if OPTIMIZATION.fullmatch(name):
        return "This is vLLM's short form of optimization-level, which cannot be set here: leave it out."
    bare = bare_flag(name)
    if bare and bare != name:
        return f"Write this flag as “{bare}”, with its value apart."
    return "This is not the name of a vLLM flag."


class DeploymentSpec(_Closed):
    """What a team wants to run. Immutable; equal specs have equal JSON.

    A disaggregated deployment has `prefill` and `decode` in place of `replicas`, which then count both together.
    """

    source: Source
    strategy: Strategy = Strategy.STANDARD
    flavor: Slug
    replicas: Replicas = Replicas()
    # How many nodes one replica spans, with as many of its GPUs on each.
    nodes: Annotated[int, Field(ge=1, le=MAX_NODES)] = 1
    # Replicas that a change starts before it takes one away: none, and one alone is interrupted; or one.
    surge: Annotated[int, Field(ge=0, le=MAX_SURGE)] = 0
    engine: Engine = Engine()
    prefill: RoleSpec | None = None
    decode: RoleSpec | None = None
    scaling: Scaling | None = None
    adapters: Annotated[list[Adapter], Field(max_length=MAX_ADAPTERS)] = Field(default_factory=list)

    @field_validator("strategy", mode="before")
    @classmethod
    def _known(cls, value: object) -> object:
        if isinstance(value, str):
            try:
                return Strategy(value)
            except ValueError:
                raise ValueError(f"Choose one of: {', '.join(s.value for s in Strategy)}.") from None
        return value

    @model_validator(mode="after")
    def _roles(self) -> Self:
        apart = self.strategy is Strategy.DISAGGREGATED
        own = {role: spec for role in _ROLES if (spec := self._of(role)) is not None}
        problems: dict[str, str] = {}
        for role in _ROLES:
            if apart and role not in own:
                problems[f"/{role}"] = f"The strategy “{self.strategy}” needs “{role}”: its replicas and its own flags."
            elif not apart and role in own:
                problems[f"/{role}"] = f"Only the strategy “{Strategy.DISAGGREGATED}” has a part for {role}."
        if apart and "replicas" in self.model_fields_set:
            problems["/replicas"] = "Prefill and decode have replicas of their own: leave this out."
        if self.nodes > 1:
            problems |= self._across_nodes()
        if self.surge and (apart or self.nodes > 1):
            problems["/surge"] = _OWN_SURGE if apart else _NO_SURGE
        problems |= self._of_adapters()
        if problems:
            raise PlacesError(problems)
        if apart:
            # Both together, past the most of one role; to_json leaves it out again.
            both = [spec.replicas for spec in own.values()]
            total = {name: sum(getattr(each, name) for each in both) for name in ("min", "max")}
            self.__dict__["replicas"] = Replicas.model_construct(**total)
        return self

    def _of_adapters(self) -> dict[str, str]:
        """What is wrong with adapters as such: names that are used twice."""
        names = [adapter.name for adapter in self.adapters]
        return {
            f"/adapters/{place}/name": f"Two adapters are called “{name}”."
            for place, name in enumerate(names)
            if name in names[:place]
        }

    def _across_nodes(self) -> dict[str, str]:
        """What keeps a replica from spanning nodes."""
        if self.strategy is not Strategy.STANDARD:
            return {"/nodes": f"Only replicas of the strategy “{Strategy.STANDARD}” span nodes: leave this out."}
        if self.gpus_per_replica % self.nodes:
            return {
                "/nodes": f"The {self.gpus_per_replica} GPUs of a replica cannot be shared out evenly over "
                f"{self.nodes} nodes: tensor-parallel-size times pipeline-parallel-size must be a multiple of it."
            }
        return {}

    def by_role(self) -> dict[Role, DeploymentSpec]:
        """What the pods of each role run, each written as a spec of its own: flags and replicas are the role's."""
        if self.prefill is None or self.decode is None:
            return {Role.BOTH: self}
        return {Role.PREFILL: self._as_one(self.prefill), Role.DECODE: self._as_one(self.decode)}

    def _as_one(self, role: RoleSpec) -> DeploymentSpec:
        engine = self.engine.model_copy(update={"args": {**self.engine.args, **role.args}})
        alone = {"strategy": Strategy.STANDARD, "prefill": None, "decode": None}
        return self.model_copy(update={**alone, "replicas": role.replicas, "engine": engine})

    def _of(self, role: Role) -> RoleSpec | None:
        return self.prefill if role is Role.PREFILL else self.decode

    @property
    def tensor_parallel(self) -> int:
        """GPUs that one layer is split over; of two roles the larger."""
        return max(_count(args, "tensor-parallel-size") for args, _ in self.engines())

    @property
    def pipeline_parallel(self) -> int:
        """Groups of layers that run one after the other; of two roles the larger."""
        return max(_count(args, "pipeline-parallel-size") for args, _ in self.engines())

    @property
    def data_parallel(self) -> int:
        """Engines of one replica, each with the whole model and a cache of its own; of two roles the larger."""
        return max(_count(args, "data-parallel-size") for args, _ in self.engines())

    @property
    def gpus_per_replica(self) -> int:
        """GPUs of one replica: tensor times pipeline times data parallel size; of two roles the larger."""
        return max(gpus for gpus, _ in self._sizes)

    @property
    def gpus_per_pod(self) -> int:
        """GPUs that one pod holds, which stand in one node; of two roles the larger."""
        return self.gpus_per_replica // self.nodes

    @property
    def gpus(self) -> int:
        """GPUs at the most replicas of every role, without the surge of a rollout."""
        return sum(gpus * replicas.max for gpus, replicas in self._sizes)

    @property
    def gpus_at_first(self) -> int:
        """GPUs at the fewest replicas of every role: what it starts with."""
        return sum(gpus * replicas.min for gpus, replicas in self._sizes)

    @cached_property
    def _sizes(self) -> tuple[tuple[int, Replicas], ...]:
        """GPUs of a replica of each role, and its replicas; rules ask for sums of these often."""
        return tuple((gpus_of(args), replicas) for args, replicas in self.engines())

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with other values; what was worked out of this one is worked out anew."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("_sizes", None)
        return copied

    def engines(self) -> Iterator[tuple[Mapping[str, ArgValue], Replicas]]:
        """Flags and replicas of each role, prefill before decode; these alone, as sums of them are asked for often."""
        if self.prefill is None or self.decode is None:
            yield self.engine.args, self.replicas
            return
        for role in (self.prefill, self.decode):
            yield {**self.engine.args, **role.args}, role.replicas

    def to_json(self) -> dict[str, Any]:
        """This spec as plain JSON values, every field of its strategy written out.

        What came later stays out where it is not used, so that what was signed before keeps its digest.
        """
        left_out = {name for name in ("prefill", "decode", "scaling") if getattr(self, name) is None}
        if self.strategy is Strategy.DISAGGREGATED:
            left_out.add("replicas")
        if self.nodes == 1:
            left_out.add("nodes")
        if not self.surge:
            left_out.add("surge")
        if not self.adapters:
            left_out.add("adapters")
        data = self.model_dump(mode="json", exclude=left_out)
        for name in ("folder", "cache"):
            if data["source"][name] is None:
                del data["source"][name]
        return data

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Build a spec from decoded JSON; raises ValidationError (see `spec_errors.flat_errors`)."""
        return cls.model_validate(data)


class DeploymentRequest(_Closed):
    """One wish as files and the API carry it: for whom, under which name, and what."""

    team: Slug
    name: Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
    spec: DeploymentSpec


_ROLES = (Role.PREFILL, Role.DECODE)
_OWN_SURGE = "Roles start new replicas before old ones go, as KServe has it: leave this out."
_NO_SURGE = "Replicas that span nodes are replaced in place, as KServe has it: leave this out."


def gpus_of(args: Mapping[str, ArgValue]) -> int:
    """GPUs of one replica that runs with these flags."""
    gpus = 1
    for flag in PARALLEL:
        if flag in args:
            gpus *= _count(args, flag)
    return gpus


def _count(args: Mapping[str, ArgValue], flag: str) -> int:
    value = args.get(flag, 1)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 1 else 1


def canonical(data: object) -> bytes:
    """JSON with one spelling: sorted keys, no spaces, UTF-8; the bytes that digests are made from."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(spec: DeploymentSpec, resolution: Mapping[str, Any], objects: Sequence[Mapping[str, Any]]) -> str:
    """The sha256 (hex) that an approval signs: over spec, resolution and rendered objects."""
    document = {"spec": spec.to_json(), "resolution": dict(resolution), "objects": list(objects)}
    return hashlib.sha256(canonical(document)).hexdigest()

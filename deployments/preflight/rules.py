"""How rules are written: one small function each, registered in the order their findings are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from deployments.engine.defaults import NEWEST, Defaults, as_asked, as_taken, defaults_of
from deployments.engine.facts import ModelFacts
from deployments.engine.flags import versions
from deployments.engine.lora import Slots, lora_rank
from deployments.engine.profiles import EngineProfile
from deployments.engine.sizing import Fit, Sizer, UnknownShapeError
from deployments.findings import Change, Finding
from deployments.preflight.facts import Facts, FlavorFacts, QuotaFacts
from deployments.sources import Scheme, Source, SourceError, parse
from deployments.sources.formats import WeightFormat
from deployments.sources.oci import within
from deployments.spec import ArgValue, DeploymentSpec, Role


@dataclass
class Scratch:
    """What was worked out about wishes that follow one from the other, under the same facts.

    `sizers` by engine and number of adapters; `findings` by the spec that a rule looked at and the rule, but for those
    that follow from where changes lead; `asked` while a rule runs that has asked for that.
    """

    sizers: dict[object, Sizer] = field(default_factory=dict)
    findings: dict[str, dict[Rule, list[Finding]]] = field(default_factory=dict)
    asked: bool = False


@dataclass(frozen=True)
class Case:
    """What a rule looks at: the wish, for whom it is, and the facts."""

    spec: DeploymentSpec
    name: str
    team: str
    facts: Facts
    # What `admits` gives.
    tries: Callable[[Sequence[Change]], bool] | None = None
    # Which role's engine `spec` is, where it is one of two.
    role: Role = Role.BOTH
    # True where nobody reads what is said but a program that follows one remedy: one of each is enough.
    brief: bool = False
    scratch: Scratch = field(default_factory=Scratch, compare=False)

    @property
    def admits(self) -> Callable[[Sequence[Change]], bool] | None:
        """Whether changes of this spec lead to nothing else that is refused; None where no remedies are looked for."""
        self.scratch.asked = True
        return self.tries

    @cached_property
    def roles(self) -> dict[Role, DeploymentSpec]:
        """What the pods of each role run, each as a spec of its own."""
        return self.spec.by_role()

    @property
    def flavor(self) -> FlavorFacts | None:
        """The chosen flavor, if it exists."""
        return self.facts.flavors.get(self.spec.flavor)

    @property
    def quota(self) -> QuotaFacts | None:
        """The team's allowance of the chosen flavor, if it has one."""
        return self.facts.quotas.get(self.spec.flavor)

    @property
    def profile(self) -> EngineProfile | None:
        """The chosen engine profile, if it exists."""
        return self.facts.profiles.get(self.spec.engine.profile)

    @property
    def version(self) -> str:
        """The vLLM version of the chosen engine; the newest that is known where there is none."""
        return self.profile.version if self.profile else versions()[-1]

    @cached_property
    def model(self) -> ModelFacts | None:
        """What is known of the model, if it was looked up, as the chosen engine takes it."""
        return as_taken(self.facts.model, self.defaults) if self.facts.model else None

    @cached_property
    def defaults(self) -> Defaults:
        """What the chosen engine assumes where a flag is not given."""
        return defaults_of(self.profile.version) if self.profile else NEWEST

    @property
    def context(self) -> int | None:
        """Tokens of a request's prompt and answer: as asked for, or what the engine takes by itself.

        More than the model has is refused as that, and nothing else is to be made large enough for it.
        """
        model, asked = as_asked(self.model, self.spec.engine.args) if self.model else None, self.whole("max-model-len")
        if asked and model and model.max_position:
            return min(asked, model.max_position)
        return asked or (model.usual_context if model else None)

    @cached_property
    def within_model(self) -> Case:
        """The same with a context that the model has, for rules about what it takes."""
        asked, length = self.whole("max-model-len"), self.context
        if not asked or not length or asked <= length:
            return self
        args = {**self.spec.engine.args, "max-model-len": length}
        engine = self.spec.engine.model_copy(update={"args": args})
        return replace(self, spec=self.spec.model_copy(update={"engine": engine}))

    @cached_property
    def sizer(self) -> Sizer | None:
        """What estimates how the model sits in memory, as the chosen engine runs it; None while nothing is known."""
        if self.model is None:
            return None
        key, known = (self.spec.engine.profile, len(self.spec.adapters)), self.scratch.sizers
        if key not in known:
            slots = Slots(len(self.spec.adapters), self.lora_rank) if self.spec.adapters else None
            known[key] = Sizer(self.model, self.defaults, slots)
        return known[key]

    @cached_property
    def estimate(self) -> Fit | None:
        """How the model sits in the memory of the chosen GPUs; None while model, flavor or shape are not known."""
        if self.sizer is None or self.flavor is None:
            return None
        try:
            return self.sizer.fit(self.flavor.gpu, self.spec.engine.args)
        except UnknownShapeError:
            return None

    @cached_property
    def loads(self) -> Source | None:
        """What the cluster loads: what is named, or what an entry of a registry stands for; None while unknown."""
        found = self.facts.source_check
        try:
            return parse(found.loads if found is not None and found.loads else self.spec.source.uri)
        except SourceError:
            return None

    @property
    def is_gguf(self) -> bool:
        """True for a model that is one GGUF file; of what nobody could look into, as images, the name says so."""
        source, model = self.loads, self.model
        named = source is not None and source.path.endswith(".gguf")
        if source is not None and source.scheme is Scheme.OCI:
            named = bool(within(self.spec.source.folder)[1])
        return named or (model is not None and model.format == WeightFormat.GGUF)

    @property
    def lora_rank(self) -> int:
        """The rank of adapters that the engine makes room for."""
        return lora_rank(self.facts.adapters)

    def arg(self, name: str) -> ArgValue | None:
        """The value given to an engine flag, if any."""
        return self.spec.engine.args.get(name)

    def whole(self, name: str) -> int | None:
        """The whole number given to an engine flag, if it is one."""
        value = self.arg(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else None


Rule = Callable[[Case], Iterable[Finding]]


def said(case: Case, checks: Iterable[Rule]) -> Iterator[Finding]:
    """What rules say one after the other; what they said before of the same spec they are not asked again."""
    scratch = case.scratch
    known = scratch.findings.setdefault(case.spec.model_dump_json(), {})
    for check in checks:
        found = known.get(check)
        if found is None:
            # The rule that looks at this wish, if one does, has asked where changes lead: that stays known.
            before, scratch.asked = scratch.asked, False
            found = list(check(case))
            if not scratch.asked:
                known[check] = found
            scratch.asked = before
        yield from found


class Rules(list[Rule]):
    """The rules of one subject; they run in the order they are registered."""

    def rule(self, check: Rule) -> Rule:
        """Register a rule."""
        self.append(check)
        return check


def plural(count: int, thing: str) -> str:
    """“1 GPU”, “2 GPUs”."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def gib(value: float) -> str:
    """A memory size for people, three significant digits."""
    return f"{value:,.0f} GiB" if abs(value) >= 100 else f"{value:.3g} GiB"

"""Rules about what an engine reads at all: methods of quantisation and GGUF files, some of which take a plugin."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from deployments.engine.flags import versions
from deployments.engine.plugins import Plugin
from deployments.engine.profiles import EngineProfile
from deployments.engine.quantization import Weights, known_methods, method, methods_of
from deployments.findings import Finding, arg_pointer, error
from deployments.preflight.quantised import reads
from deployments.preflight.rules import Case, Rules

of_wish = Rules()
rules = Rules()

FLAG = "quantization"
PROFILE, SOURCE = "/spec/engine/profile", "/spec/source/uri"
# Names that models are stored under, and the method that vLLM takes for them.
STORED_AS = {"auto-round": "inc", "compressed_tensors": "compressed-tensors"}
NEAREST = "fp8"


@of_wish.rule
def gguf_file(case: Case) -> Iterator[Finding]:
    """GGUF files are read by vLLM itself, later by a plugin, which takes shape and tokenizer from files beside."""
    profile = case.profile
    if not case.is_gguf or profile is None or _reads_gguf(case, profile):
        return
    plugin = Plugin.GGUF
    if plugin in profile.plugins:
        said = (
            f"{plugin.package} takes shape and tokenizer from config.json and tokenizer.json beside the GGUF file, and "
            "here they are not known to lie: the engine would not start."
        )
        own = "Name a folder that holds the file and both of them, or the model as safetensors."
    else:
        said = (
            f"vLLM {profile.version} reads GGUF files only with {plugin.package}, which the image of “{profile.slug}” "
        )
        said += "does not have: the engine would not start."
        own = f"Name the model as safetensors, or ask an admin for an engine whose image has {plugin.package}."
    yield _elsewhere(case, "gguf_engine", SOURCE, said, own, lambda other: _reads_gguf(case, other))


def _reads_gguf(case: Case, profile: EngineProfile) -> bool:
    """Whether an engine reads this file. Of a version nobody knows all may be, and another rule refuses it."""
    if profile.version not in versions():
        return True
    found = method(profile.version, "gguf")
    if found is None or found.plugin is None:
        return True
    model = case.model
    beside = model is not None and model.described and bool(model.tokenizer)
    return found.plugin in profile.plugins and beside


@rules.rule
def quantization_known(case: Case) -> Iterator[Finding]:
    """A method that the flag names must be one that this version has, by itself or by a plugin of its image."""
    if not says_method(case):
        return
    name, model = str(case.arg(FLAG)), case.model
    pointer = arg_pointer(FLAG)
    stored = model is not None and bool(model.quantization)
    found = method(case.version, name, stored=False)
    remedy, value = "Leave it out.", None
    if found is not None and found.weights is Weights.ONLINE and not stored:
        nearest = case.admits is not None and case.admits([(pointer, NEAREST)])
        remedy = f"Use {NEAREST}, or leave it out." if nearest else remedy
        value = NEAREST if nearest else None
    said = f"{_lacks(case, name)}: the engine would not start."
    yield _elsewhere(case, "quantization_missing", pointer, said, remedy, lambda other: has(other, name), value)


@rules.rule
def weights_known(case: Case) -> Iterator[Finding]:
    """Weights must be stored as this version reads them, by itself or by a plugin of its image."""
    model, profile, asked = case.model, case.profile, case.arg(FLAG)
    own = model.quantization if model is not None else None
    if model is None or not own or profile is None or case.is_gguf or has(profile, own) or says_method(case):
        return
    if isinstance(asked, str) and reads(asked, own, model.architecture):
        return
    said = f"{model.id} is stored as {own}. {_lacks(case, own)}: the engine would not start."
    remedy = "Choose another variant of the model."
    yield _elsewhere(case, "quantization_unread", SOURCE, said, remedy, lambda other: has(other, own))


def says_method(case: Case) -> bool:
    """True where the flag names a method that vLLM has or had, and the chosen engine has not."""
    name, profile = case.arg(FLAG), case.profile
    return profile is not None and isinstance(name, str) and name in known_methods() and not has(profile, name)


def has(profile: EngineProfile, name: str) -> bool:
    """Whether an engine has a method; of a version nobody knows all may be, and another rule refuses it."""
    return profile.version not in versions() or STORED_AS.get(name, name) in methods_of(
        profile.version, profile.plugins
    )


def _lacks(case: Case, name: str) -> str:
    found = method(case.version, name)
    slug = case.spec.engine.profile
    if found is not None and found.plugin is not None:
        package = found.plugin.package
        return f"vLLM {case.version} has {name} only with {package}, and the image of “{slug}” does not have that"
    return f"vLLM {case.version} does not have the method {name}"


def _elsewhere(
    case: Case,
    code: str,
    pointer: str,
    said: str,
    remedy: str,
    can: Callable[[EngineProfile], bool],
    value: str | None = None,
) -> Finding:
    """The finding, at the engine where another one does it and nothing else is in its way; else at its own field."""
    others = sorted(case.facts.profiles.values(), key=lambda one: (one.version, one.slug), reverse=True)
    for other in others:
        change = (PROFILE, other.slug)
        if other.slug != case.spec.engine.profile and can(other) and case.admits and case.admits([change]):
            title = other.title or other.slug
            return error(code, PROFILE, said, f"Choose the engine {title}. {_or(remedy)}", other.slug)
    return error(code, pointer, said, remedy, value)


def _or(remedy: str) -> str:
    """The other way, as the second sentence of a remedy."""
    return f"Or {remedy[0].lower()}{remedy[1:]}"

"""Write `deployments/data/models-vllm-<version>.json`: which models a vLLM release implements, and which it can read.

    python scripts/wheel_models.py VLLM_FOLDER TRANSFORMERS_FOLDER

The folders hold the unpacked wheels of vLLM and of the transformers that its image has: the newest that the release
takes. Their source is read, never run.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))

from wheel_classes import MODELS, Class, Support, UnreadableError, Wheel, adapters, pipeline
from wheel_names import version_of, words
from wheel_prompts import made_both_ways, undivided
from wheel_tokenizers import tokenizers_of

DATA = Path(__file__).resolve().parent.parent / "deployments" / "data"
NOTE = (
    "architectures: those vLLM implements; a name whose suffix is exchanged for another of suffixes counts too. gone:"
    " until which release it had others; plugins: what brings others. pooling: those that give embeddings or scores "
    "and write no text. model_types: of which it or its transformers has the configuration; by_architecture: where "
    "config.json names none. Of the classes of transformers, runs: those that vLLM can run in place of an "
    "implementation of its own, refuses: those it cannot. Of the architectures, whole: those whose layers are not cut"
    " into stages (they lack SupportsPP); plain: those that take no LoRA adapters (SupportsLoRA); maybe_whole, "
    "maybe_plain: of which their source does not say. undivided: those that read each prompt whole where they give "
    "embeddings or scores. drafts_cut: whether layers that propose tokens are cut into "
    "stages with the rest. tokenizers: classes of transformers; tokenizer_types: model types that have one whatever a"
    " repository names, and tokenizer_instead: whether its files are then read without the class that it names. Read "
    "from the wheels by scripts/wheel_models.py."
)
# Tables of the registry; those that a release does not have are left out.
POOLING = frozenset(
    {
        "_EMBEDDING_MODELS",
        "_LATE_INTERACTION_MODELS",
        "_REWARD_MODELS",
        "_TOKEN_CLASSIFICATION_MODELS",
        "_SEQUENCE_CLASSIFICATION_MODELS",
        "_CROSS_ENCODER_MODELS",
    }
)
ROOT_CLASS = "PreTrainedModel"
SUPPORTS = "_supports_attention_backend"
# By which vLLM asks transformers whether attention can be exchanged for its own (transformers.modeling_utils).
CAN_SET = "_can_set_attn_implementation"
ATTENTION = re.compile(r"^class \w*Attention\w*\(nn\.Module\):", re.MULTILINE)
INTERFACE = "ALL_ATTENTION_FUNCTIONS.get_interface("


class Ported(NamedTuple):
    """A class of transformers: what it descends from, what it says of its attention, and where it stands."""

    bases: tuple[str, ...]
    supports: bool | None
    file: Path


def document_of(vllm: Path, transformers: Path) -> dict[str, Any]:
    """What the data file holds of one release."""
    registry = vllm / "vllm" / "model_executor" / "models" / "registry.py"
    config = vllm / "vllm" / "transformers_utils" / "config.py"
    model = vllm / "vllm" / "config" / "model.py"
    runs, refuses = _classes(transformers / "transformers" / "models", CAN_SET in registry.read_text(encoding="utf-8"))
    own = _literals(_value(config, "_CONFIG_REGISTRY"))
    return {
        "note": NOTE,
        "vllm": version_of(vllm),
        "transformers": _release(transformers),
        "suffixes": [pair[0] for pair in ast.literal_eval(_value(model, "_SUFFIX_TO_DEFAULTS"))],
        "architectures": sorted(_implemented(registry)),
        "gone": _table(registry, "_PREVIOUSLY_SUPPORTED_MODELS"),
        "plugins": _table(registry, "_OOT_SUPPORTED_MODELS"),
        "pooling": sorted(pooling(registry)),
        "model_types": sorted({*own, *_configurations(transformers / "transformers" / "models" / "auto")}),
        "by_architecture": _table(config, "_ARCHITECTURE_TO_MODEL_TYPE"),
        "runs": sorted(runs),
        "refuses": sorted(refuses),
        **_interfaces(vllm, registry),
        "drafts_cut": _drafts_cut(vllm / "vllm" / "config" / "speculative.py"),
        "undivided": _undivided(vllm, registry),
        **tokenizers_of(vllm, transformers),
    }


def _interfaces(vllm: Path, registry: Path) -> dict[str, list[str]]:
    """Architectures without stages and without adapters, and those whose source does not tell."""
    wheel, found = Wheel(vllm), {name: set[str]() for name in ("whole", "plain", "maybe_whole", "maybe_plain")}
    for architecture, (module, name) in _places(registry).items():
        classes = _of(wheel, module if module.startswith("vllm.") else f"{MODELS}.{module}", name)
        for word, asks in (("whole", pipeline), ("plain", adapters)):
            said = {asks(each) for each in classes}
            if said == {Support.NO}:
                found[word].add(architecture)
            elif said != {Support.YES}:
                found[f"maybe_{word}"].add(architecture)
    return {word: sorted(names) for word, names in found.items()}


def _drafts_cut(speculative: Path) -> bool:
    """True where the layers that propose tokens get as many stages as the model."""
    tree = ast.parse(speculative.read_text(encoding="utf-8"))
    named = [node for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "pipeline_parallel_size"]
    return any(not isinstance(node.value, ast.Constant) for node in named)


def _undivided(vllm: Path, registry: Path) -> list[str]:
    """Architectures of embeddings or scores that read each prompt whole."""
    wheel, found = Wheel(vllm), made_both_ways(registry.parent / "config.py")
    for architecture, (module, name) in _places(registry).items():
        classes = _of(wheel, module if module.startswith("vllm.") else f"{MODELS}.{module}", name)
        if classes and all(map(undivided, classes)):
            found.add(architecture)
    return sorted(found)


def _of(wheel: Wheel, module: str, name: str) -> list[Class]:
    try:
        return wheel.classes(module, name)
    except UnreadableError:
        return []


def _places(registry: Path) -> dict[str, tuple[str, str]]:
    """Module and class of each architecture, from the tables that the registry is put together from."""
    tables = [part.id for part in ast.walk(_value(registry, "_VLLM_MODELS")) if isinstance(part, ast.Name)]
    found = {}
    for table in map(partial(_value, registry), tables):
        for key, value in zip(table.keys, table.values, strict=True) if isinstance(table, ast.Dict) else ():
            if key is not None:  # Else a part of another table, repeated.
                found[str(ast.literal_eval(key))] = ast.literal_eval(value)
    return found


def _implemented(registry: Path) -> set[str]:
    """What stands in the tables that the registry is put together from."""
    parts = ast.walk(_value(registry, "_VLLM_MODELS"))
    return {name for part in parts if isinstance(part, ast.Name) for name in words(registry, part.id)}


def pooling(registry: Path) -> set[str]:
    """What stands in no table of models that write text, nor of those that do so of images and sounds."""
    tables = [part.id for part in ast.walk(_value(registry, "_VLLM_MODELS")) if isinstance(part, ast.Name)]
    writing = {name for table in tables if table not in POOLING for name in words(registry, table)}
    return {name for table in tables if table in POOLING for name in words(registry, table)} - writing


def _configurations(auto: Path) -> Iterator[str]:
    """Model types of transformers: in one table up to 5.5, in a generated one with additions after it."""
    for file in (auto / "auto_mappings.py", auto / "configuration_auto.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body if file.exists() else ():
            named = next((each for each in ast.walk(node) if isinstance(each, ast.Name)), None)
            if isinstance(node, ast.Assign | ast.Expr) and named is not None and named.id == "CONFIG_MAPPING_NAMES":
                yield from _literals(node.value)


def _literals(value: ast.expr) -> Iterator[str]:
    """Keys of dicts, names of keywords, and first words of pairs, wherever they stand in an expression."""
    for node in ast.walk(value):
        match node:
            case ast.Dict(keys=keys):
                yield from (str(key.value) for key in keys if isinstance(key, ast.Constant))
            case ast.keyword(arg=str(name)):
                yield name
            case ast.Tuple(elts=[ast.Constant(value=str(name)), _]):
                yield name


def _classes(models: Path, source_counts: bool) -> tuple[set[str], set[str]]:
    """Classes of transformers that vLLM can run, and those it cannot; `source_counts`: it reads their source, too."""
    known: dict[str, Ported] = {}
    exported: set[str] = set()
    for file in sorted(models.glob("*/modeling_*.py")):
        if file.name.startswith(("modeling_tf_", "modeling_flax_")):
            continue
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            match node:
                case ast.ClassDef(name=name, bases=bases, body=body):
                    known[name] = Ported(tuple(map(_last, bases)), _supports(body), file)
                case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                    exported.update(ast.literal_eval(value))
    found = {name for name in exported if _descends(name, known)}
    runs = {name for name in found if _exchanges(name, known) or (source_counts and _by_interface(known[name].file))}
    return runs, found - runs


def _supports(body: list[ast.stmt]) -> bool | None:
    for node in body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == SUPPORTS:
            return bool(ast.literal_eval(node.value))  # type: ignore[attr-defined]
    return None


def _descends(name: str, known: Mapping[str, Ported]) -> bool:
    return name == ROOT_CLASS or (name in known and any(_descends(base, known) for base in known[name].bases))


def _exchanges(name: str, known: Mapping[str, Ported]) -> bool:
    """What a class says of its attention itself, or the first of what it descends from that says anything."""
    return _said(name, known) is True


def _said(name: str, known: Mapping[str, Ported]) -> bool | None:
    if name not in known:
        return None
    if known[name].supports is not None:
        return known[name].supports
    return next((said for base in known[name].bases if (said := _said(base, known)) is not None), None)


def _by_interface(file: Path) -> bool:
    text = file.read_text(encoding="utf-8")
    return ATTENTION.search(text) is None or INTERFACE in text


def _last(base: ast.expr) -> str:
    return base.attr if isinstance(base, ast.Attribute) else base.id if isinstance(base, ast.Name) else ""


def _table(path: Path, name: str) -> dict[str, str]:
    """A table of words; empty where the release has none of that name."""
    try:
        found: dict[str, str] = ast.literal_eval(_value(path, name))
    except LookupError:
        return {}
    return found


def _value(path: Path, name: str) -> ast.expr:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        match node:
            case ast.Assign(targets=[ast.Name(id=found)], value=value) if found == name:
                return value
            case ast.AnnAssign(target=ast.Name(id=found), value=ast.expr() as value) if found == name:
                return value
    raise LookupError(f"{path} has no {name}.")


def _release(transformers: Path) -> str:
    (folder,) = transformers.glob("transformers-*.dist-info")
    return folder.name.removeprefix("transformers-").removesuffix(".dist-info")


def text_of(document: Mapping[str, Any]) -> str:
    """The text of a data file, one entry a line."""
    lines = (f" {json.dumps(key)}: {json.dumps(value)}" for key, value in document.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    made = document_of(Path(sys.argv[1]), Path(sys.argv[2]))
    (DATA / f"models-vllm-{made['vllm']}.json").write_text(text_of(made), encoding="utf-8")

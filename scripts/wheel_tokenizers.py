"""Tokenizers that a transformers wheel has, read from its source: what a model's own code is not needed for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

MAPPING, INSTEAD = "TOKENIZER_MAPPING_NAMES", "MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS"
# The class that stands in where a repository names one that is not there; before it the engine stopped.
BACKEND = "TokenizersBackend"
VLLM_INSTEAD = "_MODEL_TYPES_WITH_INCORRECT_TOKENIZER_CLASS"
BUILT_IN = ("PreTrainedTokenizer", "PreTrainedTokenizerFast")


def tokenizers_of(vllm: Path, transformers: Path) -> dict[str, object]:
    """Names of classes, model types that have one whatever a repository names, and whether one stands in for others."""
    auto = transformers / "transformers" / "models" / "auto"
    source = (auto / "tokenization_auto.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    mapped = dict(_pairs(_value(tree, MAPPING)))
    types = {*mapped, *_words(_value(tree, INSTEAD)), *_types_by_vllm(vllm)}
    own = _own_types(vllm / "vllm" / "transformers_utils" / "config.py", _configurations(auto), types)
    classes = {word for value in mapped.values() for word in _words(value)}
    return {
        "tokenizers": sorted({*classes, *_exported(transformers / "transformers"), *BUILT_IN}),
        "tokenizer_types": sorted({*types, *own}),
        "tokenizer_instead": BACKEND in source,
    }


def _pairs(value: ast.expr | None) -> Iterator[tuple[str, ast.expr]]:
    """Names and what they stand for in tables written as lists of pairs, as dicts or as keywords."""
    for node in ast.walk(value) if value is not None else ():
        match node:
            case ast.List(elts=pairs):
                for pair in pairs:
                    match pair:
                        case ast.Tuple(elts=[ast.Constant(value=str(name)), second]):
                            yield name, second
            case ast.Dict(keys=keys, values=values):
                for key, second in zip(keys, values, strict=True):
                    if isinstance(key, ast.Constant):
                        yield str(key.value), second
            case ast.keyword(arg=str(name), value=second):
                yield name, second


def _configurations(auto: Path) -> dict[str, str]:
    """Model types by the class of their configuration."""
    found = {}
    for file in (auto / "configuration_auto.py", auto / "auto_mappings.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body if file.exists() else ():
            named = next((each for each in ast.walk(node) if isinstance(each, ast.Name)), None)
            if isinstance(node, ast.Assign | ast.Expr) and named is not None and named.id == "CONFIG_MAPPING_NAMES":
                for name, value in _pairs(node.value):
                    found.update(dict.fromkeys(_words(value), name))
    return found


def _own_types(config: Path, known: dict[str, str], types: set[str]) -> Iterator[str]:
    """Model types of vLLM whose configuration has the name of one of transformers, which is what counts."""
    for name, value in _pairs(_value(ast.parse(config.read_text(encoding="utf-8")), "_CONFIG_REGISTRY")):
        if any(known.get(word) in types for word in _words(value)):
            yield name


def _types_by_vllm(vllm: Path) -> Iterator[str]:
    file = vllm / "vllm" / "tokenizers" / "registry.py"
    if file.exists():
        yield from _words(_value(ast.parse(file.read_text(encoding="utf-8")), VLLM_INSTEAD))


def _exported(transformers: Path) -> Iterator[str]:
    for file in transformers.glob("models/*/tokenization_*.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            match node:
                case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                    yield from (word for word in _words(value) if "Tokenizer" in word)


def _value(tree: ast.Module, name: str) -> ast.expr | None:
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=found)], value=value) if found == name:
                return value
            case ast.AnnAssign(target=ast.Name(id=found), value=ast.expr() as value) if found == name:
                return value
    return None


def _words(value: ast.expr | None) -> Iterator[str]:
    for node in ast.walk(value) if value is not None else ():
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value

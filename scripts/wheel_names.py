"""Write what the wheel of a vLLM release knows by name: words that its flags take though its parser knows no list.

    python scripts/wheel_names.py FOLDER…

Each folder holds the unpacked wheel of one release. Its source is read, never run. The names go to
tests/data/engine/names-by-version.json, from which scripts/flag_files.py makes the choices of flags.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

NAMES = Path(__file__).resolve().parent.parent / "tests" / "data" / "engine" / "names-by-version.json"
NOTE = "Names that flags of a vLLM release take, read from its wheel by scripts/wheel_names.py."
# In which file of a release, under which name of its source.
LISTS = {
    "attention_backends": ("v1/attention/backends/registry.py", "AttentionBackendEnum"),
    "kv_cache_dtypes": ("config/cache.py", "CacheDType"),
    "load_formats": ("model_executor/model_loader/__init__.py", "LoadFormats"),
    "quantization_methods": ("model_executor/layers/quantization/__init__.py", "QuantizationMethods"),
    "reasoning_parsers": ("reasoning/__init__.py", "_REASONING_PARSERS_TO_REGISTER"),
    "tool_call_parsers": ("tool_parsers/__init__.py", "_TOOL_PARSERS_TO_REGISTER"),
}


def version_of(folder: Path) -> str:
    """The release that an unpacked wheel is of."""
    for node in ast.parse((folder / "vllm" / "_version.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and "__version__" in map(_name, node.targets):
            return str(ast.literal_eval(node.value))
    raise LookupError(f"{folder} does not say which release of vLLM it is.")


def lists_of(folder: Path) -> dict[str, list[str]]:
    """Every list of names of an unpacked wheel, sorted."""
    return {key: sorted(words(folder / "vllm" / path, name)) for key, (path, name) in LISTS.items()}


def words(path: Path, name: str) -> Iterator[str]:
    """The keys of a dict, the words of a Literal or the members of an enumeration that stands in a file as `name`."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        match node:
            case ast.ClassDef(name=found) if found == name:
                yield from (_name(each.targets[0]) for each in node.body if isinstance(each, ast.Assign))
                return
            case ast.Assign(targets=[target], value=value) | ast.AnnAssign(target=target, value=ast.expr() as value):
                if _name(target) == name:
                    yield from _words(value)
                    return
    raise LookupError(f"{path} has no {name}.")


def _words(value: ast.expr) -> Iterator[str]:
    match value:
        case ast.Dict(keys=keys):
            yield from (str(ast.literal_eval(key)) for key in keys if key is not None)
        case ast.Subscript(slice=ast.Tuple(elts=parts)):
            yield from (str(ast.literal_eval(part)) for part in parts)
        case _:
            raise LookupError(f"Names cannot be read from {ast.unparse(value)[:80]}")


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def document(found: dict[str, dict[str, list[str]]]) -> str:
    """The text of the file: one list a line, so that a change shows which."""
    releases = sorted(found, key=lambda version: [int(part) for part in version.split(".")])
    parts = (f"{json.dumps(version)}: {{\n{_lines(found[version])}}}" for version in releases)
    return f'{{"note": {json.dumps(NOTE)},\n"versions": {{\n{_joined(parts)}}}}}\n'


def _lines(lists: dict[str, list[str]]) -> str:
    return _joined(f"  {json.dumps(key)}: {json.dumps(row)}" for key, row in sorted(lists.items()))


def _joined(parts: Iterable[str]) -> str:
    return ",\n".join(parts)


if __name__ == "__main__":
    known = json.loads(NAMES.read_text(encoding="utf-8"))["versions"] if NAMES.exists() else {}
    for each in map(Path, sys.argv[1:]):
        known[version_of(each)] = lists_of(each)
    NAMES.write_text(document(known), encoding="utf-8")

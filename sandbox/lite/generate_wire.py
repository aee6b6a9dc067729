"""Makes data/wire.json, the protobuf field numbers of built-in kinds, from the Go sources that define them.

    python -m sandbox.lite.generate_wire DIR_OF_k8s.io/api DIR_OF_k8s.io/apimachinery

Each message is a list of fields: number, JSON name ("" when inlined), type, and flags: `l` list, `m` map (the
type is then that of the values), `z` the zero value means "not set".
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from sandbox.lite.generate import ROOTS

WIRE = Path(__file__).parent / "data" / "wire.json"
SCALARS = {
    "string": "s", "bool": "b", "int32": "i", "int64": "i", "int": "i", "uint32": "i", "uint64": "i", "uint8": "i",
    "float64": "d", "byte": "y",
}  # fmt: skip
SPECIAL = {
    "meta.v1.Time": "time", "meta.v1.MicroTime": "microtime", "meta.v1.Duration": "duration",
    "resource.Quantity": "quantity", "intstr.IntOrString": "intstr", "runtime.RawExtension": "raw",
    "meta.v1.FieldsV1": "raw",
}  # fmt: skip
PLACES = {
    "api": ("core/v1", "apps/v1", "batch/v1", "autoscaling/v1", "autoscaling/v2", "networking/v1", "policy/v1",
            "rbac/v1", "coordination/v1", "events/v1", "discovery/v1", "storage/v1", "scheduling/v1",
            "authentication/v1", "authorization/v1"),
    "apimachinery": ("pkg/apis/meta/v1",),
}  # fmt: skip
_STRUCT = re.compile(r"^type (\w+) struct \{\n(.*?)^\}", re.M | re.S)
_ALIAS = re.compile(r"^type (\w+) ([\w\[\].*]+)\s*$", re.M)
_FIELD = re.compile(r"^\s+(?:(\w+)\s+)?([\w\[\].*]+)\s+`json:\"([^\"]*)\"[^`]*? protobuf:\"\w+,(\d+),", re.M)


def main(argv: list[str]) -> int:
    """Write the file; returns the exit status."""
    if len(argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    structs, aliases = _read(dict(zip(("api", "apimachinery"), map(Path, argv), strict=True)))
    messages: dict[str, Any] = {}
    wanted = [*ROOTS.split(), "meta.v1.DeleteOptions"]
    while wanted:
        name = wanted.pop()
        if name in messages or name not in structs:
            continue
        messages[name] = [_field(found, name.rpartition(".")[0], aliases) for found in _FIELD.finditer(structs[name])]
        wanted += [kind for _, _, kind, _ in messages[name] if "." in kind]
    WIRE.write_text(json.dumps(dict(sorted(messages.items())), separators=(",", ":")) + "\n")
    return 0


def _read(folders: dict[str, Path]) -> tuple[dict[str, str], dict[str, str]]:
    structs: dict[str, str] = {}
    aliases: dict[str, str] = {}
    for part, places in PLACES.items():
        for place in places:
            package = place.removeprefix("pkg/apis/").replace("/", ".")
            for path in sorted((folders[part] / place).glob("*.go")):
                text = path.read_text()
                structs |= {f"{package}.{name}": body for name, body in _STRUCT.findall(text)}
                aliases |= {f"{package}.{name}": target for name, target in _ALIAS.findall(text)}
    return structs, aliases


def _field(found: re.Match[str], package: str, aliases: dict[str, str]) -> list[Any]:
    _, go_type, tag, number = found.groups()
    name, _, options = tag.partition(",")
    flags = ""
    pointer = go_type.startswith("*")
    kind = _resolve(go_type.lstrip("*"), package, aliases)
    if kind == "[]byte":
        kind, flags = "byte", ""
    elif kind.startswith("map["):
        flags, kind = "m", _resolve(kind[kind.index("]") + 1 :], package, aliases)
        if kind == "[]byte":
            kind = "byte"
    elif kind.startswith("[]"):
        flags, kind = "l", _resolve(kind[2:].lstrip("*"), package, aliases)
    if not pointer and not flags and "omitempty" in options:
        flags = "z"
    return [int(number), name, SPECIAL.get(kind) or SCALARS.get(kind) or kind, flags]


def _resolve(go_type: str, package: str, aliases: dict[str, str]) -> str:
    """Follow aliases to a scalar, a list, a map or the full name of a struct."""
    if go_type in SCALARS or go_type == "[]byte":
        return go_type
    if go_type == "types.UID":
        return "string"
    if go_type.startswith("[]"):
        return "[]" + _resolve(go_type[2:], package, aliases)
    if go_type.startswith("map["):
        return "map[string]" + _resolve(go_type[go_type.index("]") + 1 :], package, aliases)
    name = go_type if "." in go_type else f"{package}.{go_type}"
    for short, full in (("metav1.", "meta.v1."), ("corev1.", "core.v1."), ("apiv1.", "core.v1."), ("v1.", "core.v1.")):
        if name.startswith(short):
            name = full + name[len(short) :]
    if name in aliases and name not in SPECIAL:
        return _resolve(aliases[name], name.rpartition(".")[0], aliases)
    return name


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

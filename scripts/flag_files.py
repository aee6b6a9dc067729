"""Write `deployments/data/flags-vllm-<version>.json`: what each flag takes, joined with who may set it.

What the parsers take is recorded under tests/data/engine/parsers (scripts/record_flags.py), and so are the names that
only the source of a release lists (scripts/wheel_names.py); who may set a flag is reviewed by hand in
`deployments/data/flag-classes.json`. A flag of any version that nobody reviewed stops this script.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "deployments" / "data"
RECORDED = ROOT / "tests" / "data" / "engine"
# What is not for NVIDIA GPUs, or takes a class of one's own: attention backends, kernels, Gaudi's number format.
ELSEWHERE = ("ROCM", "XPU", "CPU", "AMX", "CUSTOM", "cpu_", "fp8_inc")
NOTE = (
    "What `vllm serve` of this version takes, as its own parser says; cls comes from flag-classes.json. "
    "Written by scripts/flag_files.py."
)

Row = dict[str, Any]


class UnclassifiedError(ValueError):
    """A flag that nobody reviewed."""


def documents() -> dict[str, str]:
    """The text of every flag file, by vLLM version; raises UnclassifiedError for a flag that nobody reviewed."""
    classes = _read(DATA / "flag-classes.json")
    lists: dict[str, Any] = _read(RECORDED / "names-by-version.json")["versions"]
    parsers = map(_read, sorted((RECORDED / "parsers").glob("*.json")))
    return {each["vllm"]: _document(each["vllm"], each["flags"], classes, lists[each["vllm"]]) for each in parsers}


def _document(
    version: str, flags: list[Mapping[str, Any]], classes: Mapping[str, Any], lists: Mapping[str, Any]
) -> str:
    rows = list(_from_help(flags))
    unknown = sorted(row["name"] for row in rows if not any(row["name"] in classes[cls] for cls in CLASSES))
    if unknown:
        raise UnclassifiedError(f"vLLM {version} has flags that nobody reviewed: {', '.join(unknown)}")
    joined = sorted((_joined(row, classes, lists) for row in rows), key=lambda row: str(row["name"]))
    body = ",\n".join("  " + json.dumps(row, ensure_ascii=False, sort_keys=True) for row in joined)
    return f'{{"vllm": "{version}",\n "note": "{NOTE}",\n "flags": [\n{body}\n]}}\n'


CLASSES = ("open", "guarded", "managed", "forbidden")
# Of the second kind `--no-…` is taken, too, though its help shows another name (vllm/utils/argparse_utils.py).
SWITCHES = frozenset({"BooleanOptionalAction", "EnableDisableAction", "_StoreTrueAction"})


def _joined(row: Row, classes: Mapping[str, Any], lists: Mapping[str, Any]) -> Row:
    """One flag with its class, and with the limits and the words that were reviewed."""
    name = row["name"]
    cls = next(cls for cls in CLASSES if name in classes[cls])
    reviewed = classes[cls][name] if isinstance(classes[cls], Mapping) else ""
    more: Row = {"help": reviewed} if isinstance(reviewed, str) and reviewed else {}
    if isinstance(reviewed, Mapping):
        more = {key: value for key, value in reviewed.items() if key not in {"list", "choices"}}
        # What the release itself has goes before what was read of its parser, which may be a few days older.
        taken = lists[reviewed["list"]] if "list" in reviewed else row.get("choices")
        choices = reviewed.get("choices") or taken
        if choices and {"list", "choices"} & set(reviewed):
            taken = taken or choices
            more |= {"kind": "choice", "choices": sorted(c for c in choices if c in taken and not _elsewhere(c))}
    joined = {**row, **more, "cls": cls}
    if "choices" in joined:
        joined["choices"] = [str(choice) for choice in joined["choices"] if not _elsewhere(str(choice))]
    return joined


def _elsewhere(choice: str) -> bool:
    return choice.startswith(ELSEWHERE)


def _from_help(flags: list[Mapping[str, Any]]) -> Iterator[Row]:
    """Flags as `argparse` of a running vLLM describes them."""
    for flag in flags:
        longs = [word[2:] for word in flag["flags"] if word.startswith("--")]
        name = next((word for word in longs if not word.startswith("no-")), longs[0])
        default = None if flag["default"] == "==SUPPRESS==" else flag["default"]
        switch = flag["action"] in SWITCHES
        row: Row = {"name": name, "default": default if isinstance(default, int | float | str) else None}
        choices = [choice for choice in flag["choices"] or [] if choice != "None"]
        kinds = {"int": "int", "human_readable_int": "int", "human_readable_int_or_auto": "int", "float": "float"}
        row["kind"] = "bool" if switch else kinds.get(str(flag["type"]), "text")
        if choices and flag["nargs"] is None and not switch:
            row |= {"kind": row["kind"] if row["kind"] == "int" else "choice", "choices": choices}
        if flag["action"] == "_StoreTrueAction":
            row["negatable"] = False
        yield row


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    try:
        for version, text in documents().items():
            (DATA / f"flags-vllm-{version}.json").write_text(text, encoding="utf-8")
            print(f"vLLM {version}: {text.count(chr(10)) - 4} flags")
    except UnclassifiedError as failure:
        sys.exit(str(failure))

"""The flags of each vLLM version: what they take, and who may set them."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from typing import Any

from deployments.engine.profiles import DATA
from deployments.findings import Finding, arg_pointer, error, warning
from deployments.spec import ArgValue

AUTO = "auto"
ABBREVIATED = re.compile(r"(?P<count>[1-9][0-9]{0,5})\s?(?P<unit>[kKmM])")
# What to propose where vLLM's default follows from model and GPU, and these are not known.
USUAL: Mapping[str, int | float] = {"max-model-len": 8192}
Usual = Callable[[], Mapping[str, int | float]]
# Flags that Slipway sets or withholds, of which a wish says the same elsewhere.
OF_ADAPTERS = "Name adapters in the wish itself, as adapters."
ELSEWHERE: Mapping[str, str] = {
    "enable-lora": OF_ADAPTERS,
    "lora-modules": OF_ADAPTERS,
    "max-loras": OF_ADAPTERS,
    "max-lora-rank": OF_ADAPTERS,
    "max-cpu-loras": OF_ADAPTERS,
    "model": "Name the model as the source.",
    "revision": "Name the revision with the source.",
    "nnodes": "Set how many nodes a replica spans as nodes.",
    "served-model-name": "The model is served under the name of the deployment.",
}
# Forbidden flags of which others, that may be set, do the part that can be checked.
INSTEAD: Mapping[str, str] = {
    "speculative-config": "spec-method",
    "spec-model": "spec-method",
    "kv-offloading-backend": "kv-offloading-size",
    "swap-space": "kv-offloading-size",
    "cudagraph-capture-sizes": "max-cudagraph-capture-size",
    "max-num-partial-prefills": "long-prefill-token-threshold",
}


class FlagClass(StrEnum):
    """Who may set a flag; one that nobody reviewed is forbidden."""

    OPEN = "open"
    GUARDED = "guarded"
    MANAGED = "managed"
    FORBIDDEN = "forbidden"


@dataclass(frozen=True)
class Flag:
    """One flag of one vLLM version. `kind` is int, float, bool, choice or text; `choices` may narrow an int, too."""

    name: str
    kind: str
    cls: FlagClass
    default: int | float | bool | str | None = None
    choices: tuple[str, ...] = ()
    min: float | None = None
    max: float | None = None
    unit: str = ""
    group: str = ""
    help: str = ""
    negatable: bool = True

    @property
    def field(self) -> str:
        """The name of this flag's form field."""
        return self.name.replace("-", "_")

    def needs_admin(self, value: ArgValue) -> bool:
        """True when an admin must approve this value: of a guarded flag any but what vLLM does by itself."""
        if self.cls is not FlagClass.GUARDED:
            return False
        # To Python true is 1, and 0 is false: a switch and a number are never the same value.
        return self.default != value or isinstance(self.default, bool) is not isinstance(value, bool)


@dataclass(frozen=True)
class Gone:
    """A flag this version does not know any more, or that never existed."""

    name: str
    remedy: str
    replacement: str = ""
    gone_by: str = ""


@cache
def versions() -> tuple[str, ...]:
    """The vLLM versions whose flags are known, oldest first."""
    prefix = "flags-vllm-"
    return tuple(sorted((path.stem.removeprefix(prefix) for path in DATA.glob(f"{prefix}*.json")), key=release))


@cache
def release(version: str) -> tuple[int, ...]:
    """A version as numbers that can be compared; parts that are no numbers (post1, ~) are left out."""
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


@cache
def flags_of(version: str) -> Mapping[str, Flag]:
    """Every flag of a vLLM version, by name; raises KeyError for a version that is not known."""
    if version not in versions():
        raise KeyError(version)
    rows = json.loads((DATA / f"flags-vllm-{version}.json").read_text())["flags"]
    return {row["name"]: _flag(row) for row in rows}


@cache
def gone_flags() -> Mapping[str, Gone]:
    """Flags of older versions, and flags often written that never existed, by name."""
    document = json.loads((DATA / "flags-removed.json").read_text())
    return {row["name"]: Gone(**row) for row in (*document["never_existed"], *document["removed"])}


def classify(version: str, name: str) -> FlagClass:
    """Who may set this flag; forbidden when the version does not know it."""
    flag = flags_of(version).get(name)
    return flag.cls if flag else FlagClass.FORBIDDEN


def guarded_args(version: str, args: Mapping[str, ArgValue]) -> list[str]:
    """Which of these flags an admin must approve; a flag that says what vLLM does anyway is none of them."""
    known = flags_of(version)
    return [name for name in sorted(args) if name in known and known[name].needs_admin(args[name])]


def check_args(
    version: str,
    args: Mapping[str, ArgValue],
    usual: Usual = dict,
    choices: Mapping[str, tuple[str, ...]] | None = None,
) -> list[Finding]:
    """What is wrong with these flags for this vLLM version, flag by flag.

    `usual` tells what to propose instead of a number out of range, where the caller knows better than the defaults:
    it is asked only where there is one. `choices` what flags take in place of what the version alone has.
    """
    known = flags_of(version)
    found: list[Finding] = []
    for name, value in args.items():
        if (no := withheld(version, name)) is not None:
            found.append(no)
            continue
        flag = known[name]
        flag = replace(flag, choices=choices[name]) if choices and name in choices else flag
        found += _check(flag, version, value, usual)
    return found


def withheld(version: str, name: str) -> Finding | None:
    """Why nobody can set this flag in this vLLM version, whatever its value; None for one that can be set."""
    flag = flags_of(version).get(name)
    if flag is None:
        return _unknown(version, name)
    if flag.cls is FlagClass.MANAGED:
        return _managed(flag)
    return _forbidden(version, flag) if flag.cls is FlagClass.FORBIDDEN else None


def _check(flag: Flag, version: str, value: ArgValue, usual: Usual) -> list[Finding]:
    if problem := _value_problem(version, flag, value, usual):
        return [problem]
    if flag.needs_admin(value):
        return [
            warning(
                "flag_guarded",
                arg_pointer(flag.name),
                f"“{flag.name}” needs the approval of an admin. {flag.help}".rstrip(),
                "Leave it out if you want the request decided sooner.",
            )
        ]
    return []


def _value_problem(version: str, flag: Flag, value: ArgValue, usual: Usual) -> Finding | None:
    pointer = arg_pointer(flag.name)
    if flag.kind == "bool":
        if isinstance(value, bool):
            return None
        return error("flag_type", pointer, f"“{flag.name}” is a switch: true or false.")
    if flag.kind == "choice":
        return _choice_problem(version, flag, value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _no_number(flag, value, usual)
    if flag.kind == "int" and not isinstance(value, int):
        whole = int(value) if value == int(value) else round(value)
        return error("flag_type", pointer, f"“{flag.name}” takes a whole number.", value=whole)
    if flag.choices and str(value) not in flag.choices:
        near = min(flag.choices, key=lambda choice: abs(int(choice) - value))
        said = f"“{flag.name}” takes one of: {_listed(flag.choices)}."
        return error("flag_choice", pointer, said, f"Use {near}.", int(near))
    return _range_problem(flag, value, usual)


def _no_number(flag: Flag, value: bool | str, usual: Usual) -> Finding:
    """Something else than a number; “auto” is vLLM's word for whatever fits, of which nothing can be said before."""
    number: int | float | None = meant(str(value)) if flag.kind == "int" else None
    proposed = _proposal(flag, 0, usual)
    remedy = "Leave it out: vLLM chooses by itself." if proposed is None else f"Use {_amount(proposed)}, for example."
    if number is not None:
        remedy = f"Write it out: {number:,} for {value}."
    elif value == AUTO and proposed is not None:
        number, remedy = proposed, f"Use {_amount(proposed)}: what the engine would choose cannot be checked before."
    return error("flag_type", arg_pointer(flag.name), f"“{flag.name}” takes a number.", remedy, number)


def meant(text: str) -> int | None:
    """The number that somebody means by “32k” or “1M”, in steps of 1,024 as contexts come; None for anything else."""
    match = ABBREVIATED.fullmatch(text)
    return int(match["count"]) * 1024 ** (1 + "km".index(match["unit"].lower())) if match else None


def _choice_problem(version: str, flag: Flag, value: ArgValue) -> Finding | None:
    if isinstance(value, str) and value in flag.choices:
        return None
    close = difflib.get_close_matches(str(value), flag.choices, n=1)
    other = _taken_by(version, flag.name, value)
    remedies = (
        f"Did you mean “{close[0]}”?" if close else "",
        f"An engine of vLLM {other} takes “{value}”." if other else "",
    )
    return error(
        "flag_choice",
        arg_pointer(flag.name),
        f"“{flag.name}” takes one of: {_listed(flag.choices)}.",
        " ".join(filter(None, remedies)),
        close[0] if close else None,
    )


def _taken_by(version: str, name: str, value: ArgValue) -> str:
    """The version nearest to this one, newer ones first, whose flag takes this word; empty when none does."""
    newer = [item for item in versions() if release(item) > release(version)]
    older = [item for item in reversed(versions()) if release(item) < release(version)]
    known = ((item, flags_of(item).get(name)) for item in (*newer, *older))
    return next((item for item, flag in known if flag is not None and value in flag.choices), "")


def _range_problem(flag: Flag, value: int | float, usual: Usual) -> Finding | None:
    low, high = flag.min, flag.max
    if (low is None or value >= low) and (high is None or value <= high):
        return None
    proposed = _proposal(flag, value, usual)
    unit = f" {flag.unit}" if flag.unit not in {"", "share"} else ""
    return error(
        "flag_range",
        arg_pointer(flag.name),
        f"“{flag.name}” takes {_amount(low)} to {_amount(high)}{unit}; this is {_amount(value)}.",
        "Leave it out: vLLM chooses by itself." if proposed is None else f"Use {_amount(proposed)}.",
        proposed,
    )


def _proposal(flag: Flag, value: int | float, usual: Usual) -> int | float | None:
    """What to write instead; None where vLLM's own choice is better than the least that the flag takes."""
    known = {**USUAL, **usual()}.get(flag.name)
    if known is None or (flag.min is not None and known < flag.min) or (flag.max is not None and known > flag.max):
        known = _number_default(flag)
    if known is None and flag.max is not None and value > flag.max:
        known = flag.max
    return int(known) if known is not None and flag.kind == "int" else known


def _number_default(flag: Flag) -> float | None:
    value = flag.default
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    low, high = flag.min, flag.max
    return value if (low is None or value >= low) and (high is None or value <= high) else None


def _unknown(version: str, name: str) -> Finding:
    """A flag this version does not know: never one of vLLM's, gone by now, not there yet, or misspelt."""
    known, pointer = flags_of(version), arg_pointer(name)
    positive = name.removeprefix("no-")
    if positive != name and positive in known and known[positive].kind == "bool":
        said = f"“{name}” is how the command line says that “{positive}” is off."
        return error("flag_negative", pointer, said, f"Set {positive} to false.", instead=positive)
    gone = gone_flags().get(name)
    if gone is not None and (not gone.gone_by or release(gone.gone_by) <= release(version)):
        when = f"is gone since vLLM {gone.gone_by}" if gone.gone_by else "is not a flag of vLLM"
        there = gone.replacement in known
        return error(
            "flag_removed",
            pointer,
            f"“{name}” {when}: the engine would not start.",
            gone.remedy if there or not gone.replacement else _newer(version, gone.replacement),
            instead=gone.replacement if there else "",
        )
    if later := _came_with(version, name):
        said = f"vLLM {version} does not know “{name}” yet: the engine would not start."
        return error("flag_newer", pointer, said, f"Leave it out, or choose an engine of vLLM {later} or newer.")
    settable = [f.name for f in known.values() if f.cls in {FlagClass.OPEN, FlagClass.GUARDED}]
    close = difflib.get_close_matches(name, settable, n=1, cutoff=0.7)
    return error(
        "flag_unknown",
        pointer,
        f"vLLM {version} does not know “{name}”: the engine would not start.",
        f"Did you mean “{close[0]}”?" if close else "Remove it.",
        instead=close[0] if close else "",
    )


def _came_with(version: str, name: str) -> str:
    """The first newer version here that knows this flag; empty when none does."""
    newer = (item for item in versions() if release(item) > release(version))
    return next((item for item in newer if name in flags_of(item)), "")


def _newer(version: str, replacement: str) -> str:
    """What to do where the successor of a flag is not there yet."""
    later = _came_with(version, replacement)
    return f"Leave it out, or use {replacement} on an engine of vLLM {later} or newer." if later else "Leave it out."


def _managed(flag: Flag) -> Finding:
    alone = "Set data-parallel-size alone." if flag.name.startswith("data-parallel") else "Remove it."
    return error(
        "flag_managed", arg_pointer(flag.name), f"“{flag.name}” is set by Slipway.", ELSEWHERE.get(flag.name, alone)
    )


def _forbidden(version: str, flag: Flag) -> Finding:
    """Nobody can open it: what an engine profile says is its version and its image."""
    why = flag.help
    if not why and flag.kind == "text":
        why = "It takes free text; an engine gets numbers, switches and choices of a list only."
    instead = INSTEAD.get(flag.name, "")
    there = instead in flags_of(version)
    return error(
        "flag_forbidden",
        arg_pointer(flag.name),
        f"“{flag.name}” cannot be set here, not by an admin either. {why}".rstrip(),
        f"Remove it. {instead} can be set." if there else "Remove it.",
        instead=instead if there else "",
    )


def _flag(row: Mapping[str, Any]) -> Flag:
    return Flag(**{**row, "cls": FlagClass(row["cls"]), "choices": tuple(row.get("choices", ()))})


def _listed(choices: tuple[str, ...]) -> str:
    shown = ", ".join(choices[:12])
    return f"{shown} and {len(choices) - 12} more" if len(choices) > 12 else shown


def _amount(value: float | None) -> str:
    if value is None:
        return "any number"
    return f"{value:,}" if isinstance(value, int) else f"{value:,g}"

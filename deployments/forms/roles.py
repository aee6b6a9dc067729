"""Prefill and decode in the request form: text of their fields to the parts of a spec, and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from django import forms

from deployments.forms.flags import FlagTextError, format_flags, parse_flags
from deployments.forms.values import as_value, not_a, text_of

ROLES = ("prefill", "decode")
SPLIT = "tensor-parallel-size"
# Long prompts are computed many at a time, answers are made by many small replicas.
PREFILL_GPUS = 2
PREFILL, DECODE = (2, 8), (4, 20)
BATCH = "--max-num-batched-tokens=32768\n--max-num-seqs=256"
PRESET = {
    "prefill_tensor_parallel_size": str(PREFILL_GPUS),
    "prefill_replicas_min": str(PREFILL[0]),
    "prefill_replicas_max": str(PREFILL[1]),
    "prefill_args": BATCH,
    "decode_tensor_parallel_size": "1",
    "decode_replicas_min": str(DECODE[0]),
    "decode_replicas_max": str(DECODE[1]),
    "decode_args": BATCH,
}

Say = Callable[[str, str], None]


def preset_within(free: int) -> dict[str, str]:
    """The preset, or as much of it as a team can hold that has `free` GPUs left: at least one replica of each role.

    A rollout holds a quarter more of each role meanwhile, rounded up.
    """
    fitting = (most for most in range(DECODE[1], 1, -1) if _held(_of_prefill(most), most) <= free)
    most = next(fitting, 1)
    of_prefill = _of_prefill(most)
    return {
        **PRESET,
        "prefill_replicas_min": str(min(PREFILL[0], of_prefill)),
        "prefill_replicas_max": str(of_prefill),
        "decode_replicas_min": str(min(DECODE[0], most)),
        "decode_replicas_max": str(most),
    }


def _of_prefill(most: int) -> int:
    """As many replicas of prefill beside so many of decode as the preset has."""
    return max(1, round(most * PREFILL[1] / DECODE[1]))


def _held(prefill: int, decode: int) -> int:
    return PREFILL_GPUS * _with_surge(prefill) + _with_surge(decode)


def _with_surge(replicas: int) -> int:
    return replicas + math.ceil(replicas / 4)


class RoleFields(forms.Form):
    """The fields of both roles; they count where the strategy has roles."""

    prefill_tensor_parallel_size = forms.CharField(max_length=20, label="GPUs per prefill replica", required=False)
    prefill_replicas_min = forms.CharField(max_length=20, label="Fewest prefill replicas", required=False)
    prefill_replicas_max = forms.CharField(max_length=20, label="Most prefill replicas", required=False)
    prefill_args = forms.CharField(max_length=8000, label="Flags of prefill", required=False, widget=forms.Textarea)
    decode_tensor_parallel_size = forms.CharField(max_length=20, label="GPUs per decode replica", required=False)
    decode_replicas_min = forms.CharField(max_length=20, label="Fewest decode replicas", required=False)
    decode_replicas_max = forms.CharField(max_length=20, label="Most decode replicas", required=False)
    decode_args = forms.CharField(max_length=8000, label="Flags of decode", required=False, widget=forms.Textarea)


def role_data(role: str, text: Callable[[str], str], say: Say) -> dict[str, Any]:
    """One role as plain JSON, as far as its fields can be read; `say` puts a message at a field."""
    return {
        "replicas": {end: _count(f"{role}_replicas_{end}", text, say) for end in ("min", "max")},
        "args": _args(role, text, say),
    }


def _args(role: str, text: Callable[[str], str], say: Say) -> dict[str, Any]:
    args: dict[str, Any] = {}
    try:
        args = dict(parse_flags(text(f"{role}_args")))
    except FlagTextError as error:
        say(f"{role}_args", str(error))
    field = f"{role}_{SPLIT.replace('-', '_')}"
    typed = text(field)
    if typed and SPLIT in args:
        say(f"{role}_args", f"“--{SPLIT}” has a field of its own above: leave it out here.")
    elif typed:
        value = as_value(int, typed)
        if value is None:
            say(field, not_a(int, typed))
        else:
            args[SPLIT] = value
    return args


def _count(name: str, text: Callable[[str], str], say: Say) -> Any:
    typed = text(name)
    value = as_value(int, typed) if typed else 1
    if value is None:
        say(name, not_a(int, typed))
        return 1
    return value


def initial_of_roles(spec: Mapping[str, Any]) -> dict[str, str]:
    """The fields of both roles for a stored spec; the preset where it has none."""
    values = dict(PRESET)
    for role in ROLES:
        stored = spec.get(role)
        if not isinstance(stored, Mapping):
            continue
        args = dict(stored.get("args", {}))
        replicas = stored.get("replicas", {})
        values[f"{role}_tensor_parallel_size"] = text_of(args.pop(SPLIT, ""))
        values[f"{role}_replicas_min"] = str(replicas.get("min", 1))
        values[f"{role}_replicas_max"] = str(replicas.get("max", 1))
        values[f"{role}_args"] = format_flags(args)
    return values


def of_role(field: str) -> tuple[str, str]:
    """Role and rest of a field's name, as `prefill` and `max_num_seqs`; the role is empty for fields of the whole."""
    role, _, rest = field.partition("_")
    return (role, rest) if role in ROLES and rest else ("", field)

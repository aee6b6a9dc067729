"""The one place where errors of a spec become form fields, JSON pointers and plain words."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pydantic import BaseModel, ValidationError

from deployments.engine.flags import versions, withheld
from deployments.findings import ARGS_POINTER, Finding, arg_pointer, error, field_of
from deployments.spec import (
    Adapter,
    ArgsError,
    DeploymentRequest,
    DeploymentSpec,
    Engine,
    PlacesError,
    Replicas,
    RoleSpec,
    Scaling,
    Source,
    bare_flag,
    flag_name_problem,
)

_LEVELS: dict[str, type[BaseModel]] = {
    "": DeploymentRequest,
    "/spec": DeploymentSpec,
    "/spec/source": Source,
    "/spec/replicas": Replicas,
    "/spec/engine": Engine,
    "/spec/scaling": Scaling,
    "/spec/prefill": RoleSpec,
    "/spec/prefill/replicas": Replicas,
    "/spec/decode": RoleSpec,
    "/spec/decode/replicas": Replicas,
}
# So many errors are said of one spec: nobody reads more, and each that is a name costs a search for what was meant.
MOST = 50
UNKNOWN = "flag_unknown"
_ADAPTER = re.compile(r"/spec/adapters/\d+")


@dataclass(frozen=True)
class FieldError:
    """One error of a spec: where in the JSON, beside which form field, and what to say."""

    pointer: str
    field: str
    message: str
    code: str = "invalid"
    remedy: str = ""
    instead: str = ""

    @property
    def said(self) -> str:
        """What is wrong and what to do, for places that show one text."""
        return f"{self.message} {self.remedy}".rstrip()

    def as_finding(self) -> Finding:
        """The same error as a preflight finding."""
        return error(self.code, self.pointer, self.message, self.remedy, instead=self.instead)


def flat_errors(failure: ValidationError, *, prefix: str = "/spec", version: str = "") -> list[FieldError]:
    """Every error in `failure`, flat and in plain words.

    `prefix` is where the validated model stands in the request: "/spec" for a DeploymentSpec, "" for a
    DeploymentRequest. `version` is the vLLM whose flags are meant, as far as it is known.
    """
    found: list[FieldError] = []
    # Inputs stay out: an error must never carry back what somebody typed into a wrong field.
    for item in failure.errors(include_input=False, include_url=False)[:MOST]:
        location = prefix + "".join(f"/{_escape(str(part))}" for part in item["loc"])
        cause = (item.get("ctx") or {}).get("error")
        if isinstance(cause, ArgsError):
            problems = islice(cause.problems.items(), MOST)
            found += [_arg_error(location, name, message, version) for name, message in problems]
            continue
        if isinstance(cause, PlacesError):
            found += [_place_error(location + below, message) for below, message in cause.problems.items()]
            continue
        pointer = f"{location}/max" if location.endswith("/replicas") and cause else location
        found.append(FieldError(pointer, field_of(pointer), _words(item, pointer), _code(item["type"])))
    return found


def parse_spec(data: object, version: str = "") -> tuple[DeploymentSpec | None, list[FieldError]]:
    """The spec in `data`, or what is wrong with it.

    `version` is the vLLM of its engine, where the caller knows that; else the engine's name says it.
    """
    try:
        return DeploymentSpec.from_json(data), []
    except ValidationError as failure:
        return None, flat_errors(failure, version=version or _named_version(data))


def parse_request(data: object, version: str = "") -> tuple[DeploymentRequest | None, list[FieldError]]:
    """The request (team, name, spec) in `data`, or what is wrong with it; `version` as for `parse_spec`."""
    try:
        return DeploymentRequest.model_validate(data), []
    except ValidationError as failure:
        spec = data.get("spec") if isinstance(data, Mapping) else None
        return None, flat_errors(failure, prefix="", version=version or _named_version(spec))


def profile_named(spec: object) -> str:
    """The engine that a wish names, whatever else is wrong in it; the usual one where it names none."""
    engine = spec.get("engine") if isinstance(spec, Mapping) else None
    named = engine.get("profile") if isinstance(engine, Mapping) else None
    return named if isinstance(named, str) else Engine().profile


def _named_version(spec: object) -> str:
    version = profile_named(spec).removeprefix("vllm-")
    return version if version in versions() else ""


def _arg_error(location: str, name: str, message: str, version: str) -> FieldError:
    pointer = arg_pointer(name[:80], location)
    code = "flag_name" if message == flag_name_problem(name) else "invalid"
    # Who puts a value right that no value of this flag can be has done it for nothing.
    no = withheld(version, bare_flag(name)) if version in versions() and bare_flag(name) else None
    if no is not None and (code == "invalid" or no.code != UNKNOWN):
        return FieldError(pointer, field_of(pointer), no.message, no.code, no.remedy, no.instead)
    return FieldError(pointer, field_of(pointer), message, code)


def _place_error(pointer: str, message: str) -> FieldError:
    return FieldError(pointer, field_of(pointer), message, "invalid")


def _words(item: Any, pointer: str) -> str:
    kind, context = item["type"], item.get("ctx") or {}
    if kind == "value_error":
        return str(context.get("error", item["msg"]))
    if kind == "extra_forbidden":
        return _unknown_field(pointer)
    if kind in _WORDS:
        return _WORDS[kind].format(**context)
    return "This value is not valid here."


def _unknown_field(pointer: str) -> str:
    parent, _, name = pointer.rpartition("/")
    model = Adapter if _ADAPTER.fullmatch(parent) else _LEVELS.get(parent)
    known: Iterable[str] = model.model_fields if model else ()
    close = difflib.get_close_matches(name, list(known), n=1)
    hint = f" Did you mean “{close[0]}”?" if close else ""
    return f"Slipway does not know this field.{hint}"


def _code(kind: str) -> str:
    return {"missing": "required", "extra_forbidden": "unknown_field"}.get(kind, "invalid")


def _escape(part: str) -> str:
    return part[:80].replace("~", "~0").replace("/", "~1")


_WORDS: dict[str, str] = {
    "missing": "This field is required.",
    "string_type": "Must be text.",
    "literal_error": "Choose one of: {expected}.",
    "string_too_short": "Must not be empty.",
    "string_too_long": "At most {max_length} characters.",
    "int_type": "Must be a whole number.",
    "int_parsing": "Must be a whole number.",
    "int_from_float": "Must be a whole number.",
    "float_type": "Must be a number.",
    "bool_type": "Must be true or false.",
    "finite_number": "Must be a finite number.",
    "greater_than_equal": "Must be at least {ge}.",
    "less_than_equal": "Must be at most {le}.",
    "greater_than": "Must be more than {gt}.",
    "less_than": "Must be less than {lt}.",
    "dict_type": "Must be an object with one entry per flag.",
    "list_type": "Must be a list.",
    "model_type": "Must be an object.",
    "model_attributes_type": "Must be an object.",
    "too_long": "At most {max_length} entries.",
    "is_instance_of": "This value is not valid here.",
}

__all__ = ["ARGS_POINTER", "FieldError", "flat_errors", "parse_request", "parse_spec"]

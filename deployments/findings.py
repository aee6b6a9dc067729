"""What a check has to say to a person, and where it belongs in the form and in the API."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

# A JSON pointer and what to put there; None takes away what is there.
Change: TypeAlias = "tuple[str, int | float | bool | str | None]"

SPEC_FIELDS: dict[str, str] = {
    "/team": "team",
    "/name": "name",
    "/note": "note",
    "/spec/source/uri": "source_uri",
    "/spec/source/revision": "source_revision",
    "/spec/source/credential": "credential",
    "/spec/source/folder": "source_folder",
    "/spec/strategy": "strategy",
    "/spec/flavor": "flavor",
    "/spec/replicas/min": "replicas_min",
    "/spec/replicas/max": "replicas_max",
    "/spec/replicas": "replicas_max",
    "/spec/nodes": "nodes",
    "/spec/surge": "surge",
    "/spec/adapters": "adapters",
    "/spec/engine/profile": "profile",
    "/spec/engine/args": "args",
    "/spec/source/cache": "source_cache",
    "/spec/source": "source_uri",
    "/spec/engine": "profile",
    "/spec/scaling/concurrency": "scaling_concurrency",
    "/spec/scaling/percent": "scaling_percent",
    "/spec/scaling": "scaling_concurrency",
    "/spec/prefill/replicas/min": "prefill_replicas_min",
    "/spec/prefill/replicas/max": "prefill_replicas_max",
    "/spec/prefill/replicas": "prefill_replicas_max",
    "/spec/prefill/args": "prefill_args",
    "/spec/prefill": "prefill_replicas_max",
    "/spec/decode/replicas/min": "decode_replicas_min",
    "/spec/decode/replicas/max": "decode_replicas_max",
    "/spec/decode/replicas": "decode_replicas_max",
    "/spec/decode/args": "decode_args",
    "/spec/decode": "decode_replicas_max",
    "/spec": "",
    "": "",
}
ARGS_POINTER = "/spec/engine/args/"
# Flags of one role have fields of their own, as `prefill_tensor_parallel_size`.
ROLE_ARGS = {"/spec/prefill/args/": "prefill_", "/spec/decode/args/": "decode_"}


# Errors that may be none a moment later, and after how many seconds it is worth asking again.
PASSING = {"claim_unknown": 5}


class Severity(StrEnum):
    """How much a finding weighs: an error stops a request, a warning and an info do not."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True)
class Finding:
    """One result of a check: what is wrong, in which field, and the value that would fix it.

    `value` is what to put into the field, and `also` what to put elsewhere at the same time; `instead` names the flag
    to use in place of this one.
    """

    severity: Severity
    code: str
    pointer: str
    message: str
    remedy: str = ""
    value: int | float | bool | str | None = None
    instead: str = ""
    also: tuple[Change, ...] = ()

    @property
    def field(self) -> str:
        """The form field that this finding stands beside; empty for the form as a whole."""
        return field_of(self.pointer)

    @property
    def is_error(self) -> bool:
        """True when a request with this finding must not be submitted."""
        return self.severity is Severity.ERROR

    def as_json(self) -> dict[str, object]:
        """This finding as the API and the command line show it."""
        return {
            "severity": self.severity.value,
            "code": self.code,
            "field": self.field,
            "pointer": self.pointer,
            "message": self.message,
            "remedy": self.remedy,
            "value": self.value,
            "instead": self.instead,
            "also": [{"pointer": pointer, "field": field_of(pointer), "value": value} for pointer, value in self.also],
        }


def error(
    code: str,
    pointer: str,
    message: str,
    remedy: str = "",
    value: object = None,
    instead: str = "",
    also: Iterable[Change] = (),
) -> Finding:
    """A finding that stops the request."""
    return Finding(Severity.ERROR, code, pointer, message, remedy, _plain(value), instead, tuple(also))


def warning(
    code: str, pointer: str, message: str, remedy: str = "", value: object = None, also: Iterable[Change] = ()
) -> Finding:
    """A finding that a person should read before going on."""
    return Finding(Severity.WARNING, code, pointer, message, remedy, _plain(value), also=tuple(also))


def info(code: str, pointer: str, message: str, remedy: str = "", value: object = None) -> Finding:
    """A finding that only tells."""
    return Finding(Severity.INFO, code, pointer, message, remedy, _plain(value))


def passing(findings: Iterable[Finding]) -> int | None:
    """Seconds after which a wish may be taken as it is, though it is refused now; None where time changes nothing."""
    waits = [PASSING.get(finding.code) for finding in findings if finding.is_error]
    known = [seconds for seconds in waits if seconds is not None]
    return max(known) if known and len(known) == len(waits) else None


def has_errors(findings: Iterable[Finding]) -> bool:
    """True when any of the findings stops the request."""
    return any(finding.is_error for finding in findings)


def field_of(pointer: str) -> str:
    """The form field for a JSON pointer into a request; engine flags become `max_model_len`."""
    for args, of_role in {ARGS_POINTER: "", **ROLE_ARGS}.items():
        if pointer.startswith(args):
            return of_role + _unescape(pointer[len(args) :].split("/", 1)[0]).replace("-", "_")
    while pointer not in SPEC_FIELDS and "/" in pointer:
        pointer = pointer.rsplit("/", 1)[0]
    return SPEC_FIELDS.get(pointer, "")


def arg_pointer(flag: str, args: str = ARGS_POINTER) -> str:
    """The JSON pointer of one engine flag, as `/spec/engine/args/max-model-len`; `args` is where flags stand."""
    return f"{args.rstrip('/')}/" + flag.replace("~", "~0").replace("/", "~1")


def _unescape(part: str) -> str:
    return part.replace("~1", "/").replace("~0", "~")


def _plain(value: object) -> int | float | bool | str | None:
    if value is None or isinstance(value, int | float | bool | str):
        return value
    return str(value)

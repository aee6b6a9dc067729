"""What `lite` may answer otherwise than kube-apiserver, each with its reason. Anything else is a bug of `lite`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.differential.comparing import Alike, Difference
from tests.differential.sequences import Recorded, Request, Sequence, Step


@dataclass(frozen=True)
class Tolerated:
    """One kind of difference and why it stays."""

    reason: str
    applies: Callable[[Step | Request, Difference], bool]


_MISSED = re.compile(r"no such key: \w+")
_BETWEEN = re.compile(r"[\[\]]|, ")
_QUOTA = re.compile(r"(?:exceeded|failed|status unknown for) quota: ([^:,]+)")
_GO_DIFF = re.compile(r"(previously negative\)|for bound claims)\n@@.*", re.DOTALL)


def _go_diff(_: Step | Request, difference: Difference) -> bool:
    real, lite = str(difference.real), str(difference.lite)
    return real != lite and _GO_DIFF.sub(r"\1", real).rstrip("]") == lite.rstrip("]")


def _other_quota(_: Step | Request, difference: Difference) -> bool:
    """Both refuse for a quota, each for another one."""
    found = [_QUOTA.search(str(text)) for text in (difference.real, difference.lite)]
    return all(found) and len({match[1] for match in found if match}) == 2


def _build(step: Step | Request, difference: Difference) -> bool:
    number = difference.path in ("body.major", "body.minor")
    return isinstance(step, Request) and step.path == "/version" and difference.path.startswith("body.") and not number


def _groups(step: Step | Request, difference: Difference) -> bool:
    """Only the list as a whole: what `lite` serves of it is compared where it is asked."""
    return isinstance(step, Request) and step.path == "/apis" and difference.path == "body.groups"


def _causes(answer: Any) -> list[Any]:
    """The causes of a refusal, none in any other answer."""
    body = answer["body"]
    if not isinstance(body, dict) or body.get("kind") != "Status":
        return []
    return (body.get("details") or {}).get("causes") or []


def _with_causes(answer: Any, causes: list[Any]) -> Any:
    body = answer["body"]
    return answer | {"body": body | {"details": body["details"] | {"causes": causes}}}


def _once(answer: Any) -> Any:
    causes = _causes(answer)
    once = [cause for place, cause in enumerate(causes) if cause not in causes[:place]]
    return _with_causes(answer, once) if causes else answer


def _conflicts_in_order(answer: Any) -> Any:
    causes = _causes(answer)
    if not causes or any(cause.get("reason") != "FieldManagerConflict" for cause in causes):
        return answer
    return _with_causes(answer, sorted(causes, key=lambda cause: (cause["message"], cause["field"])))


def _rules_in_order(answer: Any) -> Any:
    """Only for what is of another kind: with the defaults of its own kind rules do not fail."""
    causes = _causes(answer)
    if not any(cause.get("field") == "kind" for cause in causes):
        return answer
    told = [cause | {"message": _MISSED.sub("no such key", cause["message"])} for cause in causes]
    body = answer["body"]
    words = sorted(_BETWEEN.split(_MISSED.sub("no such key", body["message"])))
    plain = _with_causes(answer, sorted(told, key=lambda cause: (cause["field"], cause["message"])))
    return plain | {"body": plain["body"] | {"message": words}}


LIST: tuple[Tolerated, ...] = (
    Tolerated("of several used up quotas kube-apiserver names any, in the order of a Go map", _other_quota),
    Tolerated("the build of the program that answers", _build),
    Tolerated("lite serves the API groups alone that Slipway and its sandbox need", _groups),
    Tolerated("kube-apiserver tells a forbidden change of a pod or a claim with a diff of its own Go types", _go_diff),
)
# The rest of the list: what is compared after it was brought into one form.
ALIKE: tuple[Alike, ...] = (
    Alike("kube-apiserver names a fault once for each of its steps that finds it", _once),
    Alike("conflicts with several managers are named in the order of a Go map", _conflicts_in_order),
    Alike(
        "rules over what is of another kind fail in the order of a Go map, and where both sides of an and lack a key "
        "kube-apiserver names the left one, the library of lite the right one",
        _rules_in_order,
    ),
)


def why(sequence: Sequence | Recorded, difference: Difference) -> Tolerated | None:
    """Why a difference is tolerated; None when it is not."""
    if not 0 <= difference.step < len(sequence.steps):
        return None
    step = sequence.steps[difference.step]
    return next((item for item in LIST if item.applies(step, difference)), None)

"""What `lite` may answer otherwise than kube-apiserver, each with its reason. Anything else is a bug of `lite`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from tests.differential.comparing import Difference
from tests.differential.sequences import Recorded, Request, Sequence, Step


@dataclass(frozen=True)
class Tolerated:
    """One kind of difference and why it stays."""

    reason: str
    applies: Callable[[Step | Request, Difference], bool]


_QUOTA = re.compile(r"(?:exceeded|failed|status unknown for) quota: ([^:,]+)")
_POD_DIFF = re.compile(r"previously negative\)\n@@.*", re.DOTALL)


def _pod_diff(step: Step | Request, difference: Difference) -> bool:
    real, lite = str(difference.real), str(difference.lite)
    return step.kind == "Pod" and _POD_DIFF.sub("previously negative)", real).rstrip("]") == lite.rstrip("]")


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


LIST: tuple[Tolerated, ...] = (
    Tolerated("of several used up quotas kube-apiserver names any, in the order of a Go map", _other_quota),
    Tolerated("the build of the program that answers", _build),
    Tolerated("lite serves the API groups alone that Slipway and its sandbox need", _groups),
    Tolerated("a pod's forbidden change is followed by a diff of kube-apiserver's internal Go types", _pod_diff),
)


def why(sequence: Sequence | Recorded, difference: Difference) -> Tolerated | None:
    """Why a difference is tolerated; None when it is not."""
    if not 0 <= difference.step < len(sequence.steps):
        return None
    step = sequence.steps[difference.step]
    return next((item for item in LIST if item.applies(step, difference)), None)

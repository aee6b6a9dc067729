"""What `lite` may answer otherwise than kube-apiserver, each with its reason. Anything else is a bug of `lite`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from tests.differential.comparing import Difference
from tests.differential.sequences import Sequence, Step


@dataclass(frozen=True)
class Tolerated:
    """One kind of difference and why it stays. `rest` says that what follows in the sequence differs with it."""

    reason: str
    applies: Callable[[Sequence, Step, Difference], bool]
    rest: bool = False


_POD_DIFF = re.compile(r"previously negative\)\n@@.*", re.DOTALL)


def _pod_diff(_: Sequence, step: Step, difference: Difference) -> bool:
    real, lite = str(difference.real), str(difference.lite)
    return step.kind == "Pod" and _POD_DIFF.sub("previously negative)", real).rstrip("]") == lite.rstrip("]")


def _early_quota(sequence: Sequence, _: Step, difference: Difference) -> bool:
    quotas = [step for step in sequence.steps if step.kind == "ResourceQuota" and step.verb in ("create", "apply")]
    written = any(step.kind == "ResourceQuota" and step.subresource == "status" for step in sequence.steps)
    return bool(quotas) and not written and difference.path == "status" and difference.lite == 403


LIST: tuple[Tolerated, ...] = (
    Tolerated(
        "kube-apiserver enforces a quota once its controller has written the status, which no test here waits for; "
        "lite enforces it at once",
        _early_quota,
        rest=True,
    ),
    Tolerated("a pod's forbidden change is followed by a diff of kube-apiserver's internal Go types", _pod_diff),
)


def why(sequence: Sequence, difference: Difference) -> Tolerated | None:
    """Why a difference is tolerated; None when it is not."""
    if not 0 <= difference.step < len(sequence.steps):
        return None
    step = sequence.steps[difference.step]
    return next((item for item in LIST if item.applies(sequence, step, difference)), None)

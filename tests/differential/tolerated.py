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
    applies: Callable[[Step, Difference], bool]
    rest: bool = False


_POD_DIFF = re.compile(r"previously negative\)\n@@.*", re.DOTALL)


def _pod_diff(step: Step, difference: Difference) -> bool:
    real, lite = str(difference.real), str(difference.lite)
    return step.kind == "Pod" and _POD_DIFF.sub("previously negative)", real).rstrip("]") == lite.rstrip("]")


def _nameless_service(step: Step, difference: Difference) -> bool:
    named = step.verb != "create" or step.body["metadata"].keys() & {"name", "generateName"}
    return step.kind == "Service" and not named and difference.path.startswith(("body.details.causes", "body.message"))


LIST: tuple[Tolerated, ...] = (
    Tolerated("a pod's forbidden change is followed by a diff of kube-apiserver's internal Go types", _pod_diff),
    Tolerated(
        "a Service without a name fails in kube-apiserver's allocator of addresses, whose objects lite does not have",
        _nameless_service,
        rest=True,
    ),
)


def why(sequence: Sequence, difference: Difference) -> Tolerated | None:
    """Why a difference is tolerated; None when it is not."""
    if not 0 <= difference.step < len(sequence.steps):
        return None
    step = sequence.steps[difference.step]
    return next((item for item in LIST if item.applies(step, difference)), None)

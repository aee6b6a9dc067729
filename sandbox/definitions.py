"""Where the CustomResourceDefinitions of the sandbox's clusters lie.

Those of other projects are in `k8s/crds`, for both grounds and for administrators. KServe's as `lite` serves them lie
beside its code; the real ground takes those from KServe itself.
"""

from __future__ import annotations

from pathlib import Path

OTHERS = Path(__file__).parents[1] / "k8s" / "crds"
KSERVE = Path(__file__).parent / "lite" / "crds"
KSERVE_GROUP = "serving.kserve.io"


def of_others() -> list[Path]:
    """A file for each kind of the projects that KServe and Slipway stand on, by name."""
    return sorted(OTHERS.glob("*.json"))


def of_lite() -> list[Path]:
    """A file for each kind that `lite` serves beside those that come with Kubernetes, by name."""
    return sorted([*of_others(), *KSERVE.glob("*.json")], key=lambda path: path.name)


def place_of(name: str) -> Path:
    """The file of a CustomResourceDefinition, there or not."""
    _, _, group = name.partition(".")
    return (KSERVE if group == KSERVE_GROUP else OTHERS) / f"{name}.json"

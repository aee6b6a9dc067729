"""Engine profiles: a vLLM image, its version, and the flags that this version knows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from deployments.engine.plugins import Plugin

DATA = Path(__file__).resolve().parent.parent / "data"


@dataclass(frozen=True)
class EngineProfile:
    """One engine that a deployment may run on; `image` names its digest, `plugins` what it has besides vLLM."""

    slug: str
    version: str
    image: str
    title: str = ""
    sandbox_only: bool = False
    plugins: tuple[Plugin, ...] = ()

    @property
    def pinned(self) -> bool:
        """True when the image is named by digest, so that it cannot move under a running deployment."""
        return "@sha256:" in self.image


@cache
def seeded_profiles() -> dict[str, EngineProfile]:
    """The profiles that come with Slipway, by slug."""
    rows = json.loads((DATA / "engine_profiles.json").read_text())["profiles"]
    return {row["slug"]: EngineProfile(**row) for row in rows}

"""What a model says of its kind in its configuration: model type, architectures, and Python code of its own. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from deployments.sources.checks import plain

# Beside weights of that name the engine reads Mistral's own file in place of config.json.
MISTRAL_FILE, MISTRAL_WEIGHTS = "params.json", "consolidated"
MOST_ARCHITECTURES = 8


@dataclass(frozen=True)
class Identity:
    """The kind of a model. `model_type` is "" where the configuration names none, None where it decides nothing."""

    model_type: str | None = None
    architectures: tuple[str, ...] = ()
    own_config: bool = False
    own_model: bool = False


def identity(config: Mapping[str, Any], files: Iterable[str]) -> Identity:
    """The kind of the model of a `config.json`, beside which these files lie."""
    names = tuple(files)
    mistral = MISTRAL_FILE in names and any(
        name.startswith(MISTRAL_WEIGHTS) and name.endswith(".safetensors") for name in names
    )
    # A proposer of tokens stands for the model that it was made for, which the engine takes instead.
    if not config or mistral or "speculators_config" in config:
        return Identity()
    named, code = config.get("architectures"), config.get("auto_map")
    listed = named[:MOST_ARCHITECTURES] if isinstance(named, list) else []
    classes = [str(name) for name in code] if isinstance(code, Mapping) else []
    return Identity(
        model_type=plain(config.get("model_type")),
        architectures=tuple(filter(None, map(plain, listed))),
        own_config="AutoConfig" in classes,
        own_model=any(name.startswith("AutoModel") for name in classes),
    )

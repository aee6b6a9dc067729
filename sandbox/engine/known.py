"""What vLLM 0.32.0 has by name: parsers, and what runs a model; the refusal where it has none."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from sandbox.engine.args import EngineArgs
from sandbox.engine.builds import NEWEST_VERSION, Build
from sandbox.engine.errors import EngineExit, model_config_error, plain_error

UNREADABLE = (
    "but Transformers does not recognize this architecture. This could be because of an issue with the checkpoint, or "
    "because your version of Transformers is out of date.\n\nYou can update Transformers with the command `pip install "
    "--upgrade transformers`. If this does not work, and the checkpoint is very new, then there may not be a release "
    "version that supports this model yet. In this case, you can get the most up-to-date code by installing "
    "Transformers from source with the command `pip install git+https://github.com/huggingface/transformers.git`"
)


def check_parsers(args: EngineArgs, build: Build) -> None:
    """Raise EngineExit for a parser that this vLLM does not have, as its API server does first of all."""
    given = args.non_default
    tool = given.get("tool_call_parser")
    asked = {
        "tool call": (tool if given.get("enable_auto_tool_choice") else None, "tool_call_parsers"),
        "reasoning": (given.get("reasoning_parser"), "reasoning_parsers"),
    }
    if build.version != NEWEST_VERSION:
        return
    for kind, (name, key) in asked.items():
        there = _names()[key]
        if name and name not in there:
            text = f"invalid {kind} parser: {name} (chose from {{ {','.join(there)} }})"
            raise plain_error(f"KeyError: {text!r}")


def check_model(model: str, config: Mapping[str, Any], build: Build, *, trusted: bool) -> None:
    """Raise EngineExit for a model of which this vLLM cannot read the configuration, or has no implementation."""
    if build.version != NEWEST_VERSION:
        return
    architectures, code = list(config.get("architectures") or []), dict(config.get("auto_map") or {})
    if not _reads(config.get("model_type"), architectures) and not ("AutoConfig" in code and trusted):
        raise _unreadable(model, config.get("model_type"), own="AutoConfig" in code)
    by_code = trusted and any(name.startswith("AutoModel") for name in code)
    if architectures and not _runs(architectures, by_code=by_code):
        raise _unsupported(architectures)


def _reads(model_type: str | None, architectures: list[str]) -> bool:
    if model_type is None:
        return any(name in _names()["by_architecture"] for name in architectures)
    return model_type in _names()["model_types"]


def _runs(architectures: list[str], *, by_code: bool) -> bool:
    names, first = _names(), architectures[0]
    if first in names["runs"] or (by_code and first not in names["refuses"]):
        return True
    return any(made in names["architectures"] for name in architectures for made in (name, *_adapted(name)))


def _adapted(architecture: str) -> list[str]:
    """What a classifier or an embedding may be made of."""
    suffixes: list[str] = _names()["suffixes"]
    own = next((each for each in suffixes if architecture.endswith(each)), None)
    return [architecture.replace(own, other) for other in suffixes] if own else []


def _unreadable(model: str, model_type: str | None, *, own: bool) -> EngineExit:
    if own:
        return model_config_error(
            f"The repository {model} contains custom code which must be executed to correctly load the model. You can "
            f"inspect the repository content at {model} .\n You can inspect the repository content at "
            f"https://hf.co/{model}.\nPlease pass the argument `trust_remote_code=True` to allow custom code to be run."
        )
    if model_type is None:
        return model_config_error(f"Unrecognized model in {model}. Should have a `model_type` key in its config.json.")
    return model_config_error(f"The checkpoint you are trying to load has model type `{model_type}` {UNREADABLE}")


def _unsupported(architectures: list[str]) -> EngineExit:
    names = _names()
    for name in architectures:
        if name in names["gone"]:
            return model_config_error(
                f"Model architecture {name} was supported in vLLM until v{names['gone'][name]}, and is not supported "
                "anymore. Please use an older version of vLLM if you want to use this model architecture."
            )
        if name in names["plugins"]:
            return model_config_error(
                f"Model architecture {name} is not supported in-tree anymore. Please install the plugin at "
                f"{names['plugins'][name]} if you want to use this model architecture."
            )
    return model_config_error(
        f"Model architectures {architectures} are not supported for now. Supported architectures: "
        f"dict_keys({names['architectures']})"
    )


@cache
def _names() -> dict[str, Any]:
    names: dict[str, Any] = orjson.loads(Path(__file__).with_name("known.json").read_bytes())
    return names

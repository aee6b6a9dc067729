"""How vLLM 0.32.0 ends when it cannot start: usage errors, configuration errors, engine core errors.

The frames of the tracebacks come from recordings of the real program.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import orjson

CORE = "@CORE@"
USAGE_ROOT = """usage: vllm [-h] [-v]
            {chat,complete,serve,launch,bench,collect-env,download-kernels,preload,run-batch,snapshot}
            ...
vllm: error: """
USAGE_SERVE = """usage: vllm serve [model_tag] [options]
vllm serve: error: """
KV_FRAMES = (
    "_initialize_kv_caches",
    "get_kv_cache_configs",
    "_check_enough_kv_cache_memory",
    "raise ValueError(",
    "                       ^^^^",
)
PYDANTIC = "    For further information visit https://errors.pydantic.dev/2.14/v/"


class EngineExit(Exception):
    """The program ends with `code` after printing `lines`."""

    def __init__(self, code: int, lines: list[str]) -> None:
        super().__init__(lines[-1] if lines else "")
        self.code = code
        self.lines = lines


def usage_error(message: str, *, root: bool = False) -> EngineExit:
    """An argument parser's refusal, exit status 2."""
    return EngineExit(2, ((USAGE_ROOT if root else USAGE_SERVE) + message).split("\n"))


def model_config_error(message: str) -> EngineExit:
    """A refusal of ModelConfig."""
    return _value_error("model_config", "ModelConfig", message, "{'model': ...nderer_num_workers': 1}")


def engine_config_error(message: str) -> EngineExit:
    """A refusal of VllmConfig."""
    return _value_error("vllm_config", "VllmConfig", message, "{'model_co... 'shutdown_timeout': 0}")


def field_error(config: str, field: str, bound: str, value: object) -> EngineExit:
    """A number outside its range; `bound` as in "less than or equal to 1"."""
    *words, _ = bound.split()
    kind = {"less": "less_than", "greater": "greater_than"}[words[0]] + ("_equal" if "equal" in words else "")
    detail = f"[type={kind}, input_value={value!r}, input_type={type(value).__name__}]"
    head = f"pydantic_core._pydantic_core.ValidationError: 1 validation error for {config}"
    lines = [head, field, f"  Input should be {bound} {detail}", PYDANTIC + kind]
    return EngineExit(1, [*frames("cache_config"), *lines])


def snapshot_error(error: str) -> EngineExit:
    """The model could not be fetched from the hub by the engine itself."""
    return EngineExit(1, [*frames("snapshot"), error])


def core_error(error: str, core: str, *, while_loading: bool = False) -> EngineExit:
    """The engine core died; `core` is the start of its log lines, with a place for the level.

    The recording is of a KV cache too small; for a failure `while_loading` its innermost frames are left out.
    """
    stem, _, tail = core.partition(" pid=")
    stem, tail = f"{stem} pid={tail.partition(') ')[0]})", tail.partition(") ")[2]
    lines = []
    for line in frames("engine_core"):
        if while_loading and any(word in line for word in KV_FRAMES):
            continue
        if line.startswith(CORE):
            level, _, rest = line[len(CORE) + 1 :].partition(" ")
            line = f"{stem} {tail.format(level=level)}{rest}"
        lines.append(line.replace("@ERROR@", error))
    return EngineExit(1, lines)


def adapter_error(error: str) -> EngineExit:
    """A LoRA adapter that the server cannot load at its start."""
    return plain_error(error)


def plain_error(error: str) -> EngineExit:
    """An exception of the server itself, whose frames nobody recorded."""
    return EngineExit(1, ["Traceback (most recent call last):", error])


def nodes_missing(nodes: int, rank: int, core: str) -> EngineExit:
    """The engines of the other nodes never came, or the first one was never found."""
    error = "torch.distributed.DistStoreError: Timed out after 301 seconds waiting for clients. "
    return core_error(f"{error}{rank + 1}/{nodes} clients joined.", core, while_loading=True)


def node_lost(core: str) -> EngineExit:
    """An engine on another node went away."""
    error = "RuntimeError: [../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer"
    return core_error(error, core, while_loading=True)


@cache
def _recorded() -> dict[str, list[str]]:
    recorded: dict[str, list[str]] = orjson.loads(Path(__file__).with_name("recorded.json").read_bytes())
    return recorded


def frames(name: str) -> list[str]:
    """The recorded lines of one kind of end."""
    return _recorded()[name]


def _value_error(name: str, config: str, message: str, value: str) -> EngineExit:
    detail = f"[type=value_error, input_value=ArgsKwargs((), {value}), input_type=ArgsKwargs]"
    head = f"pydantic_core._pydantic_core.ValidationError: 1 validation error for {config}"
    return EngineExit(
        1, [*frames(name), head, *f"  Value error, {message} {detail}".split("\n"), PYDANTIC + "value_error"]
    )

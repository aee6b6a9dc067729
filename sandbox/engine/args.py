"""The command line of vLLM, parsed against its own list of flags."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import orjson

from sandbox.engine.builds import NEWEST_VERSION, difference
from sandbox.engine.errors import PYDANTIC, EngineExit, field_error, usage_error

MODULE = "vllm.entrypoints.openai.api_server"
JSON_TYPES = {"parse_dataclass", "loads", "union_dict_and_str"}
JSON_DESTS = {
    "kv_transfer_config": "KVTransferConfig",
    "speculative_config": "SpeculativeConfig",
    "kv_events_config": "KVEventsConfig",
    "ec_transfer_config": "ECTransferConfig",
    "structured_outputs_config": "StructuredOutputsConfig",
    "compilation_config": "CompilationConfig",
}
DECIMAL = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
BINARY = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class EngineArgs:
    """What the engine was told, defaults filled in; None where vLLM decides later."""

    model: str
    served_names: tuple[str, ...]
    host: str
    port: int
    tensor_parallel: int
    pipeline_parallel: int
    data_parallel: int
    data_parallel_local: int  # of data_parallel, how many run on this node
    headless: bool  # computes for another node's server and answers nothing itself
    nodes: int  # that its processes are spread over, each an engine of its own here
    node_rank: int  # 0 for the node whose engine takes requests
    master: tuple[str, int]  # where that one waits for the others
    adapters: tuple[tuple[str, str], ...]  # LoRA: name and folder
    max_loras: int  # of one step; 0 without --enable-lora
    max_lora_rank: int
    kv_connector: str | None
    max_model_len: int | None  # -1 = as much as fits
    memory_utilization: float
    kv_cache_bytes: int | None
    dtype: str
    quantization: str | None
    kv_cache_dtype: str
    block_size: int | None
    max_num_seqs: int | None
    max_num_batched_tokens: int | None
    max_queued: int | None
    prefix_caching: bool
    chunked_prefill: bool
    enforce_eager: bool
    mfu_metrics: bool
    api_keys: tuple[str, ...]
    root_path: str
    hf_overrides: dict[str, Any]
    non_default: dict[str, Any] = field(default_factory=dict)


def parse(command: Sequence[str], args: Sequence[str], version: str = NEWEST_VERSION) -> EngineArgs:
    """Read the words of a container of the vLLM image.

    Raises EngineExit as vLLM would print it, and LookupError when the words do not start vLLM at all.
    """
    words = _serve_words([*command, *args])
    parser = _parser(version)
    namespace, unknown = parser.parse_known_args([_dashed(word) for word in words])
    if unknown:
        raise usage_error(f"unrecognized arguments: {' '.join(unknown)}", root=True)
    return _engine_args(namespace, parser)


def _serve_words(words: list[str]) -> list[str]:
    """Strip what stands before the flags: the image's entry point, `vllm serve` or the Python module."""
    if words[:1] and Path(words[0]).name.startswith("python"):
        if words[1:3] == ["-m", MODULE]:
            return words[3:]
        raise LookupError(words[0])
    if words[:1] and Path(words[0]).name == "vllm":
        if words[1:2] != ["serve"]:
            raise usage_error(f"argument subparser: invalid choice: {(words[1:2] or [''])[0]!r}", root=True)
        return words[2:]
    if words[:1] and not words[0].startswith("-") and "/" in words[0] and words[0].startswith("/"):
        raise LookupError(words[0])
    return words


def _dashed(word: str) -> str:
    """`--max_model_len` and `--max-model-len` are the same flag."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise usage_error(message)


@cache
def _parser(version: str) -> _Parser:
    other = difference(version)
    lacks = {f"--{name}" for name in other["missing"]}
    parser = _Parser(prog="vllm serve", add_help=False, conflict_handler="resolve")
    parser.add_argument("model_tag", nargs="?", default=None)
    flags = orjson.loads(Path(__file__).with_name("flags.json").read_bytes())["flags"]
    for flag in (*flags, *other["added"]):
        if flag["flags"][0] in lacks:
            parser.set_defaults(**{flag["dest"]: None if isinstance(flag["default"], str) else flag["default"]})
            continue
        # Other names of a flag may have come later.
        spelled = [name for name in flag["flags"] if name not in lacks]
        options: dict[str, Any] = {"dest": flag["dest"], "default": flag["default"]}
        if flag["action"] == "BooleanOptionalAction":
            options["action"] = argparse.BooleanOptionalAction
            names = [name for name in spelled if not name.startswith("--no-")]
            parser.add_argument(*names, **options)
            continue
        if flag["action"] == "_HelpAction":
            continue
        if flag["action"] == "_StoreTrueAction":
            options["action"] = "store_true"
        else:
            read = _type(flag)
            # Python compares what was read, and the list has text.
            choices = [read(choice) for choice in flag["choices"]] if flag["choices"] else None
            options |= {"nargs": flag["nargs"], "choices": choices, "type": read}
            if isinstance(flag["default"], str) and options["type"] is not str:
                options["default"] = None  # argparse would parse the printed form of the default
            if flag["action"] == "_AppendAction":
                options["action"] = "append"
        parser.add_argument(*spelled, **options)
    return parser


def _type(flag: dict[str, Any]) -> Callable[[str], Any]:
    kind, dest = flag["type"], flag["dest"]
    if kind == "int" or dest in ("max_num_queued_reqs", "max_num_queued_tokens", "num_gpu_blocks_override"):
        return int
    if kind == "float":
        return float
    if kind in ("human_readable_int", "human_readable_int_or_auto") or dest == "kv_cache_memory_bytes":
        return human_readable_int_or_auto if kind == "human_readable_int_or_auto" else human_readable_int
    if kind in JSON_TYPES or dest in JSON_DESTS:
        return _json_type(JSON_DESTS.get(dest, "dict"))
    return str


def human_readable_int(text: str) -> int:
    """Read 1k as 1000, 1K as 1024, 25.6k as 25600."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgGtT])", text.strip())
    if match is None:
        return int(text)
    number, suffix = match.groups()
    if suffix in BINARY:
        if "." in number:
            raise argparse.ArgumentTypeError(f"Decimals are not allowed with binary suffixes like {suffix}.")
        return int(number) * BINARY[suffix]
    return int(float(number) * DECIMAL[suffix])


def human_readable_int_or_auto(text: str) -> int:
    """As `human_readable_int`; `auto` and -1 mean: as much as fits."""
    return -1 if text.strip() in ("auto", "-1") else human_readable_int(text)


def _json_type(config: str) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            reason = "key must be a string" if "property name" in error.msg else "expected value"
            where = f"at line {error.lineno} column {error.colno}"
            detail = f"[type=json_invalid, input_value={text!r}, input_type=str]"
            raise argparse.ArgumentTypeError(
                f"1 validation error for {config}\n  Invalid JSON: {reason} {where} {detail}\n{PYDANTIC}json_invalid"
            ) from error

    return read


def _engine_args(space: argparse.Namespace, parser: argparse.ArgumentParser) -> EngineArgs:
    changed = {
        key: value for key, value in vars(space).items() if value is not None and value != parser.get_default(key)
    }
    model = space.model_tag or space.model
    names = tuple(space.served_model_name or [model])
    return EngineArgs(
        model=model,
        served_names=names,
        host=space.host or "0.0.0.0",  # noqa: S104 - the address inside the pod; bound on the pod's own IP
        port=space.port,
        tensor_parallel=_at_least(space.tensor_parallel_size, 1, "ParallelConfig", "tensor_parallel_size"),
        pipeline_parallel=_at_least(space.pipeline_parallel_size, 1, "ParallelConfig", "pipeline_parallel_size"),
        data_parallel=_at_least(space.data_parallel_size, 1, "ParallelConfig", "data_parallel_size"),
        data_parallel_local=space.data_parallel_size_local or space.data_parallel_size,
        headless=bool(space.headless),
        nodes=_at_least(space.nnodes, 1, "ParallelConfig", "nnodes"),
        node_rank=_at_least(space.node_rank, 0, "ParallelConfig", "node_rank"),
        master=(space.master_addr, space.master_port),
        adapters=_adapters(space.lora_modules) if space.enable_lora else (),
        max_loras=_at_least(space.max_loras, 1, "LoRAConfig", "max_loras") if space.enable_lora else 0,
        max_lora_rank=int(space.max_lora_rank),
        kv_connector=_connector(space.kv_transfer_config),
        max_model_len=space.max_model_len,
        memory_utilization=space.gpu_memory_utilization,
        kv_cache_bytes=space.kv_cache_memory_bytes,
        dtype=space.dtype,
        quantization=space.quantization,
        kv_cache_dtype=space.kv_cache_dtype,
        block_size=space.block_size,
        max_num_seqs=space.max_num_seqs,
        max_num_batched_tokens=space.max_num_batched_tokens,
        max_queued=space.max_num_queued_reqs,
        prefix_caching=space.enable_prefix_caching is not False,
        chunked_prefill=space.enable_chunked_prefill is not False,
        enforce_eager=bool(space.enforce_eager),
        mfu_metrics=bool(space.enable_mfu_metrics),
        api_keys=tuple(space.api_key or ()),
        root_path=space.root_path or "",
        hf_overrides=space.hf_overrides if isinstance(space.hf_overrides, dict) else {},
        non_default=changed,
    )


def _connector(config: Any) -> str | None:
    return str(config["kv_connector"]) if isinstance(config, dict) and config.get("kv_connector") else None


def _adapters(modules: list[str] | None) -> tuple[tuple[str, str], ...]:
    """`name=path` or JSON with both, as many as there are; raises as vLLM's LoRAParserAction does."""
    found = []
    for item in modules or []:
        name, equals, path = item.partition("=")
        if "=" not in item or "," in item:
            name, equals, path = _of_json(item)
        if not equals or not name or not path:
            raise usage_error(f"argument --lora-modules: Invalid fields for --lora-modules: {item}")
        found.append((name, path))
    return tuple(found)


def _of_json(item: str) -> tuple[str, str, str]:
    try:
        said = json.loads(item)
    except ValueError:
        raise usage_error(f"argument --lora-modules: Invalid JSON format for --lora-modules: {item}") from None
    named = said if isinstance(said, dict) else {}
    return str(named.get("name") or ""), "=", str(named.get("path") or "")


def check_ranges(args: EngineArgs) -> None:
    """Raise EngineExit for numbers that vLLM's CacheConfig and SchedulerConfig refuse."""
    if args.memory_utilization > 1:
        raise field_error("CacheConfig", "gpu_memory_utilization", "less than or equal to 1", args.memory_utilization)
    if args.memory_utilization <= 0:
        raise field_error("CacheConfig", "gpu_memory_utilization", "greater than 0", args.memory_utilization)
    for name in ("max_num_seqs", "max_num_batched_tokens"):
        _at_least(getattr(args, name), 1, "SchedulerConfig", name)


def _at_least(value: int | None, least: int, config: str, name: str) -> Any:
    if value is not None and value < least:
        raise field_error(config, name, f"greater than or equal to {least}", value)
    return value


__all__ = ["EngineArgs", "EngineExit", "check_ranges", "parse"]

"""How weights are stored: what a configuration, or ModelOpt's own file beside it, says of their quantisation.

As vLLM reads it: `get_config` (transformers_utils/config.py) and `get_quantization_config`
(transformers_utils/model_arch_config_convertor.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deployments.sources.checks import plain

# Where ModelOpt up to 0.29 wrote what later stands in config.json.
BESIDE = "hf_quant_config.json"
# The file names layers that are left alone, and of mixed formats every single one.
MOST_BESIDE = 8 * 1024 * 1024
# Methods whose weights share a scale in groups along one side.
GROUPED = frozenset({"awq", "gptq"})
# What ModelOpt's algorithms are called in, and the method that vLLM reads them with; FP8 has the name of the tool.
ALGORITHMS = (("MXFP8", "modelopt_mxfp8"), ("FP4", "modelopt_fp4"), ("MIXED_PRECISION", "modelopt_mixed"))
# Of its own file vLLM reads these alone, and stops at others.
OF_FILE = frozenset({"FP8", "FP8_PER_CHANNEL_PER_TOKEN", "FP8_PB_WO", "NVFP4"})
MODELOPT, COMPRESSED = "modelopt", "compressed-tensors"


@dataclass(frozen=True)
class Stored:
    """The method that weights are stored in (None for none), the KV cache they ask for, and the blocks of a scale."""

    method: str | None = None
    cache_dtype: str = ""
    block: int | None = None


def asks_for_file(config: Any, sizes: Mapping[str, int]) -> bool:
    """True where the configuration says nothing of quantisation, and ModelOpt's own file lies there."""
    silent = isinstance(config, Mapping) and config.get("quantization_config") is None
    return silent and 0 < sizes.get(BESIDE, 0) <= MOST_BESIDE


def with_file(config: Any, beside: Any) -> Any:
    """The configuration with what that file says; one that could not be read is ModelOpt's all the same."""
    return {**config, "quantization_config": beside if isinstance(beside, Mapping) else {"quant_method": MODELOPT}}


def stored(config: Mapping[str, Any]) -> Stored:
    """What a `config.json` says of how the weights are stored; that of its language model where it says it itself."""
    section = _section(config)
    if section is not None:
        return _read(section, whole=True)
    text = config.get("text_config")
    section = _section(text) if isinstance(text, Mapping) else None
    return _read(section, whole=False) if section is not None else Stored()


def _section(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    section = config.get("quantization_config")
    if section is None:
        section = config.get("compression_config")
    return section if isinstance(section, Mapping) and section else None


def _read(section: Mapping[str, Any], *, whole: bool) -> Stored:
    method = _method(section)
    kind = plain(section.get("quant_method")).lower().replace("compressed_tensors", COMPRESSED)
    if _of_file(section):
        kind = MODELOPT
    return Stored(method, _cache_dtype(section, kind, whole=whole), _block(section, kind))


def _of_file(section: Mapping[str, Any]) -> bool:
    """True for what ModelOpt writes into its own file."""
    producer, inner = section.get("producer"), section.get("quantization")
    by_name = isinstance(producer, Mapping) and producer.get("name") == MODELOPT
    return by_name or (isinstance(inner, Mapping) and "modelopt_quant_config" in inner)


def _method(section: Mapping[str, Any]) -> str | None:
    inner = section.get("quantization")
    algorithm = plain(section.get("quant_algo"))
    if not algorithm and isinstance(inner, Mapping):
        algorithm = plain(inner.get("quant_algo"))
    named = plain(section.get("quant_method")).lower().replace("compressed_tensors", COMPRESSED)
    if _of_file(section) and algorithm:
        # Of a name that no engine has the method is told as one that it lacks.
        return _of_modelopt(algorithm) if algorithm.upper() in OF_FILE else f"{MODELOPT} {algorithm}"
    method = named or plain(inner).lower() or (MODELOPT if _of_file(section) else None)
    return _of_modelopt(algorithm) if method == MODELOPT else method


def _of_modelopt(algorithm: str) -> str:
    """One name for several formats: which, the algorithm says."""
    return next((found for word, found in ALGORITHMS if word in algorithm.upper()), MODELOPT)


def _cache_dtype(section: Mapping[str, Any], method: str, *, whole: bool) -> str:
    """The KV cache that quantised weights ask for, as vLLM takes it with kv-cache-dtype at auto; empty for none."""
    inner = section.get("quantization")
    places = [section, inner] if isinstance(inner, Mapping) else [section]
    scheme = next((place["kv_cache_scheme"] for place in places if place.get("kv_cache_scheme")), None)
    if method == COMPRESSED:
        return "fp8" if isinstance(scheme, Mapping) else ""
    # Of ModelOpt's it is asked for of the whole model alone.
    if not method.startswith(MODELOPT) or not whole:
        return ""
    if isinstance(scheme, Mapping):
        bits = scheme.get("num_bits") if scheme.get("type") == "float" else None
        return "fp8" if bits == 8 and scheme.get("dynamic") is False else "nvfp4" if bits == 4 else ""
    named = next((found for place in places if (found := plain(place.get("kv_cache_quant_algo")))), "")
    return named.lower() if named.lower() in {"fp8", "nvfp4"} else ""


def _block(section: Mapping[str, Any], method: str) -> int | None:
    """The width of the blocks in which quantised weights share a scale; None where they do not."""
    sizes = section.get("weight_block_size")
    first = sizes[0] if isinstance(sizes, list) and sizes else None
    if first is None and method in GROUPED:
        first = section.get("group_size")
    return first if isinstance(first, int) and not isinstance(first, bool) and 1 < first <= 4096 else None

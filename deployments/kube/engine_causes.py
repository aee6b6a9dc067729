"""What the last words of a vLLM engine mean, with the field that mends it."""

from __future__ import annotations

import re

from deployments.engine.flags import flags_of, gone_flags, versions
from deployments.engine.options import round_context
from deployments.engine.plugins import Plugin
from deployments.kube.log_patterns import Patterns, decimal, failed, whole
from deployments.kube.reasons import Code, Reason

GIB = 1024**3

patterns = Patterns()


@patterns.on(r"unrecognized arguments?: --(?P<flag>[A-Za-z0-9_-]{1,64})(?P<rest>[^\n]{0,200})")
def _unknown_flag(match: re.Match[str]) -> Reason:
    flag = match["flag"].replace("_", "-").lower()
    gone = gone_flags().get(flag)
    when = f" (gone since vLLM {gone.gone_by})" if gone and gone.gone_by else ""
    return failed(
        Code.UNKNOWN_FLAG,
        f"The engine does not know the flag “{flag}”{when}.",
        gone.remedy if gone else "Remove it.",
        field=flag.replace("-", "_"),
        numbers={"flag": flag, "instead": gone.replacement if gone else ""},
    )


@patterns.on(
    r"max seq len \(<length:n>\),? \(?<needed:f> GiB KV cache is needed, which is larger than the "
    r"available KV cache memory \(<there:f> GiB\)(?:.{0,200}?estimated maximum model length is "
    r"<most:n>)?"
)
def _kv_too_small(match: re.Match[str]) -> Reason:
    length, needed, there = whole(match["length"]), decimal(match["needed"]), decimal(match["there"])
    share = max(0.0, there) / needed if needed else 0.0
    most = whole(match["most"]) if match["most"] else round_context(int(length * share))
    return failed(
        Code.KV_CACHE_TOO_SMALL,
        f"One request of {length:,} tokens needs {needed:g} GiB of KV cache, but only {there:g} GiB are left.",
        f"Lower max-model-len to {most:,}." if most else "Split over more GPUs, or choose a larger one.",
        field="max_model_len" if most else "tensor_parallel_size",
        value=most or None,
        numbers={"length": length, "needed_gib": needed, "available_gib": there, "most": most},
    )


@patterns.on(r"invalid (?P<kind>tool call|reasoning) parser: (?P<name>[\w-]{1,64})")
def _unknown_parser(match: re.Match[str]) -> Reason:
    flag = "tool-call-parser" if match["kind"] == "tool call" else "reasoning-parser"
    return failed(
        Code.BAD_VALUE,
        f"This vLLM has no {match['kind']} parser “{match['name']}”.",
        f"Set {flag} to one that its version has.",
        field=flag.replace("-", "_"),
        numbers={"parser": match["name"]},
    )


@patterns.on(r"No available memory for the cache blocks")
def _no_cache(match: re.Match[str]) -> Reason:
    return failed(
        Code.GPU_MEMORY,
        "Weights and activations take the whole GPU memory: nothing is left for the KV cache.",
        "Split over more GPUs, choose a larger GPU, or raise gpu-memory-utilization.",
        field="gpu_memory_utilization",
        value=0.95,
    )


@patterns.on(
    r"Free memory on device[^(]{0,40}\(<free:f>/<total:f> GiB\) on startup is less than desired GPU "
    r"memory utilization \(<util:f>, <wanted:f> GiB\)"
)
def _gpu_busy(match: re.Match[str]) -> Reason:
    free, total = decimal(match["free"]), decimal(match["total"])
    share = int(free / total * 100) / 100 if total else 0.0
    return failed(
        Code.GPU_BUSY,
        f"Only {free:g} of {total:g} GiB of the GPU were free at the start; {match['wanted']} GiB were asked for.",
        "Something else uses this GPU. Lower gpu-memory-utilization, or have an admin look at the node.",
        field="gpu_memory_utilization",
        value=share or None,
        numbers={"free_gib": free, "total_gib": total, "utilization": decimal(match["util"])},
    )


@patterns.on(
    r"Available memory on node \d+ \(<free:f>/<total:f> GiB\) on kv cache allocation is less than "
    r"requested memory for kv \(<wanted:f> GiB\)"
)
def _cache_request(match: re.Match[str]) -> Reason:
    free, wanted = decimal(match["free"]), decimal(match["wanted"])
    return failed(
        Code.GPU_MEMORY,
        f"{wanted:g} GiB of KV cache were asked for, but only {free:g} GiB are free.",
        "Lower kv-cache-memory-bytes, or leave it out.",
        field="kv_cache_memory_bytes",
        value=int(free) * GIB,
        numbers={"free_gib": free, "total_gib": decimal(match["total"]), "wanted_gib": wanted},
    )


@patterns.on(r"out of memory occurred when warming up sampler with <count:n> dummy requests")
def _sampler_memory(match: re.Match[str]) -> Reason:
    count = whole(match["count"])
    return failed(
        Code.GPU_MEMORY,
        f"The GPU ran out of memory while preparing for {count:,} requests at once.",
        f"Lower max-num-seqs to {count // 2:,}.",
        field="max_num_seqs",
        value=max(1, count // 2),
        numbers={"requests": count},
    )


@patterns.on(
    r"CUDA out of memory\.? ?(?:Tried to allocate <wanted:f> (?P<unit>[KMG]iB))?"
    r"(?:.{0,120}?total capacity of <total:f> GiB)?"
)
def _cuda_memory(match: re.Match[str]) -> Reason:
    wanted = f" ({match['wanted']} {match['unit']} more were asked for)" if match["wanted"] else ""
    total = f" of {match['total']} GiB" if match["total"] else ""
    return failed(
        Code.GPU_MEMORY,
        f"The GPU’s memory{total} is used up{wanted}.",
        "Split over more GPUs, choose a larger GPU, or lower max-num-seqs and gpu-memory-utilization.",
        field="tensor_parallel_size",
        numbers={"total_gib": decimal(match["total"] or "0")},
    )


@patterns.on(
    r"max_model_len \(<length:n>\) is greater than the derived max_model_len "
    r"\((?:max_position_embeddings=<most:f>)?"
)
def _context(match: re.Match[str]) -> Reason:
    length = whole(match["length"])
    most = int(decimal(match["most"])) if match["most"] else None
    limit = f"{most:,} tokens" if most else "fewer"
    return failed(
        Code.CONTEXT_TOO_LONG,
        f"A context of {length:,} tokens was asked for; this model was made for {limit}.",
        f"Lower max-model-len to {most:,}." if most else "Lower max-model-len.",
        field="max_model_len",
        value=most,
        numbers={"length": length, "most": most or 0},
    )


@patterns.on(r"attention heads \(<heads:n>\) must be divisible by tensor parallel size \(<size:n>\)")
def _heads(match: re.Match[str]) -> Reason:
    heads, size = whole(match["heads"]), whole(match["size"])
    value = next((item for item in range(min(size, heads), 0, -1) if heads % item == 0), 1)
    return failed(
        Code.HEADS_NOT_DIVISIBLE,
        f"The model’s {heads} attention heads cannot be shared evenly by {size} GPUs.",
        f"Use {value} for tensor-parallel-size, or another number that divides {heads}.",
        field="tensor_parallel_size",
        value=value,
        numbers={"heads": heads, "size": size},
    )


@patterns.on(
    r"(?:World size|[Tt]ensor parallel size) \(<size:n>\) (?:is larger|cannot be larger) than the number of "
    r"available GPUs \(<gpus:n>\)"
)
def _world(match: re.Match[str]) -> Reason:
    return failed(
        Code.BAD_VALUE,
        f"The engine was told to use {match['size']} GPUs, but the pod has {match['gpus']}.",
        "Lower tensor-parallel-size.",
        field="tensor_parallel_size",
        value=max(1, whole(match["gpus"])),
        numbers={"size": whole(match["size"]), "gpus": whole(match["gpus"])},
    )


@patterns.on(
    r"Quantization method specified in the model config \((?P<model>[\w-]+)\) does not match[^(]{0,80}"
    r"\((?P<asked>[\w-]+)\)"
)
def _other_quantization(match: re.Match[str]) -> Reason:
    return failed(
        Code.QUANTIZATION,
        f"The weights are quantised as {match['model']}, but {match['asked']} was asked for.",
        "Leave quantization out: the engine reads it from the model.",
        field="quantization",
        value=match["model"],
        numbers={"model": match["model"], "asked": match["asked"]},
    )


@patterns.on(r"Unknown quantization method: (?P<asked>[\w-]{1,40})\. Must be one of")
def _unknown_method(match: re.Match[str]) -> Reason:
    plugin = next((each for each in Plugin if each == match["asked"]), None)
    if plugin is not None:
        return _plugin_missing(plugin, f"This engine has no method {plugin}: its image lacks {plugin.package}.")
    return failed(
        Code.QUANTIZATION,
        f"This engine does not have the method {match['asked']}.",
        "Choose another variant of the model or another engine, or leave quantization out where the flag says it.",
        field="quantization",
        numbers={"asked": match["asked"]},
    )


@patterns.on(
    r"OSError: It looks like the config file at '(?P<path>/[^'\n]{0,300}\.gguf|/mnt/models)' is not a valid JSON file"
)
def _gguf_unknown(match: re.Match[str]) -> Reason:
    """Without its plugin an engine takes a GGUF file for a configuration."""
    package = Plugin.GGUF.package
    return _plugin_missing(Plugin.GGUF, f"This engine does not read GGUF files: its image lacks {package}.")


def _plugin_missing(plugin: Plugin, said: str) -> Reason:
    return failed(
        Code.PLUGIN_MISSING,
        said,
        f"Choose another engine, or the model as safetensors. An admin has to see that the image has {plugin.package}, "
        "and otherwise take it off the engine’s plugins.",
        field="profile",
        numbers={"plugin": plugin.value},
    )


@patterns.on(r"is not a valid JSON file")
def _no_json(match: re.Match[str]) -> Reason:
    return failed(
        Code.MODEL_FILES,
        "A configuration of the model is not JSON.",
        "Write the files of the model anew, or choose another source.",
        field="source_uri",
    )


@patterns.on(r"Cannot find the config file for (?P<asked>[\w-]{1,40})")
def _not_quantized(match: re.Match[str]) -> Reason:
    return failed(
        Code.QUANTIZATION,
        f"The flag quantization says {match['asked']}, but these weights are not quantised that way.",
        "Leave quantization out, or choose a variant of the model that is.",
        field="quantization",
        numbers={"asked": match["asked"]},
    )


@patterns.on(
    r"quantization method (?P<asked>[\w-]+) is not supported for the current GPU\. Minimum capability: <least:n>"
)
def _quantization_gpu(match: re.Match[str]) -> Reason:
    least = whole(match["least"]) / 10
    return failed(
        Code.QUANTIZATION,
        f"{match['asked']} weights need a GPU of compute capability {least:g} or more.",
        "Choose a newer GPU, or another variant of the model.",
        field="flavor",
        numbers={"asked": match["asked"], "least": least},
    )


@patterns.on(r"Bfloat16 is only supported on GPUs with compute capability of at least")
def _bfloat16(match: re.Match[str]) -> Reason:
    return failed(
        Code.BAD_VALUE, "This GPU cannot compute in bfloat16.", "Set dtype to half.", field="dtype", value="half"
    )


@patterns.on(
    r"max_num_batched_tokens \(<batch:n>\) (?:must be greater than or equal to|is smaller than) "
    r"(?P<other>max_num_seqs|max_model_len) \(<least:n>\)"
)
def _batch(match: re.Match[str]) -> Reason:
    batch, least = whole(match["batch"]), whole(match["least"])
    what = "running requests" if match["other"] == "max_num_seqs" else "tokens of a whole prompt"
    return failed(
        Code.BAD_VALUE,
        f"A step of {batch:,} tokens cannot hold {least:,} {what}.",
        f"Raise max-num-batched-tokens to {least:,}.",
        field="max_num_batched_tokens",
        value=least,
        numbers={"batch": batch, "least": least},
    )


@patterns.on(
    r"error: argument --(?P<flag>[A-Za-z0-9_-]{1,64})(?:/-[\w-]+)*: "
    r"(?:invalid [^\n]{0,200}|expected[^\n]{0,80}|\d+ validation error)"
)
def _argument(match: re.Match[str]) -> Reason:
    return _bad_value(match["flag"].replace("_", "-").lower())


@patterns.on(r"validation errors? for \w+\n(?P<flag>[a-z][a-z0-9_]{1,63})\n\s+(?P<said>Input should [^\[\n]{1,120})")
def _config_field(match: re.Match[str]) -> Reason:
    return _bad_value(match["flag"].replace("_", "-"), match["said"].strip().removeprefix("Input should "))


def _bad_value(flag: str, said: str = "") -> Reason:
    known = flags_of(versions()[-1]).get(flag)
    choices = f" Possible: {', '.join(known.choices[:12])}." if known and known.choices else ""
    return failed(
        Code.BAD_VALUE,
        f"The engine does not accept the value of “{flag}”{': it should ' + said if said else ''}.",
        f"Correct it, or leave it out.{choices}",
        field=flag.replace("-", "_"),
        value=known.default if known else None,
        numbers={"flag": flag},
    )

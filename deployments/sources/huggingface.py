"""Models of a hub: what its answers say about them. Pure; whoever calls brings the HTTP.

Use: ``check(model_id, revision, get)`` with ``get(path) -> Reply``; paths are relative to the hub's address.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from deployments.engine.facts import ModelFacts
from deployments.sources.attention import attention, number
from deployments.sources.beside import with_files
from deployments.sources.checks import Reply, SourceCheck, SourceCode, plain
from deployments.sources.contexts import contexts, narrowed
from deployments.sources.experts import experts
from deployments.sources.formats import WeightFormat, format_of, weights_bytes
from deployments.sources.identity import identity, tokenizer
from deployments.sources.stored import stored

Get = Callable[[str], Reply]
SHA = re.compile(r"[0-9a-f]{40}")
MAX_FILES = 20_000
# Numbers of a configuration beyond these are nonsense, and so are names of files.
MOST = 10**15
LONGEST_NAME = 1000
DTYPE = "bfloat16"
# Families whose output layer is their embeddings where the configuration does not say (transformers 5.19).
TIED = frozenset(
    {"bloom", "cohere", "cohere2", "cohere2_moe", "ctrl", "ernie4_5", "ernie4_5_moe", "falcon", "falcon_mamba", "gemma"}
    | {"gemma2", "gemma3_text", "gemma3n_text", "gemma4_text", "gpt2", "gpt_bigcode", "granite_swa", "jetmoe", "lfm2"}
    | {"lfm2_moe", "mamba", "minicpm3", "mpt", "opt", "recurrent_gemma", "smollm3", "starcoder2", "vaultgemma", "youtu"}
    | {"zamba", "zamba2"}
)
# Of layers that propose further tokens, as families call their number.
MTP_LAYERS = ("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_layers", "mtp_num_layers")


def metadata_path(model_id: str, revision: str | None = None) -> str:
    """The path that describes a model with the sizes of its files."""
    at = f"/revision/{revision.replace('/', '%2F')}" if revision else ""
    return f"/api/models/{model_id}{at}?blobs=true"


def config_path(model_id: str, revision: str, name: str = "config.json") -> str:
    """The path of a model's `config.json`, or another file, at one commit; gated models answer 401 or 403 here."""
    return f"/{model_id}/resolve/{revision}/{name}"


def check(model_id: str, revision: str | None, get: Get, *, with_token: bool = False) -> SourceCheck:
    """Look a model up through `get` and say what is there, or why it cannot be used."""
    metadata = get(metadata_path(model_id, revision))
    if metadata.status != 200:
        return _refused(model_id, revision, metadata, with_token)
    if not isinstance(metadata.json, Mapping) or not SHA.fullmatch(str(metadata.json.get("sha", ""))):
        return SourceCheck(SourceCode.UNREACHABLE, "The hub's answer could not be read.", "Try again later.")
    sha = str(metadata.json["sha"])
    config = get(config_path(model_id, sha))
    known = model_facts(model_id, metadata.json, config.json if config.status == 200 else None)
    if config.status in {401, 403}:
        return _gated(model_id, known, with_token)
    kind = format_of(_sizes(metadata.json))
    if kind is WeightFormat.GGUF:
        return _single_files(model_id, sha, sorted(_sizes(metadata.json)), known)
    if config.status == 404:
        return SourceCheck(
            SourceCode.UNUSABLE,
            f"{model_id} has no config.json: vLLM cannot serve it.",
            "Choose a repository with weights in the transformers layout.",
            known,
        )
    if config.status == 200 and not isinstance(config.json, Mapping):
        return SourceCheck(
            SourceCode.UNUSABLE,
            f"The config.json of {model_id} is no JSON object that can be read: vLLM could not load it either.",
            "Choose another revision or repository, or have its owner put it right.",
            known,
        )
    if config.status != 200:
        return _refused(model_id, revision, config, with_token)
    if not known.weights_bytes:
        return SourceCheck(
            SourceCode.UNUSABLE,
            f"{model_id} has no safetensors weights.",
            "Choose a repository that offers its weights as safetensors.",
            known,
        )
    beside = with_files(config.json, _sizes(metadata.json), lambda name: get(config_path(model_id, sha, name)))
    known = model_facts(model_id, metadata.json, *beside)
    return SourceCheck(SourceCode.FOUND, f"Found {model_id} at commit {sha[:8]}.", "", known)


def _single_files(model_id: str, sha: str, names: list[str], known: ModelFacts) -> SourceCheck:
    """A repository of GGUF files: the loader would fetch all of them, where one is a whole model."""
    named = next(name for name in names if name.endswith(".gguf") and "/" not in name)
    return SourceCheck(
        SourceCode.UNUSABLE,
        f"{model_id} holds GGUF files, each of which is a whole model; the cluster would fetch them all.",
        f"Name one of them: https://huggingface.co/{model_id}/resolve/{sha}/{named}",
        known,
    )


def model_facts(
    model_id: str,
    metadata: Mapping[str, Any],
    config: Any = None,
    tokenizer_config: Any = None,
    sentences: Any = None,
) -> ModelFacts:
    """What a hub's metadata and a model's configuration say about it; unknown parts stay None."""
    shape = config if isinstance(config, Mapping) else {}
    nested = shape.get("text_config")
    text = nested if isinstance(nested, Mapping) else shape
    routed = experts(text, number(text, "num_hidden_layers", "n_layer"), number)
    kind, words = identity(shape, _sizes(metadata)), tokenizer(tokenizer_config, _sizes(metadata))
    kept = stored(shape)
    architectures = shape.get("architectures")
    length = narrowed(contexts(shape, text, number), shape, tokenizer_config, sentences, number)
    return ModelFacts(
        id=model_id,
        sha=str(metadata.get("sha") or ""),
        architecture=plain(architectures[0]) if isinstance(architectures, list) and architectures else "",
        dtype=plain(text.get("torch_dtype")) or plain(text.get("dtype")) or plain(shape.get("torch_dtype")) or DTYPE,
        quantization=kept.method,
        cache_dtype=kept.cache_dtype,
        weights_bytes=_weights(metadata),
        download_bytes=sum(_sizes(metadata).values()) or None,
        format=format_of(_sizes(metadata)) or "",
        params=_parameters(metadata),
        hidden=number(text, "hidden_size", "n_embd", "d_model"),
        intermediate=number(text, "intermediate_size", "n_inner", "ffn_dim"),
        vocab=number(text, "vocab_size") or number(shape, "vocab_size"),
        max_position=length.longest,
        max_position_stretched=length.stretched,
        context_unasked=length.unasked,
        experts=routed.count,
        expert_intermediate=routed.width,
        shared_intermediate=routed.shared_width,
        dense_layers=routed.dense_layers,
        tied=bool(
            text.get("tie_word_embeddings", shape.get("tie_word_embeddings", plain(text.get("model_type")) in TIED))
        ),
        q_lora_rank=number(text, "q_lora_rank"),
        nope_head_dim=number(text, "qk_nope_head_dim"),
        v_head_dim=number(text, "v_head_dim"),
        mtp_layers=number(text, *MTP_LAYERS) or 0 if shape else None,
        quant_block=kept.block,
        gated=bool(metadata.get("gated")),
        license=_license(metadata),
        model_type=kind.model_type,
        architectures=kind.architectures,
        own_config=kind.own_config,
        own_model=kind.own_model,
        own_tokenizer=words.own,
        tokenizer_class=words.name,
        tokenizer_json=words.file,
        encoder_decoder=kind.encoder_decoder,
        both_ways=kind.both_ways,
        pooled=kind.pooled,
        **attention(text),
    )


def _refused(model_id: str, revision: str | None, reply: Reply, with_token: bool) -> SourceCheck:
    if reply.status == 404:
        where = f" at revision “{revision}”" if revision else ""
        return SourceCheck(
            SourceCode.NOT_FOUND,
            f"The hub has no model {model_id}{where}.",
            "Check owner, name and revision; a private model needs a credential.",
        )
    if reply.status == 401 and with_token:
        return SourceCheck(
            SourceCode.BAD_TOKEN, "The hub does not accept this credential.", "Enter the token again, or another."
        )
    if reply.status in {401, 403}:
        return _gated(model_id, None, with_token)
    said = f"status {reply.status}" if reply.status else (reply.error or "no answer")
    return SourceCheck(
        SourceCode.UNREACHABLE,
        f"The hub could not be asked ({said[:120]}).",
        "You can go on: the model is looked up again before anything starts.",
    )


def _gated(model_id: str, known: ModelFacts | None, with_token: bool) -> SourceCheck:
    if with_token:
        return SourceCheck(
            SourceCode.GATED,
            f"{model_id} is gated, and this credential has no access to it.",
            f"Accept the licence of {model_id} on the hub with the account of that token.",
            known,
        )
    return SourceCheck(
        SourceCode.GATED,
        f"{model_id} is gated: the hub gives it only to those who accepted its licence.",
        "Choose a credential with a token of an account that accepted it.",
        known,
    )


def _weights(metadata: Mapping[str, Any]) -> int | None:
    """Weights that vLLM loads lie at the top; `original/` and the like are other copies."""
    sizes = _sizes(metadata)
    return weights_bytes(sizes, format_of(sizes)) or None


def _sizes(metadata: Mapping[str, Any]) -> dict[str, int]:
    """Sizes in bytes of the files by their names, as far as the answer makes sense."""
    siblings = metadata.get("siblings")
    found: dict[str, int] = {}
    for item in siblings[:MAX_FILES] if isinstance(siblings, list) else ():
        size = item.get("size") or 0 if isinstance(item, Mapping) else None
        if isinstance(size, int) and not isinstance(size, bool) and 0 <= size < MOST:
            found[plain(item.get("rfilename"), LONGEST_NAME)] = size
    return found


def _parameters(metadata: Mapping[str, Any]) -> int | None:
    safetensors = metadata.get("safetensors")
    return number(safetensors, "total") if isinstance(safetensors, Mapping) else None


def _license(metadata: Mapping[str, Any]) -> str:
    card = metadata.get("cardData")
    return plain(card.get("license")) if isinstance(card, Mapping) else ""

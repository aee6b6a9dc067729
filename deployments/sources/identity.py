"""What a model says of its kind in its configuration: model type, architectures, and Python code of its own. Pure.

That of its tokenizer stands in a file of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from deployments.sources.checks import plain

# Beside weights of that name the engine reads Mistral's own file in place of config.json.
MISTRAL_FILE, MISTRAL_WEIGHTS = "params.json", "consolidated"
MOST_ARCHITECTURES = 8
TOKENIZER_CONFIG, TOKENIZER_JSON = "tokenizer_config.json", "tokenizer.json"
# Larger than any that was seen, and what the outbound door lets in.
MOST_TOKENIZER = 4 * 1024 * 1024
# Model types whose configuration is of an encoder and a decoder where it does not say so.
ENCODER_DECODERS = frozenset({"whisper", "cohere_asr"})
# How models of sentence-transformers are put together; of a layer that pools its configuration lies in a folder.
MODULES, POOLING = "modules.json", "_Pooling/config.json"


@dataclass(frozen=True)
class Identity:
    """The kind of a model. `model_type` is "" where the configuration names none, None where it decides nothing."""

    model_type: str | None = None
    architectures: tuple[str, ...] = ()
    own_config: bool = False
    own_model: bool = False
    encoder_decoder: bool = False
    both_ways: bool = False
    pooled: bool = False


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
        encoder_decoder=_encoder_decoder(config),
        both_ways=config.get("is_causal") is False or config.get("use_bidirectional_attention") is True,
        pooled=MODULES in names and any(name.endswith(POOLING) for name in names),
    )


@dataclass(frozen=True)
class Tokenizer:
    """What is known of a model's tokenizer: whether it is code of the repository, its class, and its file."""

    own: bool | None = None
    name: str = ""
    file: bool = False


def asks_for_tokenizer(sizes: Mapping[str, int]) -> bool:
    """True where the configuration of a tokenizer lies there and is small enough to be read."""
    return 0 < sizes.get(TOKENIZER_CONFIG, 0) <= MOST_TOKENIZER


def tokenizer(config: Any, sizes: Mapping[str, int]) -> Tokenizer:
    """The tokenizer of a `tokenizer_config.json` (None where it was not read), beside which these files lie."""
    file = TOKENIZER_JSON in sizes
    if not isinstance(config, Mapping):
        return Tokenizer(own=None if TOKENIZER_CONFIG in sizes or not sizes else False, file=file)
    code = config.get("auto_map")
    # Of old two classes stood there alone, one slow and one fast.
    named = code.get("AutoTokenizer") if isinstance(code, Mapping) else code
    return Tokenizer(isinstance(named, list | str) and bool(named), plain(config.get("tokenizer_class")), file)


def _encoder_decoder(config: Mapping[str, Any]) -> bool:
    """Whether the engine takes it for an encoder and a decoder; what it asks is said at the top, or of the text."""
    text = config.get("text_config")
    said = [part.get("is_encoder_decoder") for part in (config, text) if isinstance(part, Mapping)]
    if any(isinstance(each, bool) for each in said):
        return any(each is True for each in said)
    return plain(config.get("model_type")) in ENCODER_DECODERS

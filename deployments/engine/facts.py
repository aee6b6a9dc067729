"""What the fit estimate needs to know about a model and about a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, Self

GIB = 1024**3
MIB = 1024**2
# Architectures of encoders alone, as vLLM's bert.py, bert_with_rope.py, roberta.py and modernbert.py run them.
ENCODERS = (
    *("Bert", "Roberta", "XLMRoberta", "ModernBert", "NomicBert", "GteModel", "GteNew", "BgeM3"),
    *("HF_ColBERT", "ColBERTModernBert", "ColBERTJinaRoberta"),
)


@dataclass(frozen=True)
class ModelFacts:
    """A model's shape, read from its `config.json` and its file list. Sizes are bytes, lengths are tokens.

    `kv_heads` and `head_dim` are those of all layers; where layers that attend to everything have others
    (`full_kv_heads`, `full_head_dim`), those of the rest. `dense_layers` are those without experts in a model that has
    some; `shared_intermediate` is the width of what every token meets beside them. `linear_layers` keep a constant
    instead of a cache (linear attention, Mamba); `quant_block` is the width of blocks that quantised weights share a
    scale in.
    """

    id: str
    sha: str = ""
    architecture: str = ""
    dtype: str = "bfloat16"
    quantization: str | None = None
    # What the weights say of the KV cache, which the engine takes where nothing else is asked for; empty for nothing.
    cache_dtype: str = ""
    weights_bytes: int | None = None
    # Of everything that lies there: what a download takes.
    download_bytes: int | None = None
    params: int | None = None
    layers: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    head_dim: int | None = None
    hidden: int | None = None
    intermediate: int | None = None
    vocab: int | None = None
    max_position: int | None = None
    # As engines up to 0.20 took it, and what is taken where nobody asks; None where these are the same.
    max_position_stretched: int | None = None
    context_unasked: int | None = None
    experts: int = 0
    expert_intermediate: int | None = None
    shared_intermediate: int = 0
    dense_layers: int = 0
    tied: bool = False
    kv_lora_rank: int | None = None
    rope_head_dim: int | None = None
    # Of latent attention: the rank of the queries (None for none), and the widths of a head's keys and values.
    q_lora_rank: int | None = None
    nope_head_dim: int | None = None
    v_head_dim: int | None = None
    # Layers that attend to so many tokens back; those that read the cache of others do not count.
    sliding_window: int | None = None
    sliding_layers: int = 0
    # Layers that attend within chunks of so many tokens (Llama 4).
    attention_chunk: int | None = None
    chunked_layers: int = 0
    # Layers that attend to everything, where they have other heads.
    full_kv_heads: int | None = None
    full_head_dim: int | None = None
    # How wide values are, where they are not as wide as keys.
    value_head_dim: int | None = None
    full_value_head_dim: int | None = None
    linear_layers: int = 0
    # The last layers, where they read the cache of layers before them and keep none.
    shared_layers: int = 0
    # Layers that choose the tokens they attend to (DeepSeek V3.2), and how wide a key is that they choose by.
    index_layers: int = 0
    index_head_dim: int | None = None
    # What the configuration says of attention that the estimate does not know, by the names of its keys.
    unread: tuple[str, ...] = ()
    # Layers that propose further tokens (mtp); None where the configuration was not read.
    mtp_layers: int | None = None
    quant_block: int | None = None
    gated: bool = False
    license: str = ""
    # How the weights are stored (deployments.sources.listing); of one file its name, and the folder of its tokenizer.
    format: str = ""
    file: str = ""
    tokenizer: str = ""
    # Whether a config.json lies beside the one file.
    described: bool = False
    # What config.json names: "" for no model type, None where it was not read, or the engine reads another file.
    model_type: str | None = None
    architectures: tuple[str, ...] = ()
    # Python code of the repository: for its configuration, and for the model.
    own_config: bool = False
    own_model: bool = False
    # Python code of the repository for its tokenizer, None where nobody read that; the class that it names.
    own_tokenizer: bool | None = None
    tokenizer_class: str = ""
    # Whether the tokenizer lies there as one file, which is read without a class of its own.
    tokenizer_json: bool = False
    # An encoder that decoders look back at (Whisper); and a pooling layer beside the weights, for embeddings.
    encoder_decoder: bool = False
    # Every token of a prompt sees all others, where the model gives embeddings.
    both_ways: bool = False
    pooled: bool = False

    @property
    def is_mla(self) -> bool:
        """True when attention keeps one compressed latent per token (DeepSeek), the same on every rank."""
        return self.kv_lora_rank is not None

    @cached_property
    def is_encoder(self) -> bool:
        """True when nothing is kept of a prompt: every step holds it whole (vLLM: EncoderOnlyAttention)."""
        return self.architecture.startswith(ENCODERS)

    @property
    def is_sparse(self) -> bool:
        """True when latent attention is to a choice of tokens, for which a further key of each is kept."""
        return self.is_mla and self.index_head_dim is not None

    @cached_property
    def attending(self) -> int:
        """Layers with a KV cache of their own."""
        return 0 if self.is_encoder else max(0, (self.layers or 0) - self.linear_layers - self.shared_layers)

    @cached_property
    def has_shape(self) -> bool:
        """True when the KV cache can be computed from what is known."""
        return not self.missing_shape

    @cached_property
    def missing_shape(self) -> tuple[str, ...]:
        """What is not known of that which the KV cache is computed from; models without attention have no heads."""
        if self.is_mla or (self.layers and not self.attending):
            needed: tuple[str, ...] = ("layers",)
        else:
            needed = ("layers", "heads", "kv_heads", "head_dim")
        return tuple(name for name in needed if not getattr(self, name))

    @property
    def usual_context(self) -> int | None:
        """The context that an engine takes where `max-model-len` is not given."""
        return self.context_unasked or self.max_position

    def as_json(self) -> dict[str, Any]:
        """These facts as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Facts from stored JSON; names this version does not know are left out."""
        known = {field.name for field in fields(cls)}
        named = {name: value for name, value in data.items() if name in known}
        lists = {name: tuple(named.get(name, ())) for name in ("architectures", "unread")}
        return cls(**{**named, **lists})


@dataclass(frozen=True)
class GpuFacts:
    """One kind of GPU: what vLLM can see of its memory, and what it can compute."""

    product: str
    visible_gib: float
    compute_capability: float
    name: str = ""
    bandwidth_gbs: float | None = None
    bf16_tflops: float | None = None

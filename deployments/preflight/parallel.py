"""Rules about how a model is split over GPUs: heads, stages, experts, blocks of quantised weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from deployments.engine.attention import OWN, UNTOUCHED, backends, has_kernels, kernels_sharing
from deployments.engine.facts import ModelFacts
from deployments.engine.gpus import COMMON_NODE
from deployments.engine.kv_layers import ONE_CACHE, Keeps, cache_dtype, layers_of
from deployments.engine.options import splits, splits_by
from deployments.findings import Change, Finding, arg_pointer, error, info
from deployments.preflight.attention import CACHE, CACHES, kernels_asked, weight
from deployments.preflight.attention import FLAG as BACKEND
from deployments.preflight.rules import Case, Rules, plural
from deployments.sources.stored import GROUPED

rules = Rules()

CONTEXT = "decode-context-parallel-size"


@rules.rule
def heads_divide(case: Case) -> Iterator[Finding]:
    """Attention heads are shared out evenly over the GPUs of one layer."""
    size, model = case.spec.tensor_parallel, case.model
    if model is None or size == 1 or splits_by(model, size):
        return
    most = case.flavor.gpus_per_node if case.flavor else COMMON_NODE
    allowed = splits(model, most)
    heads = f"{model.heads} attention heads" + (f" and {model.kv_heads} KV heads" if model.kv_heads else "")
    if model.full_kv_heads:
        heads += f" ({model.full_kv_heads} in layers that attend to everything)"
    smaller = [item for item in allowed if item <= size]
    yield error(
        "heads_not_divisible",
        arg_pointer("tensor-parallel-size"),
        f"{model.id} has {heads}, which {size} GPUs cannot share evenly.",
        f"Possible: {', '.join(map(str, allowed))}.",
        smaller[-1] if smaller else None,
    )


@rules.rule
def kv_heads_replicated(case: Case) -> Iterator[Finding]:
    """More GPUs than KV heads keep copies: the cache per GPU shrinks no further."""
    size, model = case.spec.tensor_parallel, case.model
    if model is None or model.is_mla or not model.kv_heads or size <= model.kv_heads or not splits_by(model, size):
        return
    yield info(
        "kv_heads_replicated",
        arg_pointer("tensor-parallel-size"),
        f"With {model.kv_heads} KV heads, {size} GPUs keep copies of the KV cache: it gains nothing beyond "
        f"{model.kv_heads}.",
    )


@rules.rule
def stages(case: Case) -> Iterator[Finding]:
    """A model cannot have more stages than layers."""
    count, model = case.spec.pipeline_parallel, case.model
    if model is not None and model.layers and count > model.layers:
        yield error(
            "stages_over_layers",
            arg_pointer("pipeline-parallel-size"),
            f"{model.id} has {model.layers} layers; it cannot be cut into {count} stages.",
            f"Use at most {model.layers}.",
            model.layers,
        )


@rules.rule
def context_shared(case: Case) -> Iterator[Finding]:
    """GPUs that share the context while decoding are taken from those that share the layers."""
    shared, size, model = case.whole(CONTEXT), case.spec.tensor_parallel, case.model
    if shared is None or shared <= 1:
        return
    pointer = arg_pointer(CONTEXT)
    if size % shared:
        yield error(
            "context_parallel",
            pointer,
            f"{shared} GPUs cannot share the context of {size} that share the layers: the first must divide the other.",
            "Leave it out." if size == 1 else f"Use a divisor of {size}, or leave it out.",
            1,
        )
    elif model is not None and not model.is_mla and model.kv_heads and model.heads:
        # Only copies of KV heads can be shared out, and each GPU needs as many queries.
        copies, queries = size // model.kv_heads, model.heads // model.kv_heads
        possible = [item for item in range(2, copies + 1) if size % item == 0 and queries % item == 0]
        if shared not in possible:
            yield error(
                "context_parallel",
                pointer,
                f"{model.id} has {plural(model.kv_heads, 'KV head')}, each on {plural(max(1, copies), 'GPU')} "
                f"of {size}: {shared} cannot share the context. The engine would not start.",
                f"Possible: {', '.join(map(str, possible))}." if possible else "Leave it out.",
                possible[-1] if possible else 1,
            )


@rules.rule
def context_kernels(case: Case) -> Iterator[Finding]:
    """Parts of a context are joined by the softmax sums of each, which not all attention kernels hand out."""
    asked, model = case.arg(BACKEND), case.model
    if not _shares_context(case) or model is None or not model.attending or model.architecture.startswith(OWN):
        return
    _, capability, cache, dtype = kernels_asked(case)
    sharing = kernels_sharing(model, capability, cache, dtype)
    named = asked if asked in backends() else None
    if named in sharing or (named is None and sharing) or not has_kernels(model, capability, cache, dtype):
        return
    ways: list[Change] = [(arg_pointer(BACKEND), other) for other in sharing]
    if named is None:
        ways += [
            (arg_pointer(CACHE), kind)
            for kind in CACHES
            if kernels_sharing(model, capability, _kept(model, kind), dtype)
        ]
    say, said = weight(case)
    what = f"{named} does not" if named else f"none of vLLM's attention kernels that keep a KV cache in {cache} does"
    if not named and cache in UNTOUCHED:
        what = f"none of vLLM's attention kernels for {model.id} does there"
    yield _without_sharing(
        case,
        say,
        "context_kernels",
        f"GPUs that share the context while decoding need attention kernels that can join its parts, and {what}{said}",
        ways,
    )


@rules.rule
def context_windows(case: Case) -> Iterator[Finding]:
    """Windows are no context to share: vLLM asserts that all layers keep everything."""
    model, args = kernels_asked(case)[0], case.spec.engine.args
    if not _shares_context(case) or model is None or model.architecture.startswith(OWN):
        return
    kinds = layers_of(model, args)
    if all(kind.keeps is Keeps.ALL for kind in kinds):
        return
    ways: list[Change] = []
    if not model.linear_layers and any(kind.keeps is Keeps.ALL for kind in kinds):
        ways.append((arg_pointer(ONE_CACHE), True))
    if not any(kind.keeps is Keeps.CHUNK for kind in kinds):
        ways.append((arg_pointer("disable-sliding-window"), True))
    say, said = weight(case)
    yield _without_sharing(
        case,
        say,
        "context_windows",
        f"Layers of {model.id} keep a window of the context alone, which GPUs cannot share while decoding{said}",
        ways,
    )


def _shares_context(case: Case) -> bool:
    shared = case.whole(CONTEXT)
    return shared is not None and shared > 1


def _kept(model: ModelFacts, kind: str) -> str:
    return cache_dtype(model, {CACHE: kind})


def _without_sharing(case: Case, say: Callable[..., Finding], code: str, message: str, ways: list[Change]) -> Finding:
    """What to change so that the context can be shared, the first that leads to nothing else; or not to share it."""
    last: Change = (arg_pointer(CONTEXT), 1)
    first = next((way for way in ways if case.admits is None or case.admits([way])), last)
    flag, value = first[0].rpartition("/")[2], str(first[1]).lower()
    remedy = f"Set {flag} to {value}, or leave {CONTEXT} out." if first != last else f"Leave {CONTEXT} out."
    return say(code, first[0], message, remedy, first[1])


@rules.rule
def quantised_blocks(case: Case) -> Iterator[Finding]:
    """Weights that are scaled in blocks can only be split between blocks."""
    model, size = case.model, case.spec.tensor_parallel
    if model is not None and model.experts:
        size *= case.spec.data_parallel  # All GPUs of a replica share out its experts.
    if model is None or not model.quant_block or size == 1:
        return
    if model.experts and model.quantization in GROUPED:
        return  # vLLM has kernels for experts that take narrower groups
    whole = case.arg("enable-expert-parallel") is True and bool(model.experts)
    width = None if whole else (model.expert_intermediate if model.experts else model.intermediate)
    if width is None or width % (size * model.quant_block) == 0:
        return
    most, engines = case.flavor.gpus_per_node if case.flavor else COMMON_NODE, size // case.spec.tensor_parallel
    possible = [item for item in splits(model, most) if width % (item * engines * model.quant_block) == 0]
    remedy = f"Possible: {', '.join(map(str, possible))}." if possible else "Choose another variant of the model."
    yield error(
        "quantised_blocks",
        arg_pointer("tensor-parallel-size"),
        f"Split by {size}, layers of {width:,} are cut inside the blocks of {model.quant_block} in which "
        f"{model.id} is quantised: the engine would not start.",
        f"{remedy} enable-expert-parallel keeps experts whole." if model.experts else remedy,
        max((item for item in possible if item < case.spec.tensor_parallel), default=None),
    )


@rules.rule
def experts(case: Case) -> Iterator[Finding]:
    """Expert parallelism is for mixture-of-experts models: with any other the engine stops at its start."""
    pointer = arg_pointer("enable-expert-parallel")
    if case.arg("enable-expert-parallel") is not True or case.model is None:
        return
    if not case.model.experts and case.model.has_shape:
        yield error(
            "no_experts",
            pointer,
            f"{case.model.id} has no experts to spread: the engine would not start.",
            "Leave enable-expert-parallel out.",
            False,
        )
    elif case.spec.tensor_parallel * case.spec.data_parallel == 1:
        yield info("experts_alone", pointer, "On one GPU there is nothing to spread experts over.")


@rules.rule
def engines_in_one_pod(case: Case) -> Iterator[Finding]:
    """Engines of one replica stand in one pod, where each answers requests for itself."""
    spec, pointer = case.spec, arg_pointer("data-parallel-size")
    if spec.data_parallel == 1:
        return
    if spec.nodes > 1:
        yield error(
            "engines_across_nodes",
            pointer,
            f"A replica that spans {spec.nodes} nodes is one engine: {spec.data_parallel} of them would need pods of "
            "their own on each node.",
            "Leave data-parallel-size out, and ask for more replicas; or let a replica have one node.",
            1,
        )
    elif case.model is not None and not case.model.experts and case.model.has_shape:
        yield info(
            "engines_or_replicas",
            pointer,
            f"{case.model.id} has no experts: {plural(spec.data_parallel, 'engine')} in one replica do what as many "
            "replicas do, and those scale one by one.",
            "Ask for more replicas instead.",
            1,
        )

"""Rules about the KV cache on its way from prefill to decode: what vLLM's connector takes over, and what it cannot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from deployments.engine.alike import AUTO, SHAPES, WITH_AUTO, unlike
from deployments.engine.attention import keeps_heads_apart
from deployments.engine.facts import ModelFacts
from deployments.engine.flags import release
from deployments.engine.gpus import COMMON_NODE
from deployments.engine.options import splits
from deployments.engine.states import states_handed_over
from deployments.findings import Finding, arg_pointer, error
from deployments.preflight.model import pooling_flag, pools_by_itself
from deployments.preflight.roles import alone, own_pointer
from deployments.preflight.rules import Case, Rules, plural
from deployments.sources.identity import MODULES
from deployments.spec import ArgValue, DeploymentSpec, Role, Strategy

# About the two roles together; and about the engine of each of them.
rules = Rules()
of_role = Rules()

SPLIT = "tensor-parallel-size"
SHARED = "decode-context-parallel-size"
# What proposes tokens by layers of the model, which keep a KV cache too.
METHOD, TOKENS, PROPOSES = "spec-method", "spec-tokens", "mtp"
# From then on kernels say which layouts they have, and the connector gives way to them.
LAYOUTS_SINCE = (0, 29)
# Before, the connector takes each GPU for one that holds the whole context.
SHARES_KNOWN_SINCE = (0, 29)


@rules.rule
def decode_writes(case: Case) -> Iterator[Finding]:
    """A model that pools gives its answer with the prompt: there is nothing to hand over and decode."""
    if case.spec.strategy is not Strategy.DISAGGREGATED:
        return
    flags = {role: pooling_flag(own.engine.args) for role, own in case.roles.items()}
    for pointer in dict.fromkeys(
        own_pointer(arg_pointer(flag), role, case.spec) for role, flag in flags.items() if flag
    ):
        flag = pointer.rpartition("/")[2]
        yield error(
            "roles_pooling",
            pointer,
            f"With {flag} set so a model gives embeddings or scores of a prompt: there is nothing to decode.",
            f"Choose standard, or leave {flag} out.",
        )
    model, by_itself = case.model, [pools_by_itself(alone(case, role)) for role in flags if not flags[role]]
    if model is not None and any(by_itself):
        shown_by = MODULES if model.pooled else model.architecture
        yield error(
            "roles_pooling",
            "/spec/strategy",
            f"{model.id} is a model of embeddings or scores ({shown_by}), which it gives of a prompt: there is "
            "nothing to decode.",
            "Choose standard.",
            Strategy.STANDARD.value,
        )


@rules.rule
def one_cache_each(case: Case) -> Iterator[Finding]:
    """What a decoder looks back at in an encoder is kept apart, and no connector takes that."""
    model = case.model
    if case.spec.strategy is Strategy.DISAGGREGATED and model is not None and model.encoder_decoder:
        yield error(
            "roles_encoder",
            "/spec/strategy",
            f"{model.id} has an encoder and a decoder: vLLM hands no KV cache of such models over, and the engines "
            "would not start.",
            "Choose standard.",
            Strategy.STANDARD.value,
        )


@rules.rule
def states_handed(case: Case) -> Iterator[Finding]:
    """What layers keep in place of a KV cache is taken apart by their kind, and not every kind is known."""
    model = case.model
    if case.spec.strategy is not Strategy.DISAGGREGATED or model is None or not model.linear_layers:
        return
    since = states_handed_over(model)
    if since is None or release(case.version) < since:
        engine = "vLLM" if since is None else f"vLLM {case.version}"
        yield error(
            "handover_states",
            "/spec/strategy",
            f"{plural(model.linear_layers, 'layer')} of {model.id} keep a state in place of a KV cache, and {engine} "
            "does not hand states of this kind over: the engines would not start.",
            "Choose standard." if since is None else f"Choose standard, or vLLM {'.'.join(map(str, since))} or later.",
            Strategy.STANDARD.value,
        )


@rules.rule
def compared_alike(case: Case) -> Iterator[Finding]:
    """What shapes the KV cache is the same on both sides, and what the engines compare before they hand it over."""
    if case.spec.strategy is not Strategy.DISAGGREGATED:
        return
    prefill, decode = (own.engine.args for own in case.roles.values())
    for flag in unlike(prefill, decode):
        yield _not_alike(flag, prefill, decode)
    if prefill.get(METHOD) != decode.get(METHOD) and PROPOSES in {prefill.get(METHOD), decode.get(METHOD)}:
        yield _not_alike(METHOD, prefill, decode)


def _not_alike(flag: str, prefill: Mapping[str, ArgValue], decode: Mapping[str, ArgValue]) -> Finding:
    """The flag of one role as the other has it: as prefill does, or where that says nothing, what comes to the same."""
    role, value = Role.DECODE, prefill.get(flag)
    if value is None and decode[flag] is True:
        value = False
    elif value is None and flag in WITH_AUTO:
        value = AUTO
    elif value is None:
        role, value = Role.PREFILL, decode[flag]
    given, taken = (prefill, decode) if role is Role.DECODE else (decode, prefill)
    place = f"/spec/{role}/args/"
    number = given.get(TOKENS)
    with_it = flag == METHOD and number is not None and number != taken.get(TOKENS)
    reason = (
        "the KV cache is handed over as it lies in memory, and this decides on how it does."
        if flag in SHAPES
        else "their engines compare it and hand no KV cache over, so every request would fail."
    )
    return error(
        "handover_differs",
        place + flag,
        f"{flag} is not the same in prefill and decode: {reason}",
        f"Give “--{flag}” once, for both, or in neither.",
        value,
        also=[(place + TOKENS, number)] if with_it else [],
    )


@of_role.rule
def context_handed_over(case: Case) -> Iterator[Finding]:
    """A cache is handed over that is whole on every GPU, or that all of them share; and only a latent can be shared."""
    shared, size, model = case.whole(SHARED), case.spec.tensor_parallel, case.model
    if shared is None or shared <= 1 or size % shared:
        return  # What does not divide is said of any engine.
    if release(case.version) < SHARES_KNOWN_SINCE:
        reason = f"vLLM {case.version} hands the KV cache over as if every GPU held the whole context."
    elif model is not None and model.has_shape and not model.is_mla:
        reason = (
            f"{model.id} keeps keys and values: the cache of a context that GPUs share is handed over of latents only."
        )
    elif shared != size:
        yield error(
            "handover_context",
            arg_pointer(SHARED),
            f"The KV cache is handed over from all {size} GPUs that share the layers, or from each whole: {shared} "
            "that share the context are neither, and the engine would not start.",
            f"Use {size}, or leave it out.",
            size,
        )
        return
    else:
        return
    yield error("handover_context", arg_pointer(SHARED), reason, "Leave it out.", 1)


@rules.rule
def contexts_alike(case: Case) -> Iterator[Finding]:
    """Layers that keep a state are handed over as they are: a share of the context would not be."""
    if case.spec.strategy is not Strategy.DISAGGREGATED or case.model is None or not case.model.linear_layers:
        return
    prefill, decode = (_shares(own) for own in case.roles.values())
    if prefill != decode:
        yield error(
            "handover_context_differs",
            own_pointer(arg_pointer(SHARED), Role.DECODE, case.spec),
            f"Of {case.model.id}, some of whose layers keep a state, the KV cache is handed over where as many GPUs "
            f"share the context: {prefill:,} do in prefill and {decode:,} in decode.",
            f"Leave {SHARED} out in both.",
        )


def _shares(spec: DeploymentSpec) -> int:
    value = spec.engine.args.get(SHARED)
    return value if isinstance(value, int) and not isinstance(value, bool) else 1


@rules.rule
def splits_handed_over(case: Case) -> Iterator[Finding]:
    """Each GPU of one role takes over from whole GPUs of the other, and not from copies when it has more to hold."""
    if case.spec.strategy is not Strategy.DISAGGREGATED:
        return
    prefill, decode = (own.tensor_parallel for own in case.roles.values())
    if max(prefill, decode) % min(prefill, decode):
        yield error(
            "handover_split",
            f"/spec/{Role.DECODE}/args/{SPLIT}",
            f"Prefill has {plural(prefill, 'GPU')} to a replica and decode {decode:,}: the KV cache is handed over "
            "only where one number is a multiple of the other.",
            *_other(case, Role.DECODE),
        )
    elif _copied(case.model, prefill, decode):
        heads = case.model.kv_heads if case.model else 0
        yield error(
            "handover_copies",
            f"/spec/{Role.PREFILL}/args/{SPLIT}",
            f"{plural(prefill, 'GPU')} of prefill keep copies of {plural(heads or 0, 'KV head')}, and decode has "
            f"{decode:,}: from copies the KV cache is handed over only to as many GPUs or more.",
            *_other(case, Role.PREFILL),
        )


@rules.rule
def heads_handed_over(case: Case) -> Iterator[Finding]:
    """Between different splits the heads of a block are divided, for which they must lie one after the other."""
    model, known = case.model, release(case.version) >= LAYOUTS_SINCE
    if case.spec.strategy is not Strategy.DISAGGREGATED or model is None or model.is_mla or not known:
        return
    prefill, decode = case.roles.values()
    sizes = prefill.tensor_parallel, decode.tensor_parallel
    if sizes[0] == sizes[1] or (model.kv_heads and sizes[0] > model.kv_heads):
        return
    args = prefill.engine.args
    kernels, kind = str(args.get("attention-backend", "")), str(args.get("kv-cache-dtype", "auto"))
    if keeps_heads_apart(kernels, kind):
        flag, what = ("attention-backend", kernels) if kernels else ("kv-cache-dtype", kind)
        yield error(
            "handover_heads",
            f"/spec/{Role.DECODE}/args/{SPLIT}",
            f"With {flag} {what} the heads of a KV cache do not lie one after the other: it is handed over only "
            f"between roles split alike, and prefill has {plural(sizes[0], 'GPU')} to a replica, decode {sizes[1]:,}.",
            f"Split both alike, or use another {flag}.",
            sizes[0],
        )


def _copied(model: ModelFacts | None, prefill: int, decode: int) -> bool:
    """True where decode would take a head from GPUs of prefill of which several hold it; a latent is alike on all."""
    if model is None or model.is_mla or model.linear_layers or not model.kv_heads:
        return False
    return prefill > decode and prefill > model.kv_heads


def _other(case: Case, role: Role) -> tuple[str, int | None]:
    """The nearest split of this role that can be handed over, as a remedy and its value."""
    own = case.roles
    now, most = own[role].tensor_parallel, case.flavor.gpus_per_node if case.flavor else COMMON_NODE
    fixed = own[Role.DECODE if role is Role.PREFILL else Role.PREFILL].tensor_parallel
    sizes = splits(case.model, most) if case.model is not None else range(1, most + 1)
    fitting = [size for size in sizes if _fits(case.model, *((size, fixed) if role is Role.PREFILL else (fixed, size)))]
    if not fitting:
        return "Split both roles alike.", None
    nearest = min(fitting, key=lambda size: (abs(size - now), -size))
    return f"Possible for {role.value}: {', '.join(map(str, fitting))}.", nearest


def _fits(model: ModelFacts | None, prefill: int, decode: int) -> bool:
    return max(prefill, decode) % min(prefill, decode) == 0 and not _copied(model, prefill, decode)

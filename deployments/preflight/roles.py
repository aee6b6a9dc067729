"""Rules about prefill and decode: what each of them runs is checked as a wish of its own, at its own fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from deployments.engine.host import OFFLOADED_CACHE
from deployments.engine.options import Option
from deployments.findings import ARGS_POINTER, Change, Finding, arg_pointer, error, info, warning
from deployments.preflight.rules import Case, Rule, Rules, plural, said
from deployments.spec import DeploymentSpec, Role, RoleSpec, Strategy

rules = Rules()

REPLICAS = "/spec/replicas"
CONTEXT = "max-model-len"
# KServe gives the parts of such a service names of this form.
CHILD_ENDINGS = (
    "-kserve-workload-svc",
    "-kserve-router-scheduler",
    "-kserve-route",
    "-kserve-prefill",
    "-kserve-mn-prefill",
    "-kserve-mn",
    "-kserve",
    "-inference-pool",
    "-epp-service",
)
TITLES = {Role.PREFILL: "Prefill", Role.DECODE: "Decode"}


def of_engines(case: Case, checks: Iterable[Rule]) -> Iterator[Finding]:
    """What rules about an engine say of each role; what they say of both alike is said once, at the shared fields."""
    by_role = {role: list(said(alone(case, role), checks)) for role in case.roles}
    for role, findings in by_role.items():
        for finding in findings:
            alike = all(finding in others for others in by_role.values())
            if role is Role.BOTH or (alike and not _set_apart(finding, case.spec)):
                yield finding
            else:
                title = TITLES[role]
                yield dataclasses.replace(
                    finding,
                    pointer=own_pointer(finding.pointer, role, case.spec),
                    also=tuple((own_pointer(pointer, role, case.spec), value) for pointer, value in finding.also),
                    message=f"{title}: {finding.message}",
                )


def _set_apart(finding: Finding, spec: DeploymentSpec) -> bool:
    """True when a role sets the flag by itself: at the shared field a value would change nothing for it."""
    flag = finding.pointer.removeprefix(ARGS_POINTER)
    roles = (spec.prefill, spec.decode)
    return flag != finding.pointer and any(own is not None and flag in own.args for own in roles)


def alone(case: Case, role: Role) -> Case:
    """The case of one role; what is tried of it is tried in the wish that it is part of."""
    own, whole = case.roles[role], case.tries
    if role is Role.BOTH or whole is None:
        return dataclasses.replace(case, spec=own, role=role)

    def admits(changes: Sequence[Change]) -> bool:
        # What one role needs the other may need as well: both are then changed (preflight.together).
        of_one, of_both = (
            list({own_pointer(pointer, each, case.spec): value for each in them for pointer, value in changes}.items())
            for them in ([role], case.roles)
        )
        return whole(of_one) or whole(of_both)

    return dataclasses.replace(case, spec=own, role=role, tries=admits)


def placed(finding: Finding, spec: DeploymentSpec) -> Finding:
    """A finding about the wish as a whole, at a field that its strategy has."""
    if spec.strategy is not Strategy.DISAGGREGATED:
        return finding
    if finding.pointer.startswith(REPLICAS):
        # A number for both together fits neither.
        pointer = finding.pointer.replace(REPLICAS, f"/spec/{Role.DECODE}/replicas")
        return dataclasses.replace(finding, pointer=pointer, value=None)
    if finding.pointer.startswith(ARGS_POINTER):
        larger = max(spec.by_role().items(), key=lambda pair: pair[1].gpus_per_replica)[0]
        also = tuple((own_pointer(pointer, larger, spec), value) for pointer, value in finding.also)
        return dataclasses.replace(finding, pointer=own_pointer(finding.pointer, larger, spec), also=also)
    return finding


def own_pointer(pointer: str, role: Role, spec: DeploymentSpec) -> str:
    """The place of a role's own where there is one: how it splits always is, other flags where the role sets them."""
    if role is Role.BOTH:
        return pointer
    if pointer.startswith(REPLICAS):
        return pointer.replace(REPLICAS, f"/spec/{role}/replicas")
    if not pointer.startswith(ARGS_POINTER):
        return pointer
    flag = pointer.removeprefix(ARGS_POINTER)
    own = _spec_of(spec, role)
    if own is not None and (flag in own.args or flag.endswith("-parallel-size")):
        return f"/spec/{role}/args/{flag}"
    return pointer


def own_option(option: Option, role: Role, spec: DeploymentSpec) -> Option:
    """A way that was found for one role alone, with its changes at the places where they count for that role."""
    return dataclasses.replace(
        option,
        pointer=own_pointer(option.pointer, role, spec),
        also=tuple((own_pointer(pointer, role, spec), value) for pointer, value in option.also),
    )


def _spec_of(spec: DeploymentSpec, role: Role) -> RoleSpec | None:
    return spec.prefill if role is Role.PREFILL else spec.decode


@rules.rule
def names_of_parts(case: Case) -> Iterator[Finding]:
    """A deployment must not be called as a part of another one."""
    if ending := next((each for each in CHILD_ENDINGS if case.name.endswith(each)), ""):
        yield error(
            "name_reserved",
            "/name",
            f"Names that end in “{ending}” are those of parts that KServe makes.",
            "Choose another name.",
        )


@rules.rule
def same_context(case: Case) -> Iterator[Finding]:
    """A prompt goes through both roles: the shorter of the two contexts is what counts."""
    roles = case.roles
    if Role.BOTH in roles:
        return
    prefill, decode = (roles[role].engine.args.get(CONTEXT) for role in (Role.PREFILL, Role.DECODE))
    if prefill != decode:
        yield warning(
            "context_differs",
            f"/spec/{Role.DECODE}/args/{CONTEXT}",
            "Prefill and decode take contexts of different length; a prompt has to fit into both.",
            f"Give “--{CONTEXT}” once, for both.",
        )


@rules.rule
def one_stage_each(case: Case) -> Iterator[Finding]:
    """The connector that hands the KV cache over takes it whole: layers in stages answer no handshake."""
    for role, own in case.roles.items():
        if role is not Role.BOTH and own.pipeline_parallel > 1:
            yield error(
                "roles_in_stages",
                f"/spec/{role}/args/pipeline-parallel-size",
                f"{TITLES[role]}: the KV cache cannot be handed over between pods whose layers are cut into stages.",
                "Leave pipeline-parallel-size out, and split by tensor-parallel-size.",
                1,
            )


@rules.rule
def one_engine_each(case: Case) -> Iterator[Finding]:
    """The connector finds the engine of another pod at one address: several in a pod are not told apart."""
    for role, own in case.roles.items():
        if role is not Role.BOTH and own.data_parallel > 1:
            yield error(
                "roles_of_engines",
                f"/spec/{role}/args/data-parallel-size",
                f"{TITLES[role]}: the KV cache is handed over between single engines, not between pods of several.",
                "Leave data-parallel-size out, and ask for more replicas.",
                1,
            )


@rules.rule
def cache_on_gpus(case: Case) -> Iterator[Finding]:
    """An engine has one connector for its KV cache: the one to main memory takes the place of the hand-over's."""
    if case.spec.strategy is not Strategy.DISAGGREGATED:
        return
    given = [role for role, own in case.roles.items() if OFFLOADED_CACHE in own.engine.args]
    for pointer in dict.fromkeys(own_pointer(arg_pointer(OFFLOADED_CACHE), role, case.spec) for role in given):
        yield error(
            "roles_offload",
            pointer,
            f"With {OFFLOADED_CACHE} the KV cache goes to main memory, and is no more handed from prefill to decode: "
            "an engine has one connector for it.",
            f"Leave {OFFLOADED_CACHE} out, or choose standard.",
        )


@rules.rule
def roles_share_gpus(case: Case) -> Iterator[Finding]:
    """Each role loads the whole model: below a few GPUs it is cheaper to run one kind of pods."""
    spec = case.spec
    if spec.strategy is Strategy.DISAGGREGATED and spec.replicas.max <= 2:
        yield info(
            "roles_for_load",
            "/spec/strategy",
            f"Two roles hold the model twice, on {plural(spec.gpus, 'GPU')}: that pays off under load, with long "
            "prompts.",
            "For little traffic choose standard.",
        )

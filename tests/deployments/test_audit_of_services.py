"""Every service that writes leaves a line in the audit: who, what, and from what to what.

The services are found by reading their source: whatever stores rows, itself or through others, stands in one of the
tables below. A new one that stands in none fails here, with the sentence that says what to add.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction
from django.test import override_settings
from django.utils import timezone

from deployments import services
from deployments.models import (
    Deployment,
    EndpointKey,
    Event,
    Flavor,
    GroupRule,
    Membership,
    QuotaGrant,
    QuotaRequest,
    Revision,
    SealedValue,
    Team,
    User,
)
from deployments.services import (
    accounts,
    approvals,
    catalogue,
    catalogue_edits,
    credentials,
    deciding,
    emergencies,
    endpoint_keys,
    expiry,
    flavors,
    grant_ends,
    grants,
    groups,
    invitations,
    key_ends,
    ledger,
    left_keys,
    lifecycle,
    memberships,
    notices,
    people,
    policies,
    quota_requests,
    renderings,
    requests,
    sign_ins,
    stopping,
    teams,
    tokens,
)
from deployments.spec import DeploymentSpec
from tests.deployments import factories as make
from tests.deployments import sealing_keys

STORES = {"create", "save", "update", "delete", "bulk_create", "bulk_update", "update_or_create", "get_or_create"}
Name = tuple[str, str]


@dataclass
class World:
    """A team with people and a deployment, and a platform with two admins."""

    team: Team
    ann: User
    alice: User
    bob: User
    carol: User
    dora: User
    h100: Flavor
    spec: dict[str, Any]
    more: dict[str, Any] = field(default_factory=dict)

    def of(self, user: User) -> Any:
        return make.principal(user)

    def asked(self, author: User | None = None) -> Revision:
        """A revision that waits."""
        latest = make.make_deployment(self.team, author or self.ann, name="asked").latest
        assert latest is not None
        return latest

    def runs(self) -> Deployment:
        """A deployment that runs and holds a GPU."""
        chat = make.make_deployment(self.team, self.ann, approved=True)
        ledger.reserve(deployment=chat, revision=chat.latest, gpus=1)
        return chat

    def quota_asked(self) -> QuotaRequest:
        return quota_requests.ask(
            principal=self.of(self.alice), team=self.team, flavor=self.h100, gpus=2, why="a new model"
        )


Act = Callable[[World], User | None]


@pytest.fixture
def world(
    team: Team, ann: User, alice: User, bob: User, carol: User, hub: Any, spec: dict[str, Any], settings: Any
) -> World:
    sealing_keys.use_keys(settings)
    h100 = Flavor.objects.get(slug="h100-80gb")
    return World(team, ann, alice, bob, carol, make.make_user("dora", admin=True), h100, spec)


# ---- one wish for each service; what it returns is who must stand in the line as its actor


def _submit(w: World) -> User:
    spec = DeploymentSpec.from_json(w.spec)
    requests.submit(principal=w.of(w.ann), team=w.team, name="chat", spec=spec)
    return w.ann


def _revise(w: World) -> User:
    chat = w.runs()
    spec = DeploymentSpec.from_json(w.spec | {"engine": {"profile": "vllm-0.32.0", "args": {"max-model-len": 4096}}})
    requests.revise(principal=w.of(w.alice), deployment=chat, spec=spec, base_revision=1)
    return w.alice


def _decide(w: World) -> User:
    row = w.asked()
    approvals.decide(principal=w.of(w.carol), revision=row, digest=row.digest, approve=True)
    return w.carol


def _decide_all(w: World) -> User:
    row = w.asked()
    item = deciding.Item(deciding.DEPLOYMENT, row.pk, row.digest)
    [result] = deciding.decide_all(principal=w.of(w.carol), items=[item], approve=False, comment="no")
    assert result.decided
    return w.carol


def _call(w: World) -> User:
    row = w.asked(w.carol)
    w.more["emergency"] = emergencies.call(principal=w.of(w.carol), revision=row, digest=row.digest, reason="it burns")
    return w.carol


def _sign(w: World) -> User:
    _call(w)
    row = w.more["emergency"]
    emergencies.sign(principal=w.of(w.dora), emergency_id=row.pk, digest=row.digest)
    return w.carol  # Both stand in it: who called as the actor, who signed as `second`.


def _withdraw_call(w: World) -> User:
    _call(w)
    emergencies.withdraw(principal=w.of(w.carol), emergency_id=w.more["emergency"].pk)
    return w.carol


def _stop(w: World) -> User:
    lifecycle.stop(principal=w.of(w.ann), deployment=w.runs())
    return w.ann


def _stop_all(w: World) -> User:
    [result] = stopping.stop_all(principal=w.of(w.ann), pks=[w.runs().pk])
    assert result.outcome == stopping.STOPPING
    return w.ann


def _left_keys(w: World) -> None:
    endpoint_keys.create(principal=w.of(w.alice), team=w.team, name="ci", every_deployment=True)
    Membership.objects.filter(team=w.team, user=w.alice).update(role=Membership.Role.MEMBER)
    assert left_keys.tell_of(w.alice) == 1


def _start(w: World) -> User:
    chat = w.runs()
    lifecycle.stop(principal=w.of(w.ann), deployment=chat)
    lifecycle.start(principal=w.of(w.alice), deployment=chat)
    return w.alice


def _delete(w: World) -> User:
    lifecycle.delete(principal=w.of(w.ann), deployment=w.runs())
    return w.ann


def _force(w: World) -> User:
    chat = w.runs()
    lifecycle.stop(principal=w.of(w.ann), deployment=chat)
    ledger.force_release(principal=w.of(w.carol), deployment=chat, reason="the node burnt")
    return w.carol


def _grant(w: World) -> User:
    grants.grant(principal=w.of(w.carol), team=w.team, flavor=w.h100, gpus=2)
    return w.carol


def _change_grant(w: World) -> User:
    grants.change_grant(principal=w.of(w.carol), grant_id=QuotaGrant.objects.get().pk, gpus=3)
    return w.carol


def _quota_asked(w: World) -> User:
    w.quota_asked()
    return w.alice


def _quota_decided(w: World) -> User:
    quota_requests.decide(principal=w.of(w.carol), request_id=w.quota_asked().pk, grant=True, comment="fine")
    return w.carol


def _quota_withdrawn(w: World) -> User:
    quota_requests.withdraw(principal=w.of(w.alice), request_id=w.quota_asked().pk)
    return w.alice


def _grants_end(w: World) -> None:
    QuotaGrant.objects.update(valid_until=timezone.now() - timedelta(minutes=1))
    assert grant_ends.follow_dates() > 0


def _nobody_decided(w: World) -> None:
    w.asked()
    Revision.objects.update(created_at=timezone.now() - timedelta(days=99))
    assert expiry.expire_undecided() == 1


def _nobody_granted(w: World) -> None:
    w.quota_asked()
    QuotaRequest.objects.update(created_at=timezone.now() - timedelta(days=99))
    assert expiry.expire_asked() == 1


def _team_made(w: World) -> User:
    teams.create(principal=w.of(w.carol), slug="new", name="New")
    return w.carol


def _team_renamed(w: World) -> User:
    teams.rename(principal=w.of(w.carol), team=w.team, name="Other")
    return w.carol


def _team_archived(w: World) -> User:
    empty = teams.create(principal=w.of(w.carol), slug="empty", name="Empty")
    teams.archive(principal=w.of(w.carol), team=empty)
    return w.carol


def _policy(w: World) -> User:
    policies.set_policy(principal=w.of(w.carol), team=w.team, policy=Team.Policy.AUTO)
    return w.carol


def _member_added(w: World) -> User:
    memberships.add(principal=w.of(w.carol), team=w.team, user=w.bob)
    return w.carol


def _member_changed(w: World) -> User:
    memberships.change(principal=w.of(w.carol), team=w.team, user=w.ann, role="lead")
    return w.carol


def _member_removed(w: World) -> User:
    memberships.remove(principal=w.of(w.alice), team=w.team, user=w.ann)
    return w.alice


def _member_left(w: World) -> User:
    memberships.leave(principal=w.of(w.ann), team=w.team)
    return w.ann


def _invited(w: World) -> User:
    w.more["invitation"], w.more["word"] = invitations.invite(principal=w.of(w.alice), team=w.team)
    return w.alice


def _invitation_revoked(w: World) -> User:
    _invited(w)
    invitations.revoke(principal=w.of(w.alice), invitation_id=w.more["invitation"].pk)
    return w.alice


def _invitation_accepted(w: World) -> User:
    _invited(w)
    invitations.accept(user=w.bob, word=w.more["word"])
    return w.bob


def _invited_signs_up(w: World) -> User:
    _invited(w)
    invitations.accept_by_sign_up(user=w.bob, digest=w.more["invitation"].digest)
    return w.bob


def _on_account(do: Callable[..., User], **more: str) -> Act:
    def act(w: World) -> User:
        if do is accounts.switch_on:
            User.objects.filter(pk=w.bob.pk).update(is_active=False)
        User.objects.filter(pk=w.bob.pk).update(is_platform_admin=True)
        do(principal=w.of(w.carol), user=w.bob, **more)
        return w.carol

    return act


def _linked(w: World) -> User:
    sign_ins.linked(user=w.ann, provider="oidc", linked=True)
    return w.ann


def _rule_added(w: World) -> User:
    groups.add_rule(principal=w.of(w.carol), group="staff", team=w.team)
    return w.carol


def _rule_removed(w: World) -> User:
    _rule_added(w)
    groups.remove_rule(principal=w.of(w.carol), rule_id=GroupRule.objects.get().pk)
    return w.carol


def _groups_applied(w: World) -> None:
    _rule_added(w)
    groups.apply(user=w.bob, groups=["staff"])


def _token_made(w: World) -> User:
    w.more["token"], _ = tokens.create(principal=w.of(w.ann), name="ci")
    return w.ann


def _token_revoked(w: World) -> User:
    _token_made(w)
    tokens.revoke(principal=w.of(w.ann), token_id=w.more["token"].pk)
    return w.ann


def _key_made(w: World) -> User:
    w.more["key"], _ = endpoint_keys.create(principal=w.of(w.alice), team=w.team, name="app", every_deployment=True)
    return w.alice


def _key_ends(w: World) -> None:
    _key_made(w)
    EndpointKey.objects.update(expires_at=timezone.now() + timedelta(days=5), created_at=timezone.now() - timedelta(9))
    assert key_ends.warn() == 1


def _key_rotated(w: World) -> User:
    _key_made(w)
    endpoint_keys.rotate(principal=w.of(w.alice), key_id=w.more["key"].pk)
    return w.alice


def _key_revoked(w: World) -> User:
    _key_made(w)
    endpoint_keys.revoke(principal=w.of(w.alice), key_id=w.more["key"].pk)
    return w.alice


def _credential_added(w: World) -> User:
    w.more["credential"] = sealing_keys.add(w.of(w.alice), w.team)
    return w.alice


def _credential_rotated(w: World) -> User:
    _credential_added(w)
    pk, fields = w.more["credential"].pk, {"token": "hf_another_token"}
    credentials.rotate(principal=w.of(w.alice), credential_id=pk, fields=fields)
    return w.alice


def _credential_deleted(w: World) -> User:
    _credential_added(w)
    credentials.delete(principal=w.of(w.alice), credential_id=w.more["credential"].pk)
    return w.alice


def _credential_expired(w: World) -> None:
    _credential_added(w)
    SealedValue.objects.update(expires_at=timezone.now())
    assert credentials.expire() == 1


def _flavor_made(w: World) -> User:
    values = {"slug": "b200", "name": "B200", "product": "NVIDIA-B200", "memory_mib": 183_000, "gpus_per_node": 8}
    flavors.create(principal=w.of(w.carol), compute_capability="10.0", **values)
    return w.carol


def _flavor_changed(w: World) -> User:
    flavors.change(principal=w.of(w.carol), slug="h100-80gb", name="Hopper")
    return w.carol


def _model_added(w: World) -> User:
    make.make_check()
    catalogue.add(principal=w.of(w.carol), uri=make.QWEN)
    return w.carol


def _model_pinned(w: World) -> User:
    _model_added(w)
    catalogue.change(principal=w.of(w.carol), slug="qwen2.5-7b-instruct", pinned=True)
    return w.carol


def _own_model(w: World) -> str:
    make.make_check("hf://org/own")
    return catalogue.add(principal=w.of(w.carol), uri="hf://org/own").slug


def _model_edited(w: World) -> User:
    catalogue_edits.edit(principal=w.of(w.carol), slug=_own_model(w), summary="Good.")
    return w.carol


def _model_removed(w: World) -> User:
    catalogue_edits.delete(principal=w.of(w.carol), slug=_own_model(w))
    return w.carol


def _mail_switched(w: World) -> User:
    notices.set_mail(principal=w.of(w.ann), wanted=False)
    return w.ann


def _account(w: World) -> None:
    people.make_account(username="eve", password="a-long-enough-word", admin=True)


def _signed(how: str) -> Act:
    def act(w: World) -> User:
        getattr(sign_ins, how)(user=w.ann, address="192.0.2.1")
        return w.ann

    return act


def _refused(w: World) -> None:
    sign_ins.refused(username="ann", address="192.0.2.1")


def _factor(w: World) -> User:
    sign_ins.second_factor(user=w.ann, factor="totp", had=False, has=True)
    return w.ann


def _code_refused(w: World) -> None:
    sign_ins.code_refused(user=w.ann)


def _otherwise_rendered(w: World) -> Deployment:
    """A deployment that was approved as another configuration renders it."""
    with override_settings(MONITORING_NAMESPACE="elsewhere"):
        _submit(w)
        row = Revision.objects.get()
        approvals.decide(principal=w.of(w.carol), revision=row, digest=row.digest, approve=True)
    return Deployment.objects.select_related("approved").get()


def _renewed(w: World) -> User:
    row = _otherwise_rendered(w)
    digest = row.approved.digest if row.approved else ""
    renderings.renew(principal=w.of(w.carol), deployment_id=row.pk, digest=digest)
    return w.carol


def _wave(w: World) -> User:
    row = _otherwise_rendered(w)
    digest = row.approved.digest if row.approved else ""
    [(_, made, why)] = renderings.wave(principal=w.of(w.carol), chosen=[(row.pk, digest)], size=5)
    assert made, why
    return w.carol


def _account_made(w: World) -> User:
    sign_ins.account_made(user=w.ann, how="single sign-on")
    return w.ann


# Services that people and timers call: service → (a wish that carries it out, the kind of its line).
AUDITED: dict[str, tuple[Act, str]] = {
    "approvals.decide": (_decide, "approved"),
    "catalogue.add": (_model_added, "catalogue_added"),
    "catalogue.change": (_model_pinned, "catalogue_changed"),
    "catalogue_edits.delete": (_model_removed, "catalogue_removed"),
    "catalogue_edits.edit": (_model_edited, "catalogue_edited"),
    "credentials.create": (_credential_added, "credential_added"),
    "credentials.delete": (_credential_deleted, "credential_deleted"),
    "credentials.expire": (_credential_expired, "credential_expired"),
    "accounts.end_sessions": (_on_account(accounts.end_sessions), "sessions_ended"),
    "accounts.switch_off": (_on_account(accounts.switch_off, reason="They left."), "account_off"),
    "accounts.switch_on": (_on_account(accounts.switch_on), "account_on"),
    "accounts.take_admin": (_on_account(accounts.take_admin), "admin_taken"),
    "credentials.rotate": (_credential_rotated, "credential_rotated"),
    "deciding.decide_all": (_decide_all, "rejected"),
    "emergencies.call": (_call, "emergency_called"),
    "emergencies.sign": (_sign, "approved"),
    "emergencies.withdraw": (_withdraw_call, "emergency_withdrawn"),
    "endpoint_keys.create": (_key_made, "key_created"),
    "endpoint_keys.revoke": (_key_revoked, "key_revoked"),
    "endpoint_keys.rotate": (_key_rotated, "key_rotated"),
    "expiry.expire_asked": (_nobody_granted, "quota_expired"),
    "expiry.expire_undecided": (_nobody_decided, "expired"),
    "flavors.change": (_flavor_changed, "flavor_changed"),
    "flavors.create": (_flavor_made, "flavor_made"),
    "grant_ends.follow_dates": (_grants_end, "quota_ended"),
    "key_ends.warn": (_key_ends, "key_ends_soon"),
    "grants.change_grant": (_change_grant, "quota_granted"),
    "grants.grant": (_grant, "quota_granted"),
    "groups.add_rule": (_rule_added, "group_rule_added"),
    "groups.apply": (_groups_applied, "member_added"),
    "groups.remove_rule": (_rule_removed, "group_rule_removed"),
    "invitations.accept": (_invitation_accepted, "member_added"),
    "invitations.accept_by_sign_up": (_invited_signs_up, "member_added"),
    "invitations.invite": (_invited, "invited"),
    "invitations.revoke": (_invitation_revoked, "invitation_revoked"),
    "ledger.force_release": (_force, "gpus_forced"),
    "lifecycle.delete": (_delete, "delete_asked"),
    "lifecycle.start": (_start, "started"),
    "left_keys.tell_of": (_left_keys, "key_maker_left"),
    "lifecycle.stop": (_stop, "stopped"),
    "memberships.add": (_member_added, "member_added"),
    "memberships.change": (_member_changed, "member_changed"),
    "memberships.leave": (_member_left, "member_left"),
    "memberships.remove": (_member_removed, "member_removed"),
    "notices.set_mail": (_mail_switched, "account_changed"),
    "people.make_account": (_account, "account_made"),
    "policies.set_policy": (_policy, "team_policy"),
    "quota_requests.ask": (_quota_asked, "quota_asked"),
    "quota_requests.decide": (_quota_decided, "quota_request_granted"),
    "quota_requests.withdraw": (_quota_withdrawn, "quota_withdrawn"),
    "renderings.renew": (_renewed, "revised"),
    "renderings.wave": (_wave, "revised"),
    "requests.revise": (_revise, "revised"),
    "requests.submit": (_submit, "requested"),
    "sign_ins.account_made": (_account_made, "account_made"),
    "sign_ins.linked": (_linked, "sign_in_linked"),
    "sign_ins.code_refused": (_code_refused, "sign_in_refused"),
    "sign_ins.password_changed": (_signed("password_changed"), "password_changed"),
    "sign_ins.second_factor": (_factor, "second_factor"),
    "sign_ins.refused": (_refused, "sign_in_refused"),
    "sign_ins.signed_in": (_signed("signed_in"), "signed_in"),
    "sign_ins.signed_out": (_signed("signed_out"), "signed_out"),
    "stopping.stop_all": (_stop_all, "stopped"),
    "teams.archive": (_team_archived, "team_archived"),
    "teams.create": (_team_made, "team_created"),
    "teams.rename": (_team_renamed, "team_renamed"),
    "tokens.create": (_token_made, "token_created"),
    "tokens.revoke": (_token_revoked, "token_revoked"),
}
# Kinds of lines that tell of no value that changed: something was asked for, said, or happened.
NOTHING_CHANGED = {
    "credential_expired",  # The value was never in use.
    "emergency_called",
    "emergency_withdrawn",
    "gpus_forced",  # The ledger has the balance before and after.
    "key_ends_soon",
    "key_maker_left",  # The line of who left is another.
    "quota_ended",  # Nobody changed the grant: its day came.
    "password_changed",
    "sign_in_refused",
    "signed_in",
    "signed_out",
}
# What stores rows, and needs no line of its own: service → why.
INNER: dict[str, str] = {
    "adapter_checks.look_up": "remembers what the hub said of an adapter",
    "previews.preview": "asks the hub, and stores nothing of the wish",
    "requests.look_up": "asks the two above, which remember",
    "approvals.by_policy": "its caller is submit or revise, and record writes the line",
    "approvals.record": "the line of decide, sign and by_policy is written here",
    "authority.void_if_fallen": "writes its line; called where somebody loses a role",
    "authority.withdraw": "void_if_fallen writes the line",
    "credentials.end_all_of": "the line of archive counts them",
    "events.record": "is the audit",
    "grants.follow": "wakes workers",
    "holds.account_of": "makes the row that sums a ledger",
    "holds.reserve": "the ledger; callers write the line",
    "holds.room_for": "reads under a lock; as account_of where there is none",
    "holds.take": "as reserve",
    "idempotency.claim": "about requests, not about anything of anybody",
    "idempotency.forget_old": "as claim",
    "idempotency.give_back": "as claim",
    "idempotency.settle": "as claim",
    "ledger.release": "workers; writes the line gpus_released",
    "lifecycle.stop_by_itself": "its caller is follow_dates, and writes the line stopped",
    "mails.send": "what became of a mail is on the notice",
    "memberships.end": "the line of remove, leave and archive is written here",
    "memberships.end_words_of": "writes its line; called where somebody loses a role",
    "memberships.write": "the line of add, change and accept is written here",
    "model_checks.look_up": "remembers what the hub said",
    "notices.forget_read": "read notices that are old",
    "notices.notify": "is told by the audit",
    "notices.read": "one's own reading",
    "notices.read_all": "one's own reading",
    "probes.probe": "workers; states tells what it means",
    "rendering.store": "its callers write the line, with the digest",
    "requests.preflight": "stores nothing but what the hub said",
    "states.move": "writes lines of the kind state; callers say what they moved",
    "states.refresh": "writes lines of the kind state",
    "states.refresh_many": "as refresh",
    "telling.tell": "stores the lines of the audit",
    "telling.together": "as tell",
    "tokens.authenticate": "when a token was last used",
    "tries.forget_old": "as give_back",
    "tries.give_back": "a count; the line of the try is sign_ins.refused or signed_in",
    "waiting.accept": "writes the lines gpus_reserved and waits_for_quota",
    "waiting.wake": "as accept",
    "waiting.wake_all": "as accept",
    "waiting.wake_later": "as accept",
    "waits.waiting_of": "reads; makes the row that sums a ledger where there is none",
}
# Modules in which workers note what they do on the cluster; its outcome is told by lines of the kinds applied, healed,
# restored, deleted and state (of Secrets credential_ready, _tested and _refused), which tests of the reconciler hold.
WORKERS = {"convergence", "credential_records"}
# Endpoints' gateway: many times a second, counted by the hour.
COUNTED = {"endpoint_keys.authenticate", "invoke.admit", "usage.ask", "usage.report"}


def writers() -> set[str]:
    """Public functions of the services that store rows, themselves or through a function that does."""
    stores: set[Name] = set()
    uses: dict[Name, set[Name]] = {}
    for path in sorted(Path(services.__path__[0]).glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        modules, names = _imported(tree)
        for node in tree.body:
            if not isinstance(node, ast.FunctionDef):
                continue
            here = (path.stem, node.name)
            uses[here] = set()
            for inner in ast.walk(node):
                if isinstance(inner, ast.Attribute):
                    owner = inner.value.id if isinstance(inner.value, ast.Name) else ""
                    if owner in modules:
                        uses[here].add((modules[owner], inner.attr))
                    elif inner.attr in STORES and isinstance(inner.ctx, ast.Load) and not _of_plain(inner):
                        stores.add(here)
                elif isinstance(inner, ast.Name):
                    if inner.id == "in_transaction":
                        stores.add(here)
                    uses[here].add(names.get(inner.id, (path.stem, inner.id)))
    while more := {name for name, used in uses.items() if name not in stores and used & stores}:
        stores |= more
    return {f"{module}.{name}" for module, name in stores if not name.startswith("_") and module not in WORKERS}


def _imported(tree: ast.Module) -> tuple[dict[str, str], dict[str, Name]]:
    modules: dict[str, str] = {}
    names: dict[str, Name] = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("deployments.services"):
            for alias in node.names:
                if node.module == "deployments.services":
                    modules[alias.asname or alias.name] = alias.name
                else:
                    names[alias.asname or alias.name] = (str(node.module).rpartition(".")[2], alias.name)
    return modules, names


def _of_plain(node: ast.Attribute) -> bool:
    """True for methods of plain values that are called as those that store."""
    return isinstance(node.value, ast.Name) and node.value.id in {"values", "found", "context", "query", "hashlib"}


def test_every_service_that_writes_is_declared() -> None:
    declared = AUDITED.keys() | INNER.keys() | COUNTED
    new = sorted(writers() - declared)

    assert not new, (
        f"These services store rows and stand in no table of this test: {', '.join(new)}. Have each record an event "
        "with its actor and events.changed(before, after), and add it to AUDITED with a function that carries it out; "
        "or, where a caller records it, to INNER with the reason."
    )


def test_no_table_names_a_service_that_is_gone() -> None:
    assert sorted((AUDITED.keys() | INNER.keys() | COUNTED) - writers()) == []
    assert not AUDITED.keys() & (INNER.keys() | COUNTED)


@pytest.mark.parametrize("service", sorted(AUDITED))
def test_a_service_leaves_a_line_with_who_and_what_changed(world: World, service: str) -> None:
    act, kind = AUDITED[service]
    before = Event.objects.order_by("-pk").values_list("pk", flat=True).first() or 0

    actor = act(world)

    lines = Event.objects.filter(pk__gt=before, kind=kind)
    assert lines, f"{service} leaves no line of the kind {kind}"
    line = lines[0]
    assert line.actor == actor
    assert line.message
    if kind in NOTHING_CHANGED:
        return
    was, now = line.data.get("before", {}), line.data.get("after")
    assert now or was, f"{service}: its line does not say what changed"
    assert was != now


def test_what_is_rolled_back_leaves_no_line(world: World) -> None:
    chat = world.runs()
    count = Event.objects.count()
    with transaction.atomic():
        lifecycle.stop(principal=world.of(world.ann), deployment=chat)
        assert Event.objects.count() > count
        transaction.set_rollback(True)

    assert Event.objects.count() == count

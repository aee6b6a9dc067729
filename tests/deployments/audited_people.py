"""One wish for each service about teams, people, tokens, keys and credentials, and the kind of the line it leaves."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from django.utils import timezone

from deployments.models import (
    EndpointKey,
    GroupRule,
    SealedValue,
    Team,
    User,
)
from deployments.services import (
    accounts,
    credentials,
    endpoint_keys,
    groups,
    invitations,
    key_ends,
    memberships,
    notices,
    people,
    policies,
    sign_ins,
    teams,
    tokens,
)
from tests.deployments import sealing_keys
from tests.deployments.audited_world import Act, World


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


def _account_made(w: World) -> User:
    sign_ins.account_made(user=w.ann, how="single sign-on")
    return w.ann


# service → (a wish that carries it out, the kind of its line)
AUDITED: dict[str, tuple[Act, str]] = {
    "credentials.create": (_credential_added, "credential_added"),
    "credentials.delete": (_credential_deleted, "credential_deleted"),
    "credentials.expire": (_credential_expired, "credential_expired"),
    "accounts.end_sessions": (_on_account(accounts.end_sessions), "sessions_ended"),
    "accounts.switch_off": (_on_account(accounts.switch_off, reason="They left."), "account_off"),
    "accounts.switch_on": (_on_account(accounts.switch_on), "account_on"),
    "accounts.take_admin": (_on_account(accounts.take_admin), "admin_taken"),
    "credentials.rotate": (_credential_rotated, "credential_rotated"),
    "endpoint_keys.create": (_key_made, "key_created"),
    "endpoint_keys.revoke": (_key_revoked, "key_revoked"),
    "endpoint_keys.rotate": (_key_rotated, "key_rotated"),
    "key_ends.warn": (_key_ends, "key_ends_soon"),
    "groups.add_rule": (_rule_added, "group_rule_added"),
    "groups.apply": (_groups_applied, "member_added"),
    "groups.remove_rule": (_rule_removed, "group_rule_removed"),
    "invitations.accept": (_invitation_accepted, "member_added"),
    "invitations.accept_by_sign_up": (_invited_signs_up, "member_added"),
    "invitations.invite": (_invited, "invited"),
    "invitations.revoke": (_invitation_revoked, "invitation_revoked"),
    "memberships.add": (_member_added, "member_added"),
    "memberships.change": (_member_changed, "member_changed"),
    "memberships.leave": (_member_left, "member_left"),
    "memberships.remove": (_member_removed, "member_removed"),
    "notices.set_mail": (_mail_switched, "account_changed"),
    "people.make_account": (_account, "account_made"),
    "policies.set_policy": (_policy, "team_policy"),
    "sign_ins.account_made": (_account_made, "account_made"),
    "sign_ins.linked": (_linked, "sign_in_linked"),
    "sign_ins.code_refused": (_code_refused, "sign_in_refused"),
    "sign_ins.password_changed": (_signed("password_changed"), "password_changed"),
    "sign_ins.second_factor": (_factor, "second_factor"),
    "sign_ins.refused": (_refused, "sign_in_refused"),
    "sign_ins.signed_in": (_signed("signed_in"), "signed_in"),
    "sign_ins.signed_out": (_signed("signed_out"), "signed_out"),
    "teams.archive": (_team_archived, "team_archived"),
    "teams.create": (_team_made, "team_created"),
    "teams.rename": (_team_renamed, "team_renamed"),
    "tokens.create": (_token_made, "token_created"),
    "tokens.revoke": (_token_revoked, "token_revoked"),
}

"""What somebody holds when they leave, are demoted or switched off: each handle is refused at its next use."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployments.models import Deployment, GroupRule, Membership, Revision, Team, User, admins_now
from deployments.services import (
    approvals,
    endpoint_keys,
    groups,
    invitations,
    invoke,
    memberships,
    tokens,
)
from portal.live.app import LiveApp
from portal.live.permission import hearers
from tests.deployments import factories as make
from tests.deployments.viewing import observe, pod, signed_in
from tests.portal.asgi import call, cookies_of
from tests.portal.live import Endless, in_thread, reading

CLOSES_WITHIN = 5.0


@dataclass
class Held:
    """Alice, who leads search, and one of each that lets her in."""

    team: Team
    alice: User
    chat: Deployment
    asked: Revision
    browser: Client
    token: str
    bound: str
    prompt: str
    own_key: str
    word: str
    form: dict[str, str] = field(default_factory=dict)

    def api(self, text: str, path: str = "teams/search/") -> int:
        return Client(headers={"authorization": f"Bearer {text}"}).get(f"/api/v1/{path}").status_code

    def calls(self, text: str) -> bool:
        return isinstance(invoke.admit(f"Bearer {text}", self.team.namespace, "chat"), invoke.Admission)

    def sees(self) -> dict[str, bool]:
        """Whether each handle of a member opens its door."""
        pages = [
            reverse("deployment-detail", args=[self.chat.pk]),
            reverse("people-team", args=["search"]),
            reverse("deployment-edit", args=[self.chat.pk]),
        ]
        return {
            **{page: self.browser.get(page).status_code == 200 for page in pages},
            "token": self.api(self.token) == 200,
            "bound token": self.api(self.bound) == 200,
            "deployment by token": self.api(self.token, f"deployments/{self.chat.pk}/") == 200,
            "call by token": self.calls(self.token),
            "prompt token": self.calls(self.prompt),
            "own key": self.calls(self.own_key),
            "status stream": self.chat.pk in hearers([self.chat.pk], [self.alice.pk]).get(self.alice.pk, set()),
        }

    def rules(self) -> dict[str, bool]:
        """Whether each handle of a lead opens its door. Asked with what changes nothing."""
        invitation = invitations.found(self.word)
        assert invitation is not None
        open_form = self.browser.post(reverse("people-rename", args=["search"]), {"name": ""})
        by_token = Client(headers={"authorization": f"Bearer {self.token}"}).patch(
            "/api/v1/teams/search/", {"name": "Search"}, content_type="application/json"
        )
        who = make.principal(User.objects.get(pk=self.alice.pk))
        return {
            "invitation": invitations.standing(invitation) is invitations.Standing.OPEN,
            # 422: let in, and told that the name is missing.
            "open form": open_form.status_code == 422,
            "write by token": by_token.status_code == 200,
            "approve": approvals.standing_of(who, self.asked).reject,
        }


def hold() -> Held:
    team = make.make_team("search")
    Team.objects.filter(pk=team.pk).update(policy=Team.Policy.LEAD)
    alice, ann = make.make_user("alice", team=team, lead=True), make.make_user("ann", team=team)
    make.make_flavor()
    make.make_profile()
    chat = make.make_deployment(team, ann, approved=True)
    asked = make.make_deployment(team, ann, name="next").latest
    assert asked is not None
    who = make.principal(alice)
    scopes = ["read", "write", "approve", "invoke"]
    return Held(
        team=Team.objects.get(pk=team.pk),
        alice=alice,
        chat=chat,
        asked=Revision.objects.select_related("deployment__team", "flavor").get(pk=asked.pk),
        browser=signed_in(alice),
        token=tokens.create(principal=who, name="all", scopes=scopes)[1],
        bound=tokens.create(principal=who, name="one", scopes=scopes, teams=[team])[1],
        prompt=invoke.token_for(principal=who, deployment=chat),
        own_key=endpoint_keys.create(principal=who, team=team, name="mine", personal=True, every_deployment=True)[1],
        word=invitations.invite(principal=who, team=team)[1],
    )


def admin() -> Any:
    return make.principal(User.objects.filter(username="carol").first() or make.make_user("carol", admin=True))


def leave(held: Held) -> None:
    memberships.add(principal=admin(), team=held.team, user=User.objects.get(username="ann"), role="lead")
    memberships.leave(principal=make.principal(held.alice), team=held.team)


def take_out(held: Held) -> None:
    memberships.remove(principal=admin(), team=held.team, user=held.alice)


def switch_off(held: Held) -> None:
    # Past every service, as an operator would.
    User.objects.filter(pk=held.alice.pk).update(is_active=False)


def lose_the_group(held: Held) -> None:
    GroupRule.objects.get_or_create(group="search-leads", team=held.team, role="lead")
    Membership.objects.filter(user=held.alice).update(by_group=True)
    groups.apply(user=held.alice, groups=[])


def stay_away(held: Held) -> None:
    by_groups(held, hours=12)


def by_groups(held: Held, *, hours: float) -> None:
    """All that they have is by groups, and they signed in by single sign-on so long ago."""
    at = timezone.now() - timedelta(hours=hours)
    User.objects.filter(pk=held.alice.pk).update(single_sign_on_at=at)
    Membership.objects.filter(user=held.alice).update(by_group=True)


ENDINGS: dict[str, Callable[[Held], None]] = {
    "left": leave,
    "taken out": take_out,
    "switched off": switch_off,
    "lost the group": lose_the_group,
    "stayed away": stay_away,
}


@pytest.mark.django_db
@pytest.mark.parametrize("how", ENDINGS)
def test_nothing_that_somebody_held_opens_a_door_afterwards(how: str) -> None:
    held = hold()
    assert all(held.sees().values()), held.sees()
    assert all(held.rules().values()), held.rules()

    ENDINGS[how](held)

    assert not any(held.sees().values()), held.sees()
    assert not any(held.rules().values()), held.rules()


@pytest.mark.django_db
def test_what_groups_give_counts_twelve_hours_and_again_after_the_next_sign_on() -> None:
    held = hold()
    by_groups(held, hours=11.9)
    assert all(held.sees().values()), held.sees()
    assert all(held.rules().values()), held.rules()

    by_groups(held, hours=12)
    assert not any(held.sees().values()), held.sees()

    GroupRule.objects.create(group="search-leads", team=held.team, role="lead")
    groups.apply(user=held.alice, groups=["search-leads"])
    assert all(held.sees().values()), held.sees()
    assert all(held.rules().values()), held.rules()


@pytest.mark.django_db
@pytest.mark.parametrize(("by_group", "hours", "rules"), [(True, 11.9, True), (True, 12, False), (False, 12, True)])
def test_an_admin_by_group_rules_no_longer_than_the_group_counts(by_group: bool, hours: float, rules: bool) -> None:
    carol = make.make_user("carol", admin=True)
    make.make_team("search")
    text = tokens.create(principal=make.principal(carol), name="all", scopes=["read", "approve", "write"])[1]
    browser = signed_in(carol)
    at = timezone.now() - timedelta(hours=hours)
    User.objects.filter(pk=carol.pk).update(admin_by_group=by_group, single_sign_on_at=at)

    by_token = Client(headers={"authorization": f"Bearer {text}"})
    assert browser.get(reverse("approvals-policies")).status_code == (200 if rules else 404)
    assert by_token.get("/api/v1/teams/search/").status_code == (200 if rules else 404)
    assert by_token.get("/api/v1/whoami/").json()["admin"] is rules
    assert User.objects.filter(admins_now()).exists() is rules


@pytest.mark.django_db
def test_a_demoted_lead_keeps_a_members_handles_alone() -> None:
    held = hold()

    memberships.change(principal=admin(), team=held.team, user=held.alice, role="member")

    assert all(held.sees().values()), held.sees()
    assert not any(held.rules().values()), held.rules()


@pytest.mark.django_db
def test_who_comes_back_gets_no_old_key_and_no_old_invitation_back() -> None:
    held = hold()
    take_out(held)

    memberships.add(principal=admin(), team=held.team, user=held.alice, role="lead")

    closed = {name for name, opens in {**held.sees(), **held.rules()}.items() if not opens}
    assert closed == {"own key", "bound token", "invitation"}


STEPS = ["lead", "member", "out", "off", "on", "groups", "no groups", "admin"]


@pytest.mark.django_db
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.sampled_from(STEPS), min_size=1, max_size=7))
def test_whatever_happened_doors_are_open_to_who_belongs_now(db: None, steps: list[str]) -> None:
    with transaction.atomic():
        held = hold()
        carol = admin()
        GroupRule.objects.create(group="search-people", team=held.team)
        role, by_group, on, is_admin = "lead", False, True, False
        for step in steps:
            fresh = User.objects.get(pk=held.alice.pk)
            if step in {"lead", "member"} and on:
                memberships.add(principal=carol, team=held.team, user=fresh, role=step)
                role, by_group = step, False
            elif step == "out" and role:
                memberships.remove(principal=carol, team=held.team, user=fresh)
                role, by_group = "", False
            elif step in {"off", "on"}:
                on = step == "on"
                User.objects.filter(pk=fresh.pk).update(is_active=on)
            elif step in {"groups", "no groups"} and on:
                groups.apply(user=fresh, groups=["search-people"] if step == "groups" else [])
                if step == "groups" and (not role or by_group):
                    role, by_group = "member", True
                elif step == "no groups" and by_group:
                    role, by_group = "", False
            elif step == "admin":
                is_admin = not is_admin
                User.objects.filter(pk=fresh.pk).update(is_platform_admin=is_admin)
            reads, rules = on and bool(role or is_admin), on and (role == "lead" or is_admin)
            page = reverse("people-team", args=["search"])
            if not on:
                # Sessions of an account that is off end; signing in again is refused as well.
                assert held.browser.get(page).status_code == 302, steps
                held.browser = signed_in(User.objects.get(pk=fresh.pk)) if on else held.browser
            else:
                held.browser = signed_in(User.objects.get(pk=fresh.pk))
                assert (held.browser.get(page).status_code == 200) == reads, steps
                rename = held.browser.post(reverse("people-rename", args=["search"]), {"name": ""})
                assert (rename.status_code == 422) == rules, steps
            assert (held.api(held.token) == 200) == reads, steps
            assert held.calls(held.token) == reads, steps
            assert held.calls(held.prompt) == reads, steps
            heard = hearers([held.chat.pk], [fresh.pk]).get(fresh.pk, set())
            assert (held.chat.pk in heard) == reads, steps
        transaction.set_rollback(True)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("how", ENDINGS)
def test_an_open_stream_closes_within_five_seconds(settings: Any, how: str) -> None:
    settings.ALLOWED_HOSTS = ["testserver"]
    held = hold()
    admin()
    observe(held.chat, pods=(pod("chat-1"),))
    headers = cookies_of(held.browser)

    async def run() -> tuple[float, str]:
        app: LiveApp = reading(Endless())
        stream = call(app, f"/live/logs/{held.chat.pk}/follow/?pod=chat-1", headers=headers)
        assert (await stream.start())[0] == 200
        await stream.event()
        await asyncio.wait_for(app.hub.listening.wait(), 5)
        began = time.monotonic()
        await in_thread(lambda: ENDINGS[how](held))
        last = ""
        while (event := await stream.event(within=CLOSES_WITHIN))[0]:
            last = str(event[1])
            assert time.monotonic() - began < CLOSES_WITHIN
        took = time.monotonic() - began
        await app.hub.stop()
        return took, last

    took, last = asyncio.run(run())
    connection.close()
    assert "may not see this deployment any more" in last
    assert took < CLOSES_WITHIN

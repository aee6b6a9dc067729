"""Eighteen principals, and something of the team search behind every address."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from allauth.account.internal.flows.login import AUTHENTICATION_METHODS_SESSION_KEY
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import SECRET_SESSION_KEY, TOTP, generate_totp_secret
from django.apps import apps
from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction
from django.db.models import Q
from django.http import HttpResponseBase
from django.test import Client, RequestFactory
from django.test.client import ClientHandler
from django.utils import timezone

from deployments.kube.observe import ContainerView
from deployments.manifests import standard
from deployments.models import (
    ApiToken,
    CatalogEntry,
    Deployment,
    EngineProfile,
    Event,
    Flavor,
    Notification,
    Principal,
    Team,
    User,
)
from deployments.services import (
    approvals,
    credentials,
    emergencies,
    groups,
    invitations,
    lifecycle,
    quota_requests,
    requests,
    tokens,
)
from deployments.services import endpoint_keys as keys
from deployments.spec import DeploymentSpec
from tests.deployments import factories as make
from tests.deployments.viewing import add_node, observe, pod

_build = standard.build
WRITE = re.compile(r'\s*(?:INSERT INTO|UPDATE|DELETE FROM|WITH|MERGE|TRUNCATE)\b[^"]*"(\w+)"(?: SET "(\w+)")?', re.I)
# What a request leaves whether it is let in or not.
TRACES = {
    ("django_session", ""),
    ("django_session", "session_data"),
    ("deployments_apitoken", "last_used_at"),
    # Claimed by the first of several, and given back by who is refused.
    ("deployments_idempotencykey", ""),
    ("deployments_idempotencykey", "status"),
}
ALL = ("read", "write", "approve", "invoke")
NOBODYS = 987_654_321
PLACE = re.compile(r"\{(\w+)\}")


@contextmanager
def undone() -> Iterator[list[str]]:
    """The tables that are written meanwhile, without traces; afterwards everything is as it was."""
    written: list[str] = []

    def look(execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        if found := WRITE.match(str(sql)):
            table, column = found.group(1), found.group(2) or ""
            if (table, column) not in TRACES:
                written.append(f"{table}.{column}".rstrip("."))
        return execute(sql, params, many, context)

    with transaction.atomic(), connection.execute_wrapper(look):
        yield written
        transaction.set_rollback(True)


def every_row() -> dict[tuple[str, str], str]:
    """Every row of every table as JSON, by table and key."""
    with connection.cursor() as cursor:
        cursor.execute(_all_tables())
        return {(table, pk): row for table, pk, row in cursor.fetchall()}


@cache
def _all_tables() -> str:
    tables = {model._meta.db_table: model._meta.pk.column for model in apps.get_models(include_auto_created=True)}
    rows = 'SELECT \'{table}\', "{key}"::text, to_jsonb(t)::text FROM "{table}" t'
    read = [rows.format(table=table, key=key) for table, key in tables.items() if table != "django_session"]
    return " UNION ALL ".join(read)


@dataclass
class Caller:
    """A principal: whose rights it has, by which scopes and teams; `out` where it has none at all."""

    name: str
    person: str
    client: Client = field(default_factory=Client)
    headers: dict[str, str] = field(default_factory=dict)
    scopes: frozenset[str] = frozenset(ALL)
    elsewhere: bool = False
    out: bool = False

    def send(self, method: str, path: str, body: Any = None, *, api: bool) -> HttpResponseBase:
        """One request, with the cookies of the sign-in alone. The test client would keep each page that is rendered."""
        factory = RequestFactory(headers=self.headers)
        factory.cookies = self.client.cookies
        if method in {"GET", "HEAD", "OPTIONS"} or (method != "POST" and not api):
            request = factory.generic(method, path)
        elif api:
            request = factory.generic(method, path, orjson.dumps(body or {}), "application/json")
        else:
            request = factory.post(path, body or {})
        answer: HttpResponseBase = _site()(request.environ)
        return answer


_site = cache(lambda: ClientHandler(enforce_csrf_checks=False))


class World:
    """What there is. Made once; every request to it is rolled back."""

    def __init__(self) -> None:
        self.uri, self.spec = make.QWEN, make.a_spec()
        self.team, self.labs = make.make_team("search"), make.make_team("labs")
        self.flavor: Flavor = make.make_flavor()
        self.grant = make.make_grant(self.team, self.flavor, 16)
        make.make_grant(self.labs, self.flavor, 8)
        make.make_profile()
        make.make_cluster()
        # What is known of the model grows old in minutes, and the walk may take longer on a busy machine.
        make.make_check(checked_at=timezone.now() + timedelta(hours=6))
        self.people = self._people()
        # Asked for by somebody who is no principal of the walk: any of them could decide.
        self.ann = make.make_user("ann", team=self.team)
        # A team that can be archived: nothing of it is left.
        make.make_team("empty")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(standard, "build", _rendered_long_ago)
            self.dated = self._runs("dated")
        self.chat = self._runs("chat")
        self.stopped = self._runs("stopped")
        lifecycle.stop(principal=Principal(user=self.ann), deployment=self.stopped)
        self.wish_of = self._asked("wish")
        self.wish = self.wish_of.latest
        add_node(holders=[{"namespace": self.team.namespace, "pod": "chat-1", "gpus": 1, "deployment": self.chat.pk}])
        observe(self.chat, pods=(pod("chat-1", containers=(ContainerView(name="kserve-container"),)),))
        self._governance()
        self.callers = self._callers()
        self.others = self._others()
        self.token = ApiToken.objects.get(name="token-read")
        self._last_event = Event.objects.latest("pk").pk

    def url(self, route: str, of: str, *, foreign: bool = False) -> str:
        """An address with what is there, or with ids that nobody has."""
        model = re.match(r"/django-admin/(\w+)/(\w+)/\{object_id\}", route)
        row = apps.get_model(*model.groups()).objects.first() if model else getattr(self, of, None)
        kind = ContentType.objects.get_for_model(Team).pk
        values = {
            "pk": row.pk if row is not None else 1,
            "object_id": row.pk if row is not None else self.team.pk,
            "number": 1,
            "slug": self.flavor.slug
            if route.startswith("/flavors/")
            else self.named_engine.pk
            if route.startswith("/engines/")
            else "empty"
            if route.endswith("/archive/")
            else "search",
            "word": self.word,
            "panel": "throughput",
            "provider_id": "oidc",
            "content_type_id": kind,
            "app_label": "deployments",
        }
        if foreign:
            values |= {"pk": "nowhere" if isinstance(values["pk"], str) else NOBODYS, "slug": "nowhere"}
        return PLACE.sub(lambda found: str(values.get(found.group(1), "none")), route)

    def heard_of(self, caller: Caller) -> bool:
        """True when the audit has a line by this caller, alone or as the second, that the world was made without."""
        user = self.people[caller.person if caller.headers else caller.name]
        by_them = Q(actor=user) | Q(data__second=user.pk)
        return Event.objects.filter(by_them, pk__gt=self._last_event).exists()

    def _governance(self) -> None:
        ann, admin = Principal(user=self.ann), Principal(user=self.people["admin"])
        lead = Principal(user=self.people["disabled"])
        self.quota_request = quota_requests.ask(
            principal=lead, team=self.team, flavor=self.flavor, gpus=2, why="More traffic."
        )
        self.item = f"r{self.wish.pk}:{self.wish.digest}"
        self.boss = boss = make.make_user("boss", admin=True, team=self.team)
        self.burning_of = self._asked("burning", boss)
        self.burning = self.burning_of.latest
        urgent = self._asked("urgent", boss).latest
        assert urgent is not None
        self.emergency = emergencies.call(
            principal=Principal(user=boss), revision=urgent, digest=urgent.digest, reason="It burns."
        )
        self.group_rule = groups.add_rule(principal=admin, group="people", team=self.team, role="member")
        self.invitation, _ = invitations.invite(principal=lead, team=self.team, role="member")
        # Whoever invites still leads the team: the other one leads it no more.
        inviting = Principal(user=self.people["lead"])
        _, self.word = invitations.invite(principal=inviting, team=self.team, role="member")
        self.key, _ = keys.create(principal=lead, team=self.team, name="k", personal=False, every_deployment=True)
        self.credential = credentials.create(
            principal=lead, team=self.team, name="hub", kind="hf", fields={"token": "hf_of_the_world"}
        )
        event = Event.objects.filter(team=self.team).earliest("pk")
        self.notice = Notification.objects.create(user=self.people["member"], event=event, message=event.message)
        self.named_team, self.named_flavor = SimpleNamespace(pk="search"), SimpleNamespace(pk=self.flavor.slug)
        self.named_engine = SimpleNamespace(pk=EngineProfile.objects.get().slug)
        self.entry = CatalogEntry.objects.create(
            slug="smol", name="Smol", uri="hf://a/smol", summary="Small.", parameters_billion=0.1, flavor="h100-80gb"
        )
        self.named_entry = SimpleNamespace(pk=self.entry.slug)
        # What a form about a kind of GPU cannot change while some of it is held.
        self.kind = {"product": self.flavor.product, "resource_name": self.flavor.resource_name}
        self.membership = self.team.memberships.get(user=ann.user)
        self.account = ann.user

    def _people(self) -> dict[str, User]:
        people = {
            "stranger": make.make_user("stranger", team=self.labs, lead=True),
            "member": make.make_user("member", team=self.team),
            "lead": make.make_user("lead", team=self.team, lead=True),
            "admin": make.make_user("admin", admin=True),
            "former": make.make_user("former", team=self.team, lead=True),
            "staff": make.make_user("staff"),
            "disabled": make.make_user("disabled", team=self.team, lead=True),
        }
        make.join(people["lead"], self.labs)
        User.objects.filter(username__in=["admin", "staff"]).update(is_staff=True)
        return people

    def _callers(self) -> list[Caller]:
        lead, admin, off = (self.people[name] for name in ("lead", "admin", "disabled"))
        callers = [Caller("anonymous", "", out=True)]
        for name, user in self.people.items():
            client = Client()
            client.force_login(user)
            callers.append(Caller(name, _rights(name), client, out=name == "disabled"))
        for scopes in (("read",), ("read", "write"), ("read", "approve"), ("invoke",)):
            callers.append(_token(f"token-{scopes[-1]}", lead, "lead", scopes))
        callers.append(_token("token-elsewhere", lead, "lead", ALL, teams=[self.labs]))
        callers.append(_token("token-admin", admin, "admin", ALL))
        callers.append(_token("token-admin-elsewhere", admin, "admin", ALL, teams=[self.labs]))
        over = timezone.now() - timedelta(seconds=1)
        for name, user, change in (
            ("token-expired", lead, {"expires_at": over}),
            ("token-revoked", lead, {"revoked_at": over}),
            ("token-disabled", off, {}),
        ):
            callers.append(_token(name, user, "", ALL, out=True))
            if change:
                ApiToken.objects.filter(name=name).update(**change)
        # Their session and token are from before: what they may is asked anew with every request.
        self.people["former"].memberships.all().delete()
        User.objects.filter(pk=off.pk).update(is_active=False)
        return callers

    def _others(self) -> list[Caller]:
        """Who does what nobody of the walk can: an admin who wrote a revision, people with passwords and factors."""
        self.password, self.totp = "correct horse battery", generate_totp_secret()
        found = []
        for name in ("boss", "newcomer", "keeper"):
            user = self.boss if name == "boss" else make.make_user(name)
            if name != "boss":
                user.set_password(self.password)
                user.save()
            if name == "keeper":
                TOTP.activate(user, generate_totp_secret())
                RecoveryCodes.activate(user)
            client = Client()
            client.force_login(user)
            session = client.session
            # Just shown that they are who they are, and scanned what the page shows.
            session[AUTHENTICATION_METHODS_SESSION_KEY] = [
                {"method": "password", "at": time.time() + 3600, "reauthenticated": True}
            ]
            session["account_authentication_methods_user"] = str(user.pk)
            session[SECRET_SESSION_KEY] = self.totp
            session.save()
            found.append(Caller(name, name, client))
        return found

    def _asked(self, name: str, by: User | None = None) -> Deployment:
        spec = DeploymentSpec.from_json(self.spec)
        return requests.submit(principal=Principal(user=by or self.ann), team=self.team, name=name, spec=spec)

    def _runs(self, name: str) -> Deployment:
        row = self._asked(name)
        assert row.latest is not None
        admin = Principal(user=self.people["admin"])
        approvals.decide(principal=admin, revision=row.latest, digest=row.latest.digest, approve=True)
        row.refresh_from_db()
        return row


def _rendered_long_ago(wish: Any) -> list[dict[str, Any]]:
    """What an older Slipway made of a wish."""
    found = _build(wish)
    found[0]["metadata"].setdefault("annotations", {})["slipway.dev/rendered-by"] = "an older one"
    return found


def _rights(name: str) -> str:
    return "stranger" if name in {"former", "staff"} else name


def _token(
    name: str, user: User, person: str, scopes: tuple[str, ...], *, teams: list[Team] | None = None, out: bool = False
) -> Caller:
    _, text = tokens.create(principal=Principal(user=user), name=name, scopes=scopes, teams=teams)
    bearer = {"Authorization": f"Bearer {text}"}
    ApiToken.objects.filter(name=name).update(last_used_at=timezone.now())
    return Caller(name, person, Client(), bearer, frozenset(scopes), elsewhere=teams is not None, out=out)

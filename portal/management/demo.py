"""What a demo has in it, made through the services by the people who would do it; a second run adds nothing."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from deployments.models import (
    ApiToken,
    Credential,
    Deployment,
    EndpointKey,
    Flavor,
    Membership,
    Principal,
    Team,
    User,
)
from deployments.services import (
    approvals,
    credentials,
    endpoint_keys,
    grants,
    memberships,
    model_checks,
    quota_requests,
    requests,
    sealing,
    teams,
    tokens,
)
from deployments.sources import SourceCode
from deployments.spec import DeploymentSpec
from portal.management import platform

DATA = Path(__file__).with_name("demo.json")
SCOPES = ("read", "write", "approve", "invoke")
DAYS = 365
HUB_SECONDS = 30.0


class HubError(Exception):
    """The hub does not answer, so models cannot be pinned."""


@dataclass
class Demo:
    """The demo of this installation; `made` says in words what a run added."""

    plan: dict[str, Any] = field(default_factory=lambda: json.loads(DATA.read_text(encoding="utf-8")))
    made: list[str] = field(default_factory=list)

    def seed(self) -> dict[str, Any]:
        """Make what is missing and return the accounts and what background traffic needs."""
        with transaction.atomic():
            self._platform()
            self._people()
            self._teams()
        self._credentials()
        self._deployments()
        accounts = [self._account(person) for person in self.plan["people"]]
        return {
            "accounts": accounts,
            "traffic_token": self._token(self._traffic_user(), ["invoke"]),
            "traffic_keys": self._keys(),
            "traffic": {
                f"{self.team(row['team']).namespace}/{row['name']}": row["traffic"]
                for row in self.plan["deployments"]
                if "traffic" in row
            },
        }

    def team(self, slug: str) -> Team:
        """A team of the demo."""
        return Team.objects.get(slug=slug)

    @cached_property
    def admin(self) -> Principal:
        """Who makes teams and grants quota: the first admin of the plan."""
        return self._principal(next(row["username"] for row in self.plan["people"] if row["role"] == "admin"))

    def password(self, username: str) -> str:
        """The derived password of an account."""
        return self._secret("password", username)[:16]

    def _principal(self, username: str) -> Principal:
        return Principal(user=User.objects.get(username=username))

    def _platform(self) -> None:
        self.made += [
            *platform.make_flavors(self.plan["flavors"]),
            *platform.make_profiles(),
            *(line for row in self.plan["engines"] for line in platform.add_engine(**row)),
            *platform.make_catalog(),
        ]

    def _people(self) -> None:
        for row in self.plan["people"]:
            is_admin = row["role"] == "admin"
            user, made = User.objects.get_or_create(
                username=row["username"],
                defaults={
                    "first_name": row["first"],
                    "email": f"{row['username']}@example.org",
                    "last_name": row["last"],
                    "is_platform_admin": is_admin,
                    "is_staff": is_admin,
                },
            )
            if made:
                user.set_password(self.password(user.username))
                user.save(update_fields=["password"])
                self.made.append(f"account {user.username}")
        self._traffic_user()

    def _teams(self) -> None:
        for row in self.plan["teams"]:
            if Team.objects.filter(slug=row["slug"]).exists():
                continue
            team = teams.create(principal=self.admin, slug=row["slug"], name=row["name"], policy=row["policy"])
            self.made.append(f"team {team.name}")
            for flavor, gpus in row["grants"].items():
                grants.grant(
                    principal=self.admin, team=team, flavor=Flavor.objects.get(slug=flavor), gpus=gpus, comment="Demo"
                )
            for person in self.plan["people"]:
                if person.get("team") == team.slug:
                    user = User.objects.get(username=person["username"])
                    memberships.add(principal=self.admin, team=team, user=user, role=person["role"])
            if any(item["team"] == team.slug and "traffic" in item for item in self.plan["deployments"]):
                memberships.add(principal=self.admin, team=team, user=self._traffic_user(), role=Membership.Role.MEMBER)
            self._quota(team, row)

    def _quota(self, team: Team, row: Mapping[str, Any]) -> None:
        """Grants of a team that end within days, and what its lead asks for."""
        for item in row.get("ending", []):
            grants.grant(
                principal=self.admin,
                team=team,
                flavor=Flavor.objects.get(slug=item["flavor"]),
                gpus=item["gpus"],
                until=timezone.now() + timedelta(days=item["days"]),
                comment=item["comment"],
            )
        for item in row.get("asks", []):
            quota_requests.ask(
                principal=self._principal(item["author"]),
                team=team,
                flavor=Flavor.objects.get(slug=item["flavor"]),
                gpus=item["gpus"],
                why=item["why"],
                valid_until=timezone.now() + timedelta(days=item["days"]),
            )
            self.made.append(f"request for quota of {team.name}")

    def _deployments(self) -> None:
        for row in self.plan["deployments"]:
            team = self.team(row["team"])
            # Deleted ones too: what somebody removed from the demo does not come back at the next start.
            if Deployment.objects.filter(team=team, name=row["name"]).exists():
                continue
            spec = DeploymentSpec.from_json(row["spec"])
            if spec.source.credential and not sealing.can_seal():
                continue
            _wait_for_hub(spec.source.uri)
            deployment = requests.submit(
                principal=self._principal(row["author"]), team=team, name=row["name"], spec=spec, note=row["note"]
            )
            self.made.append(f"deployment {team.slug}/{deployment.name}")
            if "approver" in row and deployment.latest is not None:
                approvals.decide(
                    principal=self._principal(row["approver"]),
                    revision=deployment.latest,
                    digest=deployment.latest.digest,
                    approve=True,
                )

    def _account(self, row: dict[str, Any]) -> dict[str, Any]:
        user = User.objects.get(username=row["username"])
        return {
            "username": user.username,
            "password": self.password(user.username),
            "role": row["role"],
            "team": row.get("team"),
            "token": self._token(user, SCOPES),
        }

    def _traffic_user(self) -> User:
        row = self.plan["traffic_user"]
        user, made = User.objects.get_or_create(
            username=row["username"], defaults={"first_name": row["first"], "last_name": row["last"]}
        )
        if made:
            user.set_unusable_password()
            user.save(update_fields=["password"])
        return user

    def _token(self, user: User, scopes: Any) -> str:
        """The text of a live token of this user: the first that nobody revoked, made where there is none."""
        known = {token.digest: token for token in ApiToken.objects.filter(user=user)}
        live = set(ApiToken.objects.live().filter(user=user).values_list("digest", flat=True))
        for number in range(len(known) + 1):
            text = tokens.PREFIX + self._secret("token", f"{user.username}/{number}")
            digest = tokens.digest_of(text)
            if digest in live:
                return text
            if digest not in known:
                # One of the same name may live on whose text came of another secret key.
                taken = ApiToken.objects.live().filter(user=user, name="Demo").exists()
                name = f"Demo {len(known) + 1}" if taken else "Demo"
                tokens.create(
                    principal=Principal(user=user), name=name, scopes=scopes, days=tokens.MOST_DAYS, text=text
                )
                return text
        raise AssertionError("unreachable: one more text than tokens was tried")

    def _keys(self) -> dict[str, str]:
        """The living keys of the plan's teams by namespace, made where they never were: what was revoked stays so."""
        found = {}
        for row in self.plan["keys"]:
            team = self.team(row["team"])
            text = endpoint_keys.PREFIX + self._secret("endpoint key", f"{team.slug}/{row['name']}")
            rows = EndpointKey.objects.filter(digest=tokens.digest_of(text))
            if not rows.exists():
                author = self._principal(row["author"])
                taken = EndpointKey.objects.live().filter(team=team, name=row["name"]).count()
                name = f"{row['name']} {taken + 1}" if taken else row["name"]
                endpoint_keys.create(
                    principal=author, team=team, name=name, every_deployment=True, days=DAYS, text=text
                )
                self.made.append(f"key {team.slug}/{row['name']}")
            if rows.live().exists():
                found[team.namespace] = text
        return found

    def _credentials(self) -> None:
        """Tokens for gated models of the sandbox's hub, where they never were; none without a sealing key."""
        for row in self.plan["credentials"]:
            team = self.team(row["team"])
            if not sealing.can_seal() or Credential.objects.filter(team=team, name=row["name"]).exists():
                continue
            # The sandbox's hub tells by the beginning of a token whether its owner has accepted licences.
            token = row["token"] + self._secret("credential", row["name"])
            author = self._principal(row["author"])
            credentials.create(principal=author, team=team, name=row["name"], kind="hf", fields={"token": token})
            self.made.append(f"credential {team.slug}/{row['name']}")

    def _secret(self, kind: str, name: str) -> str:
        """Random per installation, the same at each start: derived from its secret key, stored nowhere."""
        key, message = settings.SECRET_KEY.encode(), f"slipway demo {kind} {name}".encode()
        return urlsafe_b64encode(hmac.new(key, message, hashlib.sha256).digest()).decode().rstrip("=")


def check_passwords(demo: Demo) -> bool:
    """Give all accounts their derived passwords again when the secret key is another than at the last run."""
    users = [User.objects.get(username=row["username"]) for row in demo.plan["people"]]
    first = users[0]
    if first.check_password(demo.password(first.username)):
        return False
    for user in users:
        user.set_password(demo.password(user.username))
        user.save(update_fields=["password"])
    return True


def _wait_for_hub(uri: str) -> None:
    """Look the model up until the hub answers; HubError after half a minute."""
    deadline = time.monotonic() + HUB_SECONDS
    age = model_checks.FRESH
    while True:
        found = model_checks.look_up(uri, max_age=age)
        if found is None or found.code is not SourceCode.UNREACHABLE:
            return
        if time.monotonic() > deadline:
            raise HubError(found.message)
        time.sleep(1.0)
        age = timedelta(0)

"""`manage.py make_team SLUG`: a team, who approves for it, and who leads it."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from deployments.models import Membership, Principal, Team, User, admins_now
from deployments.services import memberships, policies, teams
from deployments.services.errors import DomainError


class Command(BaseCommand):
    """Safe to run again: a team that is there keeps its namespace; policy and leads are brought up to date."""

    help = "Make a team, set who approves for it, and say who leads it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("slug")
        parser.add_argument("--name", default="", help="as people read it; the slug where it is not given")
        parser.add_argument("--policy", choices=Team.Policy.values, help="who approves (an admin unless given)")
        parser.add_argument("--lead", action="append", default=[], metavar="USERNAME")
        parser.add_argument("--member", action="append", default=[], metavar="USERNAME")

    def handle(self, **options: Any) -> None:
        admin = User.objects.filter(admins_now()).order_by("pk").first()
        if admin is None:
            raise CommandError("There is no platform admin yet: manage.py make_admin USERNAME")
        try:
            with transaction.atomic():
                team = self._team(Principal(user=admin), options)
        except DomainError as error:
            raise CommandError(error.message) from None
        self.stdout.write(f"{team.name}: namespace {team.namespace}, policy {team.policy}")

    def _team(self, principal: Principal, options: dict[str, Any]) -> Team:
        slug, policy = options["slug"], options["policy"]
        team = Team.objects.filter(slug=slug).first()
        if team is None:
            name = options["name"] or slug
            team = teams.create(principal=principal, slug=slug, name=name, policy=policy or Team.Policy.ASK)
        elif policy:
            team = policies.set_policy(principal=principal, team=team, policy=policy)
        roles = [(name, Membership.Role.LEAD) for name in options["lead"]]
        roles += [(name, Membership.Role.MEMBER) for name in options["member"]]
        for username, role in roles:
            user = User.objects.filter(username=username).first()
            if user is None:
                raise CommandError(
                    f"There is no account “{username}”: they sign in once, or manage.py make_user makes it."
                )
            memberships.add(principal=principal, team=team, user=user, role=role)
        return team

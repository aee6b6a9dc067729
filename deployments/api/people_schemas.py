"""Bodies and answers of teams, members, invitations and rules about groups."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from deployments.api.schemas import UsageAnswer, WholeNumber
from deployments.models import Membership, Team
from deployments.services.invitations import DEFAULT_DAYS, MOST_DAYS


class TeamAnswer(serializers.Serializer[Any]):
    """A team, one's own role in it, and its quota."""

    id = serializers.IntegerField()
    slug = serializers.SlugField()
    name = serializers.CharField()
    namespace = serializers.CharField()
    policy = serializers.ChoiceField(choices=Team.Policy.choices)
    archived = serializers.BooleanField()
    role = serializers.ChoiceField(choices=Membership.Role.choices, allow_null=True)
    quota = UsageAnswer(many=True)


class TeamBody(serializers.Serializer[Any]):
    """A new team."""

    slug = serializers.CharField(max_length=20, help_text="In addresses and on the cluster; it never changes")
    name = serializers.CharField(max_length=80)
    policy = serializers.ChoiceField(choices=Team.Policy.choices, default=Team.Policy.ASK)


class TeamChange(serializers.Serializer[Any]):
    """What of a team changes."""

    name = serializers.CharField(max_length=80, required=False)
    archived = serializers.BooleanField(required=False, help_text="true, once and for good (admins)")


class MemberAnswer(serializers.Serializer[Any]):
    """Who belongs to a team."""

    id = serializers.IntegerField()
    username = serializers.CharField()
    name = serializers.CharField()
    role = serializers.ChoiceField(choices=Membership.Role.choices)
    by_group = serializers.BooleanField(help_text="Made by a rule about a group, and ended with it")
    active = serializers.BooleanField(help_text="false for an account that is switched off")
    created_at = serializers.DateTimeField()


class MemberBody(serializers.Serializer[Any]):
    """Somebody who has an account, and their role."""

    username = serializers.CharField(max_length=150)
    role = serializers.ChoiceField(choices=Membership.Role.choices, default=Membership.Role.MEMBER)


class MemberChange(serializers.Serializer[Any]):
    """Another role."""

    role = serializers.ChoiceField(choices=Membership.Role.choices)


class InvitationAnswer(serializers.Serializer[Any]):
    """An invitation, without its link."""

    id = serializers.IntegerField()
    team = serializers.SlugField()
    email = serializers.CharField(help_text="Where it was sent; empty: the link was handed over")
    role = serializers.ChoiceField(choices=Membership.Role.choices)
    invited_by = serializers.CharField()
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField()
    accepted_at = serializers.DateTimeField(allow_null=True)
    accepted_by = serializers.CharField(allow_null=True)
    revoked_at = serializers.DateTimeField(allow_null=True)


class NewInvitationAnswer(InvitationAnswer):
    """The only answer that ever shows the link."""

    link = serializers.URLField()
    mailed = serializers.BooleanField(help_text="A mail with the link is on its way")


class InvitationBody(serializers.Serializer[Any]):
    """Whom to let in, where to and for how long the link is good."""

    team = serializers.SlugField(max_length=20)
    role = serializers.ChoiceField(choices=Membership.Role.choices, default=Membership.Role.MEMBER)
    email = serializers.CharField(max_length=254, required=False, default="", allow_blank=True)
    days = WholeNumber(default=DEFAULT_DAYS, min_value=1, max_value=MOST_DAYS)


class GroupRuleAnswer(serializers.Serializer[Any]):
    """What a group of the identity provider gives."""

    id = serializers.IntegerField()
    group = serializers.CharField()
    team = serializers.SlugField(allow_null=True, help_text="null: platform admins")
    role = serializers.ChoiceField(choices=Membership.Role.choices)
    created_at = serializers.DateTimeField()


class GroupRuleBody(serializers.Serializer[Any]):
    """A rule: people of this group belong to the team, or with `team` null are platform admins."""

    group = serializers.CharField(max_length=200)
    team = serializers.SlugField(max_length=20, allow_null=True)
    role = serializers.ChoiceField(choices=Membership.Role.choices, default=Membership.Role.MEMBER)

"""After a test that committed the next one finds the database as migrations left it."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.test import TransactionTestCase

from deployments.models import Event
from tests import emptying
from tests.deployments import factories as make
from tests.security.world import every_row


@pytest.mark.django_db(transaction=True)
def test_nothing_is_left_but_what_migrations_made() -> None:
    team = make.make_team("search")
    author = make.make_user("ann", team=team)
    made = make.make_deployment(team, author, approved=True)
    # A row that nobody may change or delete.
    Event.objects.create(team=team, deployment=made, kind="noted", message="Something happened.")
    kinds, rights = ContentType.objects.count(), Permission.objects.count()
    assert kinds
    assert rights

    emptying.empty(TransactionTestCase())

    assert {table for table, _ in every_row()} == emptying.KEPT
    assert (ContentType.objects.count(), Permission.objects.count()) == (kinds, rights)

"""The role as which the site runs adds to the audit, and can neither change nor empty it, nor get around a trigger."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.core import checks
from django.db import connection

from portal import roles
from tests.deployments import factories as make

pytestmark = pytest.mark.django_db(transaction=True)

ROLE = "slipway_site_of_a_test"
IN_A_TRIGGER = """
CREATE {} TABLE mine (a int);
CREATE FUNCTION {}f() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN UPDATE public.deployments_quotaaccount SET reserved = 0; RETURN NULL; END $$;
CREATE TRIGGER t AFTER INSERT ON mine FOR EACH ROW EXECUTE FUNCTION {}f();
INSERT INTO mine VALUES (1)
"""
WAYS = {
    "change": "UPDATE deployments_event SET message = 'x'",
    "delete": "DELETE FROM deployments_event",
    "truncate": "TRUNCATE deployments_event CASCADE",
    "truncate as tests do": "SET LOCAL slipway.may_truncate = on; TRUNCATE deployments_event CASCADE",
    "truncate the ledger": "SET LOCAL slipway.may_truncate = on; TRUNCATE deployments_reservation CASCADE",
    "triggers off": "ALTER TABLE deployments_event DISABLE TRIGGER USER",
    "trigger away": "DROP TRIGGER event_append_only ON deployments_event",
    "own trigger": "CREATE TRIGGER mine BEFORE INSERT ON deployments_event FOR EACH ROW EXECUTE FUNCTION"
    " slipway_append_only()",
    "function replaced": "CREATE OR REPLACE FUNCTION slipway_append_only() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN RETURN NEW; END $$",
    "replica": "SET LOCAL session_replication_role = replica",
    "inside a trigger of a temporary table": IN_A_TRIGGER.format("TEMP", "pg_temp.", "pg_temp."),
    "inside a trigger of a table": IN_A_TRIGGER.format("", "", ""),
    "migrations": "DELETE FROM django_migrations",
    "more rights": "GRANT TRUNCATE ON deployments_event TO CURRENT_USER",
}


@pytest.fixture
def site() -> Iterator[psycopg.Connection[Any]]:
    """A connection as the site's role, on the database of the tests."""
    roles.give_rights(ROLE, "in-tests")
    given = connection.settings_dict
    try:
        with psycopg.connect(
            host=given["HOST"], port=given["PORT"], dbname=given["NAME"], user=ROLE, password="in-tests"
        ) as held:
            yield held
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"DROP OWNED BY {ROLE}; DROP ROLE {ROLE}")


def test_no_way_leads_around_what_stays(site: psycopg.Connection[Any]) -> None:
    passed = []
    for name, words in WAYS.items():
        try:
            with site.transaction(force_rollback=True):
                site.execute(words.encode())
            passed.append(name)
        except psycopg.errors.InsufficientPrivilege:
            continue
    # Where a grant is not one's to give, PostgreSQL warns and gives nothing.
    assert passed in ([], ["more rights"])
    assert site.execute(b"SELECT has_table_privilege('deployments_event', 'TRUNCATE')").fetchone() == (False,)


def test_the_site_does_what_it_does(site: psycopg.Connection[Any]) -> None:
    """Reading, adding, changing and deleting; reserving through the ledger's triggers is part of it."""
    team, flavor = make.make_team(), make.make_flavor()
    make.make_grant(team, flavor, 4)
    deployment = make.make_deployment(team, make.make_user("ann"), flavor=flavor)
    revision = deployment.latest.pk if deployment.latest else None
    with site.transaction():
        site.execute(
            b"INSERT INTO deployments_reservation (account_id, deployment_id, revision_id, delta, balance_before, kind,"
            b" reason, created_at) SELECT id, %s, %s, 2, 0, 'take', '', now() FROM deployments_quotaaccount",
            [deployment.pk, revision],
        )
        site.execute(b"UPDATE deployments_team SET name = 'Found'")
        site.execute(b"DELETE FROM deployments_membership")
    assert site.execute(b"SELECT reserved FROM deployments_quotaaccount").fetchone() == (2,)
    assert site.execute(b"SELECT gpus FROM deployments_quotahold").fetchone() == (2,)


def test_the_check_warns_of_an_owner_and_not_of_the_site() -> None:
    found = checks.run_checks(tags=[checks.Tags.database], databases=["default"])
    assert [item.id for item in found if str(item.id).startswith("slipway")] == ["slipway.W001"]
    roles.give_rights(ROLE, "in-tests")
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"SET ROLE {ROLE}")
        found = checks.run_checks(tags=[checks.Tags.database], databases=["default"])
        assert [item for item in found if str(item.id).startswith("slipway")] == []
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"RESET ROLE; DROP OWNED BY {ROLE}; DROP ROLE {ROLE}")

"""The teams, accounts and deployments that the clients fight over, and the log by which they are judged."""

from __future__ import annotations

import hashlib
import random
from datetime import timedelta

from django.db import connection
from django.utils import timezone

from bench.quota.shape import FLAVORS, LARGEST_GRANT, MODEL, PLACES, PROFILE, SPEC, TEAMS, World
from deployments.models import (
    Approval,
    Cluster,
    Deployment,
    EngineProfile,
    Flavor,
    Membership,
    ModelCheck,
    QuotaAccount,
    QuotaGrant,
    Revision,
    Team,
    User,
)

# What the referee reads. A row is written under the lock of its account, so the order of `seq` is that of the commits.
LOG = """
CREATE SEQUENCE bench_seq;
CREATE UNLOGGED TABLE bench_log (
    seq bigint, kind text, account bigint, subject bigint, before integer, after integer);
CREATE FUNCTION bench_account() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO bench_log VALUES (nextval('bench_seq'), 'account', NEW.id, NEW.id, OLD.reserved, NEW.reserved);
    RETURN NULL;
END $$;
CREATE TRIGGER zz_bench AFTER UPDATE OF reserved ON deployments_quotaaccount
    FOR EACH ROW WHEN (OLD.reserved <> NEW.reserved) EXECUTE FUNCTION bench_account();
CREATE FUNCTION bench_hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO bench_log VALUES (nextval('bench_seq'), 'hold', NEW.account_id, NEW.id, OLD.gpus, NEW.gpus);
    RETURN NULL;
END $$;
CREATE TRIGGER zz_bench AFTER UPDATE ON deployments_quotahold
    FOR EACH ROW EXECUTE FUNCTION bench_hold();
-- Named to fire after grant_changed, which has taken the account's lock by then.
CREATE FUNCTION bench_grant() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO bench_log
        SELECT nextval('bench_seq'), 'grant', a.id, NEW.id,
               CASE WHEN TG_OP = 'UPDATE' THEN OLD.gpus ELSE 0 END, NEW.gpus
          FROM deployments_quotaaccount a WHERE a.team_id = NEW.team_id AND a.flavor_id = NEW.flavor_id;
    RETURN NULL;
END $$;
CREATE TRIGGER zz_bench AFTER INSERT OR UPDATE ON deployments_quotagrant
    FOR EACH ROW EXECUTE FUNCTION bench_grant();
"""
UNLOG = """
DROP FUNCTION bench_account, bench_hold, bench_grant CASCADE;
DROP TABLE bench_log;
DROP SEQUENCE bench_seq;
"""


def install_log() -> None:
    """Make the referee's log once per database."""
    with connection.cursor() as cursor:
        cursor.execute(LOG)


def remove_log() -> None:
    """Take the referee's log off a database that goes on."""
    with connection.cursor() as cursor:
        cursor.execute(UNLOG)


def make(*, waiting: int, seed: int) -> World:
    """Everything anew: `waiting` deployments with a revision that waits, beside PLACES approved ones per team.

    Where revisions wait the grants suffice for all of them: what is measured there is approving, not waiting in line.
    """
    with connection.cursor() as cursor:
        tables = ", ".join(
            f'"{name}"' for name in connection.introspection.table_names(cursor) if name.startswith("deployments_")
        )
        cursor.execute(f"SET slipway.may_truncate = on; TRUNCATE {tables} RESTART IDENTITY CASCADE")
    chance = random.Random(seed)
    cluster = Cluster.objects.create(name="main")
    admin = User.objects.create(username="carol", is_platform_admin=True)
    author = User.objects.create(username="alice")
    flavors = [
        Flavor.objects.create(slug=slug, name=slug, product=slug, memory_mib=81920, compute_capability="9.0")
        for slug in FLAVORS
    ]
    _catalogue()
    teams = Team.objects.bulk_create(
        Team(slug=f"team-{number}", name=f"Team {number}", namespace=f"team-{number}-bench") for number in range(TEAMS)
    )
    Membership.objects.bulk_create(Membership(team=team, user=author) for team in teams)
    grants = [
        QuotaGrant.objects.create(
            team=team, flavor=flavor, gpus=waiting or chance.randint(4, LARGEST_GRANT), granted_by=admin
        )
        for team in teams
        for flavor in flavors
        for _ in range(2)
    ]
    running = _deployments(cluster, author, flavors[0], [team for team in teams for _ in range(PLACES)], "runs")
    pending = _deployments(cluster, author, flavors[0], [teams[n % TEAMS] for n in range(waiting)], "asks")
    _approve([row.latest for row in running if row.latest])
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")  # autovacuum has, by the time that somebody approves
    accounts = {
        team.pk: tuple(QuotaAccount.objects.filter(team=team).order_by("pk").values_list("pk", flat=True))
        for team in teams
    }
    return World(
        accounts=accounts,
        grants=tuple(grant.pk for grant in grants[::2]),
        deployments={team.pk: tuple(row.pk for row in running if row.team_id == team.pk) for team in teams},
        pending=tuple(row.latest_id for row in pending if row.latest_id),
        admin=admin.pk,
        author=author.pk,
    )


def _catalogue() -> None:
    """The engine and the model of every wish, with what the hub is known to have said, so that nobody asks it."""
    image = f"vllm/vllm-openai:v0.32.0@sha256:{'5' * 64}"
    EngineProfile.objects.create(slug=PROFILE, name="vLLM 0.32.0", version="0.32.0", image=image)
    facts = {
        "id": MODEL.removeprefix("hf://"),
        "sha": "a" * 40,
        "architecture": "Qwen2ForCausalLM",
        "dtype": "bfloat16",
        "weights_bytes": 15_231_233_024,
        "params": 7_615_616_512,
        "layers": 28,
        "heads": 28,
        "kv_heads": 4,
        "head_dim": 128,
        "hidden": 3584,
        "intermediate": 18944,
        "vocab": 152_064,
        "max_position": 32_768,
        "license": "apache-2.0",
    }
    # Answers are asked for again after minutes: this one is younger than the longest run is long.
    later = timezone.now() + timedelta(days=1)
    ModelCheck.objects.create(uri=MODEL, result="found", commit=facts["sha"], facts=facts, checked_at=later)


def _deployments(cluster: Cluster, author: User, flavor: Flavor, teams: list[Team], prefix: str) -> list[Deployment]:
    rows = Deployment.objects.bulk_create(
        Deployment(team=team, cluster=cluster, created_by=author, name=f"{prefix}-{number}")
        for number, team in enumerate(teams)
    )
    revisions = Revision.objects.bulk_create(
        Revision(
            deployment=row,
            number=1,
            spec=SPEC,
            digest=hashlib.sha256(row.name.encode()).hexdigest(),
            flavor=flavor,
            gpus=1,
            author=author,
        )
        for row in rows
    )
    for row, revision in zip(rows, revisions, strict=True):
        row.latest = revision
    Deployment.objects.bulk_update(rows, ["latest"], batch_size=1000)
    return rows


def _approve(revisions: list[Revision]) -> None:
    Approval.objects.bulk_create(
        Approval(revision=row, digest=row.digest, kind=Approval.Kind.POLICY, approved=True) for row in revisions
    )
    Revision.objects.filter(pk__in=[row.pk for row in revisions]).update(verdict=Revision.Verdict.APPROVED)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE deployments_deployment SET approved_id = latest_id WHERE latest_id = ANY(%s)",
            [[row.pk for row in revisions]],
        )

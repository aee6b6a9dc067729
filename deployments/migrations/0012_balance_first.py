"""The ledger's trigger looks at the balance before it moves the account.

Two releases at once of the same hold were told apart only after the account had moved: the second one, whose balance
is not what it thought, then failed on `reserved >= 0` without a code of ours. Now it is SQ002, as any stale balance.
"""

from importlib import import_module

from django.db import migrations

BEFORE: str = import_module("deployments.migrations.0002_ledger").POST

POST = """
CREATE OR REPLACE FUNCTION slipway_ledger_post() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    account deployments_quotaaccount%ROWTYPE;
BEGIN
    SELECT * INTO STRICT account FROM deployments_quotaaccount WHERE id = NEW.account_id FOR NO KEY UPDATE;
    IF NOT EXISTS (SELECT 1 FROM deployments_deployment WHERE id = NEW.deployment_id AND team_id = account.team_id) THEN
        RAISE EXCEPTION 'deployment % is not of the team of account %', NEW.deployment_id, account.id
            USING ERRCODE = 'SQ003';
    END IF;

    INSERT INTO deployments_quotahold (account_id, deployment_id, gpus)
        VALUES (NEW.account_id, NEW.deployment_id, 0) ON CONFLICT DO NOTHING;
    UPDATE deployments_quotahold SET gpus = gpus + NEW.delta
     WHERE account_id = NEW.account_id AND deployment_id = NEW.deployment_id
       AND gpus = NEW.balance_before AND gpus + NEW.delta >= 0;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'deployment % does not hold % of account %', NEW.deployment_id, NEW.balance_before,
            NEW.account_id USING ERRCODE = 'SQ002';
    END IF;

    -- A statement of its own, after the lock: it sees every grant committed until now.
    IF NEW.delta > 0 THEN
        UPDATE deployments_quotaaccount SET reserved = reserved + NEW.delta
         WHERE id = NEW.account_id
           AND reserved + NEW.delta <= (
               SELECT coalesce(sum(g.gpus), 0) FROM deployments_quotagrant g
                WHERE g.team_id = account.team_id AND g.flavor_id = account.flavor_id
                  AND g.valid_from <= clock_timestamp()
                  AND (g.valid_until IS NULL OR g.valid_until > clock_timestamp()));
        IF NOT FOUND THEN
            RAISE EXCEPTION 'account % cannot take % more', NEW.account_id, NEW.delta USING ERRCODE = 'SQ001';
        END IF;
    ELSE
        UPDATE deployments_quotaaccount SET reserved = reserved + NEW.delta WHERE id = NEW.account_id;
    END IF;
    RETURN NULL;
END $$;
"""
UNDO = BEFORE[: BEFORE.index("CREATE TRIGGER")].replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1)


class Migration(migrations.Migration):
    dependencies = [("deployments", "0011_children_of_tokens")]

    operations = [migrations.RunSQL(POST, UNDO)]

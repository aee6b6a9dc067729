"""The quota rules that hold whatever the application does.

The ledger (`deployments_reservation`) is the only way to move `reserved` and holds. Its trigger locks the account in
a statement of its own and reads the grants in the next one: in one statement the grants would be read from a snapshot
older than the lock, and takes would slip over a limit that was cut meanwhile. Every change of a grant updates the
account row, so that a take at REPEATABLE READ whose snapshot is older fails with 40001; a lock alone would let it by.

Error codes: SQ001 over the limit, SQ002 the balance is not what the caller thought, SQ003 not allowed at all.
"""

from django.db import migrations

POST = """
CREATE FUNCTION slipway_ledger_post() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    account deployments_quotaaccount%ROWTYPE;
    allowed bigint;
BEGIN
    SELECT * INTO STRICT account FROM deployments_quotaaccount WHERE id = NEW.account_id FOR NO KEY UPDATE;
    IF NOT EXISTS (SELECT 1 FROM deployments_deployment WHERE id = NEW.deployment_id AND team_id = account.team_id) THEN
        RAISE EXCEPTION 'deployment % is not of the team of account %', NEW.deployment_id, account.id
            USING ERRCODE = 'SQ003';
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

    INSERT INTO deployments_quotahold (account_id, deployment_id, gpus)
        VALUES (NEW.account_id, NEW.deployment_id, 0) ON CONFLICT DO NOTHING;
    UPDATE deployments_quotahold SET gpus = gpus + NEW.delta
     WHERE account_id = NEW.account_id AND deployment_id = NEW.deployment_id
       AND gpus = NEW.balance_before AND gpus + NEW.delta >= 0;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'deployment % does not hold % of account %', NEW.deployment_id, NEW.balance_before,
            NEW.account_id USING ERRCODE = 'SQ002';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER ledger_post AFTER INSERT ON deployments_reservation
    FOR EACH ROW EXECUTE FUNCTION slipway_ledger_post();
"""

# A direct change runs these at depth 1; inside the ledger's trigger they run at depth 2.
ONLY_BY_LEDGER = """
CREATE FUNCTION slipway_account_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF pg_trigger_depth() < 2 THEN
        RAISE EXCEPTION 'reserved moves only through the ledger' USING ERRCODE = 'SQ003';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER account_guard BEFORE UPDATE OF reserved, team_id, flavor_id ON deployments_quotaaccount
    FOR EACH ROW WHEN (OLD.reserved IS DISTINCT FROM NEW.reserved OR OLD.team_id <> NEW.team_id
                       OR OLD.flavor_id <> NEW.flavor_id)
    EXECUTE FUNCTION slipway_account_guard();
CREATE TRIGGER account_guard_new BEFORE INSERT ON deployments_quotaaccount
    FOR EACH ROW WHEN (NEW.reserved <> 0) EXECUTE FUNCTION slipway_account_guard();

CREATE FUNCTION slipway_hold_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF pg_trigger_depth() < 2 THEN
        RAISE EXCEPTION 'holds move only through the ledger' USING ERRCODE = 'SQ003';
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER hold_guard BEFORE INSERT OR UPDATE OR DELETE ON deployments_quotahold
    FOR EACH ROW EXECUTE FUNCTION slipway_hold_guard();
"""

GRANTS = """
CREATE FUNCTION slipway_grant_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Both accounts of a moved grant, in order of primary key.
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO deployments_quotaaccount (team_id, flavor_id, reserved, grants_version)
            VALUES (NEW.team_id, NEW.flavor_id, 0, 0) ON CONFLICT DO NOTHING;
    END IF;
    PERFORM 1 FROM deployments_quotaaccount
      WHERE (TG_OP <> 'INSERT' AND team_id = OLD.team_id AND flavor_id = OLD.flavor_id)
         OR (TG_OP <> 'DELETE' AND team_id = NEW.team_id AND flavor_id = NEW.flavor_id)
      ORDER BY id FOR NO KEY UPDATE;
    UPDATE deployments_quotaaccount SET grants_version = grants_version + 1
      WHERE (TG_OP <> 'INSERT' AND team_id = OLD.team_id AND flavor_id = OLD.flavor_id)
         OR (TG_OP <> 'DELETE' AND team_id = NEW.team_id AND flavor_id = NEW.flavor_id);
    RETURN NULL;
END $$;
CREATE TRIGGER grant_changed AFTER INSERT OR UPDATE OR DELETE ON deployments_quotagrant
    FOR EACH ROW EXECUTE FUNCTION slipway_grant_changed();
"""

UNDO = """
DROP TRIGGER grant_changed ON deployments_quotagrant;
DROP TRIGGER hold_guard ON deployments_quotahold;
DROP TRIGGER account_guard_new ON deployments_quotaaccount;
DROP TRIGGER account_guard ON deployments_quotaaccount;
DROP TRIGGER ledger_post ON deployments_reservation;
DROP FUNCTION slipway_grant_changed();
DROP FUNCTION slipway_hold_guard();
DROP FUNCTION slipway_account_guard();
DROP FUNCTION slipway_ledger_post();
"""


class Migration(migrations.Migration):
    dependencies = [("deployments", "0001_initial")]

    operations = [migrations.RunSQL(POST + ONLY_BY_LEDGER + GRANTS, UNDO)]

"""What nobody changes afterwards: events, ledger rows, approvals, and what an approval signed.

A revision's verdict moves on; everything that its digest covers does not. A deployment runs only what somebody else
than its author approved: the check is deferred to the commit, so that a service may write the rows in any order.
"""

from django.db import migrations

APPEND_ONLY = """
CREATE FUNCTION slipway_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append only', TG_TABLE_NAME USING ERRCODE = 'SQ003';
END $$;
CREATE TRIGGER event_append_only BEFORE UPDATE OR DELETE ON deployments_event
    FOR EACH ROW EXECUTE FUNCTION slipway_append_only();
CREATE TRIGGER ledger_append_only BEFORE UPDATE OR DELETE ON deployments_reservation
    FOR EACH ROW EXECUTE FUNCTION slipway_append_only();
CREATE TRIGGER approval_append_only BEFORE UPDATE OR DELETE ON deployments_approval
    FOR EACH ROW EXECUTE FUNCTION slipway_append_only();
CREATE TRIGGER revision_stays BEFORE DELETE ON deployments_revision
    FOR EACH ROW EXECUTE FUNCTION slipway_append_only();
CREATE TRIGGER revision_signed BEFORE UPDATE ON deployments_revision
    FOR EACH ROW WHEN (
        (OLD.deployment_id, OLD.number, OLD.spec, OLD.resolution, OLD.objects_json, OLD.digest, OLD.flavor_id, OLD.gpus,
         OLD.surge, OLD.guarded, OLD.author_id)
        IS DISTINCT FROM
        (NEW.deployment_id, NEW.number, NEW.spec, NEW.resolution, NEW.objects_json, NEW.digest, NEW.flavor_id, NEW.gpus,
         NEW.surge, NEW.guarded, NEW.author_id))
    EXECUTE FUNCTION slipway_append_only();
"""

SECOND_PERSON = """
CREATE FUNCTION slipway_second_person() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.approved AND EXISTS (
        SELECT 1 FROM deployments_revision r
         WHERE r.id = NEW.revision_id AND (r.author_id = NEW.actor_id OR r.digest <> NEW.digest)) THEN
        RAISE EXCEPTION 'an approval needs a second person and the digest of its revision' USING ERRCODE = 'SQ003';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER approval_second_person BEFORE INSERT ON deployments_approval
    FOR EACH ROW EXECUTE FUNCTION slipway_second_person();

CREATE FUNCTION slipway_runs_approved() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT 1 FROM deployments_revision r JOIN deployments_approval a ON a.revision_id = r.id
         WHERE r.id = NEW.approved_id AND r.deployment_id = NEW.id AND a.approved AND a.digest = r.digest) THEN
        RAISE EXCEPTION 'revision % has no approval', NEW.approved_id USING ERRCODE = 'SQ003';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER deployment_runs_approved AFTER INSERT OR UPDATE OF approved_id ON deployments_deployment
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.approved_id IS NOT NULL) EXECUTE FUNCTION slipway_runs_approved();
"""

UNDO = """
DROP TRIGGER deployment_runs_approved ON deployments_deployment;
DROP TRIGGER approval_second_person ON deployments_approval;
DROP TRIGGER revision_signed ON deployments_revision;
DROP TRIGGER revision_stays ON deployments_revision;
DROP TRIGGER approval_append_only ON deployments_approval;
DROP TRIGGER ledger_append_only ON deployments_reservation;
DROP TRIGGER event_append_only ON deployments_event;
DROP FUNCTION slipway_runs_approved();
DROP FUNCTION slipway_second_person();
DROP FUNCTION slipway_append_only();
"""


class Migration(migrations.Migration):
    dependencies = [("deployments", "0002_ledger")]

    operations = [migrations.RunSQL(APPEND_ONLY + SECOND_PERSON, UNDO)]

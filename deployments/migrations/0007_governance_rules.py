"""What holds in the database of emergencies and of decided requests for quota.

In an emergency an author may approve, with a second admin: both are platform admins, and they are two. A request for
quota that was decided stays as it was decided.
"""

from importlib import import_module

from django.db import migrations

# The rule for every other kind of approval, as it was.
ORDINARY = import_module("deployments.migrations.0005_second_person").SECOND_PERSON

EMERGENCY = ORDINARY.replace(
    """    IF NOT NEW.approved THEN
        RETURN NEW;
    END IF;
""",
    """    IF NOT NEW.approved THEN
        RETURN NEW;
    END IF;
    IF NEW.kind = 'emergency' THEN
        IF (SELECT count(*) FROM deployments_user u WHERE u.id IN (NEW.actor_id, NEW.second_id)
               AND u.is_active AND u.is_platform_admin) <> 2
           OR NOT EXISTS (
            SELECT 1 FROM deployments_revision r WHERE r.id = NEW.revision_id AND r.digest = NEW.digest) THEN
            RAISE EXCEPTION 'an emergency needs two admins and the digest of its revision' USING ERRCODE = 'SQ003';
        END IF;
        RETURN NEW;
    END IF;
""",
)

DECIDED = """
CREATE TRIGGER quota_request_decided BEFORE UPDATE ON deployments_quotarequest
    FOR EACH ROW WHEN (OLD.state <> 'pending') EXECUTE FUNCTION slipway_append_only();
CREATE TRIGGER quota_request_stays BEFORE DELETE ON deployments_quotarequest
    FOR EACH ROW EXECUTE FUNCTION slipway_append_only();
CREATE TRIGGER quota_request_asked BEFORE UPDATE ON deployments_quotarequest
    FOR EACH ROW WHEN (
        (OLD.team_id, OLD.flavor_id, OLD.gpus, OLD.valid_from, OLD.valid_until, OLD.why, OLD.author_id)
        IS DISTINCT FROM
        (NEW.team_id, NEW.flavor_id, NEW.gpus, NEW.valid_from, NEW.valid_until, NEW.why, NEW.author_id))
    EXECUTE FUNCTION slipway_append_only();
CREATE TRIGGER not_emptied BEFORE TRUNCATE ON deployments_quotarequest
    FOR EACH STATEMENT EXECUTE FUNCTION slipway_not_emptied();
"""
UNDECIDED = """
DROP TRIGGER not_emptied ON deployments_quotarequest;
DROP TRIGGER quota_request_asked ON deployments_quotarequest;
DROP TRIGGER quota_request_stays ON deployments_quotarequest;
DROP TRIGGER quota_request_decided ON deployments_quotarequest;
"""


class Migration(migrations.Migration):
    dependencies = [("deployments", "0006_governance")]

    operations = [migrations.RunSQL(EMERGENCY, ORDINARY), migrations.RunSQL(DECIDED, UNDECIDED)]

"""The second person, and rows that stay, once more without the ways around them.

An approval of revision 3 signs what revision 2 wrote too, when that was never approved: nobody who wrote any revision
since the last one approved may approve. Without an actor only policy approves. Tables whose rows stay are not emptied
either, but in the tests' database: Django truncates it after each test that commits, so their connections alone say
`slipway.may_truncate = on`.
"""

from django.db import migrations, models
from django.db.models import Q

SECOND_PERSON = """
CREATE OR REPLACE FUNCTION slipway_second_person() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT NEW.approved THEN
        RETURN NEW;
    END IF;
    IF NOT EXISTS (
        SELECT 1 FROM deployments_revision r WHERE r.id = NEW.revision_id AND r.digest = NEW.digest) OR EXISTS (
        SELECT 1 FROM deployments_revision r
          JOIN deployments_revision w ON w.deployment_id = r.deployment_id AND w.number <= r.number
         WHERE r.id = NEW.revision_id AND w.author_id = NEW.actor_id
           AND w.number > coalesce((
               SELECT max(b.number) FROM deployments_revision b JOIN deployments_approval a ON a.revision_id = b.id
                WHERE b.deployment_id = r.deployment_id AND b.number < r.number AND a.approved), 0)) THEN
        RAISE EXCEPTION 'an approval needs a second person and the digest of its revision' USING ERRCODE = 'SQ003';
    END IF;
    RETURN NEW;
END $$;
"""

BEFORE = """
CREATE OR REPLACE FUNCTION slipway_second_person() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.approved AND EXISTS (
        SELECT 1 FROM deployments_revision r
         WHERE r.id = NEW.revision_id AND (r.author_id = NEW.actor_id OR r.digest <> NEW.digest)) THEN
        RAISE EXCEPTION 'an approval needs a second person and the digest of its revision' USING ERRCODE = 'SQ003';
    END IF;
    RETURN NEW;
END $$;
"""

STAYING = ("event", "reservation", "approval", "revision", "quotahold")
NOT_EMPTIED = """
CREATE FUNCTION slipway_not_emptied() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF coalesce(current_setting('slipway.may_truncate', true), '') <> 'on' THEN
        RAISE EXCEPTION '% is append only', TG_TABLE_NAME USING ERRCODE = 'SQ003';
    END IF;
    RETURN NULL;
END $$;
""" + "".join(
    f"CREATE TRIGGER not_emptied BEFORE TRUNCATE ON deployments_{table}"
    " FOR EACH STATEMENT EXECUTE FUNCTION slipway_not_emptied();\n"
    for table in STAYING
)
EMPTIED = "".join(f"DROP TRIGGER not_emptied ON deployments_{table};\n" for table in STAYING)
EMPTIED += "DROP FUNCTION slipway_not_emptied();\n"


class Migration(migrations.Migration):
    dependencies = [("deployments", "0004_stamps")]

    operations = [
        migrations.AddConstraint(
            "approval",
            models.CheckConstraint(
                condition=Q(kind="policy") | Q(actor__isnull=False), name="approval_by_policy_or_somebody"
            ),
        ),
        migrations.RunSQL(SECOND_PERSON, BEFORE),
        migrations.RunSQL(NOT_EMPTIED, EMPTIED),
    ]

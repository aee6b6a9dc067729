"""Events say where they came from, and batches of them are sealed."""

import django.db.models.functions.datetime
from django.db import migrations, models

STAYS = """
CREATE TRIGGER seal_append_only BEFORE UPDATE OR DELETE ON deployments_auditseal
    FOR EACH ROW EXECUTE FUNCTION slipway_append_only();
CREATE TRIGGER not_emptied BEFORE TRUNCATE ON deployments_auditseal
    FOR EACH STATEMENT EXECUTE FUNCTION slipway_not_emptied();
"""
UNDO = """
DROP TRIGGER seal_append_only ON deployments_auditseal;
DROP TRIGGER not_emptied ON deployments_auditseal;
"""


class Migration(migrations.Migration):
    dependencies = [("deployments", "0013_catalogue")]

    operations = [
        migrations.AddField(
            "event", "address", models.CharField(blank=True, db_default="", default="", max_length=45)
        ),
        migrations.CreateModel(
            "AuditSeal",
            [
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("first", models.BigIntegerField()),
                ("last", models.BigIntegerField(unique=True)),
                ("entries", models.BinaryField()),
                ("digest", models.CharField(max_length=64)),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={"ordering": ["pk"]},
        ),
        migrations.RunSQL(STAYS, UNDO),
    ]

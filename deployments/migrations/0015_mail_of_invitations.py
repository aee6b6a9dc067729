"""The mail of an invitation is sent by a worker, which needs its word until then."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("deployments", "0014_audit_seals")]

    operations = [
        migrations.AddField("invitation", "mail_due", models.BooleanField(db_default=False, default=False)),
        migrations.AddField("invitation", "mail_failures", models.PositiveSmallIntegerField(db_default=0, default=0)),
        migrations.AddField("invitation", "mailed_at", models.DateTimeField(blank=True, null=True)),
        migrations.AddField("invitation", "mail_word", models.TextField(blank=True, db_default="", default="")),
        migrations.AddIndex(
            "invitation",
            models.Index(condition=models.Q(("mail_due", True)), fields=["id"], name="invitation_unsent"),
        ),
    ]

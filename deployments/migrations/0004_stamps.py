"""When something was last wished or reserved, by the clock of the database: what a list of pods is compared with."""

from django.db import migrations, models
from django.db.models.functions import Now


class Migration(migrations.Migration):
    dependencies = [("deployments", "0003_append_only")]

    operations = [
        migrations.AddField("deployment", "wanted_at", models.DateTimeField(db_default=Now())),
        migrations.AlterField("reservation", "created_at", models.DateTimeField(db_default=Now())),
    ]

"""The catalogue holds settings per kind of GPU, the shape they were made for, and what admins pinned."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("deployments", "0012_balance_first")]

    operations = [
        migrations.AlterModelOptions("catalogentry", options={"ordering": ["-pinned", "position", "name"]}),
        migrations.AddField(
            "catalogentry",
            "revision",
            models.CharField(blank=True, default="", help_text="Commit that the presets were made for", max_length=128),
            preserve_default=False,
        ),
        migrations.AddField(
            "catalogentry",
            "context",
            models.PositiveIntegerField(blank=True, help_text="Tokens that the model was trained for", null=True),
        ),
        migrations.AddField("catalogentry", "capabilities", models.JSONField(default=list)),
        migrations.AddField("catalogentry", "presets", models.JSONField(default=list)),
        migrations.AddField("catalogentry", "facts", models.JSONField(default=dict)),
        migrations.AddField("catalogentry", "pinned", models.BooleanField(default=False)),
    ]

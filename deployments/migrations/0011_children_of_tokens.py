"""Tokens and endpoint keys remember the API token that made them: revoked, it takes them with it.

Keys that took each other's place use one set of limits.
"""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("deployments", "0010_sign_ins")]

    operations = [
        migrations.AddField(
            "apitoken",
            "parent",
            models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="children",
                to="deployments.apitoken",
            ),
        ),
        migrations.AddField(
            "endpointkey",
            "made_by_token",
            models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="endpoint_keys",
                to="deployments.apitoken",
            ),
        ),
        migrations.AddField(
            "endpointkey",
            "counted_with",
            models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="deployments.endpointkey",
            ),
        ),
    ]

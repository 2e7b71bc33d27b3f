"""The index of the next release, which is built while processes of the old release write to the table."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("fleet", "9001_next_release")]
    operations = [
        AddIndexConcurrently("agent", models.Index(fields=["next_release"], name="fleet_agent_next_release"))
    ]

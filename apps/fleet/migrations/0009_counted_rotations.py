"""Count the rotations of an agent's key by the agent itself."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('fleet', '0008_found_by_name'),
    ]

    operations = [
        migrations.AddField(
            model_name='agentkey',
            name='counts_as_rotation',
            field=models.BooleanField(db_default=False, default=False, editable=False),
        ),
    ]

"""Give the columns that were added during the development of release 0.1.0 a default in the database.

Processes of an earlier revision, which do not know the columns, can then still insert rows.
"""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('artifacts', '0020_newest_of_agents'),
    ]

    operations = [
        migrations.AlterField(
            model_name='fixture',
            name='also_expected',
            field=models.JSONField(db_default=[], default=list),
        ),
        migrations.AlterField(
            model_name='fixture',
            name='also_golden',
            field=models.JSONField(db_default=[], default=list),
        ),
        migrations.AlterField(
            model_name='verdict',
            name='example_bytes',
            field=models.PositiveIntegerField(db_default=0, default=0),
        ),
    ]

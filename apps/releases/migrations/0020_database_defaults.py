"""Give the columns that were added during the development of release 0.1.0 a default in the database.

Processes of an earlier revision, which do not know the columns, can then still insert rows.
"""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('releases', '0019_found_by_words'),
    ]

    operations = [
        migrations.AlterField(
            model_name='approval',
            name='explain',
            field=models.JSONField(db_default=[], default=list),
        ),
        migrations.AlterField(
            model_name='approval',
            name='reviewers',
            field=models.JSONField(db_default=[], default=list),
        ),
        migrations.AlterField(
            model_name='deployment',
            name='explain',
            field=models.JSONField(db_default=[], default=list),
        ),
        migrations.AlterField(
            model_name='deployment',
            name='replay_gate_override',
            field=models.TextField(blank=True, db_default='', default=''),
        ),
        migrations.AlterField(
            model_name='deployment',
            name='reviewers',
            field=models.JSONField(db_default=[], default=list),
        ),
        migrations.AlterField(
            model_name='regression',
            name='fixtures_removed',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        migrations.AlterField(
            model_name='regression',
            name='fixtures_revision',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        migrations.AlterField(
            model_name='regression',
            name='of_current',
            field=models.BooleanField(db_default=False, default=False),
        ),
        migrations.AlterField(
            model_name='regression',
            name='outcomes',
            field=models.JSONField(db_default={}, default=dict),
        ),
    ]

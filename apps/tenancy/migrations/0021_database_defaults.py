"""Give the columns that were added during the development of release 0.1.0 a default in the database.

Processes of an earlier revision, which do not know the columns, can then still insert rows.
"""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('tenancy', '0020_waiting_jobs_by_task'),
    ]

    operations = [
        migrations.AlterField(
            model_name='environment',
            name='position',
            field=models.PositiveIntegerField(db_default=1),
        ),
    ]

"""Give the waiting and dead checks of older releases the ``serial`` key by which an artifact finds its obstacles."""

from django.db import migrations


class Migration(migrations.Migration):

    dependencies = [
        ('artifacts', '0009_filtered_lists'),
        ('tenancy', '0009_job_troubles'),
    ]

    operations = [
        migrations.RunSQL(
            """
            UPDATE procrastinate_jobs SET lock = args->>'artifact_id'
            WHERE task_name = 'artifacts.ingest' AND lock IS NULL AND status IN ('todo', 'failed');
            """,
            migrations.RunSQL.noop,
        ),
    ]

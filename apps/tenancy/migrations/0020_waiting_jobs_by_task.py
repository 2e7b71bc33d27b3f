"""Let workers skip the waiting jobs of a task that they do not know without reading them.

The index of waiting jobs gets the task after the queue and the person.
"""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("tenancy", "0019_device_sign_ins")]
    operations = [
        migrations.RunSQL(
            """
            DROP INDEX byteor_jobs_waiting;
            CREATE INDEX byteor_jobs_waiting
                ON procrastinate_jobs (queue_name COLLATE "C", byteor_person, task_name, id) WHERE status = 'todo';
            """,
            """
            DROP INDEX byteor_jobs_waiting;
            CREATE INDEX byteor_jobs_waiting ON procrastinate_jobs (queue_name COLLATE "C", byteor_person, id)
                WHERE status = 'todo';
            """,
        )
    ]

"""Store the person behind each job, so that one person does not hold the slots of a lane with several organizations.

The index of waiting jobs begins with the queue and the person, since the worker looks for the oldest job of each pair.
Jobs of the previous release, and jobs that it enqueues during the upgrade, have no person.
"""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("tenancy", "0011_hosts"), ("procrastinate", "0041_post_retry_failed_job")]
    operations = [
        migrations.RunSQL(
            """
            ALTER TABLE procrastinate_jobs ADD COLUMN byteor_person text COLLATE "C" NOT NULL DEFAULT '';
            DROP INDEX byteor_jobs_waiting;
            CREATE INDEX byteor_jobs_waiting ON procrastinate_jobs (queue_name COLLATE "C", byteor_person, id)
                WHERE status = 'todo';
            """,
            """
            UPDATE procrastinate_jobs SET queue_name = 'replay:' || split_part(queue_name, ':', 2)
                WHERE queue_name LIKE 'longrun:%%';
            DROP INDEX byteor_jobs_waiting;
            ALTER TABLE procrastinate_jobs DROP COLUMN byteor_person;
            CREATE INDEX byteor_jobs_waiting ON procrastinate_jobs (queue_name COLLATE "C", id) WHERE status = 'todo';
            """,
        )
    ]

"""Count how often each job failed, was killed and met an outage. Name each queue after a lane and an organization.

The columns have a prefix, because the table belongs to procrastinate. Its functions name the columns that they write,
so the additional columns do not disturb them.
"""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("tenancy", "0008_makers_of_older_keys"), ("procrastinate", "0041_post_retry_failed_job")]
    operations = [
        migrations.RunSQL(
            """
            ALTER TABLE procrastinate_jobs
                ADD COLUMN byteor_errors integer NOT NULL DEFAULT 0,
                ADD COLUMN byteor_kills integer NOT NULL DEFAULT 0,
                ADD COLUMN byteor_outages integer NOT NULL DEFAULT 0,
                ADD COLUMN byteor_error text NOT NULL DEFAULT '';
            CREATE INDEX byteor_jobs_waiting ON procrastinate_jobs (queue_name COLLATE "C", id) WHERE status = 'todo';
            CREATE INDEX byteor_jobs_serial ON procrastinate_jobs (lock, id) WHERE status IN ('todo', 'doing');
            CREATE INDEX byteor_jobs_running ON procrastinate_jobs (worker_id) WHERE status = 'doing';
            CREATE INDEX byteor_jobs_dead ON procrastinate_jobs (lock, task_name) WHERE status = 'failed';
            UPDATE procrastinate_jobs SET queue_name = CASE
                WHEN task_name LIKE 'releases.%%' AND task_name <> 'releases.sweep' THEN 'release'
                WHEN task_name IN ('artifacts.ingest', 'artifacts.replay_decided') THEN 'ingest'
                WHEN task_name = 'artifacts.replay' THEN 'replay'
                WHEN task_name = 'tenancy.deliver_webhooks' THEN 'webhook'
                WHEN task_name LIKE 'tenancy.purge_%%' THEN 'cleanup'
                ELSE 'housekeeping' END || ':installation';
            """,
            """
            DROP INDEX byteor_jobs_waiting, byteor_jobs_serial, byteor_jobs_running, byteor_jobs_dead;
            ALTER TABLE procrastinate_jobs DROP COLUMN byteor_errors, DROP COLUMN byteor_kills,
                DROP COLUMN byteor_outages, DROP COLUMN byteor_error;
            UPDATE procrastinate_jobs SET queue_name = CASE
                WHEN task_name = 'tenancy.deliver_webhooks' THEN 'outbound' ELSE 'default' END;
            """,
        )
    ]

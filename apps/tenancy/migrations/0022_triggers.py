"""Create the triggers of the audit trail and of use counts, and extend procrastinate's table of jobs.

It also runs in databases in which the replaced migrations have created them. So each statement can be repeated.
"""

from django.db import migrations

# The audit tables are append-only.
APPEND_ONLY = """
CREATE OR REPLACE FUNCTION byteor_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% of % is refused: its rows are immutable', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE OR REPLACE TRIGGER tenancy_auditevent_append_only BEFORE UPDATE OR DELETE ON tenancy_auditevent
    FOR EACH ROW EXECUTE FUNCTION byteor_refuse_change();
CREATE OR REPLACE TRIGGER tenancy_auditseal_append_only BEFORE UPDATE OR DELETE ON tenancy_auditseal
    FOR EACH ROW EXECUTE FUNCTION byteor_refuse_change();
CREATE OR REPLACE TRIGGER tenancy_auditevent_no_truncate BEFORE TRUNCATE ON tenancy_auditevent
    FOR EACH STATEMENT EXECUTE FUNCTION byteor_refuse_change();
CREATE OR REPLACE TRIGGER tenancy_auditseal_no_truncate BEFORE TRUNCATE ON tenancy_auditseal
    FOR EACH STATEMENT EXECUTE FUNCTION byteor_refuse_change();
-- The triggers must also run in sessions with ``session_replication_role = replica``.
ALTER TABLE tenancy_auditevent ENABLE ALWAYS TRIGGER tenancy_auditevent_append_only;
ALTER TABLE tenancy_auditseal ENABLE ALWAYS TRIGGER tenancy_auditseal_append_only;
ALTER TABLE tenancy_auditevent ENABLE ALWAYS TRIGGER tenancy_auditevent_no_truncate;
ALTER TABLE tenancy_auditseal ENABLE ALWAYS TRIGGER tenancy_auditseal_no_truncate;
"""

# A crash may empty the rate counters.
RATE_COUNTERS = """
ALTER TABLE tenancy_ratecounter SET UNLOGGED;
"""

# While an environment is deleted, other triggers insert changes of its counts. Delete these changes after it.
USE = """
CREATE OR REPLACE FUNCTION tenancy_forget_use() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM tenancy_usecount WHERE environment_id = OLD.id;
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER tenancy_environment_forget_use AFTER DELETE ON tenancy_environment
    FOR EACH ROW EXECUTE FUNCTION tenancy_forget_use();
"""

# The columns count how often each job failed, was killed and met an outage, and name the person behind it. They have a
# prefix, because the table belongs to procrastinate. Its functions name the columns that they write, so the additional
# columns do not disturb them. The worker looks for the oldest waiting job of each queue and person.
JOBS = """
ALTER TABLE procrastinate_jobs
    ADD COLUMN IF NOT EXISTS byteor_errors integer NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS byteor_kills integer NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS byteor_outages integer NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS byteor_error text NOT NULL DEFAULT '',
    ADD COLUMN IF NOT EXISTS byteor_person text COLLATE "C" NOT NULL DEFAULT '';
CREATE INDEX IF NOT EXISTS byteor_jobs_waiting ON procrastinate_jobs (queue_name COLLATE "C", byteor_person, task_name, id)
    WHERE status = 'todo';
CREATE INDEX IF NOT EXISTS byteor_jobs_serial ON procrastinate_jobs (lock, id) WHERE status IN ('todo', 'doing');
CREATE INDEX IF NOT EXISTS byteor_jobs_running ON procrastinate_jobs (worker_id) WHERE status = 'doing';
CREATE INDEX IF NOT EXISTS byteor_jobs_dead ON procrastinate_jobs (lock, task_name) WHERE status = 'failed';
"""


class Migration(migrations.Migration):

    dependencies = [
        ('tenancy', '0001_squashed_0021_database_defaults'),
        ('procrastinate', '0041_post_retry_failed_job'),
    ]

    operations = [migrations.RunSQL([APPEND_ONLY, RATE_COUNTERS, USE, JOBS], migrations.RunSQL.noop)]

"""Create the triggers that make config bundles immutable and count progress and stored bytes.

It also runs in databases in which the replaced migrations have created them. So each statement can be repeated.
"""

from django.db import migrations

IMMUTABLE = """
CREATE OR REPLACE TRIGGER releases_configbundle_immutable BEFORE UPDATE ON releases_configbundle
    FOR EACH ROW EXECUTE FUNCTION byteor_refuse_change();
"""

# Each row is updated a few times soon after it was inserted. With free space on its page, an update changes no index.
FREE_SPACE = """
ALTER TABLE releases_deploymentagent SET (fillfactor = 50);
"""

# Count the agents of each deployment by progress. The triggers only insert, and no transaction waits for a new row, so
# that reports of different agents do not wait for each other.
PROGRESS = """
CREATE OR REPLACE FUNCTION releases_count_progress() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO releases_progresscount (deployment_id, wave, counted, progress, count)
            SELECT deployment_id, wave, counted, progress, -count(*) FROM old_rows GROUP BY 1, 2, 3, 4;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO releases_progresscount (deployment_id, wave, counted, progress, count)
            SELECT deployment_id, wave, counted, progress, count(*) FROM new_rows GROUP BY 1, 2, 3, 4;
    END IF;
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER releases_deploymentagent_enlisted AFTER INSERT ON releases_deploymentagent
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION releases_count_progress();
CREATE OR REPLACE TRIGGER releases_deploymentagent_progressed AFTER UPDATE ON releases_deploymentagent
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION releases_count_progress();
CREATE OR REPLACE TRIGGER releases_deploymentagent_removed AFTER DELETE ON releases_deploymentagent
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION releases_count_progress();
CREATE OR REPLACE FUNCTION releases_forget_progress() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM releases_progresscount WHERE deployment_id = OLD.id;
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER releases_deployment_removed AFTER DELETE ON releases_deployment
    FOR EACH ROW EXECUTE FUNCTION releases_forget_progress();
"""

# Count the bytes of each environment's deploy bundles, for quotas and usage. Each bundle names its deployment, so that
# no two deployments share one. Deployments are deleted only together with their environment, whose counts go with it.
BUNDLES = """
CREATE OR REPLACE FUNCTION releases_count_bundle() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO tenancy_usecount (environment_id, kind, count)
        SELECT NEW.environment_id, 'stored_bytes', coalesce(NEW.bundle_size, 0) - coalesce(OLD.bundle_size, 0)
        WHERE NEW.bundle_size IS DISTINCT FROM OLD.bundle_size;  -- before an INSERT, there is no OLD
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER releases_deployment_count_bundle AFTER INSERT OR UPDATE OF bundle_size ON releases_deployment
    FOR EACH ROW EXECUTE FUNCTION releases_count_bundle();
"""


class Migration(migrations.Migration):

    dependencies = [
        ('releases', '0001_squashed_0020_database_defaults'),
        ('tenancy', '0022_triggers'),
    ]

    operations = [migrations.RunSQL([IMMUTABLE, FREE_SPACE, PROGRESS, BUNDLES], migrations.RunSQL.noop)]

"""Create the triggers that note unreferenced blobs and count uploads, stored bytes, captures and replays.

It also runs in databases in which the replaced migrations have created them. So each statement can be repeated.
"""

from django.db import migrations

# List a blob when its last row is deleted, so that the retention job need not search the blob store.
BLOBS = """
CREATE OR REPLACE FUNCTION artifacts_note_unreferenced() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format(
        'INSERT INTO artifacts_unreferencedblob (content_hash, since)
         SELECT DISTINCT %1$I, now() FROM gone WHERE %1$I IS NOT NULL ORDER BY 1
         ON CONFLICT (content_hash) DO UPDATE SET since = EXCLUDED.since', TG_ARGV[0]);
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER artifacts_artifact_note_unreferenced AFTER DELETE ON artifacts_artifact
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION artifacts_note_unreferenced('content_hash');
CREATE OR REPLACE TRIGGER releases_deployment_note_unreferenced AFTER DELETE ON releases_deployment
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION artifacts_note_unreferenced('bundle_hash');
"""

# Count for quotas and usage. An artifact counts with its own bytes and with what is derived from them, even if another
# artifact has the same content.
UPLOADS = """
CREATE OR REPLACE FUNCTION artifacts_count_upload() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO tenancy_usecount (environment_id, organization_id, kind, since, count)
        SELECT CASE WHEN period IS NULL THEN environment.id END,
            CASE WHEN period IS NOT NULL THEN project.organization_id END,
            counted.kind, date_trunc(period, NEW.created_at, 'UTC') AT TIME ZONE 'UTC', counted.count
        FROM tenancy_environment AS environment JOIN tenancy_project AS project ON project.id = environment.project_id
            CROSS JOIN (
                VALUES ('stored_bytes', NULL, NEW.size_bytes + NEW.derived_bytes),
                    ('uploaded_bytes', 'month', NEW.size_bytes),
                    ('captures', 'day', 1)
            ) AS counted (kind, period, count)
        WHERE environment.id = NEW.environment_id AND (counted.kind <> 'captures' OR NEW.kind = 'incident_bundle');
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION artifacts_count_derived() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO tenancy_usecount (environment_id, kind, count)
        VALUES (NEW.environment_id, 'stored_bytes', NEW.derived_bytes - OLD.derived_bytes);
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION artifacts_count_removed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO tenancy_usecount (environment_id, kind, count)
        SELECT environment_id, 'stored_bytes', -sum(size_bytes + derived_bytes) FROM removed GROUP BY 1;
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION artifacts_count_replay() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO tenancy_usecount (organization_id, kind, since, count)
        SELECT project.organization_id, 'replays', date_trunc('month', NEW.created_at, 'UTC') AT TIME ZONE 'UTC', 1
        FROM tenancy_environment AS environment JOIN tenancy_project AS project ON project.id = environment.project_id
        WHERE environment.id = NEW.environment_id;
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER artifacts_artifact_count_upload AFTER INSERT ON artifacts_artifact
    FOR EACH ROW EXECUTE FUNCTION artifacts_count_upload();
CREATE OR REPLACE TRIGGER artifacts_artifact_count_derived AFTER UPDATE ON artifacts_artifact
    FOR EACH ROW WHEN (OLD.derived_bytes <> NEW.derived_bytes) EXECUTE FUNCTION artifacts_count_derived();
CREATE OR REPLACE TRIGGER artifacts_artifact_count_removed AFTER DELETE ON artifacts_artifact
    REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION artifacts_count_removed();
CREATE OR REPLACE TRIGGER artifacts_replay_count AFTER INSERT ON artifacts_replay
    FOR EACH ROW EXECUTE FUNCTION artifacts_count_replay();
"""


class Migration(migrations.Migration):

    dependencies = [
        ('artifacts', '0001_squashed_0021_database_defaults'),
        ('releases', '0001_squashed_0020_database_defaults'),
        ('tenancy', '0022_triggers'),
    ]

    operations = [migrations.RunSQL([BLOBS, UPLOADS], migrations.RunSQL.noop)]

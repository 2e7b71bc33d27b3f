"""Count stored bytes, uploads, captures and replays by triggers, for quotas and usage.

An artifact counts with its own bytes and with what is derived from them, also if another artifact has the same content.
What was uploaded and replayed before this migration is not counted: retention has removed a part of it.
"""

from django.db import migrations

TRIGGERS = """
CREATE FUNCTION artifacts_count_upload() RETURNS trigger LANGUAGE plpgsql AS $$
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
CREATE FUNCTION artifacts_count_derived() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO tenancy_usecount (environment_id, kind, count)
        VALUES (NEW.environment_id, 'stored_bytes', NEW.derived_bytes - OLD.derived_bytes);
    RETURN NULL;
END $$;
CREATE FUNCTION artifacts_count_removed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO tenancy_usecount (environment_id, kind, count)
        SELECT environment_id, 'stored_bytes', -sum(size_bytes + derived_bytes) FROM removed GROUP BY 1;
    RETURN NULL;
END $$;
CREATE FUNCTION artifacts_count_replay() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO tenancy_usecount (organization_id, kind, since, count)
        SELECT project.organization_id, 'replays', date_trunc('month', NEW.created_at, 'UTC') AT TIME ZONE 'UTC', 1
        FROM tenancy_environment AS environment JOIN tenancy_project AS project ON project.id = environment.project_id
        WHERE environment.id = NEW.environment_id;
    RETURN NULL;
END $$;
CREATE TRIGGER artifacts_artifact_count_upload AFTER INSERT ON artifacts_artifact
    FOR EACH ROW EXECUTE FUNCTION artifacts_count_upload();
CREATE TRIGGER artifacts_artifact_count_derived AFTER UPDATE ON artifacts_artifact
    FOR EACH ROW WHEN (OLD.derived_bytes <> NEW.derived_bytes) EXECUTE FUNCTION artifacts_count_derived();
CREATE TRIGGER artifacts_artifact_count_removed AFTER DELETE ON artifacts_artifact
    REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION artifacts_count_removed();
CREATE TRIGGER artifacts_replay_count AFTER INSERT ON artifacts_replay
    FOR EACH ROW EXECUTE FUNCTION artifacts_count_replay();
"""
# What the triggers would have counted. They lock the tables until this transaction ends, so that no change is missed.
PRESENT = """
INSERT INTO tenancy_usecount (environment_id, kind, count)
    SELECT environment_id, 'stored_bytes', sum(size_bytes + derived_bytes) FROM artifacts_artifact GROUP BY 1;
"""
BACKWARD = """
INSERT INTO tenancy_usecount (environment_id, kind, count)
    SELECT environment_id, 'stored_bytes', -sum(size_bytes + derived_bytes) FROM artifacts_artifact GROUP BY 1;
DROP FUNCTION artifacts_count_upload() CASCADE;
DROP FUNCTION artifacts_count_derived() CASCADE;
DROP FUNCTION artifacts_count_removed() CASCADE;
DROP FUNCTION artifacts_count_replay() CASCADE;
DELETE FROM tenancy_usecount WHERE kind IN ('uploaded_bytes', 'captures', 'replays');
"""


class Migration(migrations.Migration):
    dependencies = [("artifacts", "0012_count_kept_folders"), ("tenancy", "0014_quotas")]
    operations = [migrations.RunSQL([TRIGGERS, PRESENT], BACKWARD)]

"""Count the drafts of each environment by triggers, for quotas and usage."""

from django.db import migrations

TRIGGERS = """
CREATE FUNCTION pipelines_count_drafts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO tenancy_usecount (environment_id, kind, count)
        SELECT environment_id, 'drafts', CASE TG_OP WHEN 'INSERT' THEN count(*) ELSE -count(*) END
        FROM changed GROUP BY 1;
    RETURN NULL;
END $$;
CREATE TRIGGER pipelines_draft_added AFTER INSERT ON pipelines_draft
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION pipelines_count_drafts();
CREATE TRIGGER pipelines_draft_removed AFTER DELETE ON pipelines_draft
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION pipelines_count_drafts();
"""
# What the triggers would have counted. They lock the table until this transaction ends, so that no change is missed.
PRESENT = """
INSERT INTO tenancy_usecount (environment_id, kind, count)
    SELECT environment_id, 'drafts', count(*) FROM pipelines_draft GROUP BY 1;
"""
BACKWARD = """
DROP FUNCTION pipelines_count_drafts() CASCADE;
DELETE FROM tenancy_usecount WHERE kind = 'drafts';
"""


class Migration(migrations.Migration):
    dependencies = [("pipelines", "0003_found_by_name"), ("tenancy", "0014_quotas")]
    operations = [migrations.RunSQL([TRIGGERS, PRESENT], BACKWARD)]

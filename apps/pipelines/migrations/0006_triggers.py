"""Create the triggers that make versions immutable and count drafts.

It also runs in databases in which the replaced migrations have created them. So each statement can be repeated.
"""

from django.db import migrations

IMMUTABLE = """
CREATE OR REPLACE TRIGGER pipelines_version_immutable BEFORE UPDATE ON pipelines_version
    FOR EACH ROW EXECUTE FUNCTION byteor_refuse_change();
"""

# Count the drafts of each environment, for quotas and usage.
DRAFTS = """
CREATE OR REPLACE FUNCTION pipelines_count_drafts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO tenancy_usecount (environment_id, kind, count)
        SELECT environment_id, 'drafts', CASE TG_OP WHEN 'INSERT' THEN count(*) ELSE -count(*) END
        FROM changed GROUP BY 1;
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER pipelines_draft_added AFTER INSERT ON pipelines_draft
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION pipelines_count_drafts();
CREATE OR REPLACE TRIGGER pipelines_draft_removed AFTER DELETE ON pipelines_draft
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION pipelines_count_drafts();
"""


class Migration(migrations.Migration):

    dependencies = [
        ('pipelines', '0001_squashed_0005_found_by_words'),
        ('tenancy', '0022_triggers'),
    ]

    operations = [migrations.RunSQL([IMMUTABLE, DRAFTS], migrations.RunSQL.noop)]

"""Count the bytes of each environment's deploy bundles by triggers, for quotas and usage.

Each bundle names its deployment, so that no two deployments share one. Deployments are deleted only together with their
environment, whose counts go with it.
"""

from django.db import migrations

TRIGGERS = """
CREATE FUNCTION releases_count_bundle() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO tenancy_usecount (environment_id, kind, count)
        SELECT NEW.environment_id, 'stored_bytes', coalesce(NEW.bundle_size, 0) - coalesce(OLD.bundle_size, 0)
        WHERE NEW.bundle_size IS DISTINCT FROM OLD.bundle_size;  -- before an INSERT, there is no OLD
    RETURN NULL;
END $$;
CREATE TRIGGER releases_deployment_count_bundle AFTER INSERT OR UPDATE OF bundle_size ON releases_deployment
    FOR EACH ROW EXECUTE FUNCTION releases_count_bundle();
"""
# What the triggers would have counted. They lock the table until this transaction ends, so that no change is missed.
PRESENT = """
INSERT INTO tenancy_usecount (environment_id, kind, count)
    SELECT environment_id, 'stored_bytes', sum(bundle_size)
    FROM releases_deployment WHERE bundle_size IS NOT NULL GROUP BY 1;
"""
BACKWARD = """
INSERT INTO tenancy_usecount (environment_id, kind, count)
    SELECT environment_id, 'stored_bytes', -sum(bundle_size)
    FROM releases_deployment WHERE bundle_size IS NOT NULL GROUP BY 1;
DROP FUNCTION releases_count_bundle() CASCADE;
"""


class Migration(migrations.Migration):
    dependencies = [("releases", "0010_bound_options"), ("tenancy", "0014_quotas")]
    operations = [migrations.RunSQL([TRIGGERS, PRESENT], BACKWARD)]

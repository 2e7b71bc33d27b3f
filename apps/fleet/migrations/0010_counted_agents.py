"""Count the enrolled agents of each environment by triggers, for quotas and usage.

Agents that are deleted need no count: their environment goes with them, or they are decommissioned and were subtracted
then.
"""

from django.db import migrations

TRIGGERS = """
CREATE FUNCTION fleet_count_first_agents() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO tenancy_usecount (environment_id, kind, count)
        SELECT environment_id, 'agents', count(*) FROM new_rows WHERE decommissioned_at IS NULL GROUP BY 1;
    RETURN NULL;
END $$;
CREATE FUNCTION fleet_count_agent() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO tenancy_usecount (environment_id, kind, count)
        VALUES (NEW.environment_id, 'agents', CASE WHEN NEW.decommissioned_at IS NULL THEN 1 ELSE -1 END);
    RETURN NULL;
END $$;
CREATE TRIGGER fleet_agent_first_count AFTER INSERT ON fleet_agent
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION fleet_count_first_agents();
CREATE TRIGGER fleet_agent_count AFTER UPDATE ON fleet_agent
    FOR EACH ROW WHEN ((OLD.decommissioned_at IS NULL) <> (NEW.decommissioned_at IS NULL))
    EXECUTE FUNCTION fleet_count_agent();
"""
# What the triggers would have counted. They lock the table until this transaction ends, so that no change is missed.
PRESENT = """
INSERT INTO tenancy_usecount (environment_id, kind, count)
    SELECT environment_id, 'agents', count(*) FROM fleet_agent WHERE decommissioned_at IS NULL GROUP BY 1;
"""
BACKWARD = """
DROP FUNCTION fleet_count_first_agents() CASCADE;
DROP FUNCTION fleet_count_agent() CASCADE;
DELETE FROM tenancy_usecount WHERE kind = 'agents';
"""


class Migration(migrations.Migration):
    dependencies = [("fleet", "0009_counted_rotations"), ("tenancy", "0014_quotas")]
    operations = [migrations.RunSQL([TRIGGERS, PRESENT], BACKWARD)]

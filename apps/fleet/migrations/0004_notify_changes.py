"""Notify API processes of what they cache about agents: keys, settings and offers (apps.fleet.services.verified_keys).

A payload names what changed, as ``kind:id``. Offers of many agents change in one statement, so their ids share
notifications; 200 of them fit into the 8,000 bytes that PostgreSQL allows.
"""

from django.db import migrations

_NOTIFY = """
CREATE FUNCTION fleet_notify_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('fleet_change', TG_ARGV[0] || ':' || CASE WHEN TG_ARGV[0] = 'key' THEN
        to_jsonb(OLD)->>'digest' ELSE to_jsonb(OLD)->>'id' END);
    RETURN NULL;
END $$;
CREATE FUNCTION fleet_notify_offers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('fleet_offer', string_agg(agent_id::text, ','))
    FROM (
        SELECT n.agent_id, (row_number() OVER () - 1) / 200 AS part
        FROM new_rows n JOIN old_rows o USING (agent_id)
        WHERE (n.deployment_id, n.bundle_deployment_id, n.action, n.bundle_hash, n.since)
            IS DISTINCT FROM (o.deployment_id, o.bundle_deployment_id, o.action, o.bundle_hash, o.since)
    ) AS changed
    GROUP BY part;
    RETURN NULL;
END $$;
CREATE TRIGGER fleet_assignment_notify AFTER UPDATE ON fleet_assignment
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION fleet_notify_offers();
"""
_UNDO = """
DROP TRIGGER fleet_assignment_notify ON fleet_assignment;
DROP FUNCTION fleet_notify_offers();
DROP FUNCTION fleet_notify_change();
"""


def _trigger(kind, table, columns):
    name = f"{table}_notify"
    return migrations.RunSQL(
        f"CREATE TRIGGER {name} AFTER DELETE OR UPDATE OF {columns} ON {table}"
        f" FOR EACH ROW EXECUTE FUNCTION fleet_notify_change('{kind}')",
        f"DROP TRIGGER {name} ON {table}",
    )


class Migration(migrations.Migration):
    dependencies = [("fleet", "0003_told_interval"), ("tenancy", "0009_job_troubles")]
    operations = [
        migrations.RunSQL(_NOTIFY, _UNDO),
        _trigger("key", "fleet_agentkey", "digest, agent_id, scopes, expires_at, revoked_at"),
        _trigger("agent", "fleet_agent", "environment_id, decommissioned_at"),
        _trigger("environment", "tenancy_environment", "settings, deleted_at"),
        _trigger("project", "tenancy_project", "deleted_at"),
        _trigger("organization", "tenancy_organization", "key_set_etag"),
    ]

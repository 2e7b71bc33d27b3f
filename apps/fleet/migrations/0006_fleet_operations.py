"""Drained agents, key rotation by the agent itself, and the detection of cloned agents."""

import django.contrib.postgres.fields
from django.db import migrations, models

# A trigger, so that each statement that stores a boot id detects clones in the same way. It costs a heartbeat one
# comparison. At most 16 earlier ids are kept, since an agent that crashes again and again makes many of them.
TRIGGER = """
CREATE FUNCTION fleet_supersede_boot() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    moment float8 := extract(epoch FROM clock_timestamp());
BEGIN
    IF (NEW.superseded_boots->>NEW.boot_id)::float8 > moment - 86400 THEN
        NEW.clone_suspected_at := coalesce(NEW.clone_suspected_at, now());
    END IF;
    SELECT coalesce(jsonb_object_agg(kept.key, kept.value), '{}') INTO NEW.superseded_boots FROM (
        SELECT earlier.key, earlier.value
        FROM jsonb_each(NEW.superseded_boots || jsonb_build_object(OLD.boot_id, moment)) AS earlier
        WHERE earlier.key <> NEW.boot_id AND earlier.value::float8 > moment - 86400
        ORDER BY earlier.value::float8 DESC LIMIT 16
    ) AS kept;
    RETURN NEW;
END $$;
CREATE TRIGGER fleet_heartbeat_boot BEFORE UPDATE OF boot_id ON fleet_heartbeat FOR EACH ROW
WHEN (OLD.boot_id <> NEW.boot_id) EXECUTE FUNCTION fleet_supersede_boot();
"""
DROP = "DROP TRIGGER fleet_heartbeat_boot ON fleet_heartbeat; DROP FUNCTION fleet_supersede_boot();"


# The columns of an agent's key that API processes cache (migration 0004_notify_changes).
KEY_COLUMNS = ("digest", "agent_id", "scopes", "expires_at", "revoked_at")


def _notify(columns, *more):
    return f"""
        DROP TRIGGER fleet_agentkey_notify ON fleet_agentkey;
        CREATE TRIGGER fleet_agentkey_notify AFTER DELETE OR UPDATE OF {', '.join((*columns, *more))} ON fleet_agentkey
            FOR EACH ROW EXECUTE FUNCTION fleet_notify_change('key');
    """


class Migration(migrations.Migration):

    dependencies = [
        ('fleet', '0005_history_and_facts'),
    ]

    operations = [
        migrations.AddField(
            model_name='agent',
            name='drain_reason',
            field=models.CharField(blank=True, editable=False, max_length=500),
        ),
        migrations.AddField(
            model_name='agent',
            name='drained_at',
            field=models.DateTimeField(editable=False, null=True),
        ),
        migrations.AddField(
            model_name='agentkey',
            name='is_pending',
            field=models.BooleanField(default=False, editable=False),
        ),
        migrations.AddField(
            model_name='heartbeat',
            name='boot_id',
            field=models.CharField(max_length=64, null=True),
        ),
        migrations.AddField(
            model_name='heartbeat',
            name='clone_suspected_at',
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name='heartbeat',
            name='commands',
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.CharField(choices=[('rotate_key', 'rotate_key')], max_length=20), default=list
            ),
        ),
        migrations.AddField(
            model_name='heartbeat',
            name='superseded_boots',
            field=models.JSONField(default=dict),
        ),
        migrations.AddIndex(
            model_name='agent',
            index=models.Index(
                condition=models.Q(('drained_at__isnull', False)), fields=['environment'], name='fleet_agent_drained'
            ),
        ),
        migrations.AddIndex(
            model_name='heartbeat',
            index=models.Index(
                condition=models.Q(('clone_suspected_at__isnull', False)),
                fields=['agent'],
                name='fleet_heartbeat_cloned',
            ),
        ),
        migrations.RunSQL(TRIGGER, DROP),
        migrations.RunSQL(_notify(KEY_COLUMNS, 'is_pending'), _notify(KEY_COLUMNS)),
    ]

"""What each agent ran, and narrow copies and counts of what lists filter and count by.

Triggers write the history and the counts of labels, and note whose narrow copy is out of date. So no other code that
writes heartbeats, offers or agents can leave them wrong. The conditions of the triggers compare the old and the new row:
a heartbeat that changes nothing but its time and its report calls no function and writes no other row.

- ``fleet_record_running`` writes an interval. Heartbeats of one agent wait for each other at the agent's row, so that
  the function never runs twice at once for one agent.
- ``fleet_note_agent`` and ``fleet_count_labels`` only insert. Nobody waits for a new row, so that they add no deadlock.
  Agents that are deleted need no count: their environment goes with them, or they are decommissioned and were
  subtracted then.
"""

import django.db.models.deletion
from django.db import migrations, models

RUNNING = """
-- The plan is kept for the whole connection. It must suit a large table, also when it was made for an empty one.
CREATE FUNCTION fleet_record_running() RETURNS trigger LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    newest fleet_runninginterval;
    moment timestamptz := coalesce(NEW.last_seen_at, now());
BEGIN
    SELECT * INTO newest FROM fleet_runninginterval
        WHERE agent_id = NEW.agent_id ORDER BY started_at DESC, id DESC LIMIT 1;
    -- A statement that began earlier may get the row later. Intervals must not overlap.
    moment := greatest(moment, newest.started_at, newest.ended_at);
    IF newest.id IS NOT NULL AND newest.ended_at IS NULL THEN
        UPDATE fleet_runninginterval
            SET ended_at = moment, confirmed_until = least(greatest(OLD.last_seen_at, started_at), moment)
            WHERE id = newest.id;
    END IF;
    IF NEW.running_bundle_hash IS NULL THEN
        RETURN NULL;
    END IF;
    -- An agent that flaps must not fill the table. Its last interval is overwritten, so that what it runs now is right.
    IF (SELECT count(*) FROM fleet_runninginterval
            WHERE agent_id = NEW.agent_id AND started_at > moment - interval '1 day') < 1000 THEN
        INSERT INTO fleet_runninginterval (agent_id, started_at, deployment_id, bundle_hash, spec_hash)
            VALUES (NEW.agent_id, moment, NEW.running_deployment_id, NEW.running_bundle_hash, NEW.running_spec_hash);
    ELSE
        UPDATE fleet_runninginterval
            SET started_at = moment, ended_at = NULL, confirmed_until = NULL,
                deployment_id = NEW.running_deployment_id, bundle_hash = NEW.running_bundle_hash,
                spec_hash = NEW.running_spec_hash
            WHERE id = newest.id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER fleet_heartbeat_first_running AFTER INSERT ON fleet_heartbeat
    FOR EACH ROW WHEN (NEW.running_bundle_hash IS NOT NULL) EXECUTE FUNCTION fleet_record_running();
CREATE TRIGGER fleet_heartbeat_running AFTER UPDATE ON fleet_heartbeat
    FOR EACH ROW WHEN (
        OLD.running_bundle_hash IS DISTINCT FROM NEW.running_bundle_hash
        OR OLD.running_deployment_id IS DISTINCT FROM NEW.running_deployment_id
        OR OLD.running_spec_hash IS DISTINCT FROM NEW.running_spec_hash
    ) EXECUTE FUNCTION fleet_record_running();
"""
PULSE = """
-- Every update leaves room for the next one on the page, so that no index is touched.
ALTER TABLE fleet_pulse SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
CREATE FUNCTION fleet_note_agent() RETURNS trigger LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
    IF TG_TABLE_NAME = 'fleet_agent' THEN
        INSERT INTO fleet_changedagent (environment_id, agent_id) VALUES (NEW.environment_id, NEW.id);
    ELSIF TG_TABLE_NAME = 'tenancy_environment' THEN
        INSERT INTO fleet_changedagent (environment_id, agent_id)
            SELECT environment_id, id FROM fleet_agent WHERE environment_id = NEW.id AND decommissioned_at IS NULL;
    ELSE
        INSERT INTO fleet_changedagent (environment_id, agent_id)
            SELECT environment_id, id FROM fleet_agent WHERE id = NEW.agent_id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER fleet_heartbeat_first_note AFTER INSERT ON fleet_heartbeat
    FOR EACH ROW EXECUTE FUNCTION fleet_note_agent();
-- A silent agent that comes back must be looked at, and a clock that was set back must not leave agents online. Facts
-- call an agent silent after 2.5 intervals. The rest is room for a heartbeat that is being stored.
CREATE TRIGGER fleet_heartbeat_note AFTER UPDATE ON fleet_heartbeat
    FOR EACH ROW WHEN (
        OLD.status IS DISTINCT FROM NEW.status
        OR OLD.running_bundle_hash IS DISTINCT FROM NEW.running_bundle_hash
        OR OLD.last_seen_at IS NULL OR OLD.last_seen_at > NEW.last_seen_at
        OR NEW.last_seen_at > OLD.last_seen_at + interval '1.5 s' * OLD.next_heartbeat_s
    ) EXECUTE FUNCTION fleet_note_agent();
CREATE TRIGGER fleet_assignment_first_note AFTER INSERT ON fleet_assignment
    FOR EACH ROW WHEN (NEW.bundle_hash IS NOT NULL) EXECUTE FUNCTION fleet_note_agent();
CREATE TRIGGER fleet_assignment_note AFTER UPDATE ON fleet_assignment
    FOR EACH ROW WHEN (OLD.bundle_hash IS DISTINCT FROM NEW.bundle_hash) EXECUTE FUNCTION fleet_note_agent();
CREATE TRIGGER fleet_agent_note AFTER UPDATE ON fleet_agent
    FOR EACH ROW WHEN (OLD.decommissioned_at IS DISTINCT FROM NEW.decommissioned_at)
    EXECUTE FUNCTION fleet_note_agent();
-- With a shorter interval agents are stale earlier than their pulses say.
CREATE TRIGGER fleet_environment_note AFTER UPDATE ON tenancy_environment
    FOR EACH ROW WHEN (
        OLD.settings -> 'heartbeat_interval_s' IS DISTINCT FROM NEW.settings -> 'heartbeat_interval_s'
    ) EXECUTE FUNCTION fleet_note_agent();
"""
LABELS = """
CREATE FUNCTION fleet_count_first_labels() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fleet_labelcount (environment_id, key, value, count)
        SELECT agent.environment_id, label.key, label.value, count(*)
        FROM new_rows AS agent, jsonb_each_text(agent.labels) AS label
        WHERE agent.decommissioned_at IS NULL GROUP BY 1, 2, 3;
    RETURN NULL;
END $$;
CREATE FUNCTION fleet_count_labels() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fleet_labelcount (environment_id, key, value, count)
        SELECT changed.environment_id, label.key, label.value, sum(changed.step)
        FROM (
            SELECT before.environment_id, before.labels, -1 AS step
            FROM old_rows AS before JOIN new_rows AS after USING (id)
            WHERE before.decommissioned_at IS NULL
                AND (after.labels <> before.labels OR after.decommissioned_at IS NOT NULL)
            UNION ALL
            SELECT after.environment_id, after.labels, 1
            FROM old_rows AS before JOIN new_rows AS after USING (id)
            WHERE after.decommissioned_at IS NULL
                AND (after.labels <> before.labels OR before.decommissioned_at IS NOT NULL)
        ) AS changed, jsonb_each_text(changed.labels) AS label
        GROUP BY 1, 2, 3 HAVING sum(changed.step) <> 0;
    RETURN NULL;
END $$;
CREATE TRIGGER fleet_agent_first_labels AFTER INSERT ON fleet_agent
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION fleet_count_first_labels();
CREATE TRIGGER fleet_agent_labels AFTER UPDATE ON fleet_agent
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION fleet_count_labels();
"""
# What the triggers would have written of the rows that are there. Before now, only the running bundle is known.
PRESENT = """
-- An earlier release may go on writing. Until the triggers are there, a row that it wrote would be missing in the copies.
LOCK TABLE tenancy_environment, fleet_agent, fleet_heartbeat, fleet_assignment IN SHARE ROW EXCLUSIVE MODE;
INSERT INTO fleet_runninginterval (agent_id, started_at, deployment_id, bundle_hash, spec_hash)
    SELECT agent_id, coalesce(running_since, last_seen_at, now()), running_deployment_id, running_bundle_hash,
        running_spec_hash
    FROM fleet_heartbeat WHERE running_bundle_hash IS NOT NULL ORDER BY agent_id;
INSERT INTO fleet_changedagent (environment_id, agent_id)
    SELECT environment_id, id FROM fleet_agent WHERE decommissioned_at IS NULL ORDER BY id;
INSERT INTO fleet_labelcount (environment_id, key, value, count)
    SELECT agent.environment_id, label.key, label.value, count(*)
    FROM fleet_agent AS agent, jsonb_each_text(agent.labels) AS label
    WHERE agent.decommissioned_at IS NULL GROUP BY 1, 2, 3;
SET CONSTRAINTS ALL IMMEDIATE;
"""
BACKWARD = """
DROP FUNCTION fleet_record_running() CASCADE;
DROP FUNCTION fleet_note_agent() CASCADE;
DROP FUNCTION fleet_count_first_labels() CASCADE;
DROP FUNCTION fleet_count_labels() CASCADE;
"""


class Migration(migrations.Migration):

    dependencies = [
        ('fleet', '0004_notify_changes'),
        ('tenancy', '0009_job_troubles'),
    ]

    operations = [
        migrations.CreateModel(
            name='LabelCount',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('environment', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenancy.environment')),
                ('key', models.TextField()),
                ('value', models.TextField()),
                ('count', models.BigIntegerField()),
            ],
        ),
        migrations.CreateModel(
            name='Pulse',
            fields=[
                ('agent', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='pulse', serialize=False, to='fleet.agent')),
                ('environment', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenancy.environment')),
                ('online_until', models.DateTimeField()),
                ('offline_at', models.DateTimeField(null=True)),
                ('drifted', models.BooleanField()),
                ('status', models.CharField(max_length=10, null=True)),
                ('running_bundle_hash', models.CharField(max_length=71, null=True)),
            ],
            options={
                'indexes': [
                    models.Index(fields=['environment', 'agent'], name='fleet_pulse_environment'),
                    models.Index(condition=models.Q(('drifted', True)), fields=['environment', 'agent'], name='fleet_pulse_drifted'),
                ],
            },
        ),
        migrations.CreateModel(
            name='ChangedAgent',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('environment', models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenancy.environment')),
                ('agent', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='fleet.agent')),
            ],
        ),
        migrations.CreateModel(
            name='RunningInterval',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('agent', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='history', to='fleet.agent')),
                ('started_at', models.DateTimeField()),
                ('ended_at', models.DateTimeField(null=True)),
                ('confirmed_until', models.DateTimeField(null=True)),
                ('deployment_id', models.UUIDField(null=True)),
                ('bundle_hash', models.CharField(max_length=71)),
                ('spec_hash', models.CharField(max_length=71, null=True)),
            ],
            options={
                'indexes': [
                    models.Index(fields=['agent', 'started_at'], name='fleet_runninginterval_start'),
                    models.Index(fields=['ended_at'], name='fleet_runninginterval_end'),
                ],
                'constraints': [
                    models.UniqueConstraint(condition=models.Q(('ended_at', None)), fields=('agent',), name='fleet_runninginterval_one_open'),
                ],
            },
        ),
        migrations.RunSQL(PRESENT, migrations.RunSQL.noop),
        migrations.RunSQL([RUNNING, PULSE, LABELS], BACKWARD),
    ]

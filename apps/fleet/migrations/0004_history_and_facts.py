"""What each agent ran, and narrow copies and counts of what lists filter and count by.

Triggers write all of it. The statement that stores heartbeats needs no change for it and no further round trip, and
every other writer of heartbeats and agents is covered too: tests, imports, a console of the database.

- ``fleet_record_running`` writes an interval. Its conditions compare the old and the new row, so that a heartbeat that
  changes nothing does not even call it. Heartbeats of one agent wait for each other at the agent's row, so that the
  function never runs twice at once for one agent.
- ``fleet_copy_heartbeats`` copies a whole batch in one statement. It never waits for a copied row, so that it adds no
  deadlock.
- ``fleet_note_changed_offers`` only inserts, because a heartbeat must not wait for a deployment's transaction.
- ``fleet_count_labels`` only inserts. Rows that many enrollments changed would make them wait for each other. Agents
  that are deleted need no count: their environment goes with them, or they are decommissioned and were subtracted then.
"""

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models

RUNNING = """
CREATE FUNCTION fleet_record_running() RETURNS trigger LANGUAGE plpgsql AS $$
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
CREATE FUNCTION fleet_copy_first_heartbeats() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fleet_pulse (agent_id, environment_id, stale_at, offline_at, drifted, status, running_bundle_hash)
        SELECT beat.agent_id, agent.environment_id,
            coalesce(beat.last_seen_at, agent.created_at) + beat.next_heartbeat_s * interval '3 s',
            coalesce(beat.last_seen_at, agent.created_at) + beat.next_heartbeat_s * interval '10 s',
            wanted.bundle_hash IS NOT NULL AND beat.running_bundle_hash IS DISTINCT FROM wanted.bundle_hash,
            beat.status, beat.running_bundle_hash
        FROM new_rows AS beat JOIN fleet_agent AS agent ON agent.id = beat.agent_id
            LEFT JOIN fleet_assignment AS wanted USING (agent_id)
        WHERE agent.decommissioned_at IS NULL;
    RETURN NULL;
END $$;
-- The plan is kept for the whole connection, so it must suit one heartbeat in a large fleet, also when it was made for
-- a small one: look up each row by its key.
CREATE FUNCTION fleet_copy_heartbeats() RETURNS trigger LANGUAGE plpgsql
    SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off AS $$
BEGIN
    -- First remove, then read: an offer that commits in between is read, and its row stays. The other way round, its
    -- row would be removed and the offer not read.
    DELETE FROM fleet_changedoffer AS changed USING new_rows AS beat WHERE changed.agent_id = beat.agent_id;
    -- Only a transaction that decommissions or deletes agents locks other pulses. A heartbeat must not wait for it, since
    -- such a transaction may wait for another heartbeat of the same batch. Its pulse is about to be deleted.
    UPDATE fleet_pulse AS pulse
        SET stale_at = coalesce(beat.last_seen_at + beat.next_heartbeat_s * interval '3 s', pulse.stale_at),
            offline_at = coalesce(beat.last_seen_at + beat.next_heartbeat_s * interval '10 s', pulse.offline_at),
            drifted = wanted.bundle_hash IS NOT NULL AND beat.running_bundle_hash IS DISTINCT FROM wanted.bundle_hash,
            status = beat.status, running_bundle_hash = beat.running_bundle_hash
        FROM (
            SELECT new_rows.agent_id, new_rows.last_seen_at, new_rows.next_heartbeat_s, new_rows.status,
                new_rows.running_bundle_hash
            FROM new_rows JOIN fleet_pulse AS free USING (agent_id) FOR NO KEY UPDATE OF free SKIP LOCKED
        ) AS beat LEFT JOIN fleet_assignment AS wanted USING (agent_id)
        WHERE pulse.agent_id = beat.agent_id;
    RETURN NULL;
END $$;
CREATE FUNCTION fleet_note_changed_offers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fleet_changedoffer (agent_id, created_at)
        SELECT after.agent_id, now() FROM old_rows AS before JOIN new_rows AS after USING (agent_id)
        WHERE after.bundle_hash IS DISTINCT FROM before.bundle_hash;
    RETURN NULL;
END $$;
CREATE FUNCTION fleet_note_first_offers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fleet_changedoffer (agent_id, created_at)
        SELECT agent_id, now() FROM new_rows WHERE bundle_hash IS NOT NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER fleet_assignment_first_offers AFTER INSERT ON fleet_assignment
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION fleet_note_first_offers();
CREATE TRIGGER fleet_assignment_offers AFTER UPDATE ON fleet_assignment
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT
    EXECUTE FUNCTION fleet_note_changed_offers();
CREATE TRIGGER fleet_heartbeat_first_pulse AFTER INSERT ON fleet_heartbeat
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION fleet_copy_first_heartbeats();
CREATE TRIGGER fleet_heartbeat_pulse AFTER UPDATE ON fleet_heartbeat
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION fleet_copy_heartbeats();
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
    DELETE FROM fleet_pulse WHERE agent_id IN (SELECT id FROM new_rows WHERE decommissioned_at IS NOT NULL);
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
LOCK TABLE fleet_agent, fleet_heartbeat, fleet_assignment IN SHARE ROW EXCLUSIVE MODE;
INSERT INTO fleet_runninginterval (agent_id, started_at, deployment_id, bundle_hash, spec_hash)
    SELECT agent_id, coalesce(running_since, last_seen_at, now()), running_deployment_id, running_bundle_hash,
        running_spec_hash
    FROM fleet_heartbeat WHERE running_bundle_hash IS NOT NULL ORDER BY agent_id;
INSERT INTO fleet_pulse (agent_id, environment_id, stale_at, offline_at, drifted, status, running_bundle_hash)
    SELECT beat.agent_id, agent.environment_id,
        coalesce(beat.last_seen_at, agent.created_at) + beat.next_heartbeat_s * interval '3 s',
        coalesce(beat.last_seen_at, agent.created_at) + beat.next_heartbeat_s * interval '10 s',
        wanted.bundle_hash IS NOT NULL AND beat.running_bundle_hash IS DISTINCT FROM wanted.bundle_hash,
        beat.status, beat.running_bundle_hash
    FROM fleet_heartbeat AS beat JOIN fleet_agent AS agent ON agent.id = beat.agent_id
        LEFT JOIN fleet_assignment AS wanted USING (agent_id)
    WHERE agent.decommissioned_at IS NULL ORDER BY agent_id;
INSERT INTO fleet_labelcount (environment_id, key, value, count)
    SELECT agent.environment_id, label.key, label.value, count(*)
    FROM fleet_agent AS agent, jsonb_each_text(agent.labels) AS label
    WHERE agent.decommissioned_at IS NULL GROUP BY 1, 2, 3;
SET CONSTRAINTS ALL IMMEDIATE;
"""
BACKWARD = """
DROP FUNCTION fleet_record_running() CASCADE;
DROP FUNCTION fleet_copy_first_heartbeats() CASCADE;
DROP FUNCTION fleet_copy_heartbeats() CASCADE;
DROP FUNCTION fleet_note_changed_offers() CASCADE;
DROP FUNCTION fleet_note_first_offers() CASCADE;
DROP FUNCTION fleet_count_first_labels() CASCADE;
DROP FUNCTION fleet_count_labels() CASCADE;
"""


class Migration(migrations.Migration):

    dependencies = [
        ('fleet', '0003_told_interval'),
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
                ('stale_at', models.DateTimeField()),
                ('offline_at', models.DateTimeField()),
                ('drifted', models.BooleanField(default=False)),
                ('status', models.CharField(max_length=10, null=True)),
                ('running_bundle_hash', models.CharField(max_length=71, null=True)),
            ],
            options={
                'indexes': [models.Index(fields=['environment', 'agent'], name='fleet_pulse_environment')],
            },
        ),
        migrations.CreateModel(
            name='ChangedOffer',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('agent', models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='fleet.agent')),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now)),
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

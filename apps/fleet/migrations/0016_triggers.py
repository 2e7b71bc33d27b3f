"""Create the triggers of agents, heartbeats, offers and what is counted from them, and set storage parameters.

It also runs in databases in which the replaced migrations have created them. So each statement can be repeated.
"""

from django.db import migrations

# Leave free space on each page. An update can then store the row's new version on the same page, and changes no index.
FREE_SPACE = """
ALTER TABLE fleet_heartbeat SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE fleet_pulse SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
-- A row is updated up to 96 times.
ALTER TABLE fleet_agentseries SET (fillfactor = 70);
ALTER TABLE fleet_environmentseries SET (fillfactor = 70);
"""

# Notify API processes of what they cache about agents: keys, settings and offers (apps.fleet.services.verified_keys).
# A payload names what changed, as ``kind:id``. Offers of many agents change in one statement, so their ids share
# notifications; 200 of them fit into the 8,000 bytes that PostgreSQL allows.
NOTIFY = """
CREATE OR REPLACE FUNCTION fleet_notify_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('fleet_change', TG_ARGV[0] || ':' || CASE WHEN TG_ARGV[0] = 'key' THEN
        to_jsonb(OLD)->>'digest' ELSE to_jsonb(OLD)->>'id' END);
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION fleet_notify_offers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('fleet_offer', string_agg(agent_id::text, ','))
    FROM (
        SELECT n.agent_id, (row_number() OVER () - 1) / 200 AS part
        FROM new_rows n JOIN old_rows o USING (agent_id)
        WHERE (n.deployment_id, n.bundle_deployment_id, n.action, n.bundle_hash, n.since, n.held_backup_at)
            IS DISTINCT FROM
            (o.deployment_id, o.bundle_deployment_id, o.action, o.bundle_hash, o.since, o.held_backup_at)
    ) AS changed
    GROUP BY part;
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER fleet_assignment_notify AFTER UPDATE ON fleet_assignment
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION fleet_notify_offers();
CREATE OR REPLACE TRIGGER fleet_agentkey_notify
    AFTER DELETE OR UPDATE OF digest, agent_id, scopes, expires_at, revoked_at, is_pending
    ON fleet_agentkey FOR EACH ROW EXECUTE FUNCTION fleet_notify_change('key');
CREATE OR REPLACE TRIGGER fleet_agent_notify AFTER DELETE OR UPDATE OF environment_id, decommissioned_at
    ON fleet_agent FOR EACH ROW EXECUTE FUNCTION fleet_notify_change('agent');
CREATE OR REPLACE TRIGGER tenancy_environment_notify AFTER DELETE OR UPDATE OF settings, deleted_at
    ON tenancy_environment FOR EACH ROW EXECUTE FUNCTION fleet_notify_change('environment');
CREATE OR REPLACE TRIGGER tenancy_project_notify AFTER DELETE OR UPDATE OF deleted_at
    ON tenancy_project FOR EACH ROW EXECUTE FUNCTION fleet_notify_change('project');
CREATE OR REPLACE TRIGGER tenancy_organization_notify AFTER DELETE OR UPDATE OF key_set_etag
    ON tenancy_organization FOR EACH ROW EXECUTE FUNCTION fleet_notify_change('organization');
"""

# Write the intervals in which each agent ran a bundle. Heartbeats of one agent wait for each other at the agent's row,
# so the function never runs twice at the same time for one agent.
RUNNING = """
-- The plan is kept for the whole connection. It must suit a large table, also when it was made for an empty one.
CREATE OR REPLACE FUNCTION fleet_record_running() RETURNS trigger LANGUAGE plpgsql SET enable_seqscan = off AS $$
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
CREATE OR REPLACE TRIGGER fleet_heartbeat_first_running AFTER INSERT ON fleet_heartbeat
    FOR EACH ROW WHEN (NEW.running_bundle_hash IS NOT NULL) EXECUTE FUNCTION fleet_record_running();
CREATE OR REPLACE TRIGGER fleet_heartbeat_running AFTER UPDATE ON fleet_heartbeat
    FOR EACH ROW WHEN (
        OLD.running_bundle_hash IS DISTINCT FROM NEW.running_bundle_hash
        OR OLD.running_deployment_id IS DISTINCT FROM NEW.running_deployment_id
        OR OLD.running_spec_hash IS DISTINCT FROM NEW.running_spec_hash
    ) EXECUTE FUNCTION fleet_record_running();
"""

# Insert a row into ``fleet_changedagent`` for each agent whose ``Pulse`` is out of date. A heartbeat that changes only
# its time and its report calls no function and writes no other row. The function only inserts, and no transaction waits
# for a new row, so it cannot deadlock.
PULSE = """
CREATE OR REPLACE FUNCTION fleet_note_agent() RETURNS trigger LANGUAGE plpgsql SET enable_seqscan = off AS $$
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
CREATE OR REPLACE TRIGGER fleet_heartbeat_first_note AFTER INSERT ON fleet_heartbeat
    FOR EACH ROW EXECUTE FUNCTION fleet_note_agent();
-- A silent agent that comes back must be looked at, and a clock that was set back must not leave agents online. Facts
-- call an agent silent after 2.5 intervals. The rest is room for a heartbeat that is being stored.
CREATE OR REPLACE TRIGGER fleet_heartbeat_note AFTER UPDATE ON fleet_heartbeat
    FOR EACH ROW WHEN (
        OLD.status IS DISTINCT FROM NEW.status
        OR OLD.running_bundle_hash IS DISTINCT FROM NEW.running_bundle_hash
        OR OLD.last_seen_at IS NULL OR OLD.last_seen_at > NEW.last_seen_at
        OR NEW.last_seen_at > OLD.last_seen_at + interval '1.5 s' * OLD.next_heartbeat_s
    ) EXECUTE FUNCTION fleet_note_agent();
CREATE OR REPLACE TRIGGER fleet_assignment_first_note AFTER INSERT ON fleet_assignment
    FOR EACH ROW WHEN (NEW.bundle_hash IS NOT NULL) EXECUTE FUNCTION fleet_note_agent();
CREATE OR REPLACE TRIGGER fleet_assignment_note AFTER UPDATE ON fleet_assignment
    FOR EACH ROW WHEN (OLD.bundle_hash IS DISTINCT FROM NEW.bundle_hash) EXECUTE FUNCTION fleet_note_agent();
CREATE OR REPLACE TRIGGER fleet_agent_note AFTER UPDATE ON fleet_agent
    FOR EACH ROW WHEN (OLD.decommissioned_at IS DISTINCT FROM NEW.decommissioned_at)
    EXECUTE FUNCTION fleet_note_agent();
-- With a shorter interval agents are stale earlier than their pulses say.
CREATE OR REPLACE TRIGGER fleet_environment_note AFTER UPDATE ON tenancy_environment
    FOR EACH ROW WHEN (
        OLD.settings -> 'heartbeat_interval_s' IS DISTINCT FROM NEW.settings -> 'heartbeat_interval_s'
    ) EXECUTE FUNCTION fleet_note_agent();
"""

# Count labels. Agents that are deleted need no count: their environment goes with them, or they are decommissioned and
# were subtracted then. The same applies to the counts of agents below.
LABELS = """
CREATE OR REPLACE FUNCTION fleet_count_first_labels() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fleet_labelcount (environment_id, key, value, count)
        SELECT agent.environment_id, label.key, label.value, count(*)
        FROM new_rows AS agent, jsonb_each_text(agent.labels) AS label
        WHERE agent.decommissioned_at IS NULL GROUP BY 1, 2, 3;
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION fleet_count_labels() RETURNS trigger LANGUAGE plpgsql AS $$
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
CREATE OR REPLACE TRIGGER fleet_agent_first_labels AFTER INSERT ON fleet_agent
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION fleet_count_first_labels();
CREATE OR REPLACE TRIGGER fleet_agent_labels AFTER UPDATE ON fleet_agent
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION fleet_count_labels();
"""

# Detect cloned agents in each statement that stores a boot id. It costs a heartbeat one comparison. At most 16 earlier
# ids are kept, since an agent that crashes again and again makes many of them.
BOOTS = """
CREATE OR REPLACE FUNCTION fleet_supersede_boot() RETURNS trigger LANGUAGE plpgsql AS $$
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
CREATE OR REPLACE TRIGGER fleet_heartbeat_boot BEFORE UPDATE OF boot_id ON fleet_heartbeat FOR EACH ROW
WHEN (OLD.boot_id <> NEW.boot_id) EXECUTE FUNCTION fleet_supersede_boot();
"""

# Count the pulses of each environment by their values, with triggers that only insert.
PULSE_COUNTS = """
CREATE OR REPLACE FUNCTION fleet_count_pulses() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO fleet_pulsecount (environment_id, drifted, status, running_bundle_hash, count)
            SELECT environment_id, drifted, status, running_bundle_hash, count(*) FROM new_rows GROUP BY 1, 2, 3, 4;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO fleet_pulsecount (environment_id, drifted, status, running_bundle_hash, count)
            SELECT environment_id, drifted, status, running_bundle_hash, -count(*) FROM old_rows GROUP BY 1, 2, 3, 4;
    ELSE  -- mostly only the times change
        INSERT INTO fleet_pulsecount (environment_id, drifted, status, running_bundle_hash, count)
            SELECT environment_id, drifted, status, running_bundle_hash, sum(step)
            FROM (
                SELECT environment_id, drifted, status, running_bundle_hash, -1 AS step FROM old_rows
                UNION ALL SELECT environment_id, drifted, status, running_bundle_hash, 1 FROM new_rows
            ) AS changed GROUP BY 1, 2, 3, 4 HAVING sum(step) <> 0;
    END IF;
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER fleet_pulse_added AFTER INSERT ON fleet_pulse
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION fleet_count_pulses();
CREATE OR REPLACE TRIGGER fleet_pulse_changed AFTER UPDATE ON fleet_pulse
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION fleet_count_pulses();
CREATE OR REPLACE TRIGGER fleet_pulse_removed AFTER DELETE ON fleet_pulse
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION fleet_count_pulses();
"""

# Count the enrolled agents of each environment, for quotas and usage.
AGENTS = """
CREATE OR REPLACE FUNCTION fleet_count_first_agents() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO tenancy_usecount (environment_id, kind, count)
        SELECT environment_id, 'agents', count(*) FROM new_rows WHERE decommissioned_at IS NULL GROUP BY 1;
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION fleet_count_agent() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO tenancy_usecount (environment_id, kind, count)
        VALUES (NEW.environment_id, 'agents', CASE WHEN NEW.decommissioned_at IS NULL THEN 1 ELSE -1 END);
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER fleet_agent_first_count AFTER INSERT ON fleet_agent
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION fleet_count_first_agents();
CREATE OR REPLACE TRIGGER fleet_agent_count AFTER UPDATE ON fleet_agent
    FOR EACH ROW WHEN ((OLD.decommissioned_at IS NULL) <> (NEW.decommissioned_at IS NULL))
    EXECUTE FUNCTION fleet_count_agent();
"""

# Gather series, so that a usual heartbeat calls no function and sets only four columns.
# ``apps/fleet/services/series.py`` describes the columns.
SERIES = """
CREATE OR REPLACE FUNCTION fleet_gather_series() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    sums float8[] := OLD.series_sums;
    last float8[] := OLD.series_last;
    readings float8[] := NEW.series_read;
    knows_boot boolean := NEW.series_read[8]::int & 1 = 1;
    is_younger boolean := coalesce(NEW.series_read[5] < coalesce(OLD.series_read[5], OLD.series_last[5]), false);
    is_other_deployment boolean := coalesce(NEW.running_deployment_id <> OLD.series_deployment_id, false);
    is_lower boolean := false;
    is_start boolean;
BEGIN
    -- Add what the heartbeats since the last call added. It belongs to the slot of these heartbeats.
    IF sums IS NOT NULL THEN
        FOR place IN 1..4 LOOP
            IF OLD.series_read[place] IS NOT NULL THEN
                sums[place + 1] := sums[place + 1] + OLD.series_read[place] - last[place];
                last[place] := OLD.series_read[place];
            END IF;
        END LOOP;
        last[5] := coalesce(OLD.series_read[5], last[5]);
        FOR place IN 1..2 LOOP
            IF OLD.series_recent[place] IS NOT NULL THEN
                sums[2 * place + 4] := coalesce(sums[2 * place + 4], 0) + OLD.series_recent[place];
                sums[2 * place + 5] := sums[2 * place + 5] + OLD.series_recent[3];
            END IF;
        END LOOP;
    END IF;
    -- A statement that began in the previous slot may get the row later. Its heartbeat counts in the newer slot.
    IF sums[1] = NEW.series_slot + 1 THEN
        NEW.series_slot := sums[1];
    ELSIF sums IS NULL OR sums[1] <> NEW.series_slot THEN
        IF sums IS NOT NULL THEN
            IF jsonb_array_length(NEW.series_closed) >= 8640 THEN  -- 90 days, after which slots are deleted
                NEW.series_closed := NEW.series_closed - 0;
            END IF;
            NEW.series_closed := coalesce(NEW.series_closed, '[]') || jsonb_build_array(sums);
        END IF;
        sums := ARRAY[NEW.series_slot, NULL, NULL, NULL, NULL, NULL, 0, NULL, 0, 0];
    END IF;

    FOR place IN 1..4 LOOP
        is_lower := is_lower OR coalesce(readings[place] < last[place], false);
    END LOOP;
    is_start := CASE WHEN knows_boot THEN coalesce(NEW.boot_id <> ALL (OLD.series_boots), true) ELSE is_younger END;
    IF knows_boot AND NOT is_start
        AND (NEW.boot_id <> OLD.series_boots[1] OR is_younger AND (is_lower OR is_other_deployment))
    THEN  -- from an earlier process, or overtaken by a newer heartbeat of the same process
        NEW.series_read := ARRAY[NULL, NULL, NULL, NULL, NULL, NULL, NULL, -1];
        NEW.series_recent := ARRAY[NULL, NULL, 0];
    ELSE
        IF is_start OR is_lower OR is_other_deployment THEN  -- the counters began again at 0
            last := ARRAY[0, 0, 0, 0, CASE WHEN is_start THEN NULL ELSE last[5] END];
        END IF;
        IF is_start THEN
            NEW.series_deployment_id := NULL;
            IF OLD.last_seen_at IS NOT NULL THEN
                sums[10] := sums[10] + 1;
            END IF;
            IF knows_boot THEN
                NEW.series_boots := NEW.boot_id || OLD.series_boots[1:3];
            END IF;
        END IF;
        FOR place IN 1..4 LOOP
            IF readings[place] IS NOT NULL THEN
                sums[place + 1] := coalesce(sums[place + 1], 0) + readings[place] - coalesce(last[place], 0);
                last[place] := readings[place];
            END IF;
        END LOOP;
        last[5] := coalesce(readings[5], last[5]);
        NEW.series_deployment_id := coalesce(NEW.running_deployment_id, NEW.series_deployment_id);
        NEW.series_recent := ARRAY[readings[6], readings[7], 1];
    END IF;
    NEW.series_sums := sums;
    NEW.series_last := last;
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER fleet_heartbeat_series BEFORE UPDATE OF series_changed ON fleet_heartbeat
    FOR EACH ROW WHEN (NEW.series_changed) EXECUTE FUNCTION fleet_gather_series();
"""


class Migration(migrations.Migration):

    dependencies = [
        ('fleet', '0001_squashed_0015_held_offers'),
        ('tenancy', '0022_triggers'),
    ]

    operations = [
        migrations.RunSQL(
            [FREE_SPACE, NOTIFY, RUNNING, PULSE, LABELS, BOOTS, PULSE_COUNTS, AGENTS, SERIES], migrations.RunSQL.noop
        )
    ]

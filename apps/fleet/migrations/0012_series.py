"""Series: what heartbeats gather, and one row a day for each agent and environment.

The heartbeats' rows get the last counters that each agent reported, so that the first heartbeat after the upgrade adds
only what is new.
"""

import django.contrib.postgres.fields
import django.db.models.deletion
from django.db import migrations, models

# A trigger, like the detection of clones, so that a usual heartbeat calls no function and sets only four columns.
# ``apps/fleet/services/series.py`` describes the columns.
GATHER = """
CREATE FUNCTION fleet_gather_series() RETURNS trigger LANGUAGE plpgsql AS $$
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
CREATE TRIGGER fleet_heartbeat_series BEFORE UPDATE OF series_changed ON fleet_heartbeat
    FOR EACH ROW WHEN (NEW.series_changed) EXECUTE FUNCTION fleet_gather_series();
"""
DROP = "DROP FUNCTION fleet_gather_series() CASCADE"
PRESENT = """
UPDATE fleet_heartbeat
SET series_boots = CASE WHEN boot_id IS NOT NULL THEN ARRAY[boot_id] END,
    series_deployment_id = running_deployment_id,
    series_last = (
        SELECT array_agg(
            CASE WHEN jsonb_typeof(value) = 'number' THEN
                CASE WHEN value::numeric BETWEEN 0 AND 9007199254740991 THEN value::float8 END
            END ORDER BY place
        )
        FROM unnest(ARRAY[
            report -> 'pipeline' -> 'records_in', report -> 'pipeline' -> 'records_out', report -> 'pipeline' -> 'drops',
            report -> 'pipeline' -> 'errors', report -> 'uptime_s'
        ]) WITH ORDINALITY AS reported (value, place)
    )
WHERE last_seen_at IS NOT NULL
"""
# A row is updated up to 96 times. Free space on its page lets PostgreSQL update it without touching an index.
HOT = """
ALTER TABLE fleet_agentseries SET (fillfactor = 70);
ALTER TABLE fleet_environmentseries SET (fillfactor = 70);
"""


class Migration(migrations.Migration):

    dependencies = [
        ('fleet', '0011_capture'),
        ('tenancy', '0014_quotas'),
    ]

    operations = [
        migrations.AddField(
            model_name='heartbeat',
            name='series_slot',
            field=models.IntegerField(null=True),
        ),
        migrations.AddField(
            model_name='heartbeat',
            name='series_changed',
            field=models.BooleanField(null=True),
        ),
        migrations.AddField(
            model_name='heartbeat',
            name='series_read',
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.FloatField(null=True), null=True
            ),
        ),
        migrations.AddField(
            model_name='heartbeat',
            name='series_recent',
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.FloatField(null=True), null=True
            ),
        ),
        migrations.AddField(
            model_name='heartbeat',
            name='series_sums',
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.FloatField(null=True), null=True
            ),
        ),
        migrations.AddField(
            model_name='heartbeat',
            name='series_last',
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.FloatField(null=True), null=True
            ),
        ),
        migrations.AddField(
            model_name='heartbeat',
            name='series_boots',
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.CharField(max_length=64), null=True
            ),
        ),
        migrations.AddField(
            model_name='heartbeat',
            name='series_deployment_id',
            field=models.UUIDField(null=True),
        ),
        migrations.AddField(
            model_name='heartbeat',
            name='series_closed',
            field=models.JSONField(null=True),
        ),
        migrations.CreateModel(
            name='AgentSeries',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('day', models.DateField()),
                ('records_in', django.contrib.postgres.fields.ArrayField(base_field=models.FloatField(null=True), size=96)),
                ('records_out', django.contrib.postgres.fields.ArrayField(base_field=models.FloatField(null=True), size=96)),
                ('drops', django.contrib.postgres.fields.ArrayField(base_field=models.FloatField(null=True), size=96)),
                ('errors', django.contrib.postgres.fields.ArrayField(base_field=models.FloatField(null=True), size=96)),
                ('cpu_percent', django.contrib.postgres.fields.ArrayField(base_field=models.FloatField(null=True), size=96)),
                ('memory_bytes', django.contrib.postgres.fields.ArrayField(base_field=models.FloatField(null=True), size=96)),
                ('restarts', django.contrib.postgres.fields.ArrayField(base_field=models.FloatField(null=True), size=96)),
                ('online', django.contrib.postgres.fields.ArrayField(base_field=models.FloatField(null=True), size=96)),
                ('agent', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='series', to='fleet.agent')),
            ],
            options={
                'indexes': [models.Index(fields=['day'], name='fleet_agentseries_old')],
                'constraints': [models.UniqueConstraint(fields=('agent', 'day'), name='fleet_agentseries_day')],
            },
        ),
        migrations.CreateModel(
            name='EnvironmentSeries',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('day', models.DateField()),
                ('records_in', django.contrib.postgres.fields.ArrayField(base_field=models.FloatField(null=True), size=96)),
                ('records_out', django.contrib.postgres.fields.ArrayField(base_field=models.FloatField(null=True), size=96)),
                ('drops', django.contrib.postgres.fields.ArrayField(base_field=models.FloatField(null=True), size=96)),
                ('errors', django.contrib.postgres.fields.ArrayField(base_field=models.FloatField(null=True), size=96)),
                ('cpu_percent', django.contrib.postgres.fields.ArrayField(base_field=models.FloatField(null=True), size=96)),
                ('memory_bytes', django.contrib.postgres.fields.ArrayField(base_field=models.FloatField(null=True), size=96)),
                ('restarts', django.contrib.postgres.fields.ArrayField(base_field=models.FloatField(null=True), size=96)),
                ('online', django.contrib.postgres.fields.ArrayField(base_field=models.FloatField(null=True), size=96)),
                ('environment', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenancy.environment')),
            ],
            options={
                'indexes': [models.Index(fields=['day'], name='fleet_environmentseries_old')],
                'constraints': [models.UniqueConstraint(fields=('environment', 'day'), name='fleet_environmentseries_day')],
            },
        ),
        migrations.RunSQL([PRESENT, HOT, GATHER], DROP),
    ]

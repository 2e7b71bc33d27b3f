"""How many pulses of each environment have which values, counted by triggers that only insert."""

import django.db.models.deletion
from django.db import migrations, models

TRIGGERS = """
CREATE FUNCTION fleet_count_pulses() RETURNS trigger LANGUAGE plpgsql AS $$
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
CREATE TRIGGER fleet_pulse_added AFTER INSERT ON fleet_pulse
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION fleet_count_pulses();
CREATE TRIGGER fleet_pulse_changed AFTER UPDATE ON fleet_pulse
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION fleet_count_pulses();
CREATE TRIGGER fleet_pulse_removed AFTER DELETE ON fleet_pulse
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION fleet_count_pulses();
"""
# What the triggers would have counted. They lock the table until this transaction ends, so that no change is missed.
PRESENT = """
INSERT INTO fleet_pulsecount (environment_id, drifted, status, running_bundle_hash, count)
    SELECT environment_id, drifted, status, running_bundle_hash, count(*) FROM fleet_pulse GROUP BY 1, 2, 3, 4;
"""


class Migration(migrations.Migration):

    dependencies = [
        ('fleet', '0006_fleet_operations'),
        ('tenancy', '0009_job_troubles'),
    ]

    operations = [
        migrations.CreateModel(
            name='PulseCount',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('drifted', models.BooleanField()),
                ('status', models.CharField(max_length=10, null=True)),
                ('running_bundle_hash', models.CharField(max_length=71, null=True)),
                ('count', models.BigIntegerField()),
                ('environment', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenancy.environment')),
            ],
        ),
        migrations.RunSQL([TRIGGERS, PRESENT], "DROP FUNCTION fleet_count_pulses() CASCADE"),
    ]

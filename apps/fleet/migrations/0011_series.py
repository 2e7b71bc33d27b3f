"""Series: what heartbeats gather, and one row a day for each agent and environment.

The heartbeats' rows get the last counters that each agent reported, so that the first heartbeat after the upgrade adds
only what is new.
"""

import django.contrib.postgres.fields
import django.db.models.deletion
from django.db import migrations, models

PRESENT = """
UPDATE fleet_heartbeat AS heartbeat
SET series_boots = CASE WHEN boot_id IS NOT NULL THEN ARRAY[boot_id] END,
    series_deployment_id = running_deployment_id,
    series_counters = (
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
        ('fleet', '0010_counted_agents'),
        ('tenancy', '0014_quotas'),
    ]

    operations = [
        migrations.AddField(
            model_name='heartbeat',
            name='series_boots',
            field=django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=64), null=True),
        ),
        migrations.AddField(
            model_name='heartbeat',
            name='series_closed',
            field=django.contrib.postgres.fields.ArrayField(base_field=models.FloatField(null=True), null=True),
        ),
        migrations.AddField(
            model_name='heartbeat',
            name='series_counters',
            field=django.contrib.postgres.fields.ArrayField(base_field=models.FloatField(null=True), null=True),
        ),
        migrations.AddField(
            model_name='heartbeat',
            name='series_deployment_id',
            field=models.UUIDField(null=True),
        ),
        migrations.AddField(
            model_name='heartbeat',
            name='series_open',
            field=django.contrib.postgres.fields.ArrayField(base_field=models.FloatField(null=True), null=True),
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
        migrations.RunSQL([PRESENT, HOT], migrations.RunSQL.noop),
    ]

"""Create the tables of release 0.1.0 in a new database.

It replaces the migrations from before the release, which remain for databases to which some of them were applied.
"""

import byteor_cloud.ids
import django.contrib.postgres.fields
import django.contrib.postgres.indexes
import django.db.models.deletion
import django.db.models.functions.comparison
import django.db.models.functions.text
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    replaces = [
        ('fleet', '0001_initial'),
        ('fleet', '0002_hot_rows'),
        ('fleet', '0003_told_interval'),
        ('fleet', '0004_notify_changes'),
        ('fleet', '0005_history_and_facts'),
        ('fleet', '0006_fleet_operations'),
        ('fleet', '0007_pulse_counts'),
        ('fleet', '0008_found_by_name'),
        ('fleet', '0009_counted_rotations'),
        ('fleet', '0010_counted_agents'),
        ('fleet', '0011_capture'),
        ('fleet', '0012_series'),
        ('fleet', '0013_searches'),
        ('fleet', '0014_found_by_words'),
        ('fleet', '0015_held_offers'),
    ]

    dependencies = [
        ('tenancy', '0001_squashed_0021_database_defaults'),
    ]

    operations = [
        migrations.CreateModel(
            name='Agent',
            fields=[
                ('id', models.UUIDField(default=byteor_cloud.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('updated_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('revision', models.PositiveIntegerField(default=1, editable=False)),
                ('name', models.CharField(max_length=200)),
                ('hostname', models.CharField(blank=True, max_length=253)),
                ('labels', models.JSONField(default=dict)),
                ('public_key', models.TextField(blank=True)),
                ('decommissioned_at', models.DateTimeField(editable=False, null=True)),
                ('drained_at', models.DateTimeField(editable=False, null=True)),
                ('drain_reason', models.CharField(blank=True, editable=False, max_length=500)),
                ('environment', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenancy.environment')),
            ],
        ),
        migrations.CreateModel(
            name='AgentKey',
            fields=[
                ('id', models.UUIDField(default=byteor_cloud.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('digest', models.CharField(editable=False, max_length=64, unique=True)),
                ('prefix', models.CharField(editable=False, max_length=20)),
                ('expires_at', models.DateTimeField(null=True)),
                ('last_used_at', models.DateTimeField(editable=False, null=True)),
                ('revoked_at', models.DateTimeField(editable=False, null=True)),
                ('scopes', django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=40), default=list)),
                ('is_pending', models.BooleanField(default=False, editable=False)),
                ('counts_as_rotation', models.BooleanField(db_default=False, default=False, editable=False)),
                ('agent', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='keys', to='fleet.agent')),
            ],
            options={
                'abstract': False,
            },
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
        ),
        migrations.CreateModel(
            name='ChangedAgent',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('agent', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='fleet.agent')),
                ('environment', models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenancy.environment')),
            ],
        ),
        migrations.CreateModel(
            name='EnrollmentToken',
            fields=[
                ('id', models.UUIDField(default=byteor_cloud.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('digest', models.CharField(editable=False, max_length=64, unique=True)),
                ('prefix', models.CharField(editable=False, max_length=20)),
                ('expires_at', models.DateTimeField(null=True)),
                ('last_used_at', models.DateTimeField(editable=False, null=True)),
                ('revoked_at', models.DateTimeField(editable=False, null=True)),
                ('max_uses', models.PositiveIntegerField(default=1)),
                ('uses', models.PositiveIntegerField(default=0, editable=False)),
                ('labels', models.JSONField(default=dict)),
                ('replace', models.BooleanField(default=False)),
                ('environment', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenancy.environment')),
            ],
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
        ),
        migrations.CreateModel(
            name='LabelCount',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('key', models.TextField()),
                ('value', models.TextField()),
                ('count', models.BigIntegerField()),
                ('environment', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenancy.environment')),
            ],
        ),
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
        migrations.CreateModel(
            name='RefusedAgent',
            fields=[
                ('agent_id', models.UUIDField(primary_key=True, serialize=False)),
                ('first_at', models.DateTimeField()),
                ('last_at', models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name='RunningInterval',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('started_at', models.DateTimeField()),
                ('ended_at', models.DateTimeField(null=True)),
                ('confirmed_until', models.DateTimeField(null=True)),
                ('deployment_id', models.UUIDField(null=True)),
                ('bundle_hash', models.CharField(max_length=71)),
                ('spec_hash', models.CharField(max_length=71, null=True)),
                ('agent', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='history', to='fleet.agent')),
            ],
        ),
        migrations.CreateModel(
            name='SavedSearch',
            fields=[
                ('id', models.UUIDField(default=byteor_cloud.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('name', models.CharField(max_length=60)),
                ('query', models.CharField(max_length=500)),
                ('organization', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenancy.organization')),
                ('owner', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
        ),
        migrations.CreateModel(
            name='Assignment',
            fields=[
                ('agent', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, serialize=False, to='fleet.agent')),
                ('deployment_id', models.UUIDField(null=True)),
                ('bundle_deployment_id', models.UUIDField(null=True)),
                ('action', models.CharField(max_length=10, null=True)),
                ('bundle_hash', models.CharField(max_length=71, null=True)),
                ('bundle_size', models.BigIntegerField(null=True)),
                ('since', models.DateTimeField(null=True)),
                ('progress', models.CharField(default='pending', max_length=12)),
                ('attempted_deployment_id', models.UUIDField(null=True)),
                ('attempted_bundle_hash', models.CharField(max_length=71, null=True)),
                ('attempted_since', models.DateTimeField(null=True)),
                ('failed_deployment_id', models.UUIDField(null=True)),
                ('failed_bundle_hash', models.CharField(max_length=71, null=True)),
                ('failed_since', models.DateTimeField(null=True)),
                ('failed_detail', models.TextField(blank=True)),
                ('held_backup_at', models.DateTimeField(null=True)),
            ],
            options={
                'indexes': [models.Index(fields=['deployment_id'], name='fleet_assignment_deployment'), models.Index(condition=models.Q(('held_backup_at__isnull', False)), fields=['agent'], name='fleet_assignment_held')],
            },
        ),
        migrations.CreateModel(
            name='Heartbeat',
            fields=[
                ('agent', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, serialize=False, to='fleet.agent')),
                ('last_seen_at', models.DateTimeField(null=True)),
                ('next_heartbeat_s', models.FloatField(default=30.0)),
                ('status', models.CharField(max_length=10, null=True)),
                ('agent_version', models.CharField(max_length=64, null=True)),
                ('report', models.JSONField(default=dict)),
                ('running_deployment_id', models.UUIDField(null=True)),
                ('running_bundle_hash', models.CharField(max_length=71, null=True)),
                ('running_spec_hash', models.CharField(max_length=71, null=True)),
                ('running_since', models.DateTimeField(null=True)),
                ('commands', django.contrib.postgres.fields.ArrayField(base_field=models.CharField(choices=[('rotate_key', 'rotate_key'), ('capture', 'capture')], max_length=20), default=list)),
                ('boot_id', models.CharField(max_length=64, null=True)),
                ('superseded_boots', models.JSONField(default=dict)),
                ('clone_suspected_at', models.DateTimeField(null=True)),
                ('series_slot', models.IntegerField(null=True)),
                ('series_changed', models.BooleanField(null=True)),
                ('series_read', django.contrib.postgres.fields.ArrayField(base_field=models.FloatField(null=True), null=True)),
                ('series_recent', django.contrib.postgres.fields.ArrayField(base_field=models.FloatField(null=True), null=True)),
                ('series_sums', django.contrib.postgres.fields.ArrayField(base_field=models.FloatField(null=True), null=True)),
                ('series_last', django.contrib.postgres.fields.ArrayField(base_field=models.FloatField(null=True), null=True)),
                ('series_boots', django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=64), null=True)),
                ('series_deployment_id', models.UUIDField(null=True)),
                ('series_closed', models.JSONField(null=True)),
            ],
            options={
                'indexes': [models.Index(condition=models.Q(('clone_suspected_at__isnull', False)), fields=['agent'], name='fleet_heartbeat_cloned'), models.Index(fields=['agent_version'], name='fleet_heartbeat_version')],
            },
        ),
        migrations.CreateModel(
            name='Pulse',
            fields=[
                ('agent', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='pulse', serialize=False, to='fleet.agent')),
                ('online_until', models.DateTimeField()),
                ('offline_at', models.DateTimeField(null=True)),
                ('drifted', models.BooleanField()),
                ('status', models.CharField(max_length=10, null=True)),
                ('running_bundle_hash', models.CharField(max_length=71, null=True)),
                ('environment', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenancy.environment')),
            ],
        ),
        migrations.AddIndex(
            model_name='agent',
            index=django.contrib.postgres.indexes.GinIndex(fields=['labels'], name='fleet_agent_labels', opclasses=['jsonb_path_ops']),
        ),
        migrations.AddIndex(
            model_name='agent',
            index=models.Index(condition=models.Q(('drained_at__isnull', False)), fields=['environment'], name='fleet_agent_drained'),
        ),
        migrations.AddIndex(
            model_name='agent',
            index=models.Index(models.F('environment'), django.db.models.functions.comparison.Collate(django.db.models.functions.text.Upper('name'), 'C'), models.OrderBy(models.F('id'), descending=True), name='fleet_agent_found'),
        ),
        migrations.AddIndex(
            model_name='agent',
            index=models.Index(models.F('environment'), django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('name'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){1}([[:alnum:]].*)$')"), 'C'), models.OrderBy(models.F('id'), descending=True), condition=models.Q(models.Func(django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('name'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){1}([[:alnum:]].*)$')"), 'C'), output_field=models.BooleanField(), template='(%(expressions)s) IS NOT NULL')), name='fleet_agent_word_2'),
        ),
        migrations.AddIndex(
            model_name='agent',
            index=models.Index(models.F('environment'), django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('name'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){2}([[:alnum:]].*)$')"), 'C'), models.OrderBy(models.F('id'), descending=True), condition=models.Q(models.Func(django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('name'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){2}([[:alnum:]].*)$')"), 'C'), output_field=models.BooleanField(), template='(%(expressions)s) IS NOT NULL')), name='fleet_agent_word_3'),
        ),
        migrations.AddIndex(
            model_name='agent',
            index=models.Index(models.F('environment'), django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('name'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){3}([[:alnum:]].*)$')"), 'C'), models.OrderBy(models.F('id'), descending=True), condition=models.Q(models.Func(django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('name'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){3}([[:alnum:]].*)$')"), 'C'), output_field=models.BooleanField(), template='(%(expressions)s) IS NOT NULL')), name='fleet_agent_word_4'),
        ),
        migrations.AddIndex(
            model_name='agent',
            index=models.Index(models.F('environment'), django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('name'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){4}([[:alnum:]].*)$')"), 'C'), models.OrderBy(models.F('id'), descending=True), condition=models.Q(models.Func(django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('name'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){4}([[:alnum:]].*)$')"), 'C'), output_field=models.BooleanField(), template='(%(expressions)s) IS NOT NULL')), name='fleet_agent_word_5'),
        ),
        migrations.AddIndex(
            model_name='agent',
            index=models.Index(django.db.models.functions.text.Right(django.db.models.functions.comparison.Cast('id', models.TextField()), 6), name='fleet_agent_id_tail'),
        ),
        migrations.AddConstraint(
            model_name='agent',
            constraint=models.UniqueConstraint(condition=models.Q(('decommissioned_at', None)), fields=('environment', 'name'), name='fleet_agent_unique_name'),
        ),
        migrations.AddIndex(
            model_name='agentseries',
            index=models.Index(fields=['day'], name='fleet_agentseries_old'),
        ),
        migrations.AddConstraint(
            model_name='agentseries',
            constraint=models.UniqueConstraint(fields=('agent', 'day'), name='fleet_agentseries_day'),
        ),
        migrations.AddConstraint(
            model_name='enrollmenttoken',
            constraint=models.CheckConstraint(condition=models.Q(('uses__lte', models.F('max_uses'))), name='fleet_enrollmenttoken_uses'),
        ),
        migrations.AddIndex(
            model_name='environmentseries',
            index=models.Index(fields=['day'], name='fleet_environmentseries_old'),
        ),
        migrations.AddConstraint(
            model_name='environmentseries',
            constraint=models.UniqueConstraint(fields=('environment', 'day'), name='fleet_environmentseries_day'),
        ),
        migrations.AddIndex(
            model_name='runninginterval',
            index=models.Index(fields=['agent', 'started_at'], name='fleet_runninginterval_start'),
        ),
        migrations.AddIndex(
            model_name='runninginterval',
            index=models.Index(fields=['ended_at'], name='fleet_runninginterval_end'),
        ),
        migrations.AddConstraint(
            model_name='runninginterval',
            constraint=models.UniqueConstraint(condition=models.Q(('ended_at', None)), fields=('agent',), name='fleet_runninginterval_one_open'),
        ),
        migrations.AddConstraint(
            model_name='savedsearch',
            constraint=models.UniqueConstraint(fields=('owner', 'organization', 'name'), name='fleet_savedsearch_unique_name'),
        ),
        migrations.AddIndex(
            model_name='pulse',
            index=models.Index(fields=['environment', 'agent'], name='fleet_pulse_environment'),
        ),
        migrations.AddIndex(
            model_name='pulse',
            index=models.Index(condition=models.Q(('drifted', True)), fields=['environment', 'agent'], name='fleet_pulse_drifted'),
        ),
    ]

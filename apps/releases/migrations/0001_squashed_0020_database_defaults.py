"""Create the tables of release 0.1.0 in a new database.

It replaces the migrations from before the release, which remain for databases to which some of them were applied.
"""

import byteor_cloud.ids
import django.contrib.postgres.indexes
import django.db.models.deletion
import django.db.models.functions.comparison
import django.db.models.functions.text
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models


# An index needs this function. The key of a secret starts with the environment, so that a lookup reads no rows of other
# environments.
SECRET_KEYS = """
CREATE FUNCTION releases_secret_keys(environment uuid, env jsonb) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT array_agg(environment::text || ':' || (value->>'secret_ref')) FROM jsonb_each(env)
    WHERE jsonb_typeof(value) = 'object'
$$
"""


class Migration(migrations.Migration):

    initial = True

    replaces = [
        ('releases', '0001_initial'),
        ('releases', '0002_immutable'),
        ('releases', '0003_governed'),
        ('releases', '0004_large_fleets'),
        ('releases', '0005_counted_late_reports'),
        ('releases', '0006_requesters_behind_keys'),
        ('releases', '0007_outages'),
        ('releases', '0008_progress_counts'),
        ('releases', '0009_found_by_name'),
        ('releases', '0010_bound_options'),
        ('releases', '0011_counted_bundles'),
        ('releases', '0012_agent_failures'),
        ('releases', '0013_regressions'),
        ('releases', '0014_replay_gate'),
        ('releases', '0015_tests_of_current'),
        ('releases', '0016_steered'),
        ('releases', '0017_matrix'),
        ('releases', '0018_reminders'),
        ('releases', '0019_found_by_words'),
        ('releases', '0020_database_defaults'),
    ]

    dependencies = [
        ('fleet', '0001_squashed_0015_held_offers'),
        ('pipelines', '0001_squashed_0005_found_by_words'),
        ('tenancy', '0001_squashed_0021_database_defaults'),
    ]

    operations = [
        migrations.CreateModel(
            name='Approval',
            fields=[
                ('id', models.UUIDField(default=byteor_cloud.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('status', models.CharField(choices=[('pending', 'pending'), ('approved', 'approved'), ('denied', 'denied'), ('expired', 'expired'), ('revoked', 'revoked')], default='pending', max_length=10)),
                ('requester_id', models.UUIDField(null=True)),
                ('requested_by', models.CharField(max_length=300)),
                ('replay_id', models.UUIDField(null=True, unique=True)),
                ('break_glass', models.BooleanField(default=False)),
                ('spec_hash', models.CharField(max_length=71)),
                ('config_hash', models.CharField(max_length=71, null=True)),
                ('target', models.JSONField(null=True)),
                ('strategy', models.JSONField(null=True)),
                ('capabilities', models.JSONField(default=list)),
                ('options', models.JSONField(null=True)),
                ('explain', models.JSONField(db_default=[], default=list)),
                ('reviewers', models.JSONField(db_default=[], default=list)),
                ('wave', models.PositiveIntegerField(null=True)),
                ('wave_report', models.JSONField(null=True)),
                ('statement', models.TextField(editable=False, null=True)),
                ('required_approvals', models.PositiveIntegerField()),
                ('allow_self_approval', models.BooleanField()),
                ('expires_at', models.DateTimeField()),
                ('approved_at', models.DateTimeField(null=True)),
                ('credential', models.TextField(null=True)),
                ('used_at', models.DateTimeField(null=True)),
                ('reminded_at', models.DateTimeField(editable=False, null=True)),
                ('environment', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenancy.environment')),
            ],
        ),
        migrations.CreateModel(
            name='ConfigBundle',
            fields=[
                ('id', models.UUIDField(default=byteor_cloud.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('name', models.CharField(max_length=200)),
                ('tuning_profile', models.CharField(max_length=20)),
                ('wait', models.CharField(max_length=10)),
                ('stage_config', models.JSONField(default=dict)),
                ('adapters', models.JSONField(default=dict)),
                ('env', models.JSONField(default=dict)),
                ('snapshot', models.JSONField(default=dict)),
                ('required_capabilities', models.JSONField(default=list)),
                ('config_hash', models.CharField(max_length=71)),
                ('origin_id', models.UUIDField(null=True)),
                ('created_by', models.CharField(max_length=300)),
                ('environment', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenancy.environment')),
                ('version', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='pipelines.version')),
            ],
        ),
        migrations.CreateModel(
            name='Deployment',
            fields=[
                ('id', models.UUIDField(default=byteor_cloud.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('status', models.CharField(choices=[('pending_approval', 'pending_approval'), ('approved', 'approved'), ('denied', 'denied'), ('building', 'building'), ('deploying', 'deploying'), ('active', 'active'), ('failed', 'failed'), ('rolling_back', 'rolling_back'), ('rolled_back', 'rolled_back')], max_length=20)),
                ('pipeline', models.CharField(max_length=63)),
                ('config_hash', models.CharField(max_length=71)),
                ('target', models.JSONField()),
                ('target_count', models.PositiveIntegerField()),
                ('strategy', models.JSONField()),
                ('policy', models.JSONField()),
                ('take_over', models.BooleanField(default=False)),
                ('requested_by', models.CharField(max_length=300)),
                ('requester_id', models.UUIDField(editable=False, null=True)),
                ('note', models.TextField(blank=True)),
                ('reason', models.CharField(blank=True, max_length=40)),
                ('detail', models.TextField(blank=True)),
                ('wave', models.PositiveIntegerField(default=0)),
                ('wave_done_at', models.DateTimeField(null=True)),
                ('wave_hold', models.JSONField(null=True)),
                ('start_at', models.DateTimeField(null=True)),
                ('reviewers', models.JSONField(db_default=[], default=list)),
                ('is_current', models.BooleanField(default=False)),
                ('rollback_reason', models.TextField(blank=True)),
                ('paused_at', models.DateTimeField(null=True)),
                ('approved_at', models.DateTimeField(null=True)),
                ('break_glass', models.JSONField(null=True)),
                ('freeze_override', models.TextField(blank=True)),
                ('replay_gate_override', models.TextField(blank=True, db_default='', default='')),
                ('explain', models.JSONField(db_default=[], default=list)),
                ('gated_at', models.DateTimeField(null=True)),
                ('gate_until', models.DateTimeField(null=True)),
                ('served_at', models.DateTimeField(null=True)),
                ('timeouts_from', models.DateTimeField(null=True)),
                ('signing_keys', models.JSONField(null=True)),
                ('manifest', models.JSONField(null=True)),
                ('bundle_hash', models.CharField(max_length=71, null=True)),
                ('bundle_size', models.BigIntegerField(null=True)),
                ('activated_at', models.DateTimeField(null=True)),
                ('enlisting', models.JSONField(null=True)),
                ('approval', models.OneToOneField(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='deployment', to='releases.approval')),
                ('config_bundle', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='releases.configbundle')),
                ('environment', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenancy.environment')),
                ('handed_in', models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='releases.approval')),
                ('restores', models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='releases.deployment')),
                ('superseded_by', models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='releases.deployment')),
            ],
        ),
        migrations.CreateModel(
            name='Attestation',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('predicate_type', models.CharField(max_length=100)),
                ('sha256', models.CharField(max_length=71)),
                ('size', models.PositiveIntegerField()),
                ('envelope', models.TextField()),
                ('deployment', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='attestations', to='releases.deployment')),
            ],
        ),
        migrations.AddField(
            model_name='approval',
            name='rollout',
            field=models.ForeignKey(editable=False, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='wave_approvals', to='releases.deployment'),
        ),
        migrations.CreateModel(
            name='AgentReport',
            fields=[
                ('id', models.UUIDField(default=byteor_cloud.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('status', models.CharField(max_length=12)),
                ('bundle_hash', models.CharField(max_length=71)),
                ('detail', models.TextField(blank=True)),
                ('accepted', models.BooleanField()),
                ('count', models.PositiveIntegerField(default=1)),
                ('last_at', models.DateTimeField(default=django.utils.timezone.now)),
                ('agent', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='fleet.agent')),
                ('deployment', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='reports', to='releases.deployment')),
            ],
        ),
        migrations.CreateModel(
            name='DeploymentAgent',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('wave', models.PositiveIntegerField()),
                ('counted', models.BooleanField(default=True)),
                ('action', models.CharField(default='activate', max_length=10)),
                ('progress', models.CharField(choices=[('pending', 'pending'), ('offered', 'offered'), ('downloading', 'downloading'), ('activating', 'activating'), ('active', 'active'), ('failed', 'failed'), ('rolled_back', 'rolled_back')], default='pending', max_length=12)),
                ('offered_at', models.DateTimeField(null=True)),
                ('tuning', models.JSONField(null=True)),
                ('detail', models.TextField(blank=True)),
                ('updated_at', models.DateTimeField(default=django.utils.timezone.now)),
                ('agent', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='fleet.agent')),
                ('before', models.ForeignKey(db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='releases.deployment')),
                ('deployment', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='agents', to='releases.deployment')),
            ],
        ),
        migrations.CreateModel(
            name='AgentFailure',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('action', models.CharField(max_length=10)),
                ('reason', models.CharField(choices=[('reported', 'reported'), ('timeout', 'timeout'), ('rollback_reported', 'rollback_reported'), ('rollback_timeout', 'rollback_timeout')], max_length=20)),
                ('detail', models.TextField(blank=True)),
                ('cause', models.CharField(blank=True, max_length=200)),
                ('at', models.DateTimeField()),
                ('deployment', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='failures', to='releases.deployment')),
                ('part', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='failures', to='releases.deploymentagent')),
            ],
        ),
        migrations.CreateModel(
            name='FixtureRevision',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('pipeline', models.CharField(max_length=63)),
                ('revision', models.BigIntegerField(default=0)),
                ('removed', models.BigIntegerField(default=0)),
                ('environment', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenancy.environment')),
            ],
        ),
        migrations.CreateModel(
            name='KnownBad',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('config_hash', models.CharField(max_length=71)),
                ('reason', models.CharField(max_length=500)),
                ('since', models.DateTimeField(default=django.utils.timezone.now)),
                ('environment', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenancy.environment')),
            ],
        ),
        migrations.CreateModel(
            name='ProgressCount',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('wave', models.PositiveIntegerField()),
                ('counted', models.BooleanField()),
                ('progress', models.CharField(max_length=12)),
                ('count', models.IntegerField()),
                ('is_sum', models.BooleanField(db_default=False)),
                ('deployment', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='progress_counts', to='releases.deployment')),
            ],
        ),
        migrations.CreateModel(
            name='Regression',
            fields=[
                ('id', models.UUIDField(default=byteor_cloud.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('status', models.CharField(choices=[('queued', 'queued'), ('running', 'running'), ('passed', 'passed'), ('differs', 'differs'), ('failed', 'failed'), ('cancelled', 'cancelled')], default='queued', max_length=10)),
                ('pipeline', models.CharField(max_length=63)),
                ('spec_kv', models.TextField()),
                ('config_hash', models.CharField(max_length=71, null=True)),
                ('baselines', models.JSONField(default=list)),
                ('not_tested', models.JSONField(default=list)),
                ('fixtures', models.PositiveIntegerField(default=0)),
                ('progress_done', models.PositiveIntegerField(default=0)),
                ('progress_total', models.PositiveIntegerField(default=0)),
                ('fixtures_revision', models.BigIntegerField(db_default=0, default=0)),
                ('fixtures_removed', models.BigIntegerField(db_default=0, default=0)),
                ('fixtures_until', models.DateTimeField(null=True)),
                ('engine', models.JSONField(null=True)),
                ('outcomes', models.JSONField(db_default={}, default=dict)),
                ('tests', models.JSONField(null=True)),
                ('of_current', models.BooleanField(db_default=False, default=False)),
                ('newly_accepted', models.JSONField(null=True)),
                ('reused', models.PositiveIntegerField(default=0)),
                ('computed', models.PositiveIntegerField(default=0)),
                ('groups', models.JSONField(default=list)),
                ('more', models.BigIntegerField(default=0)),
                ('vacuous', models.BooleanField(default=False)),
                ('work_candidate', models.BigIntegerField(default=0)),
                ('work_baseline', models.BigIntegerField(default=0)),
                ('summary', models.TextField(blank=True)),
                ('error', models.TextField(null=True)),
                ('requested_by', models.CharField(max_length=300)),
                ('person', models.UUIDField(editable=False, null=True)),
                ('started_at', models.DateTimeField(null=True)),
                ('finished_at', models.DateTimeField(null=True)),
                ('config_bundle', models.ForeignKey(null=True, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='releases.configbundle')),
                ('draft', models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='pipelines.draft')),
                ('environment', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenancy.environment')),
                ('version', models.ForeignKey(null=True, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='pipelines.version')),
            ],
        ),
        migrations.AddField(
            model_name='deployment',
            name='regression',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='deployments', to='releases.regression'),
        ),
        migrations.CreateModel(
            name='Acceptance',
            fields=[
                ('id', models.UUIDField(default=byteor_cloud.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('config_hash', models.CharField(max_length=71)),
                ('reason', models.TextField()),
                ('person', models.UUIDField(editable=False, null=True)),
                ('accepted_by', models.CharField(max_length=300)),
                ('ended_at', models.DateTimeField(null=True)),
                ('environment', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenancy.environment')),
                ('user', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('regression', models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='acceptances', to='releases.regression')),
            ],
        ),
        migrations.CreateModel(
            name='TimelineEntry',
            fields=[
                ('id', models.UUIDField(default=byteor_cloud.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('event', models.CharField(max_length=40)),
                ('actor', models.CharField(max_length=300)),
                ('detail', models.JSONField(default=dict)),
                ('deployment', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='timeline', to='releases.deployment')),
            ],
            options={
                'abstract': False,
            },
        ),
        migrations.CreateModel(
            name='AcceptedDifference',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('group', models.CharField(max_length=64)),
                ('baseline', models.CharField(max_length=71, null=True)),
                ('acceptance', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='differences', to='releases.acceptance')),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('acceptance', 'group', 'baseline'), name='releases_accepteddifference_unique', nulls_distinct=False)],
            },
        ),
        migrations.CreateModel(
            name='ApprovalDecision',
            fields=[
                ('id', models.UUIDField(default=byteor_cloud.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('decided_by', models.CharField(max_length=300)),
                ('decision', models.CharField(max_length=10)),
                ('comment', models.TextField(blank=True)),
                ('approval', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='decisions', to='releases.approval')),
                ('user', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('approval', 'user'), name='releases_approvaldecision_unique_user'), models.CheckConstraint(condition=models.Q(('decision__in', ['approve', 'deny'])), name='releases_approvaldecision_decision')],
            },
        ),
        migrations.AddIndex(
            model_name='configbundle',
            index=models.Index(fields=['environment', 'config_hash'], name='releases_configbundle_hash'),
        ),
        migrations.AddIndex(
            model_name='configbundle',
            index=models.Index(models.F('environment'), django.db.models.functions.comparison.Collate(django.db.models.functions.text.Upper('name'), 'C'), models.OrderBy(models.F('id'), descending=True), name='releases_configbundle_found'),
        ),
        migrations.AddIndex(
            model_name='configbundle',
            index=models.Index(models.F('environment'), django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('name'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){1}([[:alnum:]].*)$')"), 'C'), models.OrderBy(models.F('id'), descending=True), condition=models.Q(models.Func(django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('name'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){1}([[:alnum:]].*)$')"), 'C'), output_field=models.BooleanField(), template='(%(expressions)s) IS NOT NULL')), name='releases_configbundle_word_2'),
        ),
        migrations.AddIndex(
            model_name='configbundle',
            index=models.Index(models.F('environment'), django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('name'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){2}([[:alnum:]].*)$')"), 'C'), models.OrderBy(models.F('id'), descending=True), condition=models.Q(models.Func(django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('name'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){2}([[:alnum:]].*)$')"), 'C'), output_field=models.BooleanField(), template='(%(expressions)s) IS NOT NULL')), name='releases_configbundle_word_3'),
        ),
        migrations.AddIndex(
            model_name='configbundle',
            index=models.Index(models.F('environment'), django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('name'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){3}([[:alnum:]].*)$')"), 'C'), models.OrderBy(models.F('id'), descending=True), condition=models.Q(models.Func(django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('name'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){3}([[:alnum:]].*)$')"), 'C'), output_field=models.BooleanField(), template='(%(expressions)s) IS NOT NULL')), name='releases_configbundle_word_4'),
        ),
        migrations.AddIndex(
            model_name='configbundle',
            index=models.Index(models.F('environment'), django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('name'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){4}([[:alnum:]].*)$')"), 'C'), models.OrderBy(models.F('id'), descending=True), condition=models.Q(models.Func(django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('name'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){4}([[:alnum:]].*)$')"), 'C'), output_field=models.BooleanField(), template='(%(expressions)s) IS NOT NULL')), name='releases_configbundle_word_5'),
        ),
        migrations.AddIndex(
            model_name='configbundle',
            index=models.Index(django.db.models.functions.text.Right(django.db.models.functions.comparison.Cast('id', models.TextField()), 6), name='releases_configbundle_id_tail'),
        ),
        migrations.RunSQL(SECRET_KEYS, "DROP FUNCTION releases_secret_keys(uuid, jsonb)"),
        migrations.AddIndex(
            model_name='configbundle',
            index=django.contrib.postgres.indexes.GinIndex(models.Func('environment', 'env', function='releases_secret_keys'), fastupdate=False, name='releases_configbundle_secrets'),
        ),
        migrations.AddConstraint(
            model_name='configbundle',
            constraint=models.UniqueConstraint(fields=('environment', 'name'), name='releases_configbundle_unique_name'),
        ),
        migrations.AddConstraint(
            model_name='attestation',
            constraint=models.UniqueConstraint(fields=('deployment', 'predicate_type'), name='releases_attestation_unique'),
        ),
        migrations.AddIndex(
            model_name='approval',
            index=models.Index(condition=models.Q(('status', 'pending')), fields=['expires_at'], name='releases_approval_pending'),
        ),
        migrations.AddIndex(
            model_name='approval',
            index=models.Index(django.db.models.functions.text.Right(django.db.models.functions.comparison.Cast('id', models.TextField()), 6), name='releases_approval_id_tail'),
        ),
        migrations.AddConstraint(
            model_name='approval',
            constraint=models.CheckConstraint(condition=models.Q(('status__in', ['pending', 'approved', 'denied', 'expired', 'revoked'])), name='releases_approval_status'),
        ),
        migrations.AddConstraint(
            model_name='approval',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('rollout__isnull', True), ('wave__isnull', True)), models.Q(('rollout__isnull', False), ('wave__isnull', False)), _connector='OR'), name='releases_approval_wave'),
        ),
        migrations.AddIndex(
            model_name='agentreport',
            index=models.Index(fields=['deployment', 'agent'], name='releases_agentreport_offer'),
        ),
        migrations.AddConstraint(
            model_name='agentreport',
            constraint=models.UniqueConstraint(condition=models.Q(('accepted', False)), fields=('deployment', 'agent', 'status'), name='releases_agentreport_one_late'),
        ),
        migrations.AddConstraint(
            model_name='deploymentagent',
            constraint=models.UniqueConstraint(fields=('deployment', 'agent'), name='releases_deploymentagent_unique'),
        ),
        migrations.AddConstraint(
            model_name='deploymentagent',
            constraint=models.CheckConstraint(condition=models.Q(('progress__in', ['pending', 'offered', 'downloading', 'activating', 'active', 'failed', 'rolled_back'])), name='releases_deploymentagent_progress'),
        ),
        migrations.AddConstraint(
            model_name='agentfailure',
            constraint=models.UniqueConstraint(fields=('part', 'action'), name='releases_agentfailure_unique'),
        ),
        migrations.AddConstraint(
            model_name='agentfailure',
            constraint=models.CheckConstraint(condition=models.Q(('reason__in', ['reported', 'timeout', 'rollback_reported', 'rollback_timeout'])), name='releases_agentfailure_reason'),
        ),
        migrations.AddConstraint(
            model_name='fixturerevision',
            constraint=models.UniqueConstraint(fields=('environment', 'pipeline'), name='releases_fixturerevision_unique'),
        ),
        migrations.AddConstraint(
            model_name='knownbad',
            constraint=models.UniqueConstraint(fields=('environment', 'config_hash'), name='releases_knownbad_unique'),
        ),
        migrations.AddIndex(
            model_name='progresscount',
            index=models.Index(fields=['deployment'], name='releases_progresscount_of'),
        ),
        migrations.AddIndex(
            model_name='progresscount',
            index=models.Index(condition=models.Q(('is_sum', False)), fields=['deployment'], name='releases_progresscount_new'),
        ),
        migrations.AddIndex(
            model_name='regression',
            index=models.Index(fields=['finished_at'], name='releases_regression_finished'),
        ),
        migrations.AddIndex(
            model_name='regression',
            index=models.Index(django.db.models.functions.text.Right(django.db.models.functions.comparison.Cast('id', models.TextField()), 6), name='releases_regression_id_tail'),
        ),
        migrations.AddIndex(
            model_name='regression',
            index=models.Index(condition=models.Q(('of_current', True)), fields=['config_bundle', 'id'], name='releases_regression_of_current'),
        ),
        migrations.AddIndex(
            model_name='regression',
            index=models.Index(condition=models.Q(('newly_accepted__isnull', False)), fields=['id'], name='releases_regression_accepted'),
        ),
        migrations.AddConstraint(
            model_name='regression',
            constraint=models.CheckConstraint(condition=models.Q(('status__in', ['queued', 'running', 'passed', 'differs', 'failed', 'cancelled'])), name='releases_regression_status'),
        ),
        migrations.AddIndex(
            model_name='deployment',
            index=models.Index(fields=['environment', 'status'], name='releases_deployment_env_status'),
        ),
        migrations.AddIndex(
            model_name='deployment',
            index=models.Index(fields=['bundle_hash'], name='releases_deployment_bundle'),
        ),
        migrations.AddIndex(
            model_name='deployment',
            index=models.Index(models.F('environment'), django.db.models.functions.comparison.Collate(django.db.models.functions.text.Upper('pipeline'), 'C'), models.OrderBy(models.F('id'), descending=True), name='releases_deployment_found'),
        ),
        migrations.AddIndex(
            model_name='deployment',
            index=models.Index(models.F('environment'), django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('pipeline'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){1}([[:alnum:]].*)$')"), 'C'), models.OrderBy(models.F('id'), descending=True), condition=models.Q(models.Func(django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('pipeline'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){1}([[:alnum:]].*)$')"), 'C'), output_field=models.BooleanField(), template='(%(expressions)s) IS NOT NULL')), name='releases_deployment_word_2'),
        ),
        migrations.AddIndex(
            model_name='deployment',
            index=models.Index(models.F('environment'), django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('pipeline'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){2}([[:alnum:]].*)$')"), 'C'), models.OrderBy(models.F('id'), descending=True), condition=models.Q(models.Func(django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('pipeline'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){2}([[:alnum:]].*)$')"), 'C'), output_field=models.BooleanField(), template='(%(expressions)s) IS NOT NULL')), name='releases_deployment_word_3'),
        ),
        migrations.AddIndex(
            model_name='deployment',
            index=models.Index(models.F('environment'), django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('pipeline'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){3}([[:alnum:]].*)$')"), 'C'), models.OrderBy(models.F('id'), descending=True), condition=models.Q(models.Func(django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('pipeline'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){3}([[:alnum:]].*)$')"), 'C'), output_field=models.BooleanField(), template='(%(expressions)s) IS NOT NULL')), name='releases_deployment_word_4'),
        ),
        migrations.AddIndex(
            model_name='deployment',
            index=models.Index(models.F('environment'), django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('pipeline'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){4}([[:alnum:]].*)$')"), 'C'), models.OrderBy(models.F('id'), descending=True), condition=models.Q(models.Func(django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('pipeline'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){4}([[:alnum:]].*)$')"), 'C'), output_field=models.BooleanField(), template='(%(expressions)s) IS NOT NULL')), name='releases_deployment_word_5'),
        ),
        migrations.AddIndex(
            model_name='deployment',
            index=models.Index(django.db.models.functions.text.Right(django.db.models.functions.comparison.Cast('id', models.TextField()), 6), name='releases_deployment_id_tail'),
        ),
        migrations.AddIndex(
            model_name='deployment',
            index=models.Index(condition=models.Q(('status__in', ('building', 'deploying', 'rolling_back'))), fields=['status'], name='releases_deployment_under_way'),
        ),
        migrations.AddConstraint(
            model_name='deployment',
            constraint=models.UniqueConstraint(condition=models.Q(('is_current', True)), fields=('environment', 'pipeline'), name='releases_deployment_one_current'),
        ),
        migrations.AddConstraint(
            model_name='deployment',
            constraint=models.CheckConstraint(condition=models.Q(('status__in', ['pending_approval', 'approved', 'denied', 'building', 'deploying', 'active', 'failed', 'rolling_back', 'rolled_back'])), name='releases_deployment_status'),
        ),
        migrations.AddConstraint(
            model_name='deployment',
            constraint=models.CheckConstraint(condition=models.Q(('is_current', False), ('status__in', ['active', 'rolling_back']), _connector='OR'), name='releases_deployment_current_active'),
        ),
        migrations.AddIndex(
            model_name='acceptance',
            index=models.Index(condition=models.Q(('ended_at', None)), fields=['environment', 'config_hash'], name='releases_acceptance_valid'),
        ),
    ]

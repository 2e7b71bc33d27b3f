"""Create the tables of release 0.1.0 in a new database.

It replaces the migrations from before the release, which remain for databases to which some of them were applied.
"""

import byteor_cloud.ids
import django.db.models.deletion
import django.db.models.functions.comparison
import django.db.models.functions.text
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    replaces = [
        ('artifacts', '0001_initial'),
        ('artifacts', '0002_execute'),
        ('artifacts', '0003_unreferenced_blobs'),
        ('artifacts', '0004_replay_error_code'),
        ('artifacts', '0005_replay_requests'),
        ('artifacts', '0006_replay_frames'),
        ('artifacts', '0007_bisects'),
        ('artifacts', '0008_derived_bytes'),
        ('artifacts', '0009_filtered_lists'),
        ('artifacts', '0010_ingest_serials'),
        ('artifacts', '0011_person_behind_replays'),
        ('artifacts', '0012_count_kept_folders'),
        ('artifacts', '0013_counted_uploads'),
        ('artifacts', '0014_parameters_of_other_versions'),
        ('artifacts', '0015_fixtures'),
        ('artifacts', '0016_example_bytes'),
        ('artifacts', '0017_expected_results'),
        ('artifacts', '0018_capture'),
        ('artifacts', '0019_found_by_words'),
        ('artifacts', '0020_newest_of_agents'),
        ('artifacts', '0021_database_defaults'),
    ]

    dependencies = [
        ('fleet', '0001_squashed_0015_held_offers'),
        ('pipelines', '0001_squashed_0005_found_by_words'),
        ('releases', '0001_squashed_0020_database_defaults'),
        ('tenancy', '0001_squashed_0021_database_defaults'),
    ]

    operations = [
        migrations.CreateModel(
            name='Replay',
            fields=[
                ('id', models.UUIDField(default=byteor_cloud.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('status', models.CharField(choices=[('pending_approval', 'pending_approval'), ('queued', 'queued'), ('denied', 'denied'), ('running', 'running'), ('succeeded', 'succeeded'), ('diverged', 'diverged'), ('failed', 'failed')], default='queued', max_length=20)),
                ('mode', models.CharField(choices=[('dry_run', 'Dry Run'), ('execute', 'Execute')], default='dry_run', max_length=10)),
                ('journal_lane', models.CharField(max_length=200, null=True)),
                ('last_n', models.PositiveIntegerField(null=True)),
                ('requested_by', models.CharField(max_length=300)),
                ('person', models.UUIDField(editable=False, null=True)),
                ('result', models.JSONField(null=True)),
                ('audit', models.JSONField(null=True)),
                ('warnings', models.JSONField(default=list)),
                ('progress_done', models.BigIntegerField(default=0)),
                ('progress_total', models.BigIntegerField(default=0)),
                ('error', models.TextField(null=True)),
                ('error_code', models.CharField(max_length=40, null=True)),
                ('started_at', models.DateTimeField(null=True)),
                ('finished_at', models.DateTimeField(null=True)),
                ('approval', models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='releases.approval')),
            ],
        ),
        migrations.CreateModel(
            name='Artifact',
            fields=[
                ('id', models.UUIDField(default=byteor_cloud.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('status', models.CharField(choices=[('received', 'received'), ('verified', 'verified'), ('rejected', 'rejected')], default='received', max_length=10)),
                ('reasons', models.JSONField(default=list)),
                ('kind', models.CharField(choices=[('incident_bundle', 'Incident Bundle'), ('snapshot', 'Snapshot'), ('telemetry', 'Telemetry'), ('diagnostic', 'Diagnostic')], max_length=20)),
                ('spec_hash', models.CharField(max_length=71, null=True)),
                ('content_hash', models.CharField(max_length=71)),
                ('size_bytes', models.BigIntegerField()),
                ('derived_bytes', models.BigIntegerField(default=0)),
                ('captured_at', models.DateTimeField()),
                ('metadata', models.JSONField(default=dict)),
                ('origin', models.JSONField(null=True)),
                ('declared', models.CharField(max_length=150)),
                ('agent', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='fleet.agent')),
                ('deployment', models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='releases.deployment')),
                ('environment', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenancy.environment')),
                ('version', models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='pipelines.version')),
            ],
        ),
        migrations.CreateModel(
            name='Bisect',
            fields=[
                ('id', models.UUIDField(default=byteor_cloud.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('status', models.CharField(choices=[('queued', 'queued'), ('running', 'running'), ('succeeded', 'succeeded'), ('failed', 'failed'), ('cancelled', 'cancelled')], default='queued', max_length=10)),
                ('predicate', models.JSONField()),
                ('exhaustive', models.BooleanField(default=False)),
                ('versions', models.JSONField()),
                ('outcome', models.CharField(max_length=20, null=True)),
                ('diff', models.JSONField(null=True)),
                ('monotone', models.BooleanField(null=True)),
                ('error', models.TextField(null=True)),
                ('requested_by', models.CharField(max_length=300)),
                ('person', models.UUIDField(editable=False, null=True)),
                ('finished_at', models.DateTimeField(null=True)),
                ('artifact', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='bisects', to='artifacts.artifact')),
                ('environment', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenancy.environment')),
                ('first_bad', models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='pipelines.version')),
                ('last_good', models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='pipelines.version')),
            ],
        ),
        migrations.CreateModel(
            name='Fixture',
            fields=[
                ('id', models.UUIDField(default=byteor_cloud.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('updated_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('revision', models.PositiveIntegerField(default=1, editable=False)),
                ('pipeline', models.CharField(max_length=63)),
                ('name', models.CharField(max_length=200)),
                ('note', models.TextField(blank=True)),
                ('journal_lane', models.CharField(max_length=200, null=True)),
                ('last_n', models.PositiveIntegerField(null=True)),
                ('expires_at', models.DateTimeField(null=True)),
                ('golden_replay_id', models.UUIDField(null=True)),
                ('golden', models.JSONField(null=True)),
                ('also_expected', models.JSONField(db_default=[], default=list)),
                ('also_golden', models.JSONField(db_default=[], default=list)),
                ('created_by', models.CharField(max_length=300)),
                ('artifact', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='fixtures', to='artifacts.artifact')),
                ('environment', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenancy.environment')),
                ('owner', models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
        ),
        migrations.CreateModel(
            name='ReplayFrames',
            fields=[
                ('replay', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='+', serialize=False, to='artifacts.replay')),
                ('frames', models.JSONField()),
            ],
        ),
        migrations.AddField(
            model_name='replay',
            name='artifact',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='replays', to='artifacts.artifact'),
        ),
        migrations.AddField(
            model_name='replay',
            name='bisect',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.CASCADE, related_name='replays', to='artifacts.bisect'),
        ),
        migrations.AddField(
            model_name='replay',
            name='config_bundle',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='releases.configbundle'),
        ),
        migrations.AddField(
            model_name='replay',
            name='environment',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenancy.environment'),
        ),
        migrations.AddField(
            model_name='replay',
            name='fallback_config_bundle',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='releases.configbundle'),
        ),
        migrations.AddField(
            model_name='replay',
            name='version',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='pipelines.version'),
        ),
        migrations.CreateModel(
            name='RequestedCapture',
            fields=[
                ('id', models.UUIDField(default=byteor_cloud.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('status', models.CharField(choices=[('requested', 'requested'), ('uploaded', 'uploaded'), ('expired', 'expired')], default='requested', max_length=10)),
                ('reason', models.CharField(max_length=500)),
                ('last_n', models.PositiveIntegerField(null=True)),
                ('requested_by', models.CharField(max_length=300)),
                ('expires_at', models.DateTimeField()),
                ('uploaded_at', models.DateTimeField(null=True)),
                ('agent', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='fleet.agent')),
                ('artifact', models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='artifacts.artifact')),
                ('environment', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenancy.environment')),
            ],
        ),
        migrations.CreateModel(
            name='UnreferencedBlob',
            fields=[
                ('content_hash', models.CharField(max_length=200, primary_key=True, serialize=False)),
                ('since', models.DateTimeField(default=django.utils.timezone.now)),
            ],
            options={
                'indexes': [models.Index(fields=['since'], name='artifacts_unreferenced_since')],
            },
        ),
        migrations.CreateModel(
            name='Verdict',
            fields=[
                ('id', models.UUIDField(default=byteor_cloud.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('key', models.CharField(max_length=71)),
                ('outcome', models.CharField(choices=[('equal', 'equal'), ('different', 'different'), ('failed', 'failed'), ('unstable', 'unstable'), ('not_tested', 'not_tested')], max_length=10)),
                ('groups', models.JSONField(default=list)),
                ('more', models.BigIntegerField(default=0)),
                ('records', models.BigIntegerField(default=0)),
                ('work_candidate', models.BigIntegerField(default=0)),
                ('work_baseline', models.BigIntegerField(default=0)),
                ('error', models.TextField(null=True)),
                ('stage', models.CharField(max_length=63, null=True)),
                ('result', models.JSONField(null=True)),
                ('example_bytes', models.PositiveIntegerField(db_default=0, default=0)),
                ('used_at', models.DateTimeField(default=django.utils.timezone.now)),
                ('organization', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenancy.organization')),
            ],
        ),
        migrations.CreateModel(
            name='RegressionResult',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('fixture_id', models.UUIDField()),
                ('fixture_name', models.CharField(max_length=200)),
                ('baseline', models.CharField(max_length=71, null=True)),
                ('golden_replay_id', models.UUIDField(null=True)),
                ('outcome', models.CharField(choices=[('equal', 'equal'), ('different', 'different'), ('failed', 'failed'), ('unstable', 'unstable'), ('not_tested', 'not_tested')], max_length=10, null=True)),
                ('error', models.TextField(null=True)),
                ('regression', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='results', to='releases.regression')),
                ('verdict', models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='artifacts.verdict')),
            ],
        ),
        migrations.CreateModel(
            name='VerdictExample',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('group', models.CharField(max_length=64)),
                ('example', models.JSONField()),
                ('artifact', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='artifacts.artifact')),
                ('verdict', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='examples', to='artifacts.verdict')),
            ],
        ),
        migrations.AddIndex(
            model_name='artifact',
            index=models.Index(fields=['content_hash'], name='artifacts_artifact_content'),
        ),
        migrations.AddIndex(
            model_name='artifact',
            index=models.Index(fields=['agent', 'id'], name='artifacts_artifact_agent'),
        ),
        migrations.AddIndex(
            model_name='artifact',
            index=models.Index(django.db.models.functions.text.Right(django.db.models.functions.comparison.Cast('id', models.TextField()), 6), name='artifacts_artifact_id_tail'),
        ),
        migrations.AddIndex(
            model_name='artifact',
            index=models.Index(fields=['environment', 'kind', 'id'], name='artifacts_artifact_kind'),
        ),
        migrations.AddIndex(
            model_name='artifact',
            index=models.Index(condition=models.Q(('status', 'verified'), _negated=True), fields=['environment', 'status', 'id'], name='artifacts_artifact_unverified'),
        ),
        migrations.AddIndex(
            model_name='artifact',
            index=models.Index(condition=models.Q(('derived_bytes__gt', 0)), fields=['id'], name='artifacts_artifact_derived'),
        ),
        migrations.AddConstraint(
            model_name='artifact',
            constraint=models.UniqueConstraint(fields=('environment', 'content_hash', 'declared'), name='artifacts_artifact_unique_upload'),
        ),
        migrations.AddConstraint(
            model_name='artifact',
            constraint=models.CheckConstraint(condition=models.Q(('status__in', ['received', 'verified', 'rejected'])), name='artifacts_artifact_status'),
        ),
        migrations.AddIndex(
            model_name='bisect',
            index=models.Index(django.db.models.functions.text.Right(django.db.models.functions.comparison.Cast('id', models.TextField()), 6), name='artifacts_bisect_id_tail'),
        ),
        migrations.AddConstraint(
            model_name='bisect',
            constraint=models.CheckConstraint(condition=models.Q(('status__in', ['queued', 'running', 'succeeded', 'failed', 'cancelled'])), name='artifacts_bisect_status'),
        ),
        migrations.AddIndex(
            model_name='fixture',
            index=models.Index(models.F('environment'), django.db.models.functions.comparison.Collate(django.db.models.functions.text.Upper('name'), 'C'), models.OrderBy(models.F('id'), descending=True), name='artifacts_fixture_found'),
        ),
        migrations.AddIndex(
            model_name='fixture',
            index=models.Index(models.F('environment'), django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('name'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){1}([[:alnum:]].*)$')"), 'C'), models.OrderBy(models.F('id'), descending=True), condition=models.Q(models.Func(django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('name'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){1}([[:alnum:]].*)$')"), 'C'), output_field=models.BooleanField(), template='(%(expressions)s) IS NOT NULL')), name='artifacts_fixture_word_2'),
        ),
        migrations.AddIndex(
            model_name='fixture',
            index=models.Index(models.F('environment'), django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('name'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){2}([[:alnum:]].*)$')"), 'C'), models.OrderBy(models.F('id'), descending=True), condition=models.Q(models.Func(django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('name'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){2}([[:alnum:]].*)$')"), 'C'), output_field=models.BooleanField(), template='(%(expressions)s) IS NOT NULL')), name='artifacts_fixture_word_3'),
        ),
        migrations.AddIndex(
            model_name='fixture',
            index=models.Index(models.F('environment'), django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('name'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){3}([[:alnum:]].*)$')"), 'C'), models.OrderBy(models.F('id'), descending=True), condition=models.Q(models.Func(django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('name'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){3}([[:alnum:]].*)$')"), 'C'), output_field=models.BooleanField(), template='(%(expressions)s) IS NOT NULL')), name='artifacts_fixture_word_4'),
        ),
        migrations.AddIndex(
            model_name='fixture',
            index=models.Index(models.F('environment'), django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('name'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){4}([[:alnum:]].*)$')"), 'C'), models.OrderBy(models.F('id'), descending=True), condition=models.Q(models.Func(django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('name'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){4}([[:alnum:]].*)$')"), 'C'), output_field=models.BooleanField(), template='(%(expressions)s) IS NOT NULL')), name='artifacts_fixture_word_5'),
        ),
        migrations.AddIndex(
            model_name='fixture',
            index=models.Index(django.db.models.functions.text.Right(django.db.models.functions.comparison.Cast('id', models.TextField()), 6), name='artifacts_fixture_id_tail'),
        ),
        migrations.AddIndex(
            model_name='fixture',
            index=models.Index(condition=models.Q(('golden_replay_id__isnull', False)), fields=['environment', 'pipeline'], name='artifacts_fixture_with_golden'),
        ),
        migrations.AddConstraint(
            model_name='fixture',
            constraint=models.UniqueConstraint(fields=('environment', 'pipeline', 'name'), name='artifacts_fixture_unique_name'),
        ),
        migrations.AddConstraint(
            model_name='fixture',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('golden__isnull', True), ('golden_replay_id__isnull', True)), models.Q(('golden__isnull', False), ('golden_replay_id__isnull', False)), _connector='OR'), name='artifacts_fixture_golden'),
        ),
        migrations.AddIndex(
            model_name='replay',
            index=models.Index(django.db.models.functions.text.Right(django.db.models.functions.comparison.Cast('id', models.TextField()), 6), name='artifacts_replay_id_tail'),
        ),
        migrations.AddIndex(
            model_name='replay',
            index=models.Index(fields=['artifact', 'id'], name='artifacts_replay_artifact'),
        ),
        migrations.AddIndex(
            model_name='replay',
            index=models.Index(condition=models.Q(('status', 'diverged')), fields=['environment', 'id'], name='artifacts_replay_diverged'),
        ),
        migrations.AddConstraint(
            model_name='replay',
            constraint=models.CheckConstraint(condition=models.Q(('status__in', ['pending_approval', 'queued', 'denied', 'running', 'succeeded', 'diverged', 'failed'])), name='artifacts_replay_status'),
        ),
        migrations.AddIndex(
            model_name='requestedcapture',
            index=models.Index(fields=['agent', 'id'], name='artifacts_capture_agent'),
        ),
        migrations.AddIndex(
            model_name='requestedcapture',
            index=models.Index(fields=['created_at'], name='artifacts_capture_created'),
        ),
        migrations.AddIndex(
            model_name='requestedcapture',
            index=models.Index(condition=models.Q(('status', 'requested')), fields=['expires_at'], name='artifacts_capture_pending'),
        ),
        migrations.AddConstraint(
            model_name='requestedcapture',
            constraint=models.CheckConstraint(condition=models.Q(('status__in', ['requested', 'uploaded', 'expired'])), name='artifacts_requestedcapture_status'),
        ),
        migrations.AddIndex(
            model_name='verdict',
            index=models.Index(fields=['used_at'], name='artifacts_verdict_used'),
        ),
        migrations.AddIndex(
            model_name='verdict',
            index=models.Index(condition=models.Q(('example_bytes__gt', 0)), fields=['organization', 'used_at'], include=('example_bytes',), name='artifacts_verdict_examples'),
        ),
        migrations.AddConstraint(
            model_name='verdict',
            constraint=models.UniqueConstraint(fields=('organization', 'key'), name='artifacts_verdict_unique'),
        ),
        migrations.AddConstraint(
            model_name='verdict',
            constraint=models.CheckConstraint(condition=models.Q(('outcome__in', ['equal', 'different', 'failed', 'unstable', 'not_tested'])), name='artifacts_verdict_outcome'),
        ),
        migrations.AddConstraint(
            model_name='regressionresult',
            constraint=models.UniqueConstraint(fields=('regression', 'fixture_id', 'baseline'), name='artifacts_regressionresult_unique', nulls_distinct=False),
        ),
        migrations.AddConstraint(
            model_name='regressionresult',
            constraint=models.CheckConstraint(condition=models.Q(('outcome__in', ['equal', 'different', 'failed', 'unstable', 'not_tested'])), name='artifacts_regressionresult_outcome'),
        ),
        migrations.AddConstraint(
            model_name='verdictexample',
            constraint=models.UniqueConstraint(fields=('verdict', 'group'), name='artifacts_verdictexample_unique'),
        ),
    ]

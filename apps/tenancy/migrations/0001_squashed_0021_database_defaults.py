"""Create the tables of release 0.1.0 in a new database.

It replaces the migrations from before the release, which remain for databases to which some of them were applied.
"""

import byteor_cloud.ids
import django.db.models.deletion
import django.db.models.functions.comparison
import django.db.models.functions.datetime
import django.db.models.functions.text
import django.db.models.lookups
import django.utils.timezone
from django.conf import settings
from django.contrib.postgres.operations import AddConstraintNotValid
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    replaces = [
        ('tenancy', '0001_initial'),
        ('tenancy', '0002_append_only'),
        ('tenancy', '0003_always'),
        ('tenancy', '0004_webhooks'),
        ('tenancy', '0005_signing_key_life'),
        ('tenancy', '0006_installation_chain'),
        ('tenancy', '0007_key_maker'),
        ('tenancy', '0008_makers_of_older_keys'),
        ('tenancy', '0009_job_troubles'),
        ('tenancy', '0010_audit_filters'),
        ('tenancy', '0011_hosts'),
        ('tenancy', '0012_people_behind_jobs'),
        ('tenancy', '0013_bounded_changes'),
        ('tenancy', '0014_quotas'),
        ('tenancy', '0015_matrix'),
        ('tenancy', '0016_messages'),
        ('tenancy', '0017_capture_incidents'),
        ('tenancy', '0018_audit_requests_and_people'),
        ('tenancy', '0019_device_sign_ins'),
        ('tenancy', '0020_waiting_jobs_by_task'),
        ('tenancy', '0021_database_defaults'),
    ]

    dependencies = []

    operations = [
        migrations.CreateModel(
            name='User',
            fields=[
                ('last_login', models.DateTimeField(blank=True, null=True, verbose_name='last login')),
                ('id', models.UUIDField(default=byteor_cloud.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('email', models.EmailField(max_length=254)),
                ('email_verified', models.BooleanField(default=False)),
                ('name', models.CharField(blank=True, max_length=200)),
                ('is_active', models.BooleanField(default=True)),
                ('is_superuser', models.BooleanField(default=False)),
            ],
        ),
        migrations.CreateModel(
            name='AuditEvent',
            fields=[
                ('id', models.UUIDField(default=byteor_cloud.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('timestamp', models.DateTimeField(default=django.utils.timezone.now)),
                ('project_id', models.UUIDField(null=True)),
                ('environment_id', models.UUIDField(null=True)),
                ('resource_kind', models.CharField(max_length=40)),
                ('resource_id', models.CharField(max_length=80)),
                ('action', models.CharField(max_length=80)),
                ('outcome', models.CharField(max_length=10)),
                ('actor_kind', models.CharField(max_length=20)),
                ('actor_id', models.CharField(max_length=80)),
                ('actor_display', models.CharField(max_length=300)),
                ('request_id', models.CharField(blank=True, max_length=64)),
                ('ip', models.GenericIPAddressField(null=True)),
                ('changes', models.JSONField(default=dict)),
            ],
        ),
        migrations.CreateModel(
            name='DenialCount',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('actor_kind', models.CharField(max_length=20)),
                ('actor_id', models.CharField(max_length=80)),
                ('actor_display', models.CharField(max_length=300)),
                ('action', models.CharField(max_length=80)),
                ('minute', models.DateTimeField()),
                ('count', models.PositiveIntegerField(default=1)),
            ],
        ),
        migrations.CreateModel(
            name='Environment',
            fields=[
                ('id', models.UUIDField(default=byteor_cloud.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('updated_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('revision', models.PositiveIntegerField(default=1, editable=False)),
                ('name', models.CharField(max_length=200)),
                ('posture', models.CharField(choices=[('dev', 'dev'), ('staging', 'staging'), ('prod', 'prod')], max_length=10)),
                ('settings', models.JSONField(default=dict)),
                ('position', models.PositiveIntegerField(db_default=1)),
                ('deleted_at', models.DateTimeField(editable=False, null=True)),
            ],
        ),
        migrations.CreateModel(
            name='Host',
            fields=[
                ('id', models.UUIDField(default=byteor_cloud.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('name', models.CharField(max_length=255)),
                ('data_dir', models.CharField(max_length=4096)),
                ('mode', models.CharField(max_length=10)),
                ('has_key_files', models.BooleanField()),
                ('key_id', models.CharField(blank=True, max_length=16)),
                ('previous_key_id', models.CharField(blank=True, max_length=16)),
                ('started_at', models.DateTimeField(default=django.utils.timezone.now)),
                ('last_seen', models.DateTimeField(default=django.utils.timezone.now)),
            ],
        ),
        migrations.CreateModel(
            name='MonthlyPeak',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('month', models.DateField()),
                ('agents', models.BigIntegerField()),
                ('stored_bytes', models.BigIntegerField()),
            ],
        ),
        migrations.CreateModel(
            name='Organization',
            fields=[
                ('id', models.UUIDField(default=byteor_cloud.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('updated_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('revision', models.PositiveIntegerField(default=1, editable=False)),
                ('name', models.CharField(max_length=200)),
                ('slug', models.SlugField(max_length=63)),
                ('settings', models.JSONField(default=dict)),
                ('key_set_etag', models.CharField(editable=False, max_length=32)),
            ],
        ),
        migrations.CreateModel(
            name='OrganizationKey',
            fields=[
                ('id', models.UUIDField(default=byteor_cloud.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('digest', models.CharField(editable=False, max_length=64, unique=True)),
                ('prefix', models.CharField(editable=False, max_length=20)),
                ('expires_at', models.DateTimeField(null=True)),
                ('last_used_at', models.DateTimeField(editable=False, null=True)),
                ('revoked_at', models.DateTimeField(editable=False, null=True)),
                ('name', models.CharField(max_length=200)),
                ('role', models.CharField(choices=[('org_admin', 'org_admin'), ('project_admin', 'project_admin'), ('operator', 'operator'), ('viewer', 'viewer')], max_length=20)),
            ],
        ),
        migrations.CreateModel(
            name='Project',
            fields=[
                ('id', models.UUIDField(default=byteor_cloud.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('updated_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('revision', models.PositiveIntegerField(default=1, editable=False)),
                ('name', models.CharField(max_length=200)),
                ('slug', models.SlugField(max_length=63)),
                ('deleted_at', models.DateTimeField(editable=False, null=True)),
            ],
        ),
        migrations.CreateModel(
            name='RateCounter',
            fields=[
                ('key', models.CharField(max_length=100, primary_key=True, serialize=False)),
                ('minute', models.BigIntegerField()),
                ('count', models.IntegerField()),
            ],
        ),
        migrations.CreateModel(
            name='RepeatedEvent',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('actor_id', models.CharField(max_length=80)),
                ('action', models.CharField(max_length=80)),
                ('subject', models.CharField(max_length=130)),
                ('minute', models.DateTimeField()),
                ('count', models.PositiveIntegerField(default=0)),
                ('resource_id', models.CharField(max_length=80)),
                ('request_id', models.CharField(blank=True, max_length=64)),
                ('ip', models.GenericIPAddressField(null=True)),
                ('changes', models.JSONField(default=dict)),
                ('last_at', models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name='SigningKey',
            fields=[
                ('id', models.UUIDField(default=byteor_cloud.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('kid', models.CharField(max_length=43, unique=True)),
                ('public_key', models.BinaryField()),
                ('private_key', models.BinaryField(null=True)),
                ('status', models.CharField(choices=[('next', 'next'), ('active', 'active'), ('retiring', 'retiring'), ('retired', 'retired')], max_length=10)),
                ('not_before', models.DateTimeField(default=django.utils.timezone.now)),
                ('signs_until', models.DateTimeField(null=True)),
                ('not_after', models.DateTimeField(null=True)),
            ],
        ),
        migrations.CreateModel(
            name='SignInLink',
            fields=[
                ('id', models.UUIDField(default=byteor_cloud.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('digest', models.CharField(max_length=64, unique=True)),
                ('expires_at', models.DateTimeField()),
                ('used_at', models.DateTimeField(null=True)),
            ],
            options={
                'abstract': False,
            },
        ),
        migrations.CreateModel(
            name='UseCount',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('kind', models.CharField(choices=[('agents', 'Agents'), ('drafts', 'Drafts'), ('stored_bytes', 'Stored Bytes'), ('captures', 'Captures'), ('heartbeats', 'Heartbeats'), ('uploaded_bytes', 'Uploaded Bytes'), ('replays', 'Replays'), ('work', 'Work')], max_length=16)),
                ('since', models.DateField(null=True)),
                ('count', models.BigIntegerField()),
                ('is_sum', models.BooleanField(db_default=False)),
            ],
        ),
        migrations.CreateModel(
            name='UserToken',
            fields=[
                ('id', models.UUIDField(default=byteor_cloud.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('digest', models.CharField(editable=False, max_length=64, unique=True)),
                ('prefix', models.CharField(editable=False, max_length=20)),
                ('expires_at', models.DateTimeField(null=True)),
                ('last_used_at', models.DateTimeField(editable=False, null=True)),
                ('revoked_at', models.DateTimeField(editable=False, null=True)),
                ('name', models.CharField(max_length=200)),
            ],
            options={
                'abstract': False,
            },
        ),
        migrations.CreateModel(
            name='Webhook',
            fields=[
                ('id', models.UUIDField(default=byteor_cloud.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('updated_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('revision', models.PositiveIntegerField(default=1, editable=False)),
                ('events', models.JSONField(default=list)),
                ('enabled', models.BooleanField(default=True)),
                ('disabled_reason', models.CharField(blank=True, editable=False, max_length=200)),
                ('failing_since', models.DateTimeField(editable=False, null=True)),
                ('url', models.CharField(max_length=2000)),
                ('description', models.CharField(blank=True, max_length=200)),
                ('secret', models.BinaryField()),
                ('previous_secret', models.BinaryField(null=True)),
                ('previous_secret_until', models.DateTimeField(editable=False, null=True)),
            ],
            options={
                'abstract': False,
            },
        ),
        migrations.CreateModel(
            name='WebhookDelivery',
            fields=[
                ('id', models.UUIDField(default=byteor_cloud.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('status', models.CharField(choices=[('pending', 'pending'), ('delivered', 'delivered'), ('failed', 'failed')], default='pending', max_length=10)),
                ('tries', models.PositiveSmallIntegerField(default=0)),
                ('attempts', models.JSONField(default=list)),
                ('next_attempt_at', models.DateTimeField(null=True)),
                ('finished_at', models.DateTimeField(null=True)),
            ],
            options={
                'verbose_name_plural': 'webhook deliveries',
            },
        ),
        migrations.CreateModel(
            name='AuditSeal',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('seq', models.BigIntegerField()),
                ('prev_hash', models.CharField(max_length=71)),
                ('hash', models.CharField(max_length=71)),
                ('event', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='seal', to='tenancy.auditevent')),
            ],
        ),
        migrations.CreateModel(
            name='DeviceSignIn',
            fields=[
                ('id', models.UUIDField(default=byteor_cloud.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('device_digest', models.CharField(max_length=64, unique=True)),
                ('user_digest', models.CharField(max_length=64, unique=True)),
                ('client_name', models.CharField(blank=True, max_length=100)),
                ('ip', models.GenericIPAddressField(null=True)),
                ('status', models.CharField(choices=[('pending', 'pending'), ('allowed', 'allowed'), ('denied', 'denied'), ('collected', 'collected')], default='pending', max_length=10)),
                ('polled_at', models.DateTimeField(null=True)),
                ('expires_at', models.DateTimeField(db_index=True)),
                ('user', models.ForeignKey(null=True, on_delete=django.db.models.deletion.CASCADE, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
        ),
        migrations.CreateModel(
            name='IdempotencyKey',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('caller', models.CharField(max_length=100)),
                ('key', models.CharField(max_length=255)),
                ('fingerprint', models.CharField(max_length=64)),
                ('status', models.PositiveSmallIntegerField()),
                ('response', models.BinaryField()),
                ('expires_at', models.DateTimeField()),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('caller', 'key'), name='tenancy_idempotencykey_unique')],
            },
        ),
        migrations.CreateModel(
            name='MasterKey',
            fields=[
                ('id', models.SmallIntegerField(default=1, primary_key=True, serialize=False)),
                ('key_id', models.CharField(max_length=16)),
                ('previous_key_id', models.CharField(max_length=16, null=True)),
                ('since', models.DateTimeField(default=django.utils.timezone.now)),
            ],
            options={
                'constraints': [models.CheckConstraint(condition=models.Q(('id', 1)), name='tenancy_masterkey_only_row')],
            },
        ),
        migrations.CreateModel(
            name='Membership',
            fields=[
                ('id', models.UUIDField(default=byteor_cloud.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('updated_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('revision', models.PositiveIntegerField(default=1, editable=False)),
                ('role', models.CharField(choices=[('org_admin', 'org_admin'), ('project_admin', 'project_admin'), ('operator', 'operator'), ('viewer', 'viewer')], max_length=20)),
                ('invited_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), default=django.utils.timezone.now, editable=False)),
                ('user', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='memberships', to=settings.AUTH_USER_MODEL)),
            ],
        ),
        migrations.CreateModel(
            name='MessageEvent',
            fields=[
                ('id', models.UUIDField(default=byteor_cloud.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('type', models.CharField(choices=[('approval.needed', 'approval.needed'), ('wave.held', 'wave.held'), ('rollout.stopped', 'rollout.stopped'), ('rollout.finished', 'rollout.finished'), ('rollout.rolled_back', 'rollout.rolled_back'), ('break_glass.needed', 'break_glass.needed'), ('incident.new', 'incident.new'), ('incident.reopened', 'incident.reopened'), ('fixture.current_fails', 'fixture.current_fails'), ('agents.failed', 'agents.failed'), ('agents.offline', 'agents.offline'), ('agent.cloned', 'agent.cloned'), ('webhook.failing', 'webhook.failing'), ('key.expires', 'key.expires'), ('quota.near', 'quota.near'), ('member.invited', 'member.invited')], max_length=30)),
                ('resource_kind', models.CharField(max_length=40)),
                ('resource_id', models.CharField(max_length=80)),
                ('subject', models.CharField(blank=True, max_length=200)),
                ('actor_id', models.UUIDField(null=True)),
                ('actor_display', models.CharField(blank=True, max_length=300)),
                ('data', models.JSONField(default=dict)),
                ('key', models.CharField(max_length=200, null=True)),
                ('count', models.PositiveIntegerField(default=1)),
                ('outcome', models.CharField(choices=[('pending', 'pending'), ('notified', 'notified'), ('grouped', 'grouped'), ('obsolete', 'obsolete'), ('failed', 'failed')], default='pending', editable=False, max_length=10)),
                ('text', models.CharField(blank=True, editable=False, max_length=500)),
                ('path', models.CharField(blank=True, editable=False, max_length=300)),
                ('handled_at', models.DateTimeField(editable=False, null=True)),
                ('tries', models.PositiveSmallIntegerField(default=0, editable=False)),
                ('retry_at', models.DateTimeField(editable=False, null=True)),
                ('environment', models.ForeignKey(null=True, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenancy.environment')),
                ('summary', models.ForeignKey(editable=False, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='tenancy.messageevent')),
            ],
        ),
        migrations.CreateModel(
            name='OrganizationQuotas',
            fields=[
                ('organization', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, primary_key=True, related_name='+', serialize=False, to='tenancy.organization')),
                ('agents', models.BigIntegerField(null=True)),
                ('stored_bytes', models.BigIntegerField(null=True)),
                ('captures_per_day', models.BigIntegerField(null=True)),
                ('drafts', models.BigIntegerField(null=True)),
            ],
        ),
        migrations.AddConstraint(
            model_name='organization',
            constraint=models.UniqueConstraint(fields=('name',), name='tenancy_organization_unique_name'),
        ),
        migrations.AddConstraint(
            model_name='organization',
            constraint=models.UniqueConstraint(fields=('slug',), name='tenancy_organization_unique_slug'),
        ),
        migrations.AddField(
            model_name='monthlypeak',
            name='organization',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenancy.organization'),
        ),
        migrations.AddField(
            model_name='messageevent',
            name='organization',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenancy.organization'),
        ),
        migrations.AddField(
            model_name='membership',
            name='organization',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='memberships', to='tenancy.organization'),
        ),
        migrations.AddField(
            model_name='denialcount',
            name='organization',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenancy.organization'),
        ),
        migrations.AddField(
            model_name='auditseal',
            name='organization',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenancy.organization'),
        ),
        migrations.AddField(
            model_name='auditevent',
            name='organization',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenancy.organization'),
        ),
        migrations.AddField(
            model_name='user',
            name='vouched_by',
            field=models.ForeignKey(editable=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenancy.organization'),
        ),
        migrations.AddField(
            model_name='organizationkey',
            name='created_by',
            field=models.ForeignKey(editable=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='organizationkey',
            name='organization',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='keys', to='tenancy.organization'),
        ),
        migrations.AddField(
            model_name='project',
            name='organization',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='projects', to='tenancy.organization'),
        ),
        migrations.AddField(
            model_name='organizationkey',
            name='project',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenancy.project'),
        ),
        migrations.AddField(
            model_name='messageevent',
            name='project',
            field=models.ForeignKey(db_index=False, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenancy.project'),
        ),
        migrations.AddField(
            model_name='membership',
            name='project',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.CASCADE, related_name='memberships', to='tenancy.project'),
        ),
        migrations.AddField(
            model_name='environment',
            name='project',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='environments', to='tenancy.project'),
        ),
        migrations.AddField(
            model_name='repeatedevent',
            name='event',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenancy.auditevent'),
        ),
        migrations.AddField(
            model_name='signingkey',
            name='organization',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='signing_keys', to='tenancy.organization'),
        ),
        migrations.AddField(
            model_name='signinlink',
            name='organization',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenancy.organization'),
        ),
        migrations.AddField(
            model_name='signinlink',
            name='user',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='usecount',
            name='environment',
            field=models.ForeignKey(db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='tenancy.environment'),
        ),
        migrations.AddField(
            model_name='usecount',
            name='organization',
            field=models.ForeignKey(db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='tenancy.organization'),
        ),
        migrations.AddField(
            model_name='usertoken',
            name='user',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='tokens', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='webhook',
            name='environment',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenancy.environment'),
        ),
        migrations.AddField(
            model_name='webhook',
            name='organization',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='webhooks', to='tenancy.organization'),
        ),
        migrations.AddField(
            model_name='webhook',
            name='project',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenancy.project'),
        ),
        migrations.AddField(
            model_name='webhookdelivery',
            name='event',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenancy.auditevent'),
        ),
        migrations.AddField(
            model_name='webhookdelivery',
            name='webhook',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='deliveries', to='tenancy.webhook'),
        ),
        migrations.AddConstraint(
            model_name='devicesignin',
            constraint=models.CheckConstraint(condition=models.Q(('status__in', ['pending', 'allowed', 'denied', 'collected'])), name='tenancy_devicesignin_status'),
        ),
        migrations.AddConstraint(
            model_name='organizationquotas',
            constraint=models.CheckConstraint(condition=models.Q(('agents__isnull', True), ('agents__gte', 0), _connector='OR'), name='tenancy_organizationquotas_agents'),
        ),
        migrations.AddConstraint(
            model_name='organizationquotas',
            constraint=models.CheckConstraint(condition=models.Q(('stored_bytes__isnull', True), ('stored_bytes__gte', 0), _connector='OR'), name='tenancy_organizationquotas_stored_bytes'),
        ),
        migrations.AddConstraint(
            model_name='organizationquotas',
            constraint=models.CheckConstraint(condition=models.Q(('captures_per_day__isnull', True), ('captures_per_day__gte', 0), _connector='OR'), name='tenancy_organizationquotas_captures_per_day'),
        ),
        migrations.AddConstraint(
            model_name='organizationquotas',
            constraint=models.CheckConstraint(condition=models.Q(('drafts__isnull', True), ('drafts__gte', 0), _connector='OR'), name='tenancy_organizationquotas_drafts'),
        ),
        migrations.AddConstraint(
            model_name='monthlypeak',
            constraint=models.UniqueConstraint(fields=('organization', 'month'), name='tenancy_monthlypeak_unique'),
        ),
        migrations.AddConstraint(
            model_name='denialcount',
            constraint=models.UniqueConstraint(fields=('organization', 'actor_kind', 'actor_id', 'action', 'minute'), name='tenancy_denialcount_unique', nulls_distinct=False),
        ),
        migrations.AddConstraint(
            model_name='auditseal',
            constraint=models.UniqueConstraint(fields=('organization', 'seq'), name='tenancy_auditseal_unique_seq'),
        ),
        migrations.AddConstraint(
            model_name='auditseal',
            constraint=models.UniqueConstraint(condition=models.Q(('organization', None)), fields=('seq',), name='tenancy_auditseal_unique_installation_seq'),
        ),
        migrations.AddIndex(
            model_name='auditevent',
            index=models.Index(fields=['organization', '-id'], name='tenancy_auditevent_org'),
        ),
        migrations.AddIndex(
            model_name='auditevent',
            index=models.Index(fields=['resource_id'], name='tenancy_auditevent_resource'),
        ),
        migrations.AddIndex(
            model_name='auditevent',
            index=models.Index(fields=['organization', 'action', 'id'], name='tenancy_auditevent_action'),
        ),
        migrations.AddIndex(
            model_name='auditevent',
            index=models.Index(fields=['organization', 'actor_id', 'id'], name='tenancy_auditevent_actor'),
        ),
        migrations.AddIndex(
            model_name='auditevent',
            index=models.Index(fields=['organization', 'resource_kind', 'id'], name='tenancy_auditevent_kind'),
        ),
        migrations.AddIndex(
            model_name='auditevent',
            index=models.Index(condition=models.Q(('environment_id__isnull', False)), fields=['environment_id', 'id'], name='tenancy_auditevent_environment'),
        ),
        migrations.AddIndex(
            model_name='auditevent',
            index=models.Index(condition=models.Q(('project_id__isnull', False)), fields=['project_id', 'id'], name='tenancy_auditevent_project'),
        ),
        migrations.AddIndex(
            model_name='auditevent',
            index=models.Index(condition=models.Q(('outcome', 'success'), _negated=True), fields=['organization', 'id'], name='tenancy_auditevent_refused'),
        ),
        migrations.AddIndex(
            model_name='auditevent',
            index=models.Index(condition=models.Q(('actor_kind', 'user')), fields=['organization', 'id'], name='tenancy_auditevent_people'),
        ),
        migrations.AddIndex(
            model_name='auditevent',
            index=models.Index(condition=models.Q(('request_id', ''), _negated=True), fields=['request_id'], name='tenancy_auditevent_request'),
        ),
        migrations.AddConstraint(
            model_name='auditevent',
            constraint=models.CheckConstraint(condition=models.Q(('outcome__in', ['success', 'denied', 'error'])), name='tenancy_auditevent_outcome'),
        ),
        # As in older databases, which may contain larger events.
        AddConstraintNotValid(
            model_name='auditevent',
            constraint=models.CheckConstraint(condition=django.db.models.lookups.LessThanOrEqual(models.Func(django.db.models.functions.comparison.Cast(models.F('changes'), models.TextField()), function='octet_length', output_field=models.IntegerField()), 8192), name='tenancy_auditevent_changes_size'),
        ),
        migrations.AddConstraint(
            model_name='user',
            constraint=models.UniqueConstraint(django.db.models.functions.text.Lower('email'), condition=models.Q(('email_verified', True)), name='tenancy_user_unique_email'),
        ),
        migrations.AddConstraint(
            model_name='project',
            constraint=models.UniqueConstraint(condition=models.Q(('deleted_at', None)), fields=('organization', 'name'), name='tenancy_project_unique_name'),
        ),
        migrations.AddConstraint(
            model_name='project',
            constraint=models.UniqueConstraint(condition=models.Q(('deleted_at', None)), fields=('organization', 'slug'), name='tenancy_project_unique_slug'),
        ),
        migrations.AddConstraint(
            model_name='organizationkey',
            constraint=models.UniqueConstraint(condition=models.Q(('revoked_at', None)), fields=('organization', 'name'), name='tenancy_organizationkey_unique_name'),
        ),
        migrations.AddConstraint(
            model_name='organizationkey',
            constraint=models.CheckConstraint(condition=models.Q(('role__in', ['org_admin', 'project_admin', 'operator', 'viewer'])), name='tenancy_organizationkey_role'),
        ),
        migrations.AddIndex(
            model_name='messageevent',
            index=models.Index(condition=models.Q(('outcome', 'pending')), fields=['organization', 'id'], name='tenancy_messageevent_pending'),
        ),
        migrations.AddIndex(
            model_name='messageevent',
            index=models.Index(fields=['organization', 'type', 'environment', 'subject', 'outcome', 'handled_at'], name='tenancy_messageevent_recent'),
        ),
        migrations.AddIndex(
            model_name='messageevent',
            index=models.Index(condition=models.Q(('type__in', ['incident.new', 'incident.reopened'])), fields=['environment', 'subject', 'id'], name='tenancy_messageevent_incident'),
        ),
        migrations.AddIndex(
            model_name='messageevent',
            index=models.Index(condition=models.Q(('type__in', ['incident.new', 'incident.reopened'])), fields=['resource_id'], name='tenancy_messageevent_capture'),
        ),
        migrations.AddConstraint(
            model_name='messageevent',
            constraint=models.UniqueConstraint(fields=('key',), name='tenancy_messageevent_unique_key'),
        ),
        migrations.AddConstraint(
            model_name='messageevent',
            constraint=models.CheckConstraint(condition=models.Q(('type__in', ['approval.needed', 'wave.held', 'rollout.stopped', 'rollout.finished', 'rollout.rolled_back', 'break_glass.needed', 'incident.new', 'incident.reopened', 'fixture.current_fails', 'agents.failed', 'agents.offline', 'agent.cloned', 'webhook.failing', 'key.expires', 'quota.near', 'member.invited'])), name='tenancy_messageevent_type'),
        ),
        migrations.AddConstraint(
            model_name='messageevent',
            constraint=models.CheckConstraint(condition=models.Q(('outcome__in', ['pending', 'notified', 'grouped', 'obsolete', 'failed'])), name='tenancy_messageevent_outcome'),
        ),
        migrations.AddConstraint(
            model_name='membership',
            constraint=models.UniqueConstraint(condition=models.Q(('project', None)), fields=('organization', 'user'), name='tenancy_membership_unique_org'),
        ),
        migrations.AddConstraint(
            model_name='membership',
            constraint=models.UniqueConstraint(fields=('project', 'user'), name='tenancy_membership_unique_project'),
        ),
        migrations.AddConstraint(
            model_name='membership',
            constraint=models.CheckConstraint(condition=models.Q(('role__in', ['org_admin', 'project_admin', 'operator', 'viewer'])), name='tenancy_membership_role'),
        ),
        migrations.AddConstraint(
            model_name='membership',
            constraint=models.CheckConstraint(condition=models.Q(('project__isnull', False), ('role', 'org_admin'), _negated=True), name='tenancy_membership_org_admin'),
        ),
        migrations.AddConstraint(
            model_name='environment',
            constraint=models.UniqueConstraint(condition=models.Q(('deleted_at', None)), fields=('project', 'name'), name='tenancy_environment_unique_name'),
        ),
        migrations.AddConstraint(
            model_name='environment',
            constraint=models.CheckConstraint(condition=models.Q(('posture__in', ['dev', 'staging', 'prod'])), name='tenancy_environment_posture'),
        ),
        migrations.AddConstraint(
            model_name='repeatedevent',
            constraint=models.UniqueConstraint(fields=('actor_id', 'action', 'subject', 'minute'), name='tenancy_repeatedevent_unique'),
        ),
        migrations.AddConstraint(
            model_name='signingkey',
            constraint=models.UniqueConstraint(condition=models.Q(('status', 'active')), fields=('organization',), name='tenancy_signingkey_one_active', nulls_distinct=False),
        ),
        migrations.AddConstraint(
            model_name='signingkey',
            constraint=models.UniqueConstraint(condition=models.Q(('status', 'next')), fields=('organization',), name='tenancy_signingkey_one_next', nulls_distinct=False),
        ),
        migrations.AddConstraint(
            model_name='signingkey',
            constraint=models.CheckConstraint(condition=models.Q(('status__in', ['next', 'active', 'retiring', 'retired'])), name='tenancy_signingkey_status'),
        ),
        migrations.AddConstraint(
            model_name='signingkey',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('private_key', None), ('status', 'retired')), models.Q(models.Q(('status', 'retired'), _negated=True), ('private_key__isnull', False)), _connector='OR'), name='tenancy_signingkey_retired_has_no_private_key'),
        ),
        migrations.AddIndex(
            model_name='usecount',
            index=models.Index(condition=models.Q(('environment__isnull', False)), fields=['environment', 'kind'], name='tenancy_usecount_held'),
        ),
        migrations.AddIndex(
            model_name='usecount',
            index=models.Index(condition=models.Q(('organization__isnull', False)), fields=['organization', 'kind', 'since'], name='tenancy_usecount_done'),
        ),
        migrations.AddIndex(
            model_name='usecount',
            index=models.Index(condition=models.Q(('is_sum', False)), fields=['id'], name='tenancy_usecount_new'),
        ),
        migrations.AddConstraint(
            model_name='usecount',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('environment__isnull', False), ('organization', None), ('since', None)), models.Q(('environment', None), ('organization__isnull', False), ('since__isnull', False)), _connector='OR'), name='tenancy_usecount_owner'),
        ),
        migrations.AddIndex(
            model_name='webhookdelivery',
            index=models.Index(fields=['webhook', '-id'], name='tenancy_webhookdelivery_log'),
        ),
        migrations.AddIndex(
            model_name='webhookdelivery',
            index=models.Index(condition=models.Q(('status', 'pending')), fields=['next_attempt_at'], name='tenancy_webhookdelivery_due'),
        ),
        migrations.AddIndex(
            model_name='webhookdelivery',
            index=models.Index(fields=['created_at'], name='tenancy_webhookdelivery_age'),
        ),
        migrations.AddConstraint(
            model_name='webhookdelivery',
            constraint=models.CheckConstraint(condition=models.Q(('status__in', ['pending', 'delivered', 'failed'])), name='tenancy_webhookdelivery_status'),
        ),
    ]

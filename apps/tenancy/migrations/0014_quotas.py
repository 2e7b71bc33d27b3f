"""Quotas of organizations, and counts of what organizations use.

Triggers of the counted tables, in the migrations of their apps, insert the counts.
"""

import django.db.models.deletion
from django.db import migrations, models

# While an environment is deleted, other triggers insert changes of its counts. Delete these changes after it.
FORGET = """
CREATE FUNCTION tenancy_forget_use() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM tenancy_usecount WHERE environment_id = OLD.id;
    RETURN NULL;
END $$;
CREATE TRIGGER tenancy_environment_forget_use AFTER DELETE ON tenancy_environment
    FOR EACH ROW EXECUTE FUNCTION tenancy_forget_use();
"""


class Migration(migrations.Migration):

    dependencies = [
        ('tenancy', '0013_bounded_changes'),
    ]

    operations = [
        migrations.CreateModel(
            name='OrganizationQuotas',
            fields=[
                ('organization', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, primary_key=True, related_name='+', serialize=False, to='tenancy.organization')),
                ('agents', models.BigIntegerField(null=True)),
                ('stored_bytes', models.BigIntegerField(null=True)),
                ('captures_per_day', models.BigIntegerField(null=True)),
                ('drafts', models.BigIntegerField(null=True)),
            ],
            options={
                'constraints': [models.CheckConstraint(condition=models.Q(('agents__isnull', True), ('agents__gte', 0), _connector='OR'), name='tenancy_organizationquotas_agents'), models.CheckConstraint(condition=models.Q(('stored_bytes__isnull', True), ('stored_bytes__gte', 0), _connector='OR'), name='tenancy_organizationquotas_stored_bytes'), models.CheckConstraint(condition=models.Q(('captures_per_day__isnull', True), ('captures_per_day__gte', 0), _connector='OR'), name='tenancy_organizationquotas_captures_per_day'), models.CheckConstraint(condition=models.Q(('drafts__isnull', True), ('drafts__gte', 0), _connector='OR'), name='tenancy_organizationquotas_drafts')],
            },
        ),
        migrations.CreateModel(
            name='MonthlyPeak',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('month', models.DateField()),
                ('agents', models.BigIntegerField()),
                ('stored_bytes', models.BigIntegerField()),
                ('organization', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenancy.organization')),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('organization', 'month'), name='tenancy_monthlypeak_unique')],
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
                ('environment', models.ForeignKey(db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='tenancy.environment')),
                ('organization', models.ForeignKey(db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='tenancy.organization')),
            ],
            options={
                'indexes': [models.Index(condition=models.Q(('environment__isnull', False)), fields=['environment', 'kind'], name='tenancy_usecount_held'), models.Index(condition=models.Q(('organization__isnull', False)), fields=['organization', 'kind', 'since'], name='tenancy_usecount_done'), models.Index(condition=models.Q(('is_sum', False)), fields=['id'], name='tenancy_usecount_new')],
                'constraints': [models.CheckConstraint(condition=models.Q(models.Q(('environment__isnull', False), ('organization', None), ('since', None)), models.Q(('environment', None), ('organization__isnull', False), ('since__isnull', False)), _connector='OR'), name='tenancy_usecount_owner')],
            },
        ),
        migrations.RunSQL(FORGET, "DROP FUNCTION tenancy_forget_use() CASCADE"),
    ]

"""Why agents failed, kept through rollbacks and retries. Earlier failures are taken from reports and progress."""

import django.db.models.deletion
from django.db import migrations, models

from byteor.engine.failures import find_cause

# Timeouts of agents that were retried or rolled back since are known nowhere.
EARLIER = """
INSERT INTO releases_agentfailure (part_id, deployment_id, action, reason, detail, cause, at)
SELECT DISTINCT ON (part_id, action) * FROM (
    SELECT part.id AS part_id, part.deployment_id, kind.action,
        CASE kind.action WHEN 'activate' THEN 'reported' ELSE 'rollback_reported' END, report.detail,
        '', report.created_at AS at
    FROM releases_agentreport AS report
    JOIN releases_deploymentagent AS part USING (deployment_id, agent_id)
    JOIN releases_deployment AS deployment ON deployment.id = report.deployment_id,
    LATERAL (
        SELECT CASE report.bundle_hash WHEN deployment.bundle_hash THEN 'activate' ELSE 'rollback' END AS action
    ) AS kind
    WHERE report.accepted AND report.status = 'failed'
    UNION ALL
    SELECT id, deployment_id, action, CASE action WHEN 'activate' THEN 'timeout' ELSE 'rollback_timeout' END,
        detail, '', updated_at
    FROM releases_deploymentagent WHERE progress = 'failed' AND detail LIKE 'did not finish within % s'
) AS found
ORDER BY part_id, action, at DESC
"""


def find_causes(apps, schema_editor):
    """Fill the column ``cause``, a batch of rows at a time."""
    failures, last = apps.get_model('releases', 'AgentFailure').objects, 0
    while rows := list(failures.filter(pk__gt=last).order_by('pk')[:2000]):
        for row in rows:
            row.cause = find_cause(row.detail)
        failures.bulk_update(rows, ['cause'])
        last = rows[-1].pk


class Migration(migrations.Migration):

    dependencies = [
        ('releases', '0011_counted_bundles'),
    ]

    operations = [
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
            options={
                'constraints': [models.UniqueConstraint(fields=('part', 'action'), name='releases_agentfailure_unique'), models.CheckConstraint(condition=models.Q(('reason__in', ['reported', 'timeout', 'rollback_reported', 'rollback_timeout'])), name='releases_agentfailure_reason')],
            },
        ),
        migrations.RunSQL(EARLIER, migrations.RunSQL.noop),
        migrations.RunPython(find_causes, migrations.RunPython.noop),
    ]

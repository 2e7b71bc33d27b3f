"""Bind approvals to the options of their deployments, the earlier approvals to those of the request they were for."""

from django.db import migrations, models

OPTIONS = """
UPDATE releases_approval AS approval SET options = jsonb_build_object(
    'take_over', deployment.take_over,
    'agent_timeout_s', deployment.policy->'agent_timeout_s',
    'override_freeze', nullif(deployment.freeze_override, '')
)
FROM releases_deployment AS deployment WHERE deployment.approval_id = approval.id
"""


class Migration(migrations.Migration):

    dependencies = [
        ('releases', '0009_found_by_name'),
    ]

    operations = [
        migrations.AddField(
            model_name='approval',
            name='options',
            field=models.JSONField(null=True),
        ),
        migrations.RunSQL(OPTIONS, migrations.RunSQL.noop),
    ]

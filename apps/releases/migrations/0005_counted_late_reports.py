"""Count repeated late reports in one row instead of storing each of them."""

import django.utils.timezone
from django.db import migrations, models

# Keep only the last of the late reports of the same agent, deployment and status, and store their number in it.
COUNT = """
WITH late AS (
    SELECT id, count(*) OVER whole AS times, row_number() OVER (whole ORDER BY id DESC) AS place
    FROM releases_agentreport WHERE NOT accepted
    WINDOW whole AS (PARTITION BY deployment_id, agent_id, status)
), gone AS (
    DELETE FROM releases_agentreport AS report USING late WHERE report.id = late.id AND late.place > 1
)
UPDATE releases_agentreport AS report SET count = late.times FROM late WHERE report.id = late.id AND late.place = 1
"""


class Migration(migrations.Migration):

    dependencies = [
        ('releases', '0004_large_fleets'),
    ]

    operations = [
        migrations.AddField(
            model_name='agentreport',
            name='count',
            field=models.PositiveIntegerField(default=1),
        ),
        migrations.AddField(
            model_name='agentreport',
            name='last_at',
            field=models.DateTimeField(default=django.utils.timezone.now),
        ),
        migrations.RunSQL(
            ["UPDATE releases_agentreport SET last_at = created_at", COUNT, "SET CONSTRAINTS ALL IMMEDIATE"],
            migrations.RunSQL.noop,
        ),
        migrations.AddConstraint(
            model_name='agentreport',
            constraint=models.UniqueConstraint(condition=models.Q(('accepted', False)), fields=('deployment', 'agent', 'status'), name='releases_agentreport_one_late'),
        ),
    ]

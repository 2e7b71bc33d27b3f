"""Store the heartbeat interval that each agent was last given. The agent's liveness depends on it."""

from django.db import migrations, models

# Until an agent sends its next heartbeat, its liveness depends on its environment's interval, as before.
TOLD = """
UPDATE fleet_heartbeat AS heartbeat
SET next_heartbeat_s = (environment.settings->>'heartbeat_interval_s')::float8
FROM fleet_agent AS agent JOIN tenancy_environment AS environment ON environment.id = agent.environment_id
WHERE agent.id = heartbeat.agent_id AND environment.settings ? 'heartbeat_interval_s'
"""


class Migration(migrations.Migration):

    dependencies = [
        ('fleet', '0002_hot_rows'),
    ]

    operations = [
        migrations.AddField(
            model_name='heartbeat',
            name='next_heartbeat_s',
            field=models.FloatField(default=30.0),
        ),
        migrations.RunSQL(TOLD, migrations.RunSQL.noop),
    ]

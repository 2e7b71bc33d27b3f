"""Offers that are held after a restore, and agents whose keys are refused.

API processes are notified when an offer is no longer held.
"""

from django.db import migrations, models
from django.db.models import Q

_NOTIFY = """
CREATE OR REPLACE FUNCTION fleet_notify_offers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('fleet_offer', string_agg(agent_id::text, ','))
    FROM (
        SELECT n.agent_id, (row_number() OVER () - 1) / 200 AS part
        FROM new_rows n JOIN old_rows o USING (agent_id)
        WHERE (n.deployment_id, n.bundle_deployment_id, n.action, n.bundle_hash, n.since, n.held_backup_at)
            IS DISTINCT FROM
            (o.deployment_id, o.bundle_deployment_id, o.action, o.bundle_hash, o.since, o.held_backup_at)
    ) AS changed
    GROUP BY part;
    RETURN NULL;
END $$;
"""


class Migration(migrations.Migration):
    dependencies = [("fleet", "0014_found_by_words")]
    operations = [
        migrations.AddField("assignment", "held_backup_at", models.DateTimeField(null=True)),
        migrations.AddIndex(
            "assignment",
            models.Index(fields=["agent"], condition=Q(held_backup_at__isnull=False), name="fleet_assignment_held"),
        ),
        migrations.CreateModel(
            "RefusedAgent",
            [
                ("agent_id", models.UUIDField(primary_key=True, serialize=False)),
                ("first_at", models.DateTimeField()),
                ("last_at", models.DateTimeField()),
            ],
        ),
        migrations.RunSQL(
            _NOTIFY, _NOTIFY.replace(", n.held_backup_at", "").replace(", o.held_backup_at", "")
        ),
    ]

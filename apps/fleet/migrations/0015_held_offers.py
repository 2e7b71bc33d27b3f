"""Offers that are held after a restore. API processes are notified when an offer is no longer held."""

from django.db import migrations, models
from django.db.models import Q

_CHANGED = """
        WHERE (n.deployment_id, n.bundle_deployment_id, n.action, n.bundle_hash, n.since{held_new})
            IS DISTINCT FROM (o.deployment_id, o.bundle_deployment_id, o.action, o.bundle_hash, o.since{held_old})
"""
_NOTIFY = """
CREATE OR REPLACE FUNCTION fleet_notify_offers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('fleet_offer', string_agg(agent_id::text, ','))
    FROM (
        SELECT n.agent_id, (row_number() OVER () - 1) / 200 AS part
        FROM new_rows n JOIN old_rows o USING (agent_id)
        {changed}
    ) AS changed
    GROUP BY part;
    RETURN NULL;
END $$;
"""


def _notify(new: str, old: str) -> str:
    return _NOTIFY.format(changed=_CHANGED.format(held_new=new, held_old=old))


class Migration(migrations.Migration):
    dependencies = [("fleet", "0014_found_by_words")]
    operations = [
        migrations.AddField("assignment", "held_backup_at", models.DateTimeField(null=True)),
        migrations.AddIndex(
            "assignment",
            models.Index(fields=["agent"], condition=Q(held_backup_at__isnull=False), name="fleet_assignment_held"),
        ),
        migrations.RunSQL(_notify(", n.held_backup_at", ", o.held_backup_at"), _notify("", "")),
    ]

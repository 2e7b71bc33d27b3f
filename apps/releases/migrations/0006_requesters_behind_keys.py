"""Fill in the requester of earlier approvals that an API key requested: the person who created the key."""

from django.db import migrations

REQUESTERS = """
UPDATE releases_approval AS approval SET requester_id = key.created_by_id
FROM tenancy_auditevent AS event JOIN tenancy_organizationkey AS key ON key.id::text = event.actor_id
WHERE event.action = 'approval.request' AND event.resource_kind = 'approval'
    AND event.resource_id = approval.id::text AND event.actor_kind = 'organization_key'
    AND key.created_by_id IS NOT NULL AND approval.requester_id IS NULL
"""


class Migration(migrations.Migration):

    dependencies = [
        ('releases', '0005_counted_late_reports'),
        ('tenancy', '0008_makers_of_older_keys'),
    ]

    operations = [migrations.RunSQL(REQUESTERS, migrations.RunSQL.noop)]

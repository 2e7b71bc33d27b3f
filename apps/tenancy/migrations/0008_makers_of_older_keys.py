"""Fill in who created existing API keys, from the audit trail. For a key that was created with another key, that is
the person who created the other key.
"""

from django.db import migrations

MAKERS = """
WITH RECURSIVE made AS (
    SELECT resource_id AS key_id, actor_kind, actor_id FROM tenancy_auditevent
    WHERE action = 'api_key.create' AND resource_kind = 'organizationkey' AND outcome = 'success'
), maker AS (
    SELECT key_id, actor_kind, actor_id FROM made
    UNION
    SELECT maker.key_id, made.actor_kind, made.actor_id
    FROM maker JOIN made ON maker.actor_kind = 'organization_key' AND made.key_id = maker.actor_id
)
UPDATE tenancy_organizationkey AS key SET created_by_id = person.id
FROM maker JOIN tenancy_user AS person ON maker.actor_kind = 'user' AND person.id::text = maker.actor_id
WHERE maker.key_id = key.id::text AND key.created_by_id IS NULL
"""


class Migration(migrations.Migration):

    dependencies = [
        ('tenancy', '0007_key_maker'),
    ]

    operations = [migrations.RunSQL(MAKERS, migrations.RunSQL.noop)]

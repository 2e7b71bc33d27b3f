"""The order of a project's environments. Existing environments are in the order of their creation."""

from django.db import migrations, models

NUMBER = """
UPDATE tenancy_environment AS environment SET position = numbered.number
FROM (
    SELECT id, row_number() OVER (PARTITION BY project_id, deleted_at IS NULL ORDER BY created_at, id) AS number
    FROM tenancy_environment
) AS numbered
WHERE environment.id = numbered.id
"""


class Migration(migrations.Migration):

    dependencies = [
        ('tenancy', '0014_quotas'),
    ]

    operations = [
        migrations.AddField(
            model_name='environment',
            name='position',
            field=models.PositiveIntegerField(default=1),
            preserve_default=False,
        ),
        migrations.RunSQL(NUMBER, migrations.RunSQL.noop),
    ]

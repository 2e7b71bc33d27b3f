"""Find the artifacts of which a host keeps what is derived; folders of the previous release are no longer used."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('artifacts', '0011_person_behind_replays'),
    ]

    operations = [
        migrations.RunSQL(
            "UPDATE artifacts_artifact SET derived_bytes = 0 WHERE derived_bytes <> 0", migrations.RunSQL.noop
        ),
        migrations.AddIndex(
            model_name='artifact',
            index=models.Index(condition=models.Q(('derived_bytes__gt', 0)), fields=['id'], name='artifacts_artifact_derived'),
        ),
    ]

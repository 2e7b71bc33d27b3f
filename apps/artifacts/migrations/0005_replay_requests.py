"""Tell apart uploads of one content by what they declared; name a replay's config bundle; count its progress."""

import django.db.models.deletion
from django.db import migrations, models

DECLARE = """
UPDATE artifacts_artifact
SET declared = kind || ':' || coalesce(spec_hash, '') || ':' || coalesce(deployment_id::text, '')
"""


class Migration(migrations.Migration):

    dependencies = [
        ('artifacts', '0004_replay_error_code'),
        ('releases', '0004_large_fleets'),
    ]

    operations = [
        migrations.AddField(
            model_name='artifact',
            name='declared',
            field=models.CharField(default='', max_length=150),
            preserve_default=False,
        ),
        migrations.RunSQL(DECLARE, migrations.RunSQL.noop),
        migrations.RemoveConstraint(model_name='artifact', name='artifacts_artifact_unique_content'),
        migrations.AddConstraint(
            model_name='artifact',
            constraint=models.UniqueConstraint(
                fields=('environment', 'content_hash', 'declared'), name='artifacts_artifact_unique_upload'
            ),
        ),
        migrations.AddField(
            model_name='replay',
            name='config_bundle',
            field=models.ForeignKey(
                null=True, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='releases.configbundle'
            ),
        ),
        migrations.AddField(model_name='replay', name='progress_done', field=models.BigIntegerField(default=0)),
        migrations.AddField(model_name='replay', name='progress_total', field=models.BigIntegerField(default=0)),
    ]

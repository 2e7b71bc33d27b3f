"""List a blob by a trigger when its last row is deleted, so that the retention job need not search the blob store."""

import django.utils.timezone
from django.db import migrations, models

NOTE = """
CREATE FUNCTION artifacts_note_unreferenced() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format(
        'INSERT INTO artifacts_unreferencedblob (content_hash, since)
         SELECT DISTINCT %1$I, now() FROM gone WHERE %1$I IS NOT NULL ORDER BY 1
         ON CONFLICT (content_hash) DO UPDATE SET since = EXCLUDED.since', TG_ARGV[0]);
    RETURN NULL;
END $$;
CREATE TRIGGER artifacts_artifact_note_unreferenced AFTER DELETE ON artifacts_artifact
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION artifacts_note_unreferenced('content_hash');
CREATE TRIGGER releases_deployment_note_unreferenced AFTER DELETE ON releases_deployment
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION artifacts_note_unreferenced('bundle_hash');
"""
FORGET = """
DROP TRIGGER releases_deployment_note_unreferenced ON releases_deployment;
DROP TRIGGER artifacts_artifact_note_unreferenced ON artifacts_artifact;
DROP FUNCTION artifacts_note_unreferenced();
"""


class Migration(migrations.Migration):

    dependencies = [
        ('artifacts', '0002_execute'),
        ('releases', '0004_large_fleets'),
    ]

    operations = [
        migrations.CreateModel(
            name='UnreferencedBlob',
            fields=[
                ('content_hash', models.CharField(max_length=200, primary_key=True, serialize=False)),
                ('since', models.DateTimeField(default=django.utils.timezone.now)),
            ],
            options={
                'indexes': [models.Index(fields=['since'], name='artifacts_unreferenced_since')],
            },
        ),
        migrations.RunSQL(NOTE, FORGET),
    ]

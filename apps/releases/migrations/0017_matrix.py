"""The original of a copied config bundle, and an index that finds the config bundles that refer to a secret."""

import django.contrib.postgres.indexes
from django.db import migrations, models

# The key of a secret starts with the environment, so that a lookup reads no rows of other environments.
KEYS = """
CREATE FUNCTION releases_secret_keys(environment uuid, env jsonb) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT array_agg(environment::text || ':' || (value->>'secret_ref')) FROM jsonb_each(env)
    WHERE jsonb_typeof(value) = 'object'
$$
"""


class Migration(migrations.Migration):

    dependencies = [
        ('pipelines', '0004_counted_drafts'),
        ('releases', '0016_steered'),
        ('tenancy', '0015_matrix'),
    ]

    operations = [
        migrations.AddField(
            model_name='configbundle',
            name='origin_id',
            field=models.UUIDField(null=True),
        ),
        migrations.RunSQL(KEYS, "DROP FUNCTION releases_secret_keys(uuid, jsonb)"),
        migrations.AddIndex(
            model_name='configbundle',
            index=django.contrib.postgres.indexes.GinIndex(models.Func('environment', 'env', function='releases_secret_keys'), fastupdate=False, name='releases_configbundle_secrets'),
        ),
    ]

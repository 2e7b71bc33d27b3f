"""Count what is derived from an artifact."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('artifacts', '0007_bisects'),
    ]

    operations = [
        migrations.AddField(
            model_name='artifact',
            name='derived_bytes',
            field=models.BigIntegerField(default=0),
        ),
    ]

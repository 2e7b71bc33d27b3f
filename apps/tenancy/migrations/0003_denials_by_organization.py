from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('tenancy', '0002_append_only'),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name='denialcount',
            name='tenancy_denialcount_unique',
        ),
        migrations.AddConstraint(
            model_name='denialcount',
            constraint=models.UniqueConstraint(fields=('organization', 'actor_kind', 'actor_id', 'action', 'minute'), name='tenancy_denialcount_unique', nulls_distinct=False),
        ),
    ]

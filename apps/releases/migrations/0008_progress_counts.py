"""How many agents of each deployment have come how far, counted by triggers.

The triggers only insert. Nobody waits for a new row, so that reports of different agents do not wait for each other.
"""

import django.db.models.deletion
from django.db import migrations, models

TRIGGERS = """
CREATE FUNCTION releases_count_progress() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO releases_progresscount (deployment_id, wave, counted, progress, count)
            SELECT deployment_id, wave, counted, progress, -count(*) FROM old_rows GROUP BY 1, 2, 3, 4;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO releases_progresscount (deployment_id, wave, counted, progress, count)
            SELECT deployment_id, wave, counted, progress, count(*) FROM new_rows GROUP BY 1, 2, 3, 4;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER releases_deploymentagent_enlisted AFTER INSERT ON releases_deploymentagent
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION releases_count_progress();
CREATE TRIGGER releases_deploymentagent_progressed AFTER UPDATE ON releases_deploymentagent
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION releases_count_progress();
CREATE TRIGGER releases_deploymentagent_removed AFTER DELETE ON releases_deploymentagent
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION releases_count_progress();
CREATE FUNCTION releases_forget_progress() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM releases_progresscount WHERE deployment_id = OLD.id;
    RETURN NULL;
END $$;
CREATE TRIGGER releases_deployment_removed AFTER DELETE ON releases_deployment
    FOR EACH ROW EXECUTE FUNCTION releases_forget_progress();
"""
# What the triggers would have counted. They lock the tables until this transaction ends, so that no change is missed.
PRESENT = """
INSERT INTO releases_progresscount (deployment_id, wave, counted, progress, count, is_sum)
    SELECT deployment_id, wave, counted, progress, count(*), true
    FROM releases_deploymentagent GROUP BY 1, 2, 3, 4 ORDER BY 1;
"""
BACKWARD = """
DROP FUNCTION releases_count_progress() CASCADE;
DROP FUNCTION releases_forget_progress() CASCADE;
"""


class Migration(migrations.Migration):

    dependencies = [
        ('releases', '0007_outages'),
    ]

    operations = [
        migrations.CreateModel(
            name='ProgressCount',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('wave', models.PositiveIntegerField()),
                ('counted', models.BooleanField()),
                ('progress', models.CharField(max_length=12)),
                ('count', models.IntegerField()),
                ('is_sum', models.BooleanField(db_default=False)),
                ('deployment', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='progress_counts', to='releases.deployment')),
            ],
            options={
                'indexes': [models.Index(fields=['deployment'], name='releases_progresscount_of'), models.Index(condition=models.Q(('is_sum', False)), fields=['deployment'], name='releases_progresscount_new')],
            },
        ),
        migrations.RunSQL([TRIGGERS, PRESENT], BACKWARD),
    ]

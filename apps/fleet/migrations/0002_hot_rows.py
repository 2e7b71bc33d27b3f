from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("fleet", "0001_initial")]
    operations = [
        # Leave free space on each page, so that a heartbeat updates its row on the same page and changes no index.
        migrations.RunSQL(
            "ALTER TABLE fleet_heartbeat SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05)",
            "ALTER TABLE fleet_heartbeat RESET (fillfactor, autovacuum_vacuum_scale_factor)",
        )
    ]

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("fleet", "0001_initial")]
    operations = [
        # Room on each page, so that a beat rewrites its row in place and touches no index.
        migrations.RunSQL(
            "ALTER TABLE fleet_heartbeat SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05)",
            "ALTER TABLE fleet_heartbeat RESET (fillfactor, autovacuum_vacuum_scale_factor)",
        )
    ]

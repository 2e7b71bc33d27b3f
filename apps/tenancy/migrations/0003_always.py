"""Make the audit trail's triggers also run in sessions with ``session_replication_role = replica``."""

from django.db import migrations

TRIGGERS = [
    ("tenancy_auditevent", "tenancy_auditevent_append_only"),
    ("tenancy_auditseal", "tenancy_auditseal_append_only"),
    ("tenancy_auditevent", "tenancy_auditevent_no_truncate"),
    ("tenancy_auditseal", "tenancy_auditseal_no_truncate"),
]


class Migration(migrations.Migration):
    dependencies = [("tenancy", "0002_append_only")]
    operations = [
        migrations.RunSQL(
            f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger}", f"ALTER TABLE {table} ENABLE TRIGGER {trigger}"
        )
        for table, trigger in TRIGGERS
    ]

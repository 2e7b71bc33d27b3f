"""The audit trail's guards hold for sessions in replication mode too: ``session_replication_role`` does not skip them."""

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

"""Make the audit tables append-only with triggers, and the table of rate counters unlogged: a crash may empty it."""

from django.db import migrations

FORWARD = """
CREATE FUNCTION byteor_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% of % is refused: its rows are immutable', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER tenancy_auditevent_append_only BEFORE UPDATE OR DELETE ON tenancy_auditevent
    FOR EACH ROW EXECUTE FUNCTION byteor_refuse_change();
CREATE TRIGGER tenancy_auditseal_append_only BEFORE UPDATE OR DELETE ON tenancy_auditseal
    FOR EACH ROW EXECUTE FUNCTION byteor_refuse_change();
CREATE TRIGGER tenancy_auditevent_no_truncate BEFORE TRUNCATE ON tenancy_auditevent
    FOR EACH STATEMENT EXECUTE FUNCTION byteor_refuse_change();
CREATE TRIGGER tenancy_auditseal_no_truncate BEFORE TRUNCATE ON tenancy_auditseal
    FOR EACH STATEMENT EXECUTE FUNCTION byteor_refuse_change();
ALTER TABLE tenancy_ratecounter SET UNLOGGED;
"""
BACKWARD = """
DROP FUNCTION byteor_refuse_change() CASCADE;
ALTER TABLE tenancy_ratecounter SET LOGGED;
"""


class Migration(migrations.Migration):
    dependencies = [("tenancy", "0001_initial")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("releases", "0001_initial"), ("tenancy", "0002_append_only")]
    operations = [
        migrations.RunSQL(
            "CREATE TRIGGER releases_configbundle_immutable BEFORE UPDATE ON releases_configbundle"
            " FOR EACH ROW EXECUTE FUNCTION byteor_refuse_change()",
            "DROP TRIGGER releases_configbundle_immutable ON releases_configbundle",
        )
    ]

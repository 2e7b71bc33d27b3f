from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("pipelines", "0001_initial"), ("tenancy", "0002_append_only")]
    operations = [
        migrations.RunSQL(
            "CREATE TRIGGER pipelines_version_immutable BEFORE UPDATE ON pipelines_version"
            " FOR EACH ROW EXECUTE FUNCTION byteor_refuse_change()",
            "DROP TRIGGER pipelines_version_immutable ON pipelines_version",
        )
    ]

"""The column of the next release. Release 0.1.0 inserts agents without it, so its default is in the database."""

from pathlib import Path

from django.db import migrations, models

# The migration of the checkout that precedes this one. The tests do not name it, because the checkout changes.
_LATEST = sorted(path.stem for path in Path(__file__).parent.glob("[0-8]*.py"))[-1]


class Migration(migrations.Migration):
    dependencies = [("fleet", _LATEST)]
    operations = [migrations.AddField("agent", "next_release", models.TextField(db_default="added"))]

"""Create the tables of release 0.1.0 in a new database.

It replaces the migrations from before the release, which remain for databases to which some of them were applied.
"""

import byteor_cloud.ids
import django.db.models.deletion
import django.db.models.functions.comparison
import django.db.models.functions.text
import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    replaces = [
        ('pipelines', '0001_initial'),
        ('pipelines', '0002_immutable'),
        ('pipelines', '0003_found_by_name'),
        ('pipelines', '0004_counted_drafts'),
        ('pipelines', '0005_found_by_words'),
    ]

    dependencies = [
        ('tenancy', '0001_squashed_0021_database_defaults'),
    ]

    operations = [
        migrations.CreateModel(
            name='Draft',
            fields=[
                ('id', models.UUIDField(default=byteor_cloud.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('updated_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('revision', models.PositiveIntegerField(default=1, editable=False)),
                ('name', models.CharField(max_length=200)),
                ('plan', models.JSONField()),
                ('diagnostics', models.JSONField(default=list)),
                ('spec_hash', models.CharField(max_length=71, null=True)),
                ('created_by', models.CharField(max_length=300)),
                ('updated_by', models.CharField(max_length=300)),
                ('environment', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenancy.environment')),
            ],
            options={
                'indexes': [models.Index(models.F('environment'), django.db.models.functions.comparison.Collate(django.db.models.functions.text.Upper('name'), 'C'), models.OrderBy(models.F('id'), descending=True), name='pipelines_draft_found'), models.Index(models.F('environment'), django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('name'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){1}([[:alnum:]].*)$')"), 'C'), models.OrderBy(models.F('id'), descending=True), condition=models.Q(models.Func(django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('name'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){1}([[:alnum:]].*)$')"), 'C'), output_field=models.BooleanField(), template='(%(expressions)s) IS NOT NULL')), name='pipelines_draft_word_2'), models.Index(models.F('environment'), django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('name'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){2}([[:alnum:]].*)$')"), 'C'), models.OrderBy(models.F('id'), descending=True), condition=models.Q(models.Func(django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('name'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){2}([[:alnum:]].*)$')"), 'C'), output_field=models.BooleanField(), template='(%(expressions)s) IS NOT NULL')), name='pipelines_draft_word_3'), models.Index(models.F('environment'), django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('name'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){3}([[:alnum:]].*)$')"), 'C'), models.OrderBy(models.F('id'), descending=True), condition=models.Q(models.Func(django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('name'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){3}([[:alnum:]].*)$')"), 'C'), output_field=models.BooleanField(), template='(%(expressions)s) IS NOT NULL')), name='pipelines_draft_word_4'), models.Index(models.F('environment'), django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('name'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){4}([[:alnum:]].*)$')"), 'C'), models.OrderBy(models.F('id'), descending=True), condition=models.Q(models.Func(django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('name'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){4}([[:alnum:]].*)$')"), 'C'), output_field=models.BooleanField(), template='(%(expressions)s) IS NOT NULL')), name='pipelines_draft_word_5'), models.Index(django.db.models.functions.text.Right(django.db.models.functions.comparison.Cast('id', models.TextField()), 6), name='pipelines_draft_id_tail')],
                'constraints': [models.UniqueConstraint(fields=('environment', 'name'), name='pipelines_draft_unique_name')],
            },
        ),
        migrations.CreateModel(
            name='Version',
            fields=[
                ('id', models.UUIDField(default=byteor_cloud.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('name', models.CharField(max_length=63)),
                ('number', models.PositiveIntegerField()),
                ('draft_id', models.UUIDField(null=True)),
                ('draft_revision', models.PositiveIntegerField(null=True)),
                ('origin_id', models.UUIDField(null=True)),
                ('plan', models.JSONField()),
                ('spec', models.JSONField()),
                ('spec_kv', models.TextField()),
                ('spec_hash', models.CharField(max_length=71)),
                ('compiler_version', models.CharField(max_length=20)),
                ('created_by', models.CharField(max_length=300)),
                ('environment', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenancy.environment')),
            ],
            options={
                'indexes': [models.Index(fields=['environment', 'spec_hash'], name='pipelines_version_spec'), models.Index(models.F('environment'), django.db.models.functions.comparison.Collate(django.db.models.functions.text.Upper('name'), 'C'), models.OrderBy(models.F('id'), descending=True), name='pipelines_version_found'), models.Index(models.F('environment'), django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('name'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){1}([[:alnum:]].*)$')"), 'C'), models.OrderBy(models.F('id'), descending=True), condition=models.Q(models.Func(django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('name'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){1}([[:alnum:]].*)$')"), 'C'), output_field=models.BooleanField(), template='(%(expressions)s) IS NOT NULL')), name='pipelines_version_word_2'), models.Index(models.F('environment'), django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('name'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){2}([[:alnum:]].*)$')"), 'C'), models.OrderBy(models.F('id'), descending=True), condition=models.Q(models.Func(django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('name'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){2}([[:alnum:]].*)$')"), 'C'), output_field=models.BooleanField(), template='(%(expressions)s) IS NOT NULL')), name='pipelines_version_word_3'), models.Index(models.F('environment'), django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('name'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){3}([[:alnum:]].*)$')"), 'C'), models.OrderBy(models.F('id'), descending=True), condition=models.Q(models.Func(django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('name'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){3}([[:alnum:]].*)$')"), 'C'), output_field=models.BooleanField(), template='(%(expressions)s) IS NOT NULL')), name='pipelines_version_word_4'), models.Index(models.F('environment'), django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('name'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){4}([[:alnum:]].*)$')"), 'C'), models.OrderBy(models.F('id'), descending=True), condition=models.Q(models.Func(django.db.models.functions.comparison.Collate(models.Func(django.db.models.functions.text.Upper('name'), template="SUBSTRING(%(expressions)s, '^(?:[[:alnum:]]*[^[:alnum:]]+){4}([[:alnum:]].*)$')"), 'C'), output_field=models.BooleanField(), template='(%(expressions)s) IS NOT NULL')), name='pipelines_version_word_5'), models.Index(django.db.models.functions.text.Right(django.db.models.functions.comparison.Cast('id', models.TextField()), 6), name='pipelines_version_id_tail')],
                'constraints': [models.UniqueConstraint(fields=('environment', 'name', 'number'), name='pipelines_version_unique_number')],
            },
        ),
    ]

"""Drafts and versions of pipelines."""

from __future__ import annotations

import json
from typing import Any, override

from django.db import models
from django.db.models.fields.json import KeyTransform
from psycopg.types.json import Jsonb

from apps.tenancy.models import EnvironmentOwned, Revisioned, name_index
from byteor.engine.compiler import stages_in
from byteor_cloud.json_text import JsonText, parsed


class _JsonTextEncoder(json.JSONEncoder):
    """Encodes columns for the console, which shows them as indented JSON."""

    @override
    def default(self, o: JsonText) -> Any:
        return o.value


class JsonTextField(models.JSONField):
    """A JSON column that is read as JsonText, because its values are large. It can be set to any JSON value."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"encoder": _JsonTextEncoder, **options})

    @override
    def deconstruct(self) -> Any:
        """Describe the field to migrations as a plain JSON column."""
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.JSONField", args, {key: kwargs[key] for key in kwargs if key != "encoder"}

    @override
    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        """Return the column as JsonText, but the value of a single key as a Python object."""
        if value is None or isinstance(expression, KeyTransform):
            return super().from_db_value(value, expression, connection)
        return JsonText(value)

    @override
    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        """Send a JsonText as it is."""
        if isinstance(value, JsonText):
            return Jsonb(value.text, dumps=str)
        return super().get_db_prep_value(value, connection, prepared)


class Draft(EnvironmentOwned, Revisioned):
    """The mutable holder of a plan. A plan may be saved even if it does not compile."""

    name = models.CharField(max_length=200)
    plan: models.JSONField[Any, JsonText] = JsonTextField()
    # The diagnostics of the last save.
    diagnostics: models.JSONField[Any, Any] = models.JSONField(default=list)
    spec_hash = models.CharField(max_length=71, null=True)
    created_by = models.CharField(max_length=300)
    updated_by = models.CharField(max_length=300)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["environment", "name"], name="pipelines_draft_unique_name")]
        indexes = [name_index("name", name="pipelines_draft_found")]

    def __str__(self) -> str:
        return self.name


class Version(EnvironmentOwned):
    """A compiled pipeline. It is immutable: a database trigger rejects updates."""

    name = models.CharField(max_length=63)  # the name of the pipeline, from the plan
    number = models.PositiveIntegerField()
    # Not a foreign key, since a version outlives its draft.
    draft_id = models.UUIDField(null=True)
    draft_revision = models.PositiveIntegerField(null=True)
    # The version that this one was copied from. Not a foreign key, since that version may be deleted.
    origin_id = models.UUIDField(null=True)
    plan: models.JSONField[Any, JsonText] = JsonTextField()
    spec: models.JSONField[Any, JsonText] = JsonTextField()
    spec_kv = models.TextField()
    spec_hash = models.CharField(max_length=71)
    compiler_version = models.CharField(max_length=20)
    created_by = models.CharField(max_length=300)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["environment", "name", "number"], name="pipelines_version_unique_number")
        ]
        indexes = [
            models.Index(fields=["environment", "spec_hash"], name="pipelines_version_spec"),
            name_index("name", name="pipelines_version_found"),
        ]

    def __str__(self) -> str:
        return f"{self.name} v{self.number}"

    @property
    def stages(self) -> tuple[tuple[str, str], ...]:
        """The id and op of every stage, in the order of the spec. Decoding the KV text of a large spec takes longer."""
        return stages_in(parsed(self.spec))

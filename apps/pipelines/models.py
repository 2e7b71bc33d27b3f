"""Drafts and versions of pipelines."""

from __future__ import annotations

from typing import Any

from django.db import models

from apps.tenancy.models import EnvironmentOwned, Revisioned, id_index, name_index, word_indexes
from byteor.engine.compiler import stages_in
from byteor_cloud.database.json_columns import JsonTextField
from byteor_cloud.json_text import JsonText, parsed


class Draft(EnvironmentOwned, Revisioned):
    """A saved plan that can be edited. The plan does not need to compile."""

    name = models.CharField(max_length=200)
    plan: models.JSONField[Any, JsonText] = JsonTextField()
    # The compiler's findings when the plan was last saved.
    diagnostics: models.JSONField[Any, Any] = models.JSONField(default=list)
    spec_hash = models.CharField(max_length=71, null=True)
    created_by = models.CharField(max_length=300)
    updated_by = models.CharField(max_length=300)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["environment", "name"], name="pipelines_draft_unique_name")]
        indexes = [
            name_index("name", name="pipelines_draft_found"),
            *word_indexes("name", name="pipelines_draft_word"),
            id_index(name="pipelines_draft_id_tail"),
        ]

    def __str__(self) -> str:
        return self.name


class Version(EnvironmentOwned):
    """A compiled pipeline. It is immutable: a database trigger rejects updates."""

    name = models.CharField(max_length=63)  # the name of the pipeline, from the plan
    number = models.PositiveIntegerField()
    # Not a foreign key, since a version outlives its draft.
    draft_id = models.UUIDField(null=True)
    draft_revision = models.PositiveIntegerField(null=True)
    # The version that this one was copied from, or null. Not a foreign key, since that version may be deleted.
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
            *word_indexes("name", name="pipelines_version_word"),
            id_index(name="pipelines_version_id_tail"),
        ]

    def __str__(self) -> str:
        return f"{self.name} v{self.number}"

    @property
    def stages(self) -> tuple[tuple[str, str], ...]:
        """The id and op of every stage, in the order of the spec. Reads the JSON, which is faster than the KV text."""
        return stages_in(parsed(self.spec))

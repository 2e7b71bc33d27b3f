"""Drafts, and the versions that they are promoted to."""

from __future__ import annotations

from typing import Any

from django.db import models

from apps.tenancy.models import EnvironmentOwned, Revisioned


class Draft(EnvironmentOwned, Revisioned):
    """A mutable pipeline definition; it may be saved while it does not compile."""

    name = models.CharField(max_length=200)
    plan: models.JSONField[Any, Any] = models.JSONField()
    # What the compiler says of the plan, kept from the last save.
    diagnostics: models.JSONField[Any, Any] = models.JSONField(default=list)
    spec_hash = models.CharField(max_length=71, null=True)
    created_by = models.CharField(max_length=300)
    updated_by = models.CharField(max_length=300)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["environment", "name"], name="pipelines_draft_unique_name")]

    def __str__(self) -> str:
        return self.name


class Version(EnvironmentOwned):
    """A compiled pipeline, immutable in the database too (a trigger refuses UPDATE)."""

    name = models.CharField(max_length=63)  # the pipeline's: plan.name
    number = models.PositiveIntegerField()
    # Plain, since a version outlives its draft.
    draft_id = models.UUIDField(null=True)
    draft_revision = models.PositiveIntegerField(null=True)
    # Plain too: the version that this one was copied from, maybe in an environment that is gone.
    origin_id = models.UUIDField(null=True)
    plan: models.JSONField[Any, Any] = models.JSONField()
    spec: models.JSONField[Any, Any] = models.JSONField()
    spec_kv = models.TextField()
    spec_hash = models.CharField(max_length=71)
    compiler_version = models.CharField(max_length=20)
    created_by = models.CharField(max_length=300)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["environment", "name", "number"], name="pipelines_version_unique_number")
        ]
        indexes = [models.Index(fields=["environment", "spec_hash"], name="pipelines_version_spec")]

    def __str__(self) -> str:
        return f"{self.name} v{self.number}"

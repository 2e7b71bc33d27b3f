"""Artifacts, their replays, and blobs that may be removed."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.utils import timezone

from apps.fleet.models import Agent
from apps.pipelines.models import Version
from apps.releases.models import Approval, ConfigBundle, Deployment
from apps.tenancy.models import enum_choices, one_of_constraint
from apps.tenancy.state import Stateful
from byteor_cloud.engine.machines import ARTIFACT, REPLAY, ArtifactStatus, ReplayStatus


class Artifact(Stateful):
    """An immutable file that an agent uploaded. The blob store has its bytes under ``content_hash``."""

    class Kind(models.TextChoices):
        INCIDENT_BUNDLE = "incident_bundle"
        SNAPSHOT = "snapshot"
        TELEMETRY = "telemetry"
        DIAGNOSTIC = "diagnostic"

    machine = ARTIFACT
    status = models.CharField(max_length=10, choices=enum_choices(ArtifactStatus), default=ArtifactStatus.RECEIVED)
    reasons: models.JSONField[Any, Any] = models.JSONField(default=list)
    kind = models.CharField(max_length=20, choices=Kind.choices)
    agent = models.ForeignKey(Agent, on_delete=models.CASCADE, related_name="+")
    deployment = models.ForeignKey(Deployment, on_delete=models.SET_NULL, null=True, related_name="+")
    version = models.ForeignKey(Version, on_delete=models.SET_NULL, null=True, related_name="+")
    spec_hash = models.CharField(max_length=71, null=True)
    content_hash = models.CharField(max_length=71)
    size_bytes = models.BigIntegerField()
    captured_at = models.DateTimeField()
    metadata: models.JSONField[Any, Any] = models.JSONField(default=dict)
    # What the upload said about its content (``declared_key``). The check may set the other columns, but not this one.
    declared = models.CharField(max_length=150)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["environment", "content_hash", "declared"], name="artifacts_artifact_unique_upload"
            ),
            one_of_constraint("status", ArtifactStatus, "artifacts_artifact_status"),
        ]
        indexes = [models.Index(fields=["content_hash"], name="artifacts_artifact_content")]

    def __str__(self) -> str:
        return f"{self.kind} {self.pk}"


class UnreferencedBlob(models.Model):
    """A blob that may be removed: the last row that referred to it was deleted, or no row ever referred to it.

    Database triggers insert these rows when an artifact or a deployment is deleted, even by a cascade or by plain SQL.
    """

    content_hash = models.CharField(max_length=200, primary_key=True)
    since = models.DateTimeField(default=timezone.now)

    class Meta:
        indexes = [models.Index(fields=["since"], name="artifacts_unreferenced_since")]

    def __str__(self) -> str:
        return self.content_hash


class Replay(Stateful):
    """A deterministic run of an artifact's records through a version."""

    class Mode(models.TextChoices):
        DRY_RUN = "dry_run"
        EXECUTE = "execute"

    machine = REPLAY
    status = models.CharField(max_length=20, choices=enum_choices(ReplayStatus), default=ReplayStatus.QUEUED)
    artifact = models.ForeignKey(Artifact, on_delete=models.CASCADE, related_name="replays")
    version = models.ForeignKey(Version, on_delete=models.CASCADE, related_name="+")
    mode = models.CharField(max_length=10, choices=Mode.choices, default=Mode.DRY_RUN)
    journal_lane = models.CharField(max_length=200, null=True)
    last_n = models.PositiveIntegerField(null=True)
    # The bundle whose stage parameters were asked for. Null: those of the capture or of its deployment.
    config_bundle = models.ForeignKey(ConfigBundle, on_delete=models.CASCADE, null=True, related_name="+")
    requested_by = models.CharField(max_length=300)
    # The approval was requested with the replay, or given before and sent with the request as an approval credential.
    approval = models.ForeignKey(Approval, on_delete=models.SET_NULL, null=True, related_name="+")
    result: models.JSONField[Any, Any] = models.JSONField(null=True)
    audit: models.JSONField[Any, Any] = models.JSONField(null=True)
    warnings: models.JSONField[Any, Any] = models.JSONField(default=list)
    # Records of a running replay: those that are done, and all.
    progress_done = models.BigIntegerField(default=0)
    progress_total = models.BigIntegerField(default=0)
    error = models.TextField(null=True)
    # The machine-readable reason of a failure.
    error_code = models.CharField(max_length=40, null=True)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [one_of_constraint("status", ReplayStatus, "artifacts_replay_status")]

    def __str__(self) -> str:
        return f"replay {self.pk}"

    @property
    def progress(self) -> dict[str, int] | None:
        """How many records of how many are done, while the replay runs."""
        if self.status != ReplayStatus.RUNNING:
            return None
        return {"done": self.progress_done, "total": self.progress_total}

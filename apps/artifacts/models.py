"""Artifacts and requests for them, replays, bisects, fixtures and their verdicts, and blobs that may be deleted."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

from django.db import models
from django.utils import timezone

from apps.fleet.models import Agent
from apps.pipelines.models import Version
from apps.releases.models import Approval, ConfigBundle, Deployment, Regression
from apps.tenancy.models import (
    EnvironmentOwned,
    Organization,
    Revisioned,
    Row,
    Stateful,
    User,
    enum_choices,
    id_index,
    name_index,
    one_of_constraint,
    word_indexes,
)
from byteor.engine.machines import (
    ARTIFACT,
    BISECT,
    CAPTURE,
    REPLAY,
    ArtifactStatus,
    BisectStatus,
    CaptureStatus,
    ReplayStatus,
)
from byteor.engine.replay import FixtureOutcome
from byteor_cloud.errors import Unavailable


class Artifact(Stateful):
    """An immutable file that an agent uploaded, or that contains some records of another artifact.

    Its content is in the blob store under ``content_hash``.
    """

    class Kind(models.TextChoices):
        INCIDENT_BUNDLE = "incident_bundle"
        SNAPSHOT = "snapshot"
        TELEMETRY = "telemetry"
        DIAGNOSTIC = "diagnostic"

    machine = ARTIFACT
    status = models.CharField(max_length=10, choices=enum_choices(ArtifactStatus), default=ArtifactStatus.RECEIVED)
    reasons: models.JSONField[Any, Any] = models.JSONField(default=list)
    kind = models.CharField(max_length=20, choices=Kind.choices)
    # No separate index, because the index ``artifacts_artifact_agent`` starts with this column.
    agent = models.ForeignKey(Agent, on_delete=models.CASCADE, related_name="+", db_index=False)
    deployment = models.ForeignKey(Deployment, on_delete=models.SET_NULL, null=True, related_name="+")
    version = models.ForeignKey(Version, on_delete=models.SET_NULL, null=True, related_name="+")
    spec_hash = models.CharField(max_length=71, null=True)
    content_hash = models.CharField(max_length=71)
    size_bytes = models.BigIntegerField()
    # About how many bytes the folder derived from an incident bundle takes; 0 if no folder is known to exist
    # (``services.derived``).
    derived_bytes = models.BigIntegerField(default=0)
    captured_at = models.DateTimeField()
    metadata: models.JSONField[Any, Any] = models.JSONField(default=dict)
    # For an artifact with only some records of another artifact: {"artifact_id", "records": [first, last]}.
    origin: models.JSONField[Any, Any] = models.JSONField(null=True)
    # The Unavailable error of an attempt to unpack the capture, so that the same request does not try again
    # (``services.captures``). It is not stored in the database.
    unreadable: Unavailable | None = None
    # The kind, spec hash and deployment that the upload declared, or that were copied from the other artifact
    # (``declared_key``). The check may set ``spec_hash`` and other columns, but never this one.
    declared = models.CharField(max_length=150)
    bounded_columns = frozenset({"origin"})

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["environment", "content_hash", "declared"], name="artifacts_artifact_unique_upload"
            ),
            one_of_constraint("status", ArtifactStatus, "artifacts_artifact_status"),
        ]
        indexes = [
            models.Index(fields=["content_hash"], name="artifacts_artifact_content"),
            models.Index(fields=["agent", "id"], name="artifacts_artifact_agent"),  # for the newest of an agent
            id_index(name="artifacts_artifact_id_tail"),
            # For lists filtered by a rare kind or status, and for the newest captures of an environment.
            models.Index(fields=["environment", "kind", "id"], name="artifacts_artifact_kind"),
            models.Index(
                fields=["environment", "status", "id"],
                condition=~models.Q(status=ArtifactStatus.VERIFIED),
                name="artifacts_artifact_unverified",
            ),
            models.Index(fields=["id"], condition=models.Q(derived_bytes__gt=0), name="artifacts_artifact_derived"),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display().capitalize()} of {self.captured_at:%Y-%m-%d %H:%M}"

    @property
    def download_name(self) -> str:
        """The file name that a download suggests."""
        return f"{self.pk}.{'tar.gz' if self.kind == self.Kind.INCIDENT_BUNDLE else 'bin'}"


class RequestedCapture(Stateful):
    """A request that an agent upload a capture of what it runs. The responses to the agent's heartbeats announce it."""

    machine = CAPTURE
    status = models.CharField(max_length=10, choices=enum_choices(CaptureStatus), default=CaptureStatus.REQUESTED)
    agent = models.ForeignKey(Agent, on_delete=models.CASCADE, related_name="+", db_index=False)
    reason = models.CharField(max_length=500)
    # The number of records to capture from the end of each journal. Null for all records.
    last_n = models.PositiveIntegerField(null=True)
    requested_by = models.CharField(max_length=300)
    expires_at = models.DateTimeField()
    # The uploaded artifact, even if the request had expired. Null before the upload, and after the artifact's deletion.
    artifact = models.ForeignKey(Artifact, on_delete=models.SET_NULL, null=True, related_name="+")
    uploaded_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [one_of_constraint("status", CaptureStatus, "artifacts_requestedcapture_status")]
        indexes = [
            models.Index(fields=["agent", "id"], name="artifacts_capture_agent"),
            models.Index(fields=["created_at"], name="artifacts_capture_created"),  # used to delete old rows
            models.Index(
                fields=["expires_at"],
                condition=models.Q(status=CaptureStatus.REQUESTED),
                name="artifacts_capture_pending",
            ),
        ]

    def __str__(self) -> str:
        return f"Requested capture of {self.created_at:%Y-%m-%d %H:%M}"


class UnreferencedBlob(models.Model):
    """A blob that may be unreferenced. The blob is deleted unless an artifact or a deployment refers to it.

    Database triggers insert rows when artifacts and deployments are deleted, even by a cascade or by plain SQL.
    """

    content_hash = models.CharField(max_length=200, primary_key=True)
    since = models.DateTimeField(default=timezone.now)

    class Meta:
        indexes = [models.Index(fields=["since"], name="artifacts_unreferenced_since")]

    def __str__(self) -> str:
        return self.content_hash


class Bisect(Stateful):
    """A search for a pipeline's first bad version, which replays a capture through several versions."""

    machine = BISECT
    status = models.CharField(max_length=10, choices=enum_choices(BisectStatus), default=BisectStatus.QUEUED)
    artifact = models.ForeignKey(Artifact, on_delete=models.CASCADE, related_name="bisects")
    # "diverges", "fails" or {"output_differs_from": REPLAY_ID}
    predicate: models.JSONField[Any, Any] = models.JSONField()
    exhaustive = models.BooleanField(default=False)
    # [{"version_id", "number", "verdict", "replay_id", "no_parameters"}], ordered by version number
    versions: models.JSONField[Any, Any] = models.JSONField()
    outcome = models.CharField(max_length=20, null=True)
    first_bad = models.ForeignKey(Version, on_delete=models.SET_NULL, null=True, related_name="+")
    last_good = models.ForeignKey(Version, on_delete=models.SET_NULL, null=True, related_name="+")
    # The changes from the last good to the first bad version.
    diff: models.JSONField[Any, Any] = models.JSONField(null=True)
    monotone = models.BooleanField(null=True)
    error = models.TextField(null=True)
    requested_by = models.CharField(max_length=300)
    person = models.UUIDField(null=True, editable=False)  # see ``Replay.person``
    finished_at = models.DateTimeField(null=True)
    bounded_columns = frozenset({"predicate", "error"})

    class Meta:
        constraints = [one_of_constraint("status", BisectStatus, "artifacts_bisect_status")]
        indexes = [id_index(name="artifacts_bisect_id_tail")]

    def __str__(self) -> str:
        return f"Bisect of {self.created_at:%Y-%m-%d %H:%M}"


class Replay(Stateful):
    """A run of an artifact's records through a version, as a dry run or with side effects."""

    class Mode(models.TextChoices):
        DRY_RUN = "dry_run"
        EXECUTE = "execute"

    machine = REPLAY
    status = models.CharField(max_length=20, choices=enum_choices(ReplayStatus), default=ReplayStatus.QUEUED)
    # No separate index, because the index ``artifacts_replay_artifact`` starts with this column.
    artifact = models.ForeignKey(Artifact, on_delete=models.CASCADE, related_name="replays", db_index=False)
    version = models.ForeignKey(Version, on_delete=models.CASCADE, related_name="+")
    mode = models.CharField(max_length=10, choices=Mode.choices, default=Mode.DRY_RUN)
    journal_lane = models.CharField(max_length=200, null=True)
    last_n = models.PositiveIntegerField(null=True)
    # The requested config bundle, whose stage parameters are used. If null, the parameters come from the capture, from
    # its deployment or from ``fallback_config_bundle``.
    config_bundle = models.ForeignKey(ConfigBundle, on_delete=models.CASCADE, null=True, related_name="+")
    # The config bundle whose parameters are used for stages that have none in the capture or its deployment. Set only
    # if the version's spec differs from the capture's. It is the version's newest config bundle at the time of the
    # request or, if the replay repeats an earlier one, the fallback config bundle of the earlier replay.
    fallback_config_bundle = models.ForeignKey(ConfigBundle, on_delete=models.CASCADE, null=True, related_name="+")
    # The bisect that requested the replay. Such a replay only uses parameters of the capture or its deployment. A stage
    # gets the parameters that belong to the same stage id and op.
    bisect = models.ForeignKey(Bisect, on_delete=models.CASCADE, null=True, related_name="replays")
    requested_by = models.CharField(max_length=300)
    # The user behind the request (``person_behind``). Null if unknown.
    person = models.UUIDField(null=True, editable=False)
    # The approval that was requested together with the replay, or an earlier approval whose credential was sent with
    # the request for the replay.
    approval = models.ForeignKey(Approval, on_delete=models.SET_NULL, null=True, related_name="+")
    result: models.JSONField[Any, Any] = models.JSONField(null=True)
    audit: models.JSONField[Any, Any] = models.JSONField(null=True)
    warnings: models.JSONField[Any, Any] = models.JSONField(default=list)
    # The number of processed records and of all records of a dry run. While its journals are being read, these are 0
    # and the number of records read so far. Both stay 0 for an execute replay.
    progress_done = models.BigIntegerField(default=0)
    progress_total = models.BigIntegerField(default=0)
    error = models.TextField(null=True)
    # A stable code for the cause of a failure. Null if the approval or the policy did not permit the start.
    # ``error`` is then a code.
    error_code = models.CharField(max_length=40, null=True)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    bounded_columns = frozenset({"error"})

    class Meta:
        constraints = [one_of_constraint("status", ReplayStatus, "artifacts_replay_status")]
        indexes = [
            id_index(name="artifacts_replay_id_tail"),
            models.Index(fields=["artifact", "id"], name="artifacts_replay_artifact"),  # for the newest of an artifact
            models.Index(
                fields=["environment", "id"],
                condition=models.Q(status=ReplayStatus.DIVERGED),
                name="artifacts_replay_diverged",
            ),
        ]

    def __str__(self) -> str:
        return f"Replay of {self.created_at:%Y-%m-%d %H:%M}"

    @property
    def progress(self) -> dict[str, int] | None:
        """The number of processed records and of all records, both 0 for an execute replay. None unless running.

        While the journals are being read, these are 0 and the number of records read so far.
        """
        if self.status != ReplayStatus.RUNNING:
            return None
        return {"done": self.progress_done, "total": self.progress_total}

    def stored_frames(self) -> dict[str, bytes | None]:
        """Return the output frames of each egress; None for an egress whose frames were not kept."""
        kept = ReplayFrames.objects.filter(replay=self).first()
        egress = (self.result or {}).get("egress", {})
        if kept is None:
            return dict.fromkeys(egress)
        return {name: None if text is None else b64decode(text) for name, text in kept.frames.items()}


class ReplayFrames(models.Model):
    """The output frames of a replay by egress, in Base64. Null for an egress whose frames were not kept."""

    replay = models.OneToOneField(Replay, on_delete=models.CASCADE, primary_key=True, related_name="+")
    frames: models.JSONField[Any, Any] = models.JSONField()

    def __str__(self) -> str:
        return f"frames of {self.replay_id}"


class Fixture(EnvironmentOwned, Revisioned):
    """A verified capture that is kept as a regression test of its pipeline."""

    pipeline = models.CharField(max_length=63)
    name = models.CharField(max_length=200)
    owner = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+")
    note = models.TextField(blank=True)
    artifact = models.ForeignKey(Artifact, on_delete=models.CASCADE, related_name="fixtures")
    journal_lane = models.CharField(max_length=200, null=True)
    last_n = models.PositiveIntegerField(null=True)
    expires_at = models.DateTimeField(null=True)
    # The replay whose result is expected. If null, the result of a baseline is expected. Not a foreign key, because the
    # result is copied and outlives the replay.
    golden_replay_id = models.UUIDField(null=True)
    # The expected result, and the configuration that gave it: {"result", "spec_kv", "stage_config"}.
    golden: models.JSONField[Any, Any] = models.JSONField(null=True)
    # [{"config_hash", "deployment_id"}]: the deployments whose accepted results are also expected unless their
    # configuration is known bad, newest first. For each, ``also_golden`` contains the result: [{"result"}]. The first
    # also contains the configuration ("spec_kv", "stage_config") if it is not too large.
    also_expected: models.JSONField[Any, Any] = models.JSONField(default=list, db_default=[])
    also_golden: models.JSONField[Any, Any] = models.JSONField(default=list, db_default=[])
    created_by = models.CharField(max_length=300)
    bounded_columns = frozenset({"note", "also_expected"})

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["environment", "pipeline", "name"], name="artifacts_fixture_unique_name"),
            models.CheckConstraint(
                condition=models.Q(golden_replay_id__isnull=True, golden__isnull=True)
                | models.Q(golden_replay_id__isnull=False, golden__isnull=False),
                name="artifacts_fixture_golden",
            ),
        ]
        indexes = [
            name_index("name", name="artifacts_fixture_found"),
            *word_indexes("name", name="artifacts_fixture_word"),
            id_index(name="artifacts_fixture_id_tail"),
            models.Index(
                fields=["environment", "pipeline"],
                condition=models.Q(golden_replay_id__isnull=False),
                name="artifacts_fixture_with_golden",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def expect(self) -> str | dict[str, str]:
        """The expectation of the fixture in the form that requests use."""
        return "same" if self.golden_replay_id is None else {"golden": str(self.golden_replay_id)}

    @property
    def is_expired(self) -> bool:
        """Whether the fixture has expired."""
        return self.expires_at is not None and self.expires_at <= timezone.now()


class Verdict(Row):
    """The outcome of a fixture for a candidate, compared with one baseline or with golden results.

    The key covers the fixture's records, what is compared and the engine. So later regressions can use the verdict.
    """

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+")
    key = models.CharField(max_length=71)
    outcome = models.CharField(max_length=10, choices=enum_choices(FixtureOutcome))
    # These columns have the values of a ``Judgment``. The examples of the groups are in ``VerdictExample``.
    groups: models.JSONField[Any, Any] = models.JSONField(default=list)
    more = models.BigIntegerField(default=0)
    records = models.BigIntegerField(default=0)
    work_candidate = models.BigIntegerField(default=0)
    work_baseline = models.BigIntegerField(default=0)
    error = models.TextField(null=True)
    stage = models.CharField(max_length=63, null=True)
    result: models.JSONField[Any, Any] = models.JSONField(null=True)
    example_bytes = models.PositiveIntegerField(default=0, db_default=0)  # the size of the verdict's examples
    used_at = models.DateTimeField(default=timezone.now)  # when a regression last used the verdict
    bounded_columns = frozenset({"error"})

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["organization", "key"], name="artifacts_verdict_unique"),
            one_of_constraint("outcome", FixtureOutcome, "artifacts_verdict_outcome"),
        ]
        indexes = [
            models.Index(fields=["used_at"], name="artifacts_verdict_used"),
            # For the examples of an organization: their total size, and those that were unused for longest.
            models.Index(
                fields=["organization", "used_at"],
                include=["example_bytes"],
                condition=models.Q(example_bytes__gt=0),
                name="artifacts_verdict_examples",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.outcome} {self.key}"


class VerdictExample(models.Model):
    """The first difference of a group in a verdict. It may contain payloads, so it is deleted with its artifact."""

    # No separate index, because the unique constraint's index starts with this column.
    verdict = models.ForeignKey(Verdict, on_delete=models.CASCADE, related_name="examples", db_index=False)
    group = models.CharField(max_length=64)
    artifact = models.ForeignKey(Artifact, on_delete=models.CASCADE, related_name="+")
    example: models.JSONField[Any, Any] = models.JSONField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["verdict", "group"], name="artifacts_verdictexample_unique")]

    def __str__(self) -> str:
        return self.group


class RegressionResult(models.Model):
    """The outcome of one fixture in a regression, compared with one baseline or with golden results."""

    regression = models.ForeignKey(Regression, on_delete=models.CASCADE, related_name="results", db_index=False)
    # Not a foreign key, because the result outlives the fixture.
    fixture_id = models.UUIDField()
    fixture_name = models.CharField(max_length=200)
    baseline = models.CharField(max_length=71, null=True)  # the config hash; null for a golden result
    golden_replay_id = models.UUIDField(null=True)  # of the fixture when the regression started
    outcome = models.CharField(max_length=10, choices=enum_choices(FixtureOutcome), null=True)  # null until it is known
    verdict = models.ForeignKey(Verdict, on_delete=models.SET_NULL, null=True, related_name="+")
    error = models.TextField(null=True)
    bounded_columns = frozenset({"error"})

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["regression", "fixture_id", "baseline"],
                name="artifacts_regressionresult_unique",
                nulls_distinct=False,
            ),
            one_of_constraint("outcome", FixtureOutcome, "artifacts_regressionresult_outcome"),
        ]

    def __str__(self) -> str:
        return f"{self.fixture_name}: {self.outcome}"

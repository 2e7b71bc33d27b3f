"""Config bundles and their known bad state, approvals, deployments with their agents, regressions and acceptances."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.db.models import Func, Q
from django.utils import timezone

from apps.fleet.models import Agent
from apps.pipelines.models import Draft, Version
from apps.tenancy.models import (
    Environment,
    EnvironmentOwned,
    Row,
    Stateful,
    User,
    enum_choices,
    id_index,
    name_index,
    one_of_constraint,
    word_indexes,
)
from byteor.engine.approval_subject import ApprovalSubject, DeploymentOptions
from byteor.engine.break_glass import BreakGlass
from byteor.engine.canonical import format_time
from byteor.engine.failures import MAX_CAUSE, FailureReason
from byteor.engine.machines import (
    APPROVAL,
    DEPLOYMENT,
    REGRESSION,
    UNDER_WAY,
    AgentProgress,
    ApprovalStatus,
    DeploymentStatus,
    OfferAction,
    RegressionStatus,
)
from byteor.engine.release_policy import ReleasePolicy
from byteor.engine.rollout import EnlistmentCursor, Strategy
from byteor.engine.target import ApprovalTarget, Target
from byteor.engine.wave_hold import WaveHold, WaveReport
from byteor_cloud.database.json_columns import StoredField


class ConfigBundle(EnvironmentOwned):
    """A version with its runtime configuration. Immutable: a database trigger refuses UPDATE."""

    name = models.CharField(max_length=200)
    version = models.ForeignKey(Version, on_delete=models.CASCADE, related_name="+")
    tuning_profile = models.CharField(max_length=20)
    wait = models.CharField(max_length=10)
    stage_config: models.JSONField[Any, Any] = models.JSONField(default=dict)
    adapters: models.JSONField[Any, Any] = models.JSONField(default=dict)
    env: models.JSONField[Any, Any] = models.JSONField(default=dict)
    snapshot: models.JSONField[Any, Any] = models.JSONField(default=dict)
    required_capabilities: models.JSONField[Any, Any] = models.JSONField(default=list)
    config_hash = models.CharField(max_length=71)
    # The config bundle that this one was copied from, or null. Not a foreign key, since the original may be deleted.
    origin_id = models.UUIDField(null=True)
    created_by = models.CharField(max_length=300)
    bounded_columns = frozenset({"snapshot"})

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["environment", "name"], name="releases_configbundle_unique_name")
        ]
        indexes = [
            models.Index(fields=["environment", "config_hash"], name="releases_configbundle_hash"),
            name_index("name", name="releases_configbundle_found"),
            *word_indexes("name", name="releases_configbundle_word"),
            id_index(name="releases_configbundle_id_tail"),
            # Finds an environment's config bundles that refer to a secret, without reading ``env``.
            GinIndex(
                Func("environment", "env", function="releases_secret_keys"),
                name="releases_configbundle_secrets",
                fastupdate=False,
            ),
        ]

    def __str__(self) -> str:
        return self.name


class KnownBad(models.Model):
    """A config hash that is known bad in an environment: it cannot be deployed there, and no rollback restores it."""

    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, related_name="+")
    config_hash = models.CharField(max_length=71)
    reason = models.CharField(max_length=500)
    since = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["environment", "config_hash"], name="releases_knownbad_unique")]

    def __str__(self) -> str:
        return self.config_hash


class Approval(Stateful):
    """A request for approval. The approval covers exactly the ``subject`` and can be used once.

    The approval of a wave (``wave`` is not null) covers only the start of this wave, after exactly what ``wave_report``
    states.
    """

    machine = APPROVAL
    status = models.CharField(max_length=10, choices=enum_choices(ApprovalStatus), default=ApprovalStatus.PENDING)
    # The person who requested the deployment or replay, or who created the API key that did. Null if unknown.
    requester_id = models.UUIDField(null=True)
    requested_by = models.CharField(max_length=300)
    # The execute replay that needs this approval, if any. A plain id, because this app may not import artifacts.
    replay_id = models.UUIDField(null=True, unique=True)
    # Whether this is the approval of a break-glass deployment, which may start before anybody decides.
    break_glass = models.BooleanField(default=False)
    spec_hash = models.CharField(max_length=71)
    config_hash = models.CharField(max_length=71, null=True)
    target: StoredField[ApprovalTarget | None] = StoredField(ApprovalTarget, null=True)
    strategy: StoredField[Strategy | None] = StoredField(Strategy, null=True)
    capabilities: models.JSONField[Any, Any] = models.JSONField(default=list)
    # Null means the default options.
    options: StoredField[DeploymentOptions | None] = StoredField(DeploymentOptions, null=True)
    # [{"group", "text"}]: the requester's explanations of differences
    explain: models.JSONField[Any, Any] = models.JSONField(default=list, db_default=[])
    # The ids of the users who may decide, sorted. If empty, everybody who may operate the environment may decide.
    reviewers: models.JSONField[Any, Any] = models.JSONField(default=list, db_default=[])
    # The wave that waits for this approval, counted from 0, and its deployment. Null for all other approvals.
    wave = models.PositiveIntegerField(null=True)
    rollout = models.ForeignKey(
        "Deployment", on_delete=models.CASCADE, null=True, related_name="wave_approvals", editable=False
    )
    wave_report: StoredField[WaveReport | None] = StoredField(WaveReport, null=True)
    # The signed statement of the decisions on a wave, as canonical JSON. Null until the wave was approved or denied.
    statement = models.TextField(null=True, editable=False)
    required_approvals = models.PositiveIntegerField()
    allow_self_approval = models.BooleanField()
    expires_at = models.DateTimeField()
    approved_at = models.DateTimeField(null=True)
    credential = models.TextField(null=True)
    used_at = models.DateTimeField(null=True)
    reminded_at = models.DateTimeField(null=True, editable=False)  # when the last reminder was sent
    bounded_columns = frozenset({"strategy", "options", "reviewers"})

    class Meta:
        constraints = [
            one_of_constraint("status", ApprovalStatus, "releases_approval_status"),
            models.CheckConstraint(
                condition=Q(wave__isnull=True, rollout__isnull=True) | Q(wave__isnull=False, rollout__isnull=False),
                name="releases_approval_wave",
            ),
        ]
        indexes = [
            models.Index(
                fields=["expires_at"], condition=Q(status=ApprovalStatus.PENDING), name="releases_approval_pending"
            ),
            id_index(name="releases_approval_id_tail"),
        ]

    def __str__(self) -> str:
        return f"approval of {self.created_at:%Y-%m-%d %H:%M}"

    @property
    def subject(self) -> ApprovalSubject:
        """The parts of the request that the approval covers."""
        return ApprovalSubject(
            spec_hash=self.spec_hash,
            config_hash=self.config_hash,
            capabilities=tuple(self.capabilities),
            target=None if self.target is None else self.target.bound,
            strategy=self.strategy,
            options=self.bound_options,
            explain=self.explain,
            reviewers=tuple(self.reviewers),
        )

    @property
    def bound_options(self) -> DeploymentOptions:
        """The deployment options that the approval covers."""
        return self.options or DeploymentOptions()


class ApprovalDecision(Row):
    """One person's decision on an approval."""

    approval = models.ForeignKey(Approval, on_delete=models.CASCADE, related_name="decisions")
    user = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    decided_by = models.CharField(max_length=300)
    decision = models.CharField(max_length=10)
    comment = models.TextField(blank=True)
    bounded_columns = frozenset({"comment"})

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["approval", "user"], name="releases_approvaldecision_unique_user"),
            models.CheckConstraint(
                condition=Q(decision__in=["approve", "deny"]), name="releases_approvaldecision_decision"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.decided_by}: {self.decision}"


class Deployment(Stateful):
    """The rollout of a config bundle to agents. ``policy`` is copied from the environment at creation."""

    machine = DEPLOYMENT
    status = models.CharField(max_length=20, choices=enum_choices(DeploymentStatus))
    config_bundle = models.ForeignKey(ConfigBundle, on_delete=models.CASCADE, related_name="+")
    pipeline = models.CharField(max_length=63)
    config_hash = models.CharField(max_length=71)
    target: StoredField[Target] = StoredField(Target)
    target_count = models.PositiveIntegerField()
    strategy: StoredField[Strategy] = StoredField(Strategy)
    policy: StoredField[ReleasePolicy] = StoredField(ReleasePolicy)
    take_over = models.BooleanField(default=False)
    requested_by = models.CharField(max_length=300)
    requester_id = models.UUIDField(null=True, editable=False)  # the user behind the request; null if unknown
    note = models.TextField(blank=True)
    reason = models.CharField(max_length=40, blank=True)  # the code of the failure: aborted, build_failed, …
    detail = models.TextField(blank=True)
    wave = models.PositiveIntegerField(default=0)
    wave_done_at = models.DateTimeField(null=True)
    # The hold before the next wave. Null if there is none.
    wave_hold: StoredField[WaveHold | None] = StoredField(WaveHold, null=True)
    # The time before which an approved deployment does not start. Null if it starts as soon as possible.
    start_at = models.DateTimeField(null=True)
    # The ids of the users who may decide on the approvals, sorted. If empty, everybody who may operate the
    # environment may decide.
    reviewers: models.JSONField[Any, Any] = models.JSONField(default=list, db_default=[])
    is_current = models.BooleanField(default=False)
    superseded_by = models.ForeignKey("self", on_delete=models.SET_NULL, null=True, related_name="+")
    # The deployment that a rollback of this deployment restores.
    restores = models.ForeignKey("self", on_delete=models.SET_NULL, null=True, related_name="+")
    rollback_reason = models.TextField(blank=True)
    paused_at = models.DateTimeField(null=True)
    approval = models.OneToOneField(Approval, on_delete=models.SET_NULL, null=True, related_name="deployment")
    # The earlier approval whose credential was in the request for this deployment.
    handed_in = models.ForeignKey(Approval, on_delete=models.SET_NULL, null=True, related_name="+")
    approved_at = models.DateTimeField(null=True)
    break_glass: StoredField[BreakGlass | None] = StoredField(BreakGlass, null=True)
    freeze_override = models.TextField(blank=True)  # an org_admin's reason for overriding freeze windows
    # The regression that the replay gate evaluates. Null if the gate was off at the request, or if the regression was
    # deleted.
    regression = models.ForeignKey("Regression", on_delete=models.SET_NULL, null=True, related_name="deployments")
    # an org_admin's reason for overriding the replay gate
    replay_gate_override = models.TextField(blank=True, default="", db_default="")
    # [{"group", "text"}]: the requester's explanations of differences
    explain: models.JSONField[Any, Any] = models.JSONField(default=list, db_default=[])
    # When the build was first blocked only by the replay gate, or only because the regression had to be renewed. Once
    # this is set, the build does not spend the approval again.
    gated_at = models.DateTimeField(null=True)
    # When the deployment fails if the gate still blocks it. Set when only the gate blocks the deployment and its
    # regression has ended. Null again when the gate opens, or when something else also blocks the deployment.
    gate_until = models.DateTimeField(null=True)
    # When the worker last found that agents can download the bundle (in a rollback: the bundle of ``restores``). The
    # worker checks this only during a rollout or rollback. Null before the first offers, and if the last check found
    # that agents cannot download the bundle or that the deployment's offers are held.
    served_at = models.DateTimeField(null=True)
    # The end of the last outage, or of the last hold of the deployment's offers after a restore. If an offer was made
    # earlier, its timeout starts at this time. Null if there was neither.
    timeouts_from = models.DateTimeField(null=True)
    # The key set at the start of the build. With it, a second attempt builds the same bytes.
    signing_keys: models.JSONField[Any, Any] = models.JSONField(null=True)
    manifest: models.JSONField[Any, Any] = models.JSONField(null=True)
    bundle_hash = models.CharField(max_length=71, null=True)
    bundle_size = models.BigIntegerField(null=True)
    activated_at = models.DateTimeField(null=True)
    enlisting: StoredField[EnlistmentCursor | None] = StoredField(
        EnlistmentCursor, null=True
    )  # null before the first offers, and when all agents are enlisted
    bounded_columns = frozenset(
        {
            "strategy", "policy", "note", "detail", "rollback_reason", "break_glass", "freeze_override",
            "replay_gate_override", "reviewers", "wave_hold",
        }
    )  # fmt: skip

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["environment", "pipeline"],
                condition=Q(is_current=True),
                name="releases_deployment_one_current",
            ),
            one_of_constraint("status", DeploymentStatus, "releases_deployment_status"),
            models.CheckConstraint(
                condition=Q(is_current=False) | Q(status__in=["active", "rolling_back"]),
                name="releases_deployment_current_active",
            ),
        ]
        indexes = [
            models.Index(fields=["environment", "status"], name="releases_deployment_env_status"),
            models.Index(fields=["bundle_hash"], name="releases_deployment_bundle"),
            name_index("pipeline", name="releases_deployment_found"),
            *word_indexes("pipeline", name="releases_deployment_word"),
            id_index(name="releases_deployment_id_tail"),
            models.Index(fields=["status"], condition=Q(status__in=UNDER_WAY), name="releases_deployment_under_way"),
        ]

    def __str__(self) -> str:
        return f"{self.pipeline} of {self.created_at:%Y-%m-%d %H:%M}"

    @property
    def consent(self) -> Approval | None:
        """The earlier approval whose credential was sent, otherwise the approval of this deployment, or None."""
        return self.handed_in or self.approval

    @property
    def subject(self) -> ApprovalSubject:
        """The values that the approval of the deployment covers."""
        return ApprovalSubject(
            spec_hash=self.config_bundle.version.spec_hash,
            config_hash=self.config_hash,
            capabilities=tuple(sorted(self.config_bundle.required_capabilities)),
            target=self.target,
            strategy=self.strategy,
            options=DeploymentOptions(
                take_over=self.take_over,
                agent_timeout_s=self.policy.agent_timeout_s,
                override_freeze=self.freeze_override or None,
                override_replay_gate=self.replay_gate_override or None,
                start_at=None if self.start_at is None else format_time(self.start_at),
            ),
            explain=self.explain,
            reviewers=tuple(self.reviewers),
        )

    def timed_from(self, offered_at: datetime) -> datetime:
        """Return when the timeout of an offer started: at the offer, or at ``timeouts_from`` if that is later."""
        return max(offered_at, self.timeouts_from or offered_at)


class DeploymentAgent(models.Model):
    """One agent's enlistment and progress in a deployment.

    A deployment may have 100,000 of these rows, so the table has only the indexes that queries need.
    """

    # No separate index, because the unique constraint's index starts with this column.
    deployment = models.ForeignKey(Deployment, on_delete=models.CASCADE, related_name="agents", db_index=False)
    agent = models.ForeignKey(Agent, on_delete=models.CASCADE, related_name="+")
    wave = models.PositiveIntegerField()
    # Waves and thresholds ignore agents that are not counted. These are late joiners, agents that the rollback of
    # another deployment added, and agents that were offline at their enlistment. Exception: if all agents were offline
    # at the start, offline agents are counted.
    counted = models.BooleanField(default=True)
    action = models.CharField(max_length=10, default=OfferAction.ACTIVATE)
    progress = models.CharField(max_length=12, choices=enum_choices(AgentProgress), default=AgentProgress.PENDING)
    offered_at = models.DateTimeField(null=True)
    # The deployment whose bundle was assigned to the agent before this deployment.
    before = models.ForeignKey(
        Deployment, on_delete=models.SET_NULL, null=True, related_name="+", db_index=False, db_constraint=False
    )
    tuning: models.JSONField[Any, Any] = models.JSONField(null=True)
    detail = models.TextField(blank=True)
    updated_at = models.DateTimeField(default=timezone.now)
    bounded_columns = frozenset({"detail"})

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["deployment", "agent"], name="releases_deploymentagent_unique"),
            one_of_constraint("progress", AgentProgress, "releases_deploymentagent_progress"),
        ]

    def __str__(self) -> str:
        return f"{self.agent_id}: {self.progress}"

    @property
    def failure(self) -> AgentFailure | None:
        """The failure to activate the bundle, otherwise the failure to roll back, or None. Prefetch ``failures``."""
        return min(self.failures.all(), key=lambda each: each.action, default=None)


class AgentFailure(models.Model):
    """Why an agent failed in a deployment: the latest failure to activate the bundle, or the latest to roll back.

    The row is kept when the agent is retried or rolled back, and when the deployment finishes.
    """

    # No separate index, because the unique constraint's index starts with this column.
    part = models.ForeignKey(DeploymentAgent, on_delete=models.CASCADE, related_name="failures", db_index=False)
    deployment = models.ForeignKey(Deployment, on_delete=models.CASCADE, related_name="failures")
    action = models.CharField(max_length=10)
    reason = models.CharField(max_length=20, choices=enum_choices(FailureReason))
    detail = models.TextField(blank=True)
    # The detail, shortened and with numbers, ids and hashes masked. Failures are grouped by reason and cause.
    cause = models.CharField(max_length=MAX_CAUSE, blank=True)
    at = models.DateTimeField()
    bounded_columns = frozenset({"detail"})

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["part", "action"], name="releases_agentfailure_unique"),
            one_of_constraint("reason", FailureReason, "releases_agentfailure_reason"),
        ]

    def __str__(self) -> str:
        return f"{self.reason}: {self.cause}"


class ProgressCount(models.Model):
    """A change to the number of a deployment's agents with one wave, progress and ``counted``, or a sum of changes.

    The sum of all rows is the current number. Triggers on ``DeploymentAgent`` insert rows and never update them, so
    reports do not wait for each other. The job ``releases.sum_progress`` replaces the rows with their sums (see
    ``services/progress.py``).
    """

    # Deleting the deployment's agents also inserts rows here, so a trigger on ``Deployment`` deletes these rows last.
    deployment = models.ForeignKey(
        Deployment, on_delete=models.DO_NOTHING, related_name="progress_counts", db_constraint=False, db_index=False
    )
    wave = models.PositiveIntegerField()
    counted = models.BooleanField()
    progress = models.CharField(max_length=12)
    count = models.IntegerField()
    is_sum = models.BooleanField(db_default=False)

    class Meta:
        indexes = [
            models.Index(fields=["deployment"], name="releases_progresscount_of"),
            # Without this index, ``releases.sum_progress`` would read the counts of all deployments.
            models.Index(fields=["deployment"], condition=Q(is_sum=False), name="releases_progresscount_new"),
        ]

    def __str__(self) -> str:
        return f"{self.progress}: {self.count}"


class AgentReport(Row):
    """An agent's report on an offer. An agent's late reports with the same deployment and status share one row."""

    deployment = models.ForeignKey(Deployment, on_delete=models.CASCADE, related_name="reports")
    agent = models.ForeignKey(Agent, on_delete=models.CASCADE, related_name="+")
    status = models.CharField(max_length=12)
    bundle_hash = models.CharField(max_length=71)
    detail = models.TextField(blank=True)
    accepted = models.BooleanField()
    # How many reports share this row, and when the last one arrived. The row has the hash and detail of the last one.
    count = models.PositiveIntegerField(default=1)
    last_at = models.DateTimeField(default=timezone.now)
    bounded_columns = frozenset({"detail"})

    class Meta:
        indexes = [models.Index(fields=["deployment", "agent"], name="releases_agentreport_offer")]
        constraints = [
            models.UniqueConstraint(
                fields=["deployment", "agent", "status"],
                condition=Q(accepted=False),
                name="releases_agentreport_one_late",
            )
        ]

    def __str__(self) -> str:
        return f"{self.agent_id}: {self.status}"


class TimelineEntry(Row):
    """An event in a deployment's history, as the API and the console show it."""

    deployment = models.ForeignKey(Deployment, on_delete=models.CASCADE, related_name="timeline")
    event = models.CharField(max_length=40)
    actor = models.CharField(max_length=300)
    detail: models.JSONField[Any, Any] = models.JSONField(default=dict)

    def __str__(self) -> str:
        return self.event


class Regression(Stateful):
    """A test of a candidate: its pipeline's fixtures are replayed, and compared with baselines or golden results.

    The candidate is a config bundle, a version or a draft. Its spec is copied, because a draft may change.
    """

    machine = REGRESSION
    status = models.CharField(max_length=10, choices=enum_choices(RegressionStatus), default=RegressionStatus.QUEUED)
    pipeline = models.CharField(max_length=63)
    config_bundle = models.ForeignKey(ConfigBundle, on_delete=models.CASCADE, null=True, related_name="+")
    version = models.ForeignKey(Version, on_delete=models.CASCADE, null=True, related_name="+")
    draft = models.ForeignKey(Draft, on_delete=models.SET_NULL, null=True, related_name="+")
    spec_kv = models.TextField()
    config_hash = models.CharField(max_length=71, null=True)  # of the config bundle
    # [{"config_hash", "config_bundle_id", "version_id", "agents", "share"}]: the configurations to compare with
    baselines: models.JSONField[Any, Any] = models.JSONField(default=list)
    # [{"config_hash", "agents"}]: other configurations of the pipeline that agents run
    not_tested: models.JSONField[Any, Any] = models.JSONField(default=list)
    fixtures = models.PositiveIntegerField(default=0)
    # The number of results that have an outcome, and the number of all results.
    progress_done = models.PositiveIntegerField(default=0)
    progress_total = models.PositiveIntegerField(default=0)
    # The numbers of changes to the pipeline's fixtures (see ``FixtureRevision``) before this regression listed them,
    # and when the first of these fixtures expires.
    fixtures_revision = models.BigIntegerField(default=0, db_default=0)
    fixtures_removed = models.BigIntegerField(default=0, db_default=0)
    fixtures_until = models.DateTimeField(null=True)
    # {"digest", "version", "ops"}: the digest of the engine and of the packages that provide these ops
    engine: models.JSONField[Any, Any] = models.JSONField(null=True)
    # the number of results by outcome
    outcomes: models.JSONField[Any, Any] = models.JSONField(default=dict, db_default={})
    # The results as the signed test result lists them. Null before the regression runs, and if the candidate is not a
    # config bundle.
    tests: models.JSONField[Any, Any] = models.JSONField(null=True)
    # Whether the regression was requested to test what the environment runs, with golden fixtures only.
    of_current = models.BooleanField(default=False, db_default=False)
    # {"deployment_id", "groups"}: the deployment that became current, and the groups of its differences from golden
    # results that were accepted. Null before that, if no such differences were accepted, and once a job has added the
    # results to the fixtures.
    newly_accepted: models.JSONField[Any, Any] = models.JSONField(null=True)
    # The number of results whose verdict was already known, from another regression or from another fixture with equal
    # records, and the number of verdicts that this regression computed.
    reused = models.PositiveIntegerField(default=0)
    computed = models.PositiveIntegerField(default=0)
    # The differences of all fixtures, merged by group, without payloads.
    groups: models.JSONField[Any, Any] = models.JSONField(default=list)
    more = models.BigIntegerField(default=0)  # differences without a group
    # Whether the regression was completed but tested nothing: it has no results, or all of them are ``not_tested``.
    vacuous = models.BooleanField(default=False)
    work_candidate = models.BigIntegerField(default=0)
    work_baseline = models.BigIntegerField(default=0)
    summary = models.TextField(blank=True)
    error = models.TextField(null=True)
    requested_by = models.CharField(max_length=300)
    person = models.UUIDField(null=True, editable=False)  # the user behind the request; null if unknown
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    bounded_columns = frozenset({"baselines", "error", "outcomes"})

    class Meta:
        constraints = [one_of_constraint("status", RegressionStatus, "releases_regression_status")]
        indexes = [
            models.Index(fields=["finished_at"], name="releases_regression_finished"),
            id_index(name="releases_regression_id_tail"),
            models.Index(
                fields=["config_bundle", "id"], condition=Q(of_current=True), name="releases_regression_of_current"
            ),
            models.Index(fields=["id"], condition=Q(newly_accepted__isnull=False), name="releases_regression_accepted"),
        ]

    def __str__(self) -> str:
        return f"Regression of {self.created_at:%Y-%m-%d %H:%M}"


class FixtureRevision(models.Model):
    """The numbers of changes to a pipeline's fixtures, which show whether a regression has tested the present fixtures.

    ``revision`` counts new fixtures, changes of a fixture's expectation or expiry, and how often a configuration of the
    pipeline became known bad or was cleared. ``removed`` counts deleted fixtures, and releases whose accepted results
    the fixtures then also expect. The changes that ``removed`` counts outdate only regressions that block deployments.
    """

    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, related_name="+", db_index=False)
    pipeline = models.CharField(max_length=63)
    revision = models.BigIntegerField(default=0)
    removed = models.BigIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["environment", "pipeline"], name="releases_fixturerevision_unique")
        ]

    def __str__(self) -> str:
        return f"{self.pipeline}: {self.revision}"


class Acceptance(EnvironmentOwned):
    """A statement, with a reason, that some differences of a configuration are wanted.

    It no longer counts when a rollout has made a deployment of the configuration current (``ended_at``).
    """

    config_hash = models.CharField(max_length=71)
    # The regression that showed the differences. Null if it was deleted.
    regression = models.ForeignKey(Regression, on_delete=models.SET_NULL, null=True, related_name="acceptances")
    reason = models.TextField()
    # ``user`` is the person who accepted, and null if an API key did. ``person`` is the id of the same person or, for a
    # key, of the person who created it; null if unknown.
    user = models.ForeignKey(User, on_delete=models.PROTECT, null=True, related_name="+")
    person = models.UUIDField(null=True, editable=False)
    accepted_by = models.CharField(max_length=300)
    ended_at = models.DateTimeField(null=True)
    bounded_columns = frozenset({"reason"})

    class Meta:
        indexes = [
            models.Index(
                fields=["environment", "config_hash"], condition=Q(ended_at=None), name="releases_acceptance_valid"
            )
        ]

    def __str__(self) -> str:
        return f"Acceptance by {self.accepted_by}"


class AcceptedDifference(models.Model):
    """A group of differences from one baseline, or from golden results (null), that an acceptance covers."""

    # No separate index, because the unique constraint's index starts with this column.
    acceptance = models.ForeignKey(Acceptance, on_delete=models.CASCADE, related_name="differences", db_index=False)
    group = models.CharField(max_length=64)
    baseline = models.CharField(max_length=71, null=True)  # the config hash

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["acceptance", "group", "baseline"],
                name="releases_accepteddifference_unique",
                nulls_distinct=False,
            )
        ]

    def __str__(self) -> str:
        return self.group


class Attestation(models.Model):
    """A signed statement about a deployment: how its configuration was tested, or why the replay gate let it through.

    ``envelope`` is the DSSE envelope as canonical JSON. ``sha256`` and ``size`` are those of its bytes.
    """

    deployment = models.ForeignKey(Deployment, on_delete=models.CASCADE, related_name="attestations", db_index=False)
    predicate_type = models.CharField(max_length=100)
    sha256 = models.CharField(max_length=71)
    size = models.PositiveIntegerField()
    envelope = models.TextField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["deployment", "predicate_type"], name="releases_attestation_unique")
        ]

    def __str__(self) -> str:
        return f"{self.predicate_type} {self.sha256}"

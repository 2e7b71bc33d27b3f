"""Agents with their keys, heartbeats, assignments, facts, history and series.

Also enrollment tokens, refused agents and saved searches.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Self

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.db.models import Case, DurationField, ExpressionWrapper, F, Q, Value, When
from django.db.models.expressions import Combinable
from django.db.models.functions import Coalesce
from django.utils import timezone

from apps.tenancy.credentials import Family
from apps.tenancy.models import (
    Credential,
    Environment,
    EnvironmentOwned,
    Organization,
    Revisioned,
    Row,
    User,
    enum_choices,
    id_index,
    name_index,
    word_indexes,
)
from apps.tenancy.policy import DEFAULT_HEARTBEAT_INTERVAL_S

AGENT_SCOPES = ["agent:heartbeat", "agent:deployment", "agent:artifact_upload", "agent:signing_key"]
SERIES_COLUMNS = (
    "series_slot", "series_changed", "series_read", "series_recent", "series_sums", "series_last", "series_boots",
    "series_deployment_id", "series_closed",
)  # fmt: skip
"""The columns of ``Heartbeat`` in which heartbeats gather series."""
STALE_AFTER, OFFLINE_AFTER = 3, 10  # heartbeat intervals since the last heartbeat


class Liveness(StrEnum):
    """Whether an agent's heartbeats arrive on time. Liveness is computed when it is read."""

    ONLINE = "online"
    STALE = "stale"
    OFFLINE = "offline"


class Command(StrEnum):
    """A command to an agent. The responses to the agent's heartbeats contain it until it is carried out or obsolete."""

    ROTATE_KEY = "rotate_key"
    CAPTURE = "capture"


class EnrollmentToken(Credential):
    """A credential with which up to ``max_uses`` agents enroll in one environment."""

    family = Family.ENROLLMENT
    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, related_name="+")
    max_uses = models.PositiveIntegerField(default=1)
    uses = models.PositiveIntegerField(default=0, editable=False)
    labels = models.JSONField(default=dict)
    replace = models.BooleanField(default=False)
    bounded_columns = frozenset({"labels"})

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(uses__lte=F("max_uses")), name="fleet_enrollmenttoken_uses")]

    @property
    def is_spent(self) -> bool:
        """Whether all uses of the token are spent."""
        return self.uses >= self.max_uses


def _heartbeat_intervals(count: int) -> Combinable:
    """Return the duration of ``count`` heartbeat intervals, based on the interval that the agent was last given."""
    interval = F("heartbeat__next_heartbeat_s")
    return ExpressionWrapper(interval * Value(timedelta(seconds=count), DurationField()), output_field=DurationField())


class AgentQuerySet(models.QuerySet[Any]):
    def enrolled(self) -> Self:
        """Return the agents that are not decommissioned."""
        return self.filter(decommissioned_at=None)

    def taking_offers(self) -> Self:
        """Return the agents that may get new offers other than rollbacks: enrolled and not drained."""
        return self.enrolled().filter(drained_at=None)

    def with_state(self, now: datetime | None = None) -> Self:
        """Join heartbeat and assignment; annotate ``liveness`` (at ``now``), ``drained``, ``cloned`` and ``drifted``.

        Until the first heartbeat, ``liveness`` is based on the time of the enrollment. The heartbeat's series columns
        are deferred, because they are long while the job that writes the series is late.
        """
        silence = ExpressionWrapper(
            Value(now or timezone.now()) - Coalesce("heartbeat__last_seen_at", "created_at"),
            output_field=DurationField(),
        )
        return (
            self.select_related("heartbeat", "assignment")
            .defer(*(f"heartbeat__{name}" for name in SERIES_COLUMNS))
            .alias(silence=silence)
            .annotate(
                liveness=Case(
                    When(silence__lte=_heartbeat_intervals(STALE_AFTER), then=Value(Liveness.ONLINE)),
                    When(silence__lte=_heartbeat_intervals(OFFLINE_AFTER), then=Value(Liveness.STALE)),
                    default=Value(Liveness.OFFLINE),
                ),
                drained=Case(When(drained_at=None, then=Value(False)), default=Value(True)),
                cloned=Case(When(heartbeat__clone_suspected_at=None, then=Value(False)), default=Value(True)),
                drifted=Case(
                    When(assignment__bundle_hash=None, then=Value(False)),
                    When(heartbeat__running_bundle_hash=F("assignment__bundle_hash"), then=Value(False)),
                    default=Value(True),
                ),
            )
        )


class Agent(EnvironmentOwned, Revisioned):
    """The program on a host that runs pipelines. It is enrolled in one environment."""

    name = models.CharField(max_length=200)
    hostname = models.CharField(max_length=253, blank=True)
    labels = models.JSONField(default=dict)
    public_key = models.TextField(blank=True)
    decommissioned_at = models.DateTimeField(null=True, editable=False)
    # A drained agent gets no new offers except rollbacks. The reason is empty while the agent is not drained.
    drained_at = models.DateTimeField(null=True, editable=False)
    drain_reason = models.CharField(max_length=500, blank=True, editable=False)
    bounded_columns = frozenset({"labels"})

    objects = AgentQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["environment", "name"],
                condition=Q(decommissioned_at=None),
                name="fleet_agent_unique_name",
            )
        ]
        indexes = [
            GinIndex(fields=["labels"], opclasses=["jsonb_path_ops"], name="fleet_agent_labels"),
            models.Index(fields=["environment"], condition=Q(drained_at__isnull=False), name="fleet_agent_drained"),
            name_index("name", name="fleet_agent_found"),
            *word_indexes("name", name="fleet_agent_word"),
            id_index(name="fleet_agent_id_tail"),
        ]

    def __str__(self) -> str:
        return self.name


class AgentKey(Credential):
    """An agent's long-lived credential."""

    family = Family.AGENT
    agent = models.ForeignKey(Agent, on_delete=models.CASCADE, related_name="keys")
    scopes = ArrayField(models.CharField(max_length=40), default=list)
    # Whether the agent requested this key and has not used it yet. The key's first use revokes the agent's other keys.
    is_pending = models.BooleanField(default=False, editable=False)
    # Whether this key counts against the limit ``keys.ROTATIONS_PER_HOUR``.
    counts_as_rotation = models.BooleanField(default=False, db_default=False, editable=False)


class Heartbeat(models.Model):
    """An agent's last heartbeat, pending commands, boot ids and newest series.

    They change far more often than ``Agent``.
    """

    class Status(models.TextChoices):
        STARTING = "starting"
        HEALTHY = "healthy"
        DEGRADED = "degraded"
        FAILED = "failed"
        DRAINING = "draining"

    agent = models.OneToOneField(Agent, on_delete=models.CASCADE, primary_key=True)
    last_seen_at = models.DateTimeField(null=True)
    # The seconds until the next heartbeat, as last sent to the agent. Under load the server requests fewer heartbeats,
    # and agents that comply must not become stale.
    next_heartbeat_s = models.FloatField(default=float(DEFAULT_HEARTBEAT_INTERVAL_S))
    status = models.CharField(max_length=10, null=True)
    agent_version = models.CharField(max_length=64, null=True)
    # The fields runtime_version, uptime_s, tuning, resources and pipeline, as the agent sent them. A field that is
    # missing or null is left out.
    report = models.JSONField(default=dict)
    running_deployment_id = models.UUIDField(null=True)
    running_bundle_hash = models.CharField(max_length=71, null=True)
    running_spec_hash = models.CharField(max_length=71, null=True)
    running_since = models.DateTimeField(null=True)
    # The commands in the response to each heartbeat. They are stored here so that handling a heartbeat reads no
    # additional table.
    commands = ArrayField(models.CharField(max_length=20, choices=enum_choices(Command)), default=list)
    # The id of the agent's process, and up to 16 earlier ids with the Unix times of their replacement. A trigger
    # (migration ``triggers``) stores the earlier ids, and sets ``clone_suspected_at`` if one of them is reported again
    # within 24 hours of its replacement.
    boot_id = models.CharField(max_length=64, null=True)
    superseded_boots = models.JSONField(default=dict)
    clone_suspected_at = models.DateTimeField(null=True)
    # The series that heartbeats gather in this row. ``services/series.py`` describes these columns.
    series_slot = models.IntegerField(null=True)
    series_changed = models.BooleanField(null=True)
    series_read = ArrayField(models.FloatField(null=True), null=True)
    series_recent = ArrayField(models.FloatField(null=True), null=True)
    series_sums = ArrayField(models.FloatField(null=True), null=True)
    series_last = ArrayField(models.FloatField(null=True), null=True)
    series_boots = ArrayField(models.CharField(max_length=64), null=True)
    series_deployment_id = models.UUIDField(null=True)
    series_closed = models.JSONField(null=True)

    class Meta:
        indexes = [
            models.Index(
                fields=["agent"], condition=Q(clone_suspected_at__isnull=False), name="fleet_heartbeat_cloned"
            ),
            models.Index(fields=["agent_version"], name="fleet_heartbeat_version"),
        ]

    def __str__(self) -> str:
        return f"{self.agent_id}: {self.status}"


class Pulse(models.Model):
    """A narrow row for each enrolled agent, with values that lists filter by and count.

    A heartbeat's row may contain a report of 64 KiB, so counting 100,000 heartbeats could read 100 MB or more. While
    an agent has a ``ChangedAgent``, its pulse may be out of date. ``facts.settle`` and ``facts.refresh`` write pulses.
    """

    agent = models.OneToOneField(Agent, on_delete=models.CASCADE, primary_key=True, related_name="pulse")
    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, related_name="+", db_index=False)
    # The agent is certainly online until this time. Later, its liveness must be computed from its heartbeat, unless the
    # agent is silent. Heartbeats do not change this time. If the agent has sent heartbeats, the job ``fleet.settle``
    # usually extends the time before it passes, for many agents together.
    online_until = models.DateTimeField()
    # When a silent agent becomes offline. Null for other agents. An agent is silent if its last heartbeat was
    # more than 2.5 intervals ago. A silent agent becomes stale exactly at ``online_until``. When it sends a heartbeat,
    # a trigger adds a ``ChangedAgent``.
    offline_at = models.DateTimeField(null=True)
    drifted = models.BooleanField()
    status = models.CharField(max_length=10, null=True)
    running_bundle_hash = models.CharField(max_length=71, null=True)

    class Meta:
        indexes = [
            models.Index(fields=["environment", "agent"], name="fleet_pulse_environment"),
            models.Index(fields=["environment", "agent"], name="fleet_pulse_drifted", condition=Q(drifted=True)),
        ]

    def __str__(self) -> str:
        return f"{self.agent_id}: {self.status}"


class PulseCount(models.Model):
    """A change in the number of an environment's pulses with this drift, status and bundle.

    The number is the sum of all changes. Triggers on ``Pulse`` only insert rows. The job ``fleet.settle`` replaces
    rows with their sum.
    """

    # Deleting an environment's pulses inserts rows into this table. This model is defined after ``Pulse``, so Django
    # deletes the pulses first, and then these rows.
    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, related_name="+")
    drifted = models.BooleanField()
    status = models.CharField(max_length=10, null=True)
    running_bundle_hash = models.CharField(max_length=71, null=True)
    count = models.BigIntegerField()

    def __str__(self) -> str:
        return f"{self.status}: {self.count}"


class ChangedAgent(models.Model):
    """A note that the agent's ``Pulse`` may be out of date.

    Triggers insert it in the transaction of the change. Such inserts do not block each other, unlike updates of the
    pulse. ``facts.settle`` deletes the note.
    """

    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, related_name="+", db_constraint=False)
    agent = models.ForeignKey(Agent, on_delete=models.CASCADE, related_name="+", db_constraint=False, db_index=False)

    def __str__(self) -> str:
        return str(self.agent_id)


class RunningInterval(models.Model):
    """A period in which an agent ran one bundle for one deployment. ``ended_at`` is null for the agent's open interval.

    Database triggers on ``fleet_heartbeat`` write the intervals when a heartbeat reports another bundle, deployment or
    spec than the previous heartbeat. The triggers add at most 1,000 intervals per agent and day (see
    ``migrations/0016_triggers.py``).
    """

    # Needs no separate index, because the index on agent and start time covers it.
    agent = models.ForeignKey(Agent, on_delete=models.CASCADE, related_name="history", db_index=False)
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)
    # When a heartbeat last reported the bundle. Null while the interval is open, because the time of the agent's last
    # heartbeat applies then.
    confirmed_until = models.DateTimeField(null=True)
    deployment_id = models.UUIDField(null=True)  # the id that the agent reported
    bundle_hash = models.CharField(max_length=71)
    spec_hash = models.CharField(max_length=71, null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["agent"], condition=Q(ended_at=None), name="fleet_runninginterval_one_open")
        ]
        indexes = [
            models.Index(fields=["agent", "started_at"], name="fleet_runninginterval_start"),
            models.Index(fields=["ended_at"], name="fleet_runninginterval_end"),  # used to delete old rows
        ]

    def __str__(self) -> str:
        return f"{self.agent_id}: {self.bundle_hash}"


class _SeriesDay(models.Model):
    """One UTC day of series: an array for each value, with up to 96 elements for the day's slots of 15 minutes.

    An element is null if no heartbeat reported the value in the slot. The job ``fleet.write_series`` writes the rows.
    """

    day = models.DateField()
    records_in = ArrayField(models.FloatField(null=True), size=96)
    records_out = ArrayField(models.FloatField(null=True), size=96)
    drops = ArrayField(models.FloatField(null=True), size=96)
    errors = ArrayField(models.FloatField(null=True), size=96)
    cpu_percent = ArrayField(models.FloatField(null=True), size=96)
    memory_bytes = ArrayField(models.FloatField(null=True), size=96)
    restarts = ArrayField(models.FloatField(null=True), size=96)
    online = ArrayField(models.FloatField(null=True), size=96)

    class Meta:
        abstract = True


class AgentSeries(_SeriesDay):
    """One day of an agent's series."""

    agent = models.ForeignKey(Agent, on_delete=models.CASCADE, related_name="series", db_index=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["agent", "day"], name="fleet_agentseries_day")]
        indexes = [models.Index(fields=["day"], name="fleet_agentseries_old")]  # used to delete old rows

    def __str__(self) -> str:
        return f"{self.agent_id}: {self.day}"


class EnvironmentSeries(_SeriesDay):
    """One day of the sums of the series of an environment's agents."""

    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, related_name="+", db_index=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["environment", "day"], name="fleet_environmentseries_day")]
        indexes = [models.Index(fields=["day"], name="fleet_environmentseries_old")]  # used to delete old rows

    def __str__(self) -> str:
        return f"{self.environment_id}: {self.day}"


class LabelCount(models.Model):
    """A change in the number of an environment's enrolled agents with this label. The number is the sum of all changes.

    Triggers on ``fleet_agent`` only insert rows, so that enrollments do not wait for each other. The job
    ``fleet.settle`` replaces the rows of a label with their sum.
    """

    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, related_name="+")
    key = models.TextField()
    value = models.TextField()
    count = models.BigIntegerField()

    def __str__(self) -> str:
        return f"{self.key}={self.value}: {self.count}"


class Assignment(models.Model):
    """The bundle that an agent should run, the agent's progress on it, and the agent's last attempt and last failure.

    ``deployment_id`` names the deployment that made the offer, and ``bundle_deployment_id`` the deployment that built
    the bundle. These ids differ in a rollback. They are not foreign keys, because this app must not import
    ``apps.releases``.
    """

    agent = models.OneToOneField(Agent, on_delete=models.CASCADE, primary_key=True)
    deployment_id = models.UUIDField(null=True)
    bundle_deployment_id = models.UUIDField(null=True)
    action = models.CharField(max_length=10, null=True)
    bundle_hash = models.CharField(max_length=71, null=True)
    bundle_size = models.BigIntegerField(null=True)
    since = models.DateTimeField(null=True)
    progress = models.CharField(max_length=12, default="pending")
    attempted_deployment_id = models.UUIDField(null=True)
    attempted_bundle_hash = models.CharField(max_length=71, null=True)
    attempted_since = models.DateTimeField(null=True)
    failed_deployment_id = models.UUIDField(null=True)
    failed_bundle_hash = models.CharField(max_length=71, null=True)
    failed_since = models.DateTimeField(null=True)
    failed_detail = models.TextField(blank=True)
    # When the restored backup was made, if the offer is held after a restore; otherwise null. The agent does not get a
    # held offer until the offers of the environment or the deployment are resumed. A new offer is not held. If an offer
    # is withdrawn and the agent's earlier offer returns, the hold remains.
    held_backup_at = models.DateTimeField(null=True)
    bounded_columns = frozenset({"failed_detail"})

    class Meta:
        indexes = [
            models.Index(fields=["deployment_id"], name="fleet_assignment_deployment"),
            # Usually empty, so it costs nothing to find out that an environment has no held offers.
            models.Index(fields=["agent"], condition=Q(held_backup_at__isnull=False), name="fleet_assignment_held"),
        ]

    def __str__(self) -> str:
        return f"{self.agent_id}: {self.action} {self.bundle_hash}"


class RefusedAgent(models.Model):
    """An agent in whose name requests were refused because their key was unusable. The agent may be unknown.

    After a restore, these include the agents whose keys are newer than the backup. There are at most
    ``refused_agents.MOST_ROWS`` rows, because anybody can send such requests.
    """

    agent_id = models.UUIDField(primary_key=True)  # not a foreign key, because the agent may be unknown
    first_at = models.DateTimeField()
    # When the last refused request was stored. While a process remembers the agent, it stores at most one an hour.
    last_at = models.DateTimeField()

    def __str__(self) -> str:
        return str(self.agent_id)


class SavedSearch(Row):
    """A search for agents that a person saved under a name. Only that person sees it."""

    owner = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+", db_index=False)
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+")
    name = models.CharField(max_length=60)
    query = models.CharField(max_length=500)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["owner", "organization", "name"], name="fleet_savedsearch_unique_name")
        ]

    def __str__(self) -> str:
        return self.name

"""The facts behind an explanation: an agent and its relevant deployments at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from byteor.engine.blockers import Blocker
from byteor.engine.break_glass import BreakGlass
from byteor.engine.machines import AgentProgress, ApprovalStatus, DeploymentStatus, OfferAction
from byteor.engine.rollout import RolloutAgent, Strategy
from byteor.engine.wave_hold import HoldFacts


@dataclass(frozen=True, slots=True)
class ActionFacts:
    """An action on a deployment, such as a pause: who did it, when and why."""

    actor: str
    at: datetime
    reason: str = ""


@dataclass(frozen=True, slots=True)
class WaveFacts:
    """The progress of a wave's counted agents.

    ``last_timed_from`` is when the timeout of the latest unfinished offer started; None if there is no such offer.
    """

    total: int = 0
    done: int = 0
    failed: int = 0
    last_timed_from: datetime | None = None


@dataclass(frozen=True, slots=True)
class ApprovalFacts:
    """A deployment's approval: its status, how many of the required people have approved, and when it expires.

    An approval that was used (``is_used``) can no longer expire. ``deciders`` states which reviewers can still decide,
    as the subject of a sentence. It is empty if there are no reviewers, or if the approval is not pending.
    """

    id: UUID
    status: ApprovalStatus
    given: int
    required: int
    expires_at: datetime
    is_used: bool = False
    deciders: str = ""


@dataclass(frozen=True, slots=True)
class EnlistmentFacts:
    """The agent's progress in a deployment that enlisted it.

    ``failed_before`` is whether the agent has already failed to activate this deployment's bundle.
    """

    agent: RolloutAgent
    detail: str = ""
    updated_at: datetime | None = None
    failed_before: bool = False


@dataclass(frozen=True, slots=True)
class TargetFacts:
    """The target of a deployment: all agents, those that match ``selector``, or ``count`` named agents.

    ``names_agent`` is whether the explained agent is one of the named agents, or None if the target names no agents.
    """

    selector: Mapping[str, str] | None = None
    names_agent: bool | None = None
    count: int = 0


@dataclass(frozen=True, slots=True)
class DeploymentFacts:
    """A deployment that may affect the agent."""

    id: UUID
    pipeline: str
    bundle: str
    status: DeploymentStatus
    config_hash: str = ""
    target: TargetFacts = field(default_factory=TargetFacts)
    strategy: Strategy = field(default_factory=Strategy.all_at_once)
    timeout_s: int | None = 600  # None while timeouts are suspended
    take_over: bool = False
    is_enlisting: bool = False  # more agents will be added to the deployment
    is_current: bool = False
    wave: int = 0
    wave_done_at: datetime | None = None
    wave_hold: HoldFacts | None = None
    paused_at: datetime | None = None
    activated_at: datetime | None = None
    reason: str = ""
    detail: str = ""
    rollback_reason: str = ""
    known_bad: str | None = None
    blockers: tuple[Blocker, ...] = ()  # why the deployment waits, if it has not started
    held_up: str = ""  # why the control plane cannot continue the deployment; empty if it can
    approval: ApprovalFacts | None = None
    break_glass: BreakGlass | None = None
    enlistment: EnlistmentFacts | None = None
    waves: Mapping[int, WaveFacts] = field(default_factory=dict)
    actions: Mapping[str, ActionFacts] = field(default_factory=dict)  # the latest action of each kind

    @property
    def label(self) -> str:
        """The name of the deployed bundle, as used in sentences."""
        return f"{self.pipeline}/{self.bundle}"


@dataclass(frozen=True, slots=True)
class OfferFacts:
    """The agent's offer. The deployment ``deployment`` made the offer, and ``source`` built the bundle.

    If the offer is held after a restore, ``held_backup_at`` is the time of the restored backup, and the agent does not
    get the offer.
    """

    deployment: UUID
    source: UUID
    action: OfferAction
    bundle_hash: str
    since: datetime | None
    progress: AgentProgress
    held_backup_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RunningFacts:
    """The bundle that the agent reported as running."""

    deployment: UUID | None
    bundle_hash: str


@dataclass(frozen=True, slots=True)
class FailureFacts:
    """The agent's latest failure."""

    deployment: UUID | None
    since: datetime | None
    detail: str


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """The agent and its latest known state. ``interval_s`` is the latest requested heartbeat interval."""

    id: UUID
    name: str
    enrolled_at: datetime
    liveness: str = "online"
    labels: Mapping[str, str] = field(default_factory=dict)
    last_seen_at: datetime | None = None
    interval_s: float = 30
    offline_after: int = 10  # heartbeat intervals of silence after which the agent is offline
    decommissioned_at: datetime | None = None
    drained_at: datetime | None = None
    drain_reason: str = ""
    offer: OfferFacts | None = None
    running: RunningFacts | None = None
    running_since: datetime | None = None
    failure: FailureFacts | None = None


@dataclass(frozen=True, slots=True)
class FreezeFacts:
    """The open freeze window. If several are open, the one that ends last."""

    reason: str
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts about one agent at one moment. The deployments are sorted newest first."""

    now: datetime
    agent: AgentFacts
    deployments: tuple[DeploymentFacts, ...] = ()
    freeze: FreezeFacts | None = None

    def find(self, id: UUID | None) -> DeploymentFacts | None:
        """Return the deployment with this id, or None if it is not among the facts."""
        return next((each for each in self.deployments if each.id == id), None)

    def label(self, id: UUID | None, bundle_hash: str) -> str:
        """Return the name of the bundle that the deployment ``id`` built.

        If the deployment is not among the facts, return a phrase with the beginning of ``bundle_hash``.
        """
        known = self.find(id)
        return known.label if known else f"an unknown bundle ({bundle_hash[:17]}…)"

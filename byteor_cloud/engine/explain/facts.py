"""The facts that an explanation is derived from: an agent and its relevant deployments at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from byteor_cloud.engine.break_glass import BreakGlass
from byteor_cloud.engine.machines import AgentProgress, ApprovalStatus, DeploymentStatus, OfferAction
from byteor_cloud.engine.rollout import AgentView, Strategy

type Id = UUID


@dataclass(frozen=True, slots=True)
class Act:
    """An act on a deployment, such as a pause: who did it, when and why."""

    actor: str
    at: datetime
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Wave:
    """The progress of a wave's counted agents; ``last_offered_at`` is the latest offer that is not finished."""

    total: int = 0
    done: int = 0
    failed: int = 0
    last_offered_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Approval:
    """A deployment's approval."""

    id: Id
    status: ApprovalStatus
    given: int
    required: int
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Part:
    """The agent's progress in a deployment that enlisted it."""

    view: AgentView
    detail: str = ""
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """The target of a deployment: all agents, those that match ``selector``, or ``count`` named agents.

    ``names_it`` says whether the named agents include this one; None if the target names no agents.
    """

    selector: Mapping[str, str] | None = None
    names_it: bool | None = None
    count: int = 0


@dataclass(frozen=True, slots=True)
class Deployment:
    """A deployment that may affect the agent."""

    id: Id
    pipeline: str
    bundle: str
    status: DeploymentStatus
    config_hash: str = ""
    target: Target = field(default_factory=Target)
    strategy: Strategy = field(default_factory=Strategy.all_at_once)
    timeout_s: int = 600
    max_in_flight: int = 1
    take_over: bool = False
    is_current: bool = False
    wave: int = 0
    wave_done_at: datetime | None = None
    paused_at: datetime | None = None
    activated_at: datetime | None = None
    reason: str = ""
    detail: str = ""
    rollback_reason: str = ""
    freeze_override: bool = False
    known_bad: str | None = None
    held_up: str = ""  # why the control plane cannot continue it
    approval: Approval | None = None
    break_glass: BreakGlass | None = None
    part: Part | None = None
    waves: Mapping[int, Wave] = field(default_factory=dict)
    acts: Mapping[str, Act] = field(default_factory=dict)  # the latest act of each kind

    @property
    def label(self) -> str:
        """The name of the deployed bundle in sentences."""
        return f"{self.pipeline}/{self.bundle}"


@dataclass(frozen=True, slots=True)
class Offer:
    """What the agent is told to run: ``deployment`` made the offer, ``source`` built the bundle."""

    deployment: Id
    source: Id
    action: OfferAction
    bundle_hash: str
    since: datetime | None
    progress: AgentProgress


@dataclass(frozen=True, slots=True)
class Running:
    """The bundle that the agent reported as running."""

    deployment: Id | None
    bundle_hash: str


@dataclass(frozen=True, slots=True)
class Failure:
    """The agent's latest failure."""

    deployment: Id | None
    since: datetime | None
    detail: str


@dataclass(frozen=True, slots=True)
class Agent:
    """The agent and its latest known state."""

    id: Id
    name: str
    enrolled_at: datetime
    liveness: str = "online"
    labels: Mapping[str, str] = field(default_factory=dict)
    last_seen_at: datetime | None = None
    interval_s: int = 30
    offline_after: int = 10  # intervals without a heartbeat
    decommissioned_at: datetime | None = None
    drained_at: datetime | None = None
    drain_reason: str = ""
    offer: Offer | None = None
    running: Running | None = None
    running_since: datetime | None = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Freeze:
    """The open freeze window."""

    reason: str
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class Facts:
    """All facts about one agent at one moment; the deployments are sorted newest first."""

    now: datetime
    agent: Agent
    deployments: tuple[Deployment, ...] = ()
    freeze: Freeze | None = None

    def find(self, id: Id | None) -> Deployment | None:
        """Return the deployment with this id, or None if it is not among the facts."""
        return next((each for each in self.deployments if each.id == id), None)

    def label(self, id: Id | None, bundle_hash: str) -> str:
        """Return the name of a bundle in sentences."""
        known = self.find(id)
        return known.label if known else f"an unknown bundle ({bundle_hash[:17]}…)"

"""What there is to know of an agent and of the deployments that have to do with it, at one moment."""

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
class Said:
    """Who did something to a deployment, when and why."""

    actor: str
    at: datetime
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Wave:
    """How far the agents of a wave that count are; ``last_offered_at`` is of those that are not done."""

    total: int = 0
    done: int = 0
    failed: int = 0
    last_offered_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Consent:
    """A deployment's approval."""

    id: Id
    status: ApprovalStatus
    given: int
    required: int
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Part:
    """The agent's own part in a deployment."""

    view: AgentView
    detail: str = ""
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """Whom a deployment is for: everybody, those with some labels, or ``count`` that it names, this one or not."""

    selector: Mapping[str, str] | None = None
    names_it: bool | None = None
    count: int = 0


@dataclass(frozen=True, slots=True)
class Deployment:
    """A deployment that may have to do with the agent."""

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
    held_up: str = ""  # why the control plane cannot go on with it
    consent: Consent | None = None
    break_glass: BreakGlass | None = None
    part: Part | None = None
    waves: Mapping[int, Wave] = field(default_factory=dict)
    said: Mapping[str, Said] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """How sentences call what it deploys."""
        return f"{self.pipeline}/{self.bundle}"


@dataclass(frozen=True, slots=True)
class Offer:
    """What the server wants of the agent: ``deployment`` made the offer, ``source`` built the bundle."""

    deployment: Id
    source: Id
    action: OfferAction
    bundle_hash: str
    since: datetime | None
    progress: AgentProgress


@dataclass(frozen=True, slots=True)
class Running:
    """What the agent said that it runs."""

    deployment: Id | None
    bundle_hash: str


@dataclass(frozen=True, slots=True)
class Failure:
    """What failed on the agent last."""

    deployment: Id | None
    since: datetime | None
    detail: str


@dataclass(frozen=True, slots=True)
class Agent:
    """The agent, as the fleet knows it."""

    id: Id
    name: str
    enrolled_at: datetime
    liveness: str = "online"
    labels: Mapping[str, str] = field(default_factory=dict)
    last_seen_at: datetime | None = None
    interval_s: int = 30
    offline_after: int = 10  # intervals without a heartbeat
    decommissioned_at: datetime | None = None
    offer: Offer | None = None
    running: Running | None = None
    running_since: datetime | None = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Freeze:
    """The freeze window that is open."""

    reason: str
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class Facts:
    """All there is to know, at one moment; the deployments newest first."""

    now: datetime
    agent: Agent
    deployments: tuple[Deployment, ...] = ()
    freeze: Freeze | None = None

    def find(self, id: Id | None) -> Deployment | None:
        """The deployment of that id, if it is among them."""
        return next((each for each in self.deployments if each.id == id), None)

    def label(self, id: Id | None, bundle_hash: str) -> str:
        """How sentences call a bundle."""
        known = self.find(id)
        return known.label if known else f"a bundle that is not known here ({bundle_hash[:17]}…)"

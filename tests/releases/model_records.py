"""The records of the release model, such as bundles, agents, approvals and deployments.

Times are whole seconds since the start, but ``since`` and ``activated`` are event counts. Bundles, agents and
deployments are numbered in the order of their creation.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

ENDS = {"active", "failed", "rolled_back"}
RANK = {"pending": 0, "offered": 1, "downloading": 2, "activating": 3, "active": 4, "failed": 4, "rolled_back": 4}
OFFLINE_AFTER_S = 300
UNDER_WAY = {"building", "deploying", "rolling_back"}
IN_FLIGHT = {"approved", *UNDER_WAY}


@dataclass(frozen=True)
class Bundle:
    """A config bundle. ``number`` is used as its config hash."""

    number: int
    pipeline: str


@dataclass(frozen=True)
class Policy:
    """The release policy that a deployment copies from its environment."""

    approvals: int = 0
    self_approval: bool = False
    in_flight: int = 1
    ttl_s: int = 3600
    timeout_s: int = 600


@dataclass(frozen=True)
class Strategy:
    percents: tuple[int, ...] = (100,)
    pause_s: int = 0
    threshold: int = 0
    auto_rollback: bool = False
    holds: tuple[str | None, ...] = ()


@dataclass(frozen=True)
class Target:
    """All agents, or those with the label ``site``, or those with the listed numbers."""

    site: str | None = None
    agents: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Offer:
    """An offer of deployment ``by`` to run the bundle of deployment ``source``, made at the event count ``since``."""

    by: int
    source: int
    action: str
    since: int


@dataclass
class Agent:
    number: int
    site: str
    heard: int
    left: bool = False
    offer: Offer | None = None
    progress: str = "pending"
    # The agent's accepted reports: (by, source, status, event count).
    accepted_reports: set[tuple[int, int, str, int]] = field(default_factory=set)


@dataclass
class Part:
    wave: int
    counted: bool
    before: int | None
    action: str = "activate"
    progress: str = "pending"
    offered: int | None = None  # the time of the offer, or of a retry of the failed deployment
    since: int = 0  # the ``since`` of the offer
    failures: dict[str, str] = field(default_factory=dict)  # the reason for the latest failure, by action


@dataclass
class Approval:
    requester: str
    expires: int
    broken: bool = False  # whether this is a break-glass approval
    status: str = "pending"
    approved_by: list[str] = field(default_factory=list)
    was_given: bool = False
    used: bool = False
    reviewers: tuple[str, ...] = ()
    report: object = None  # of a wave's approval: what the earlier waves had done when it was requested
    created: int = 0

    @property
    def counting(self) -> list[str]:
        """The people whose consents count."""
        return [person for person in self.approved_by if not self.reviewers or person in self.reviewers]


@dataclass
class Hold:
    """The hold in effect before ``wave``. ``approval`` is None for a manual hold."""

    wave: int
    approval: Approval | None


@dataclass
class Deployment:
    number: int
    bundle: Bundle
    target: Target
    strategy: Strategy
    policy: Policy
    take_over: bool
    status: str
    approval: Approval | None
    handed_in: Deployment | None  # the deployment whose approval credential was sent with this one
    overrides_freeze: bool
    reason: str = ""
    current: bool = False
    superseded_by: int | None = None
    restores: int | None = None
    wave: int = 0
    wave_done: int | None = None
    paused: int | None = None  # the time of the pause
    built: bool = False
    activated: int = 0
    parts: dict[int, Part] = field(default_factory=dict)
    requester: str = ""
    start: int | None = None  # the requested start time
    reviewers: tuple[str, ...] = ()
    hold: Hold | None = None
    wave_approvals: list[tuple[int, Approval]] = field(default_factory=list)  # (wave, approval), oldest first
    events: Counter[str] = field(default_factory=Counter)  # the events of holds and reviewers on the timeline

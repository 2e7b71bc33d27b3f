"""What the model of governed releases keeps: bundles, targets, offers, agents, approvals, deployments.

Times are whole seconds since the start. Things are known by numbers, in the order in which they were made.
"""

from __future__ import annotations

from dataclasses import dataclass, field

ENDS = {"active", "failed", "rolled_back"}
RANK = {"pending": 0, "offered": 1, "downloading": 2, "activating": 3, "active": 4, "failed": 4, "rolled_back": 4}
OFFLINE_AFTER_S = 300
UNDER_WAY = {"building", "deploying", "rolling_back"}
IN_FLIGHT = {"approved", *UNDER_WAY}


@dataclass(frozen=True)
class Bundle:
    """What is deployed: ``number`` stands for the configuration's hash."""

    number: int
    pipeline: str


@dataclass(frozen=True)
class Policy:
    """What a deployment copies of its environment."""

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


@dataclass(frozen=True)
class Target:
    """All, or those with a label, or those named."""

    site: str | None = None
    agents: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Offer:
    """``by`` offers what ``source`` built; made again it is another offer, with another ``since``."""

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
    # What it said of its offers, and was heard with: (by, source, status, when).
    said: set[tuple[int, int, str, int]] = field(default_factory=set)


@dataclass
class Part:
    wave: int
    counted: bool
    before: int | None
    action: str = "activate"
    progress: str = "pending"
    offered: int | None = None  # the second
    since: int = 0  # the offer


@dataclass
class Approval:
    requester: str
    expires: int
    broken: bool = False  # the glass: what it is for went ahead without it
    status: str = "pending"
    approved_by: list[str] = field(default_factory=list)
    was_given: bool = False
    used: bool = False


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
    handed_in: Deployment | None  # which one's approval was
    overrides_freeze: bool
    reason: str = ""
    current: bool = False
    superseded_by: int | None = None
    restores: int | None = None
    wave: int = 0
    wave_done: int | None = None
    paused: bool = False
    built: bool = False
    activated: int = 0
    parts: dict[int, Part] = field(default_factory=dict)

"""What governed releases do, once more, in plain Python: without a database, HTTP, queue, locks or crashes.

Times are whole seconds since the start. Things are known by numbers, in the order in which they were made. A method
that a caller stands behind returns the code that it is refused with, or None.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import ceil

ENDS = {"active", "failed", "rolled_back"}
RANK = {"pending": 0, "offered": 1, "downloading": 2, "activating": 3, "active": 4, "failed": 4, "rolled_back": 4}
OFFLINE_AFTER_S = 300
IN_FLIGHT = {"approved", "building", "deploying", "rolling_back"}


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
    status: str = "pending"
    approved_by: list[str] = field(default_factory=list)
    used: bool = False


@dataclass
class Deployment:
    number: int
    bundle: Bundle
    target: Target
    strategy: Strategy
    policy: Policy
    take_over: bool
    approval: Approval | None
    status: str
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


class Model:
    """One environment."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.frozen = False
        self.now = 0
        self.count = 0  # of all that happened: what comes later is greater
        self.agents: list[Agent] = []
        self.deployments: list[Deployment] = []
        self.bad: set[int] = set()

    def tick(self) -> int:
        self.count += 1
        return self.count

    # What callers ask for.

    def obstacles(self, bundle: Bundle, target: Target, *, take_over: bool) -> set[str]:
        """All that stands in the way of a new deployment."""
        agents = self.matching(target)
        found = set()
        if self.frozen:
            found.add("freeze_window")
        if bundle.number in self.bad:
            found.add("known_bad")
        if sum(d.status in IN_FLIGHT for d in self.deployments) >= self.policy.in_flight:
            found.add("in_flight_limit")
        if not agents or len(agents) < len(target.agents or ()):
            found.add("invalid")
        if not take_over and any(self._runs_another(agent, bundle.pipeline) for agent in agents):
            found.add("take_over")
        return found

    def create(self, bundle: Bundle, target: Target, strategy: Strategy, *, take_over: bool, by: str) -> Deployment:
        approval = Approval(by, self.now + self.policy.ttl_s) if self.policy.approvals else None
        status = "pending_approval" if approval else "approved"
        made = Deployment(
            len(self.deployments), bundle, target, strategy, self.policy, take_over, approval, status
        )  # fmt: skip
        self.deployments.append(made)
        return made

    def decide(self, deployment: Deployment, person: str, word: str) -> str | None:
        approval = deployment.approval
        if approval is None:
            return "approval.not_needed"
        if approval.status != "pending":
            return "approval.decided"
        if approval.expires <= self.now:
            return "approval.expired"
        if word == "approve" and person == approval.requester and not deployment.policy.self_approval:
            return "approval.self"
        if person in approval.approved_by:
            return "approval.decided_before"
        if word == "deny":
            approval.status = deployment.status = "denied"
            return None
        approval.approved_by.append(person)
        if len(approval.approved_by) >= deployment.policy.approvals:
            approval.status = deployment.status = "approved"
            approval.expires = self.now + deployment.policy.ttl_s
        return None

    def revoke(self, deployment: Deployment) -> str | None:
        approval = deployment.approval
        assert approval is not None
        if approval.used:
            return "approval.used"
        if approval.status not in {"pending", "approved"}:
            return "illegal_transition"
        approval.status = "revoked"
        if deployment.status in {"pending_approval", "approved"}:
            self._fail(deployment, "approval_revoked")
        return None

    def pause(self, deployment: Deployment, *, paused: bool) -> str | None:
        if deployment.status != "deploying" or deployment.paused is paused:
            return "conflict"
        deployment.paused = paused
        return None

    def abort(self, deployment: Deployment) -> str | None:
        if deployment.status not in {"pending_approval", "approved", "building", "deploying"}:
            return "illegal_transition"
        approval = deployment.approval
        if approval and (approval.status == "pending" or (approval.status == "approved" and not approval.used)):
            approval.status = "revoked"
        deployment.paused = False
        self._fail(deployment, "aborted")
        self._withdraw(deployment)
        return None

    def rollback(self, deployment: Deployment) -> str | None:
        if deployment.status == "active" and not deployment.current:
            return "not_current"
        if deployment.status not in {"active", "failed", "deploying"}:
            return "illegal_transition"
        target = self._earlier(deployment)
        if target is None:
            return "nothing_to_roll_back_to"
        deployment.status, deployment.restores, deployment.paused = "rolling_back", target.number, False
        self.bad.add(deployment.bundle.number)
        since = self.tick()
        for number, part in deployment.parts.items():
            agent = self.agents[number]
            if part.offered is None or agent.left or not agent.offer:
                continue
            if deployment.number in {agent.offer.by, agent.offer.source}:
                before = None if part.before is None else self.deployments[part.before]
                if before is None or not before.built or before.bundle.number in self.bad or before is deployment:
                    before = target
                agent.offer = Offer(deployment.number, before.number, "rollback", since)
                agent.progress = part.progress = "offered"
                part.action, part.offered, part.since = "rollback", self.now, since
        return None

    def clear(self, bundle: Bundle) -> str | None:
        if bundle.number not in self.bad:
            return "not_barred"
        self.bad.discard(bundle.number)
        return None

    # What agents do.

    def enroll(self, site: str) -> Agent:
        agent = Agent(len(self.agents), site, self.now)
        self.agents.append(agent)
        return agent

    def report(self, agent: Agent, by: int, source: int, status: str) -> bool:
        """Whether it is taken for true (or was before)."""
        offer = agent.offer
        end = "rolled_back" if offer and offer.action == "rollback" else "active"
        if not offer or (offer.by, offer.source) != (by, source):
            return False
        if status not in {"downloading", "activating", "failed", end}:
            return False
        if any(said[:3] == (by, source, status) and said[3] > offer.since for said in agent.said):
            return True
        if RANK[status] <= RANK[agent.progress]:
            return False
        agent.said.add((by, source, status, self.tick()))
        agent.progress = status
        if agent.number in self.deployments[by].parts:
            self.deployments[by].parts[agent.number].progress = status
        return True

    # What the worker does.

    def begin_build(self, deployment: Deployment) -> None:
        if deployment.status != "approved":
            return
        ahead = sum(d.status in {"building", "deploying", "rolling_back"} for d in self.deployments)
        if ahead >= deployment.policy.in_flight:
            return
        if deployment.bundle.number in self.bad:
            self._fail(deployment, "known_bad")
            return
        if deployment.approval:
            if deployment.approval.expires <= self.now:
                self._fail(deployment, "approval_expired")
                return
            deployment.approval.used = True
        deployment.status = "building"

    def build(self, deployment: Deployment) -> None:
        self.begin_build(deployment)
        if deployment.status != "building":
            return
        agents = self._free(deployment)
        if not agents:
            self._fail(deployment, "build_failed")
            return
        online = {a.number: self.now - a.heard < OFFLINE_AFTER_S for a in agents}
        bounds = [ceil(len(agents) * percent / 100) for percent in deployment.strategy.percents]
        for position, agent in enumerate(agents):
            wave = next(wave for wave, bound in enumerate(bounds) if position < bound)
            self._enlist(deployment, agent, wave, counted=online[agent.number] or not any(online.values()))
        deployment.status, deployment.built = "deploying", True
        deployment.wave = min(part.wave for part in deployment.parts.values())
        self._offer(deployment, [n for n, part in deployment.parts.items() if part.wave == deployment.wave])

    def give_up_building(self, deployment: Deployment) -> None:
        self.begin_build(deployment)
        if deployment.status in {"approved", "building"}:
            self._fail(deployment, "build_failed")

    def step(self, deployment: Deployment) -> None:
        if deployment.status == "deploying":
            self._roll_out(deployment)
        elif deployment.status == "rolling_back":
            self._roll_back(deployment)

    def welcome(self, agent: Agent) -> None:
        if agent.left:
            return
        for deployment in reversed(self.deployments):
            if deployment.current and agent in self.matching(deployment.target):
                self._offer_late(deployment, only=agent)
                return

    def sweep(self) -> None:
        for deployment in self.deployments:
            approval = deployment.approval
            if approval and approval.status == "pending" and approval.expires <= self.now:
                approval.status = "expired"
                if deployment.status in {"pending_approval", "approved"}:
                    self._fail(deployment, "approval_expired")

    # The rules behind these.

    def matching(self, target: Target) -> list[Agent]:
        return [
            a for a in self.agents
            if not a.left
            and (target.site is None or a.site == target.site)
            and (target.agents is None or a.number in target.agents)
        ]  # fmt: skip

    def _runs_another(self, agent: Agent, pipeline: str) -> bool:
        return agent.offer is not None and self.deployments[agent.offer.source].bundle.pipeline != pipeline

    def _free(self, deployment: Deployment) -> list[Agent]:
        return [
            agent for agent in self.matching(deployment.target)
            if deployment.take_over or not self._runs_another(agent, deployment.bundle.pipeline)
        ]  # fmt: skip

    def _enlist(self, deployment: Deployment, agent: Agent, wave: int, *, counted: bool) -> None:
        before = agent.offer.source if agent.offer else None
        deployment.parts[agent.number] = Part(wave, counted, before)

    def _offer(self, deployment: Deployment, numbers: Iterable[int]) -> None:
        since = self.tick()
        for number in numbers:
            agent, part = self.agents[number], deployment.parts[number]
            agent.offer = Offer(deployment.number, deployment.number, "activate", since)
            agent.progress = part.progress = "offered"
            part.offered, part.since = self.now, since

    def _offer_late(self, deployment: Deployment, *, only: Agent | None = None) -> None:
        if deployment.bundle.number in self.bad:
            return
        taken = []
        for agent in self._free(deployment):
            if only not in (None, agent):
                continue
            offer = agent.offer
            busy = offer is not None and self.deployments[offer.by].status in IN_FLIGHT
            has_it = offer is not None and offer.source == deployment.number
            if agent.number not in deployment.parts and not busy and not has_it:
                self._enlist(deployment, agent, deployment.wave, counted=False)
                taken.append(agent.number)
        self._offer(deployment, taken)

    def _enrolled(self, deployment: Deployment) -> dict[int, Part]:
        return {number: part for number, part in deployment.parts.items() if not self.agents[number].left}

    def _give_up_late(self, deployment: Deployment, parts: dict[int, Part]) -> set[int]:
        late = set()
        for number, part in parts.items():
            waits = part.counted and part.progress not in ENDS and part.offered is not None
            if waits and self.now - part.offered >= deployment.policy.timeout_s:  # type: ignore[operator]  # waits
                late.add(number)
                part.progress = "failed"
                agent = self.agents[number]
                if agent.offer and agent.offer.by == deployment.number:
                    agent.progress = "failed"
        return late

    def _roll_out(self, deployment: Deployment) -> None:
        parts, strategy = self._enrolled(deployment), deployment.strategy
        reported = {n for n, part in parts.items() if part.progress == "failed"}
        late = self._give_up_late(deployment, parts)
        counted = {n: part for n, part in parts.items() if part.counted}
        wave = {n for n, part in counted.items() if part.wave == deployment.wave}
        bearable = strategy.threshold * len(wave)
        if len(wave & (reported | late)) * 100 > bearable:
            self._fail(deployment, "threshold" if len(wave & reported) * 100 > bearable else "timeout")
            if not strategy.auto_rollback or self.rollback(deployment) is not None:
                self._withdraw(deployment)
            return

        def waiting(upto: int) -> list[int]:
            return [n for n, part in parts.items() if part.wave <= upto and part.progress == "pending"]

        if any(part.progress not in ENDS for part in counted.values() if part.wave <= deployment.wave):
            if not deployment.paused:
                self._offer(deployment, waiting(deployment.wave))
            return
        following = [part.wave for part in parts.values() if part.wave > deployment.wave]
        rested = deployment.wave_done is not None or strategy.pause_s == 0
        if deployment.wave_done is None:
            deployment.wave_done = self.now
        if not following:
            self._offer(deployment, waiting(deployment.wave))
            self._activate(deployment)
        elif not deployment.paused and rested and self.now - deployment.wave_done >= strategy.pause_s:
            deployment.wave, deployment.wave_done = min(following), None
            self._offer(deployment, waiting(deployment.wave))

    def _activate(self, deployment: Deployment) -> None:
        for other in self.deployments:
            if other.current and other.bundle.pipeline == deployment.bundle.pipeline:
                other.current, other.superseded_by = False, deployment.number
        deployment.status, deployment.current, deployment.activated = "active", True, self.tick()
        self._offer_late(deployment)

    def _roll_back(self, deployment: Deployment) -> None:
        parts = {n: p for n, p in self._enrolled(deployment).items() if p.action == "rollback"}
        self._give_up_late(deployment, parts)
        counted = [part for part in parts.values() if part.counted]
        if any(part.progress not in ENDS for part in counted):
            return
        if any(part.progress == "failed" for part in counted):
            self._fail(deployment, "rollback_failed")
            return
        deployment.status, deployment.current = "rolled_back", False
        pipeline = deployment.bundle.pipeline
        restored = self.deployments[deployment.restores]  # type: ignore[index]  # it rolls back
        if not any(d.current and d.bundle.pipeline == pipeline for d in self.deployments):
            restored.current, restored.superseded_by = True, None
        self._offer_late(restored)

    def _fail(self, deployment: Deployment, reason: str) -> None:
        deployment.status, deployment.reason, deployment.current = "failed", reason, False
        if reason in {"build_failed", "threshold", "timeout", "rollback_failed"}:
            self.bad.add(deployment.bundle.number)

    def _earlier(self, deployment: Deployment) -> Deployment | None:
        found = [
            d for d in self.deployments
            if d.status == "active" and d.bundle.pipeline == deployment.bundle.pipeline and d is not deployment
            and d.bundle.number not in self.bad | {deployment.bundle.number}
        ]  # fmt: skip
        return max(found, key=lambda d: (d.current, d.activated), default=None)

    def _withdraw(self, deployment: Deployment) -> None:
        """What no agent has begun with is taken back."""
        for number, part in deployment.parts.items():
            agent = self.agents[number]
            untouched = part.progress == "offered" and agent.progress == "offered"
            if not (untouched and agent.offer and agent.offer.by == deployment.number):
                continue
            earlier = None if part.before is None else self.deployments[part.before]
            its_part = None if earlier is None else earlier.parts.get(number)
            if earlier is None or its_part is None or its_part.offered is None or earlier.bundle.number in self.bad:
                agent.offer, agent.progress = None, "pending"
            else:
                agent.offer = Offer(earlier.number, earlier.number, "activate", its_part.since)
                agent.progress = its_part.progress
            part.progress, part.offered = "pending", None

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

    def obstacles(
        self,
        bundle: Bundle,
        target: Target,
        strategy: Strategy,
        *,
        take_over: bool = False,
        hand_in: Deployment | None = None,
        override_freeze: bool = False,
        break_glass_s: int | None = None,
        by: str,
    ) -> set[str]:
        """All that stands in the way of a new deployment."""
        agents = self.matching(target)
        found = set()
        if (override_freeze or break_glass_s) and by != "admin":
            found.add("forbidden")
        if self.frozen and not override_freeze:
            found.add("freeze_window")
        if break_glass_s and (hand_in or not self.policy.approvals or break_glass_s > self.policy.ttl_s):
            found.add("invalid")
        if bundle.number in self.bad:
            found.add("known_bad")
        if self._in_flight() >= self.policy.in_flight:
            found.add("in_flight_limit")
        if not agents or len(agents) < len(target.agents or ()):
            found.add("invalid")
        if not take_over and any(self._runs_another(agent, bundle.pipeline) for agent in agents):
            found.add("take_over")
        if hand_in and (refusal := self._unfit(hand_in, bundle, target, strategy)):
            found.add(refusal)
        return found

    def create(
        self,
        bundle: Bundle,
        target: Target,
        strategy: Strategy,
        *,
        take_over: bool = False,
        hand_in: Deployment | None = None,
        override_freeze: bool = False,
        break_glass_s: int | None = None,
        by: str,
    ) -> Deployment:
        """Nothing stands in its way."""
        approval = None
        if self.policy.approvals and not hand_in:
            approval = Approval(by, self.now + (break_glass_s or self.policy.ttl_s), break_glass_s is not None)
        waits = approval is not None and not approval.broken
        made = Deployment(
            len(self.deployments), bundle, target, strategy, self.policy, take_over,
            "pending_approval" if waits else "approved", approval, hand_in, override_freeze,
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
        may_be_self = deployment.policy.self_approval and not approval.broken
        if word == "approve" and person == approval.requester and not may_be_self:
            return "approval.self"
        if person in approval.approved_by:
            return "approval.decided_before"
        if word == "deny":
            approval.status = "denied"
            if not approval.broken:
                deployment.status = "denied"
            return None
        approval.approved_by.append(person)
        if len(approval.approved_by) >= deployment.policy.approvals:
            approval.status, approval.was_given, approval.used = "approved", True, approval.broken
            approval.expires = self.now + deployment.policy.ttl_s
            if not approval.broken:
                deployment.status = "approved"
        return None

    def revoke(self, deployment: Deployment) -> str | None:
        approval = deployment.approval
        assert approval is not None
        if approval.used:
            return "approval.used"
        if approval.status not in {"pending", "approved"}:
            return "illegal_transition"
        self._lapse(deployment, approval, "revoked")
        return None

    def pause(self, deployment: Deployment, *, paused: bool) -> str | None:
        if deployment.status != "deploying" or deployment.paused is paused:
            return "conflict"
        deployment.paused = paused
        return None

    def abort(self, deployment: Deployment) -> str | None:
        if deployment.status not in {"pending_approval", "approved", "building", "deploying"}:
            return "illegal_transition"
        if deployment.approval and deployment.approval.status == "pending" and not deployment.approval.broken:
            deployment.approval.status = "revoked"
        deployment.paused = False
        self._fail(deployment, "aborted")
        self._withdraw(deployment)
        return None

    def retry(self, deployment: Deployment) -> set[str]:
        """All that it is refused with, and if nothing, it is done."""
        has_failed = deployment.status == "failed"
        if not has_failed and deployment.status != "deploying":
            return {"illegal_transition"}
        parts = self._enrolled(deployment)
        again = [n for n, p in parts.items() if p.progress == "failed" and self._has(n, deployment)]
        found = set()
        if not again and not (has_failed and parts):
            found.add("nothing_to_retry")
        if deployment.bundle.number in self.bad:
            found.add("known_bad")
        if has_failed:
            if not deployment.built:
                found.add("never_offered")
            if deployment.restores is not None:
                found.add("was_rolled_back")
            if self.frozen:
                found.add("freeze_window")
            if self._in_flight() >= deployment.policy.in_flight:
                found.add("in_flight_limit")
            later = self.deployments[deployment.number + 1 :]
            begun = [d for d in later if d.built or d.status == "building"]
            if any(d.bundle.pipeline == deployment.bundle.pipeline for d in begun):
                found.add("newer_deployment")
            if self._overlaps(deployment, [d for d in self.deployments if d.status in UNDER_WAY]):
                found.add("agents_busy")
            if self._is_refused(deployment):
                found.add("not_approved")
        if not found:
            deployment.status, deployment.reason, deployment.wave_done = "deploying", "", None
            for part in deployment.parts.values():
                part.offered = self.now if has_failed and part.offered is not None else part.offered
            self._offer(deployment, again)
        return found

    def rollback(self, deployment: Deployment) -> str | None:
        if deployment.status == "active" and not deployment.current:
            return "not_current"
        if deployment.status not in {"active", "failed", "deploying"}:
            return "illegal_transition"
        if deployment.status == "failed" and not self._touched(deployment):
            return "nothing_to_roll_back"
        target = self._earlier(deployment)
        if target is None:
            return "nothing_to_roll_back_to"
        deployment.status, deployment.restores, deployment.paused = "rolling_back", target.number, False
        self.bad.add(deployment.bundle.number)
        since = self.tick()
        for number, part in self._touched(deployment).items():
            agent = self.agents[number]
            before = None if part.before is None else self.deployments[part.before]
            if before is None or not before.built or before is deployment or not self._is_good(before):
                before = target
            agent.offer = Offer(deployment.number, before.number, "rollback", since)
            agent.progress = part.progress = "offered"
            part.action, part.offered, part.since = "rollback", self.now, since
            new = Part(before.wave, False, None, progress="active", offered=self.now, since=since)
            before.parts.setdefault(number, new)
        return None

    def _touched(self, deployment: Deployment) -> dict[int, Part]:
        """Who has its bundle, or is to have it."""
        found = {}
        for number, part in self._enrolled(deployment).items():
            offer = self.agents[number].offer
            if part.offered is not None and offer and deployment.number in {offer.by, offer.source}:
                found[number] = part
        return found

    def _is_good(self, deployment: Deployment) -> bool:
        """Whether somebody may be brought back to it."""
        return deployment.bundle.number not in self.bad and not self._is_refused(deployment)

    @staticmethod
    def _is_refused(deployment: Deployment) -> bool:
        approval = deployment.approval
        return approval is not None and approval.broken and approval.status in {"denied", "expired", "revoked"}

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
        if deployment.status != "approved" or not self._has_turn(deployment):
            return
        if deployment.bundle.number in self.bad:
            self._fail(deployment, "known_bad")
            return
        approval = deployment.handed_in.approval if deployment.handed_in else deployment.approval
        if approval and not approval.broken:
            if approval.expires <= self.now:
                self._fail(deployment, "approval_expired")
                return
            if approval.status != "approved":
                self._fail(deployment, "approval_revoked")
                return
            if approval.used:
                self._fail(deployment, "approval.used")
                return
            approval.used = True
        deployment.status = "building"

    def _has_turn(self, deployment: Deployment) -> bool:
        """Not while it is frozen, nor over the limit, nor while one ahead has its pipeline or one of its agents."""
        if self.frozen and not deployment.overrides_freeze:
            return False
        under_way = [d for d in self.deployments if d.status in UNDER_WAY]
        if len(under_way) >= deployment.policy.in_flight:
            return False
        earlier = [
            d for d in self.deployments[: deployment.number]
            if d.status == "approved" and (d.overrides_freeze or not self.frozen)
        ]  # fmt: skip
        return not self._overlaps(deployment, under_way + earlier)

    def _overlaps(self, deployment: Deployment, others: Iterable[Deployment]) -> bool:
        mine = {agent.number for agent in self.matching(deployment.target)}
        return any(
            other.bundle.pipeline == deployment.bundle.pipeline
            or mine & {agent.number for agent in self.matching(other.target)}
            for other in others
        )

    def build(self, deployment: Deployment) -> None:
        self.begin_build(deployment)
        if deployment.status != "building":
            return
        if deployment.bundle.number in self.bad:
            self._fail(deployment, "known_bad")
            return
        agents = self._free(deployment)
        if not agents:
            self._fail(deployment, "empty_target")
            return
        online = {a.number: self.now - a.heard < OFFLINE_AFTER_S for a in agents}
        bounds = [ceil(len(agents) * percent / 100) for percent in deployment.strategy.percents]
        for position, agent in enumerate(agents):
            wave = next(wave for wave, bound in enumerate(bounds) if position < bound)
            self._enlist(deployment, agent, wave, counted=online[agent.number] or not any(online.values()))
        deployment.status, deployment.built = "deploying", True
        self._offer(deployment, [n for n, part in deployment.parts.items() if part.wave == 0])

    def give_up_building(self, deployment: Deployment) -> None:
        self.begin_build(deployment)
        if deployment.status in {"approved", "building"}:
            self._fail(deployment, "build_failed")

    def step(self, deployment: Deployment) -> None:
        if deployment.status == "deploying":
            self._roll_out(deployment)
        elif deployment.status == "rolling_back":
            self._roll_back(deployment)

    def undo_break_glass(self, deployment: Deployment) -> None:
        approval = deployment.approval
        assert approval is not None
        under_way, has_failed = deployment.status == "deploying", deployment.status == "failed"
        if under_way or has_failed or (deployment.current and deployment.status == "active"):
            if (self._touched(deployment) and self.rollback(deployment) is None) or has_failed:
                return
            self.bad.add(deployment.bundle.number)
        if under_way or deployment.status in {"approved", "building"}:
            self._fail(deployment, f"approval_{approval.status}")
            self._withdraw(deployment)

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
                self._lapse(deployment, approval, "expired")

    # The rules behind these.

    def matching(self, target: Target) -> list[Agent]:
        return [
            a for a in self.agents
            if not a.left
            and (target.site is None or a.site == target.site)
            and (target.agents is None or a.number in target.agents)
        ]  # fmt: skip

    def _in_flight(self) -> int:
        return sum(d.status in IN_FLIGHT for d in self.deployments)

    def _has(self, number: int, deployment: Deployment) -> bool:
        offer = self.agents[number].offer
        return offer is not None and offer.by == deployment.number

    def _lapse(self, deployment: Deployment, approval: Approval, status: str) -> None:
        """What waited for it has failed; what went ahead by break-glass the worker undoes."""
        approval.status = status
        if not approval.broken and deployment.status in {"pending_approval", "approved"}:
            self._fail(deployment, f"approval_{status}")

    def _unfit(self, source: Deployment, bundle: Bundle, target: Target, strategy: Strategy) -> str | None:
        """Why the credential of that one's approval does not serve."""
        approval = source.approval
        assert approval is not None
        if source.bundle.pipeline != bundle.pipeline:
            return "approval.spec_hash"
        if approval.expires <= self.now:
            return "approval.expired"
        if approval.status != "approved":
            return "approval.revoked"
        if (source.bundle, source.target, source.strategy) != (bundle, target, strategy):
            return "approval.binding"
        return "approval.used" if approval.used else None

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
            part.action, part.offered, part.since = "activate", self.now, since

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

    def _at_it(self, deployment: Deployment) -> dict[int, Part]:
        """Without those that another deployment took away meanwhile, from their offer or from waiting for one."""

        def is_its(number: int, part: Part) -> bool:
            if part.progress == "pending":
                return deployment.take_over or not self._runs_another(self.agents[number], deployment.bundle.pipeline)
            return part.progress in ENDS or self._has(number, deployment)

        return {number: part for number, part in self._enrolled(deployment).items() if is_its(number, part)}

    def _give_up_late(self, deployment: Deployment, parts: dict[int, Part]) -> set[int]:
        late = set()
        for number, part in parts.items():
            waits = part.counted and part.progress not in ENDS and part.offered is not None
            if waits and self.now - part.offered >= deployment.policy.timeout_s:  # type: ignore[operator]  # waits
                late.add(number)
                part.progress = "failed"
                if self._has(number, deployment):
                    self.agents[number].progress = "failed"
        return late

    def _roll_out(self, deployment: Deployment) -> None:
        if deployment.bundle.number in self.bad:
            self._give_up(deployment, "known_bad")
            return
        parts, strategy = self._at_it(deployment), deployment.strategy
        reported = {n for n, part in parts.items() if part.progress == "failed"}
        late = self._give_up_late(deployment, parts)
        counted = {n: part for n, part in parts.items() if part.counted}
        if not counted:
            self._fail(deployment, "empty_target")
            self._withdraw(deployment)
            return
        wave = {n for n, part in counted.items() if part.wave == deployment.wave}
        bearable = strategy.threshold * len(wave)
        if len(wave & (reported | late)) * 100 > bearable:
            self._give_up(deployment, "threshold" if len(wave & reported) * 100 > bearable else "timeout")
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

    def _give_up(self, deployment: Deployment, reason: str) -> None:
        self._fail(deployment, reason)
        goes_back = deployment.strategy.auto_rollback and self._touched(deployment)
        if not goes_back or self.rollback(deployment) is not None:
            self._withdraw(deployment)

    def _activate(self, deployment: Deployment) -> None:
        for other in self.deployments:
            if other.current and other.bundle.pipeline == deployment.bundle.pipeline:
                other.current, other.superseded_by = False, deployment.number
        deployment.status, deployment.current, deployment.activated = "active", True, self.tick()
        deployment.paused = False
        self._offer_late(deployment)

    def _roll_back(self, deployment: Deployment) -> None:
        parts = {n: p for n, p in self._at_it(deployment).items() if p.action == "rollback"}
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
        is_free = not any(d.current and d.bundle.pipeline == pipeline for d in self.deployments)
        if is_free and restored.status == "active" and restored.bundle.number not in self.bad:
            restored.current, restored.superseded_by = True, None
            self._offer_late(restored)

    def _fail(self, deployment: Deployment, reason: str) -> None:
        deployment.status, deployment.reason, deployment.current = "failed", reason, False
        deployment.paused = False
        if reason in {"threshold", "timeout", "rollback_failed"}:
            self.bad.add(deployment.bundle.number)

    def _earlier(self, deployment: Deployment) -> Deployment | None:
        found = [
            d for d in self.deployments
            if d.status == "active" and d.bundle.pipeline == deployment.bundle.pipeline and d is not deployment
            and self._is_good(d) and d.bundle.number != deployment.bundle.number
        ]  # fmt: skip
        return max(found, key=lambda d: (d.current, d.activated), default=None)

    def _withdraw(self, deployment: Deployment) -> None:
        """What no agent has begun with is taken back."""
        for number, part in deployment.parts.items():
            agent = self.agents[number]
            untouched = part.progress == "offered" and agent.progress == "offered"
            if not (untouched and self._has(number, deployment)):
                continue
            earlier = None if part.before is None else self.deployments[part.before]
            its_part = None if earlier is None else earlier.parts.get(number)
            if earlier is None or its_part is None or its_part.offered is None or not self._is_good(earlier):
                agent.offer, agent.progress = None, "pending"
            else:
                agent.offer = Offer(earlier.number, earlier.number, "activate", its_part.since)
                agent.progress = its_part.progress
            part.progress, part.offered = "pending", None

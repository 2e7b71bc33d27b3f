"""The rollouts and rollbacks of the release model."""

from __future__ import annotations

from collections.abc import Iterable

from tests.releases.model_holds import Holds
from tests.releases.model_records import ENDS, IN_FLIGHT, Agent, Deployment, Offer, Part, Target


class Rollouts(Holds):
    """One environment with its agents and deployments, and the rules of rollouts and rollbacks."""

    def tick(self) -> int:
        self.count += 1
        return self.count

    def _touched(self, deployment: Deployment) -> dict[int, Part]:
        """Return the parts of the deployment's touched agents that are still enrolled, by agent number."""
        found = {}
        for number, part in self._enrolled(deployment).items():
            offer = self.agents[number].offer
            if part.offered is not None and offer and deployment.number in {offer.by, offer.source}:
                found[number] = part
        return found

    def _can_be_restored(self, deployment: Deployment) -> bool:
        """Return whether the deployment's configuration may be restored.

        The configuration must not be known bad. A break-glass approval must not be denied, expired or revoked.
        """
        return deployment.bundle.number not in self.bad and not self._is_unapproved_break_glass(deployment)

    @staticmethod
    def _is_unapproved_break_glass(deployment: Deployment) -> bool:
        approval = deployment.approval
        return approval is not None and approval.broken and approval.status in {"denied", "expired", "revoked"}

    def _overlaps(self, deployment: Deployment, others: Iterable[Deployment]) -> bool:
        mine = {agent.number for agent in self.matching(deployment.target)}
        return any(
            other.bundle.pipeline == deployment.bundle.pipeline
            or mine & {agent.number for agent in self.matching(other.target)}
            for other in others
        )

    # Targets and offers.

    def matching(self, target: Target) -> list[Agent]:
        return [
            a for a in self.agents
            if not a.left
            and (target.site is None or a.site == target.site)
            and (target.agents is None or a.number in target.agents)
        ]  # fmt: skip

    def _in_flight(self) -> int:
        return sum(d.status in IN_FLIGHT and not self.is_scheduled(d) for d in self.deployments)

    def is_scheduled(self, deployment: Deployment) -> bool:
        """Return whether the deployment is approved, but its start time has not been reached."""
        return deployment.status == "approved" and deployment.start is not None and deployment.start > self.now

    def _has(self, number: int, deployment: Deployment) -> bool:
        offer = self.agents[number].offer
        return offer is not None and offer.by == deployment.number

    def _runs_another(self, agent: Agent, pipeline: str) -> bool:
        return agent.offer is not None and self.deployments[agent.offer.source].bundle.pipeline != pipeline

    def _available_agents(self, deployment: Deployment) -> list[Agent]:
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
        for agent in self._available_agents(deployment):
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

    def _participants(self, deployment: Deployment) -> dict[int, Part]:
        """Return the enrolled participants that have finished, have the deployment's offer, or may still get it."""

        def is_its(number: int, part: Part) -> bool:
            if part.progress == "pending":
                return deployment.take_over or not self._runs_another(self.agents[number], deployment.bundle.pipeline)
            return part.progress in ENDS or self._has(number, deployment)

        return {number: part for number, part in self._enrolled(deployment).items() if is_its(number, part)}

    def _find_late(self, deployment: Deployment, parts: dict[int, Part]) -> set[int]:
        return {
            number for number, part in parts.items()
            if part.counted and part.progress not in ENDS and part.offered is not None
            and self.now - part.offered >= deployment.policy.timeout_s
        }  # fmt: skip

    def _time_out(self, deployment: Deployment, parts: dict[int, Part]) -> set[int]:
        late = self._find_late(deployment, parts)
        for number in late:
            part = parts[number]
            part.progress = "failed"
            part.failures[part.action] = "timeout" if part.action == "activate" else "rollback_timeout"
            if self._has(number, deployment):
                self.agents[number].progress = "failed"
        return late

    def rollback(self, deployment: Deployment, *, is_bad: bool = True) -> str | None:
        if deployment.status == "active" and not deployment.current:
            return "not_current"
        if deployment.status not in {"active", "failed", "deploying"}:
            return "illegal_transition"
        if deployment.status == "failed" and not self._touched(deployment):
            return "nothing_to_roll_back"
        target = self._find_target(deployment)
        if target is None:
            return "nothing_to_roll_back_to"
        self._lift(deployment)
        deployment.status, deployment.restores, deployment.paused = "rolling_back", target.number, None
        if is_bad:
            self.bad.add(deployment.bundle.number)
        since = self.tick()
        for number, part in self._touched(deployment).items():
            agent = self.agents[number]
            before = None if part.before is None else self.deployments[part.before]
            if before is None or not before.built or before is deployment or not self._can_be_restored(before):
                before = target
            agent.offer = Offer(deployment.number, before.number, "rollback", since)
            agent.progress = part.progress = "offered"
            part.action, part.offered, part.since = "rollback", self.now, since
            new = Part(before.wave, False, None, progress="active", offered=self.now, since=since)
            before.parts.setdefault(number, new)
        return None

    # Rollout steps and rollback steps.

    def _roll_out(self, deployment: Deployment) -> None:
        if deployment.bundle.number in self.bad:
            self._fail_rollout(deployment, "known_bad")
            return
        if self._is_denied(deployment):
            self._fail_rollout(deployment, "wave_denied")
            return
        parts, strategy = self._participants(deployment), deployment.strategy
        reported = {n for n, part in parts.items() if part.progress == "failed"}
        late = self._time_out(deployment, parts)
        counted = {n: part for n, part in parts.items() if part.counted}
        if not counted:
            self._fail(deployment, "empty_target")
            self._withdraw(deployment)
            return
        wave = {n for n, part in counted.items() if part.wave == deployment.wave}
        tolerated = strategy.threshold * len(wave)
        if len(wave & (reported | late)) * 100 > tolerated:
            self._fail_rollout(deployment, "threshold" if len(wave & reported) * 100 > tolerated else "timeout")
            return

        def waiting(upto: int) -> list[int]:
            return [n for n, part in parts.items() if part.wave <= upto and part.progress == "pending"]

        if any(part.progress not in ENDS for part in counted.values() if part.wave <= deployment.wave):
            self._lift(deployment)
            if deployment.paused is None:
                self._offer(deployment, waiting(deployment.wave))
            return
        following = [part.wave for part in parts.values() if part.wave > deployment.wave]
        rested = deployment.wave_done is not None or strategy.pause_s == 0
        if deployment.wave_done is None:
            deployment.wave_done = self.now
        if not following:
            self._lift(deployment)
            self._offer(deployment, waiting(deployment.wave))
            self._activate(deployment)
        elif hold := self._find_hold(deployment, min(following)):
            self._keep(deployment, min(following), hold)
        elif deployment.paused is None and rested and self.now - deployment.wave_done >= strategy.pause_s:
            self._begin_wave(deployment, min(following), waiting(min(following)))
        elif not self.is_released(deployment):
            self._lift(deployment)

    def find_waiting(self, deployment: Deployment) -> list[int]:
        """Return the numbers of the participants whose wave has not started."""
        return [n for n, part in self._participants(deployment).items() if part.wave > deployment.wave]

    def has_unfinished(self, deployment: Deployment) -> bool:
        """Return whether an agent that counts, in a wave that has started, has not finished."""
        parts = self._participants(deployment).values()
        return any(part.counted and part.wave <= deployment.wave and part.progress not in ENDS for part in parts)

    def _begin_wave(self, deployment: Deployment, wave: int, numbers: list[int]) -> None:
        self._use(deployment, wave)
        deployment.wave, deployment.wave_done = wave, None
        self._offer(deployment, numbers)

    def next_wave(self, deployment: Deployment) -> str | None:
        """Start the next wave now. Return the problem code if the request is refused."""
        if deployment.status != "deploying":
            return "next_wave.not_deploying"
        if deployment.paused is not None:
            return "next_wave.paused"
        hold = deployment.hold
        if hold and hold.approval and hold.approval.status != "approved":
            return "next_wave.needs_approval"
        if deployment.wave_done is None or deployment.wave + 1 >= len(deployment.strategy.percents):
            return "next_wave.not_ready"
        if self.frozen and not deployment.overrides_freeze:
            return "freeze_window"
        if deployment.bundle.number in self.bad:
            return "known_bad"
        parts = self._participants(deployment)
        counted = [part for part in parts.values() if part.counted]
        wave = [part for part in counted if part.wave == deployment.wave]
        failed = sum(part.progress == "failed" for part in wave)
        has_begun = [part for part in counted if part.wave <= deployment.wave]
        following = [part.wave for part in parts.values() if part.wave > deployment.wave]
        if (
            not counted or not following or failed * 100 > deployment.strategy.threshold * len(wave)
            or any(part.progress not in ENDS for part in has_begun)
            or self._find_hold(deployment, min(following)) == "approval"
        ):  # fmt: skip
            return "next_wave.not_ready"
        first = min(following)
        deployment.events["next_wave"] += 1
        self._begin_wave(
            deployment, first, [n for n, part in parts.items() if part.wave <= first and part.progress == "pending"]
        )
        return None

    def _fail_rollout(self, deployment: Deployment, reason: str) -> None:
        self._fail(deployment, reason)
        goes_back = deployment.strategy.auto_rollback and self._touched(deployment)
        if not goes_back or self.rollback(deployment, is_bad=reason != "wave_denied") is not None:
            self._withdraw(deployment)

    def _activate(self, deployment: Deployment) -> None:
        for other in self.deployments:
            if other.current and other.bundle.pipeline == deployment.bundle.pipeline:
                other.current, other.superseded_by = False, deployment.number
        deployment.status, deployment.current, deployment.activated = "active", True, self.tick()
        deployment.paused = None
        self._offer_late(deployment)

    def _roll_back(self, deployment: Deployment) -> None:
        parts = {n: p for n, p in self._participants(deployment).items() if p.action == "rollback"}
        self._time_out(deployment, parts)
        counted = [part for part in parts.values() if part.counted]
        if any(part.progress not in ENDS for part in counted):
            return
        if any(part.progress == "failed" for part in counted):
            self._fail(deployment, "rollback_failed")
            return
        deployment.status, deployment.current = "rolled_back", False
        pipeline = deployment.bundle.pipeline
        restored = self.deployments[deployment.restores]  # type: ignore[index]  # set by the rollback
        is_free = not any(d.current and d.bundle.pipeline == pipeline for d in self.deployments)
        if is_free and restored.status == "active" and restored.bundle.number not in self.bad:
            restored.current, restored.superseded_by = True, None
            self._offer_late(restored)

    def _fail(self, deployment: Deployment, reason: str) -> None:
        self._lift(deployment)
        if reason in {"threshold", "timeout", "rollback_failed"} and deployment.reason != "wave_denied":
            self.bad.add(deployment.bundle.number)
        deployment.status, deployment.reason, deployment.current = "failed", reason, False
        deployment.paused = None

    def _find_target(self, deployment: Deployment) -> Deployment | None:
        found = [
            d for d in self.deployments
            if d.status == "active" and d.bundle.pipeline == deployment.bundle.pipeline and d is not deployment
            and self._can_be_restored(d) and d.bundle.number != deployment.bundle.number
        ]  # fmt: skip
        return max(found, key=lambda d: (d.current, d.activated), default=None)

    def _withdraw(self, deployment: Deployment) -> None:
        """Withdraw the offers that agents have not started, and restore their earlier offers where possible."""
        for number, part in deployment.parts.items():
            agent = self.agents[number]
            untouched = part.progress == "offered" and agent.progress == "offered"
            if not (untouched and self._has(number, deployment)):
                continue
            earlier = None if part.before is None else self.deployments[part.before]
            its_part = None if earlier is None else earlier.parts.get(number)
            if earlier is None or its_part is None or its_part.offered is None or not self._can_be_restored(earlier):
                agent.offer, agent.progress = None, "pending"
            else:
                agent.offer = Offer(earlier.number, earlier.number, "activate", its_part.since)
                agent.progress = its_part.progress
            part.progress, part.offered = "pending", None

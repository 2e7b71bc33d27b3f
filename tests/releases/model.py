"""A model of releases in plain Python, without database, HTTP, queue, locks or crashes.

Most methods for callers' requests return the problem code if the request is refused, and None otherwise. ``obstacles``
and ``retry`` return a set of problem codes.
"""

from __future__ import annotations

from math import ceil

from tests.releases.model_records import (
    OFFLINE_AFTER_S,
    RANK,
    UNDER_WAY,
    Agent,
    Approval,
    Bundle,
    Deployment,
    Strategy,
    Target,
)
from tests.releases.model_rollouts import Rollouts


class Model(Rollouts):
    """One environment with callers' requests, agents' reports and the worker's jobs."""

    # Callers' requests.

    def obstacles(
        self,
        bundle: Bundle,
        target: Target,
        strategy: Strategy,
        *,
        take_over: bool = False,
        submitted: Deployment | None = None,
        override_freeze: bool = False,
        break_glass_s: int | None = None,
        start: int | None = None,
        reviewers: tuple[str, ...] = (),
        by: str,
    ) -> set[str]:
        """Return the problem codes with which a new deployment may be refused. If there are none, it is accepted."""
        agents = self.matching(target)
        found = set()
        if (override_freeze or break_glass_s) and by != "admin":
            found.add("forbidden")
        if self.frozen and not override_freeze:
            found.add("freeze_window")
        if break_glass_s and (submitted or not self.policy.approvals or break_glass_s > self.policy.ttl_s):
            found.add("invalid")
        if bundle.number in self.bad:
            found.add("known_bad")
        if start is not None and (break_glass_s or start <= self.now):
            found.add("invalid")
        if reviewers and not (self.policy.approvals or "approval" in strategy.holds):
            found.add("invalid")
        if self._are_reviewers_wrong(self.policy, by, reviewers, has_glass=break_glass_s is not None):
            found.add("invalid")
        if "viewer" in reviewers and by != "admin":
            found.add("invalid")
        if start is None and self._in_flight() >= self.policy.in_flight:
            found.add("in_flight_limit")
        if not agents or len(agents) < len(target.agents or ()):
            found.add("invalid")
        if not take_over and any(self._runs_another(agent, bundle.pipeline) for agent in agents):
            found.add("take_over")
        if submitted:
            request = (bundle, target, strategy, take_over, override_freeze, start, reviewers)
            if refusal := self._credential_refusal(submitted, *request, by=by):
                found.add(refusal)
        return found

    def create(
        self,
        bundle: Bundle,
        target: Target,
        strategy: Strategy,
        *,
        take_over: bool = False,
        submitted: Deployment | None = None,
        override_freeze: bool = False,
        break_glass_s: int | None = None,
        start: int | None = None,
        reviewers: tuple[str, ...] = (),
        by: str,
    ) -> Deployment:
        """Create a deployment for which ``obstacles`` returns an empty set."""
        approval = None
        if self.policy.approvals and not submitted:
            expires = (self.now if start is None else start) + (break_glass_s or self.policy.ttl_s)
            approval = Approval(by, expires, break_glass_s is not None, reviewers=reviewers)
        waits = approval is not None and not approval.broken
        made = Deployment(
            len(self.deployments), bundle, target, strategy, self.policy, take_over,
            "pending_approval" if waits else "approved", approval, submitted, override_freeze,
            requester=by, start=start, reviewers=reviewers,
        )  # fmt: skip
        self.deployments.append(made)
        return made

    def decide(self, deployment: Deployment, person: str, word: str) -> str | None:
        approval = deployment.approval
        if person in self.gone:
            return "not_found"
        if approval is None:
            return "approval.not_needed"
        if refusal := self._may_not_decide(approval, person):
            return refusal
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
        if len(approval.counting) >= deployment.policy.approvals:
            self._approve(deployment, approval)
        return None

    def revoke(self, deployment: Deployment) -> str | None:
        approval = deployment.approval
        assert approval is not None
        if approval.used:
            return "approval.used"
        if approval.status not in {"pending", "approved"}:
            return "illegal_transition"
        self._close_approval(deployment, approval, "revoked")
        return None

    def pause(self, deployment: Deployment, *, paused: bool) -> str | None:
        if deployment.status != "deploying" or (deployment.paused is not None) is paused:
            return "conflict"
        approval = deployment.hold.approval if deployment.hold else None
        if deployment.paused is not None and approval is not None and approval.status == "pending":
            approval.expires += self.now - max(deployment.paused, approval.created)
        deployment.paused = self.now if paused else None
        return None

    def abort(self, deployment: Deployment) -> str | None:
        if deployment.status not in {"pending_approval", "approved", "building", "deploying"}:
            return "illegal_transition"
        if self._is_denied(deployment):
            return "wave_denied"
        if deployment.approval and deployment.approval.status == "pending" and not deployment.approval.broken:
            deployment.approval.status = "revoked"
        self._fail(deployment, "aborted")
        self._withdraw(deployment)
        return None

    def retry(self, deployment: Deployment, only: int | None = None) -> set[str]:
        """Retry the deployment, or only one of its agents. Return the problem codes if the retry is refused."""
        has_failed = deployment.status == "failed"
        if deployment.status == "active" and not deployment.current:
            return {"not_current"}
        if deployment.status not in {"failed", "deploying", "active"}:
            return {"illegal_transition"}
        parts = self._enrolled(deployment)
        again = [n for n, p in parts.items() if p.progress == "failed" and self._has(n, deployment)]
        found = set()
        if only is not None:
            if only not in deployment.parts:
                found.add("invalid")
            elif only not in again:
                found.add("not_failed")
            wave = {n: p for n, p in parts.items() if p.counted and p.wave == deployment.wave}
            left = sum(p.progress == "failed" for n, p in wave.items() if n != only)
            if has_failed and left * 100 > deployment.strategy.threshold * len(wave):
                found.add("others_failed")
            again = [only]
        elif not again and not (has_failed and parts):
            found.add("nothing_to_retry")
        if self._is_denied(deployment) or deployment.reason == "wave_denied":
            found.add("wave_denied")
        if deployment.bundle.number in self.bad:
            found.add("known_bad")
        if has_failed:
            if not deployment.built:
                found.add("never_offered")
            if deployment.restores is not None:
                found.add("was_rolled_back")
            if self._in_flight() >= deployment.policy.in_flight:
                found.add("in_flight_limit")
            later = self.deployments[deployment.number + 1 :]
            begun = [d for d in later if d.built or d.status == "building"]
            if any(d.bundle.pipeline == deployment.bundle.pipeline for d in begun):
                found.add("newer_deployment")
        if deployment.status != "deploying":
            if self.frozen:
                found.add("freeze_window")
            if self._overlaps(deployment, [d for d in self.deployments if d.status in UNDER_WAY]):
                found.add("agents_busy")
            if self._is_unapproved_break_glass(deployment):
                found.add("not_approved")
        if not found:
            self._lift(deployment)
            deployment.status = "active" if deployment.status == "active" else "deploying"
            deployment.reason, deployment.wave_done = "", None
            for part in deployment.parts.values():
                part.offered = self.now if has_failed and part.offered is not None else part.offered
            self._offer(deployment, again)
        return found

    def clear(self, bundle: Bundle) -> str | None:
        if bundle.number not in self.bad:
            return "not_barred"
        self.bad.discard(bundle.number)
        return None

    def _credential_refusal(
        self,
        source: Deployment,
        bundle: Bundle,
        target: Target,
        strategy: Strategy,
        take_over: bool,
        override_freeze: bool,
        start: int | None,
        reviewers: tuple[str, ...],
        *,
        by: str,
    ) -> str | None:
        """Return the problem code if the approval credential of ``source`` is refused, or None if it is accepted."""
        approval = source.approval
        assert approval is not None
        if source.bundle.pipeline != bundle.pipeline:
            return "approval.spec_hash"
        if approval.expires <= self.now:
            return "approval.expired"
        if approval.status != "approved":
            return "approval.revoked"
        covered = (source.bundle, source.target, source.strategy, source.take_over, source.overrides_freeze)
        if (*covered, source.start, approval.reviewers) != (
            bundle, target, strategy, take_over, override_freeze, start, reviewers,
        ):  # fmt: skip
            return "approval.binding"
        if approval.used:
            return "approval.used"
        may_be_self = source.policy.self_approval or not self.policy.approvals
        others = [person for person in approval.counting if person != by]
        return None if may_be_self or len(others) >= self.policy.approvals else "approval.self"

    def _close_approval(self, deployment: Deployment, approval: Approval, status: str) -> None:
        """Close the approval. Unless it is a break-glass approval, also fail its deployment if no build has started."""
        approval.status = status
        if not approval.broken and deployment.status in {"pending_approval", "approved"}:
            self._fail(deployment, f"approval_{status}")

    # Agents.

    def enroll(self, site: str) -> Agent:
        agent = Agent(len(self.agents), site, self.now)
        self.agents.append(agent)
        return agent

    def report(self, agent: Agent, by: int, source: int, status: str) -> bool:
        """Record a report, and return whether it is accepted.

        Repetitions of an accepted report on the same offer are accepted as well.
        """
        offer = agent.offer
        end = "rolled_back" if offer and offer.action == "rollback" else "active"
        if not offer or (offer.by, offer.source) != (by, source):
            return False
        if status not in {"downloading", "activating", "failed", end}:
            return False
        if any(
            accepted[:3] == (by, source, status) and accepted[3] > offer.since for accepted in agent.accepted_reports
        ):
            return True
        if RANK[status] <= RANK[agent.progress]:
            return False
        agent.accepted_reports.add((by, source, status, self.tick()))
        agent.progress = status
        if agent.number in self.deployments[by].parts:
            part = self.deployments[by].parts[agent.number]
            part.progress = status
            if status == "failed":
                part.failures[part.action] = "reported" if part.action == "activate" else "rollback_reported"
        return True

    # The worker's jobs.

    def begin_build(self, deployment: Deployment) -> None:
        if deployment.status != "approved" or not self._can_start(deployment):
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

    def _can_start(self, deployment: Deployment) -> bool:
        """Return whether no start time, freeze window, limit or other deployment prevents the start of the build."""
        if self.is_scheduled(deployment) or (self.frozen and not deployment.overrides_freeze):
            return False
        under_way = [d for d in self.deployments if d.status in UNDER_WAY]
        if len(under_way) >= deployment.policy.in_flight:
            return False
        earlier = [
            d for d in self.deployments[: deployment.number]
            if d.status == "approved" and (d.overrides_freeze or not self.frozen) and not self.is_scheduled(d)
        ]  # fmt: skip
        return not self._overlaps(deployment, under_way + earlier)

    def build(self, deployment: Deployment) -> None:
        self.begin_build(deployment)
        if deployment.status != "building":
            return
        if deployment.bundle.number in self.bad:
            self._fail(deployment, "known_bad")
            return
        agents = self._available_agents(deployment)
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

    def fail_build(self, deployment: Deployment) -> None:
        self.begin_build(deployment)
        if deployment.status in {"approved", "building"}:
            self._fail(deployment, "build_failed")

    def step(self, deployment: Deployment) -> None:
        if deployment.status == "deploying":
            self._roll_out(deployment)
        elif deployment.status == "rolling_back":
            self._roll_back(deployment)

    def roll_back_break_glass(self, deployment: Deployment) -> None:
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

    def offer_to_late_joiner(self, agent: Agent) -> None:
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
                self._close_approval(deployment, approval, "expired")
            for _, each in deployment.wave_approvals:
                if each.status == "pending" and each.expires <= self.now and deployment.paused is None:
                    each.status = "expired"
                    deployment.events["wave_expired"] += 1

"""The rules of the release model for holds before waves and for decisions on approvals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from tests.releases.model_records import Agent, Approval, Deployment, Hold, Policy


class Holds:
    """One environment with its deployments, and the rules of holds and reviewers."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.frozen = False
        self.now = 0
        self.count = 0  # the number of events so far, which orders offers, reports and activations
        self.agents: list[Agent] = []
        self.deployments: list[Deployment] = []
        self.bad: set[int] = set()
        self.gone: set[str] = set()  # the people who have left

    def required(self, deployment: Deployment) -> int:
        return max(1, deployment.policy.approvals)

    def _report(self, deployment: Deployment, wave: int) -> object:
        """Count the agents of the waves before ``wave`` by progress, and by the reason for a failed activation.

        Agents that do not count toward waves and thresholds are left out.
        """
        parts = [part for part in deployment.parts.values() if part.counted and part.wave < wave]
        failures = Counter(part.failures["activate"] for part in parts if "activate" in part.failures)
        return Counter(part.progress for part in parts), failures

    def is_covered(self, deployment: Deployment, wave: int, approval: Approval) -> bool:
        """Return whether the report of the earlier waves is still the one for which the approval was requested."""
        return approval.report == self._report(deployment, wave)

    def is_released(self, deployment: Deployment) -> bool:
        """Return whether the wave that waits for approval is approved for exactly what the earlier waves did."""
        hold = deployment.hold
        return (
            hold is not None and hold.approval is not None and hold.approval.status == "approved"
            and self.is_covered(deployment, hold.wave, hold.approval)
        )  # fmt: skip

    @staticmethod
    def _is_denied(deployment: Deployment) -> bool:
        hold = deployment.hold
        return hold is not None and hold.approval is not None and hold.approval.status == "denied"

    def _find_hold(self, deployment: Deployment, following: int) -> str | None:
        """Return the kind of hold that delays the wave ``following``, or None. Holds of skipped empty waves count."""
        first = deployment.wave + 1
        if deployment.hold and deployment.hold.wave <= following and self.is_released(deployment):
            first = deployment.hold.wave + 1
        left = deployment.strategy.holds[first : following + 1]
        return "approval" if "approval" in left else "manual" if "manual" in left else None

    def _keep(self, deployment: Deployment, wave: int, kind: str) -> None:
        """Keep the hold in effect, or start a hold of this kind before ``wave``.

        The hold is replaced if its wave or kind is different, or if its approval has ended or is outdated.
        """
        standing = deployment.hold
        is_same = standing is not None and (standing.wave, standing.approval is None) == (wave, kind == "manual")
        approval = standing.approval if standing else None
        if is_same and (
            approval is None or (approval.status == "pending" and self.is_covered(deployment, wave, approval))
        ):
            return
        self._lift(deployment)
        deployment.hold = Hold(wave, None)
        if kind == "approval":
            approval = Approval(
                deployment.requester, self.now + deployment.policy.ttl_s, reviewers=deployment.reviewers,
                report=self._report(deployment, wave), created=self.now,
            )  # fmt: skip
            deployment.hold.approval = approval
            deployment.wave_approvals.append((wave, approval))
        deployment.events["hold"] += 1

    def _lift(self, deployment: Deployment) -> None:
        """End the hold, if there is one. Withdraw its approval if the approval is pending or approved."""
        approval = deployment.hold.approval if deployment.hold else None
        if approval is not None and approval.status in {"pending", "approved"}:
            approval.status = "revoked"
        deployment.hold = None

    def _use(self, deployment: Deployment, wave: int) -> None:
        """End the hold because ``wave`` starts. Use its approval if it covers the start; else withdraw it."""
        hold = deployment.hold
        if hold and hold.approval and hold.wave <= wave and self.is_released(deployment):
            hold.approval.used = True
            deployment.hold = None
        self._lift(deployment)

    # Decisions and reviewers.

    def decide_wave(self, deployment: Deployment, wave: int, person: str, word: str, *, digest: str) -> str | None:
        """Decide on the newest approval of a wave.

        ``digest`` states which digest the caller sends: ``right`` for the digest of the report in this approval,
        ``missing`` for none, and another word for another digest.
        """
        approvals = [approval for number, approval in deployment.wave_approvals if number == wave]
        if person in self.gone:
            return "not_found"
        if not approvals:
            return "invalid"
        approval = approvals[-1]
        if refusal := self._may_not_decide(approval, person):
            return refusal
        if approval.status != "pending":
            return "approval.decided"
        if approval.expires <= self.now and deployment.paused is None:
            return "approval.expired"
        if digest == "missing":
            return "invalid"
        if digest != "right" or not self.is_covered(deployment, wave, approval):
            return "approval.outdated"
        may_be_self = deployment.policy.self_approval and not (deployment.approval and deployment.approval.broken)
        if word == "approve" and person == approval.requester and not may_be_self:
            return "approval.self"
        if person in approval.approved_by:
            return "approval.decided_before"
        if word == "deny":
            approval.status = "denied"
            deployment.events["wave_denied"] += 1
            return None
        approval.approved_by.append(person)
        if len(approval.counting) >= self.required(deployment):
            self._approve(deployment, approval)
        return None

    def _approve(self, deployment: Deployment, approval: Approval) -> None:
        approval.status = "approved"
        if approval is not deployment.approval:
            deployment.events["wave_approved"] += 1
            return
        approval.was_given, approval.used = True, approval.broken
        approval.expires = max(self.now, deployment.start or 0) + deployment.policy.ttl_s
        if not approval.broken:
            deployment.status = "approved"

    @staticmethod
    def _may_not_decide(approval: Approval, person: str) -> str | None:
        if approval.reviewers and person not in approval.reviewers:
            return "approval.reviewer"
        return "forbidden" if not approval.reviewers and person == "viewer" else None

    def revoke_wave(self, deployment: Deployment, approval: Approval) -> str | None:
        if approval.used:
            return "approval.used"
        if approval.status not in {"pending", "approved"}:
            return "illegal_transition"
        approval.status = "revoked"
        deployment.events["wave_revoked"] += 1
        return None

    def _are_reviewers_wrong(
        self,
        policy: Policy,
        requester: str,
        reviewers: tuple[str, ...],
        *,
        has_glass: bool,
        decided: Collection[str] = (),
    ) -> bool:
        """Return whether a non-empty list is too short, or names a person who neither can approve nor has approved."""
        others = set(reviewers) - set(decided)
        is_self = requester in others and (has_glass or not policy.self_approval)
        return bool(reviewers) and (is_self or bool(self.gone & others) or len(reviewers) < max(1, policy.approvals))

    def change_reviewers(self, deployment: Deployment, reviewers: tuple[str, ...]) -> str | None:
        pending = [
            approval
            for approval in (deployment.approval, *(approval for _, approval in deployment.wave_approvals))
            if approval is not None and approval.status == "pending"
        ]
        is_open = deployment.status in {"pending_approval", "deploying"}
        if not is_open and deployment.approval not in pending:
            return "reviewers.closed"
        if deployment.approval is None and "approval" not in deployment.strategy.holds:
            return "approval.not_needed"
        has_glass = deployment.approval is not None and deployment.approval.broken
        decided = [person for approval in pending for person in approval.approved_by]
        if self._are_reviewers_wrong(
            deployment.policy, deployment.requester, reviewers, has_glass=has_glass, decided=decided
        ):
            return "invalid"
        deployment.reviewers = reviewers
        deployment.events["change_reviewers"] += 1
        for approval in pending:
            approval.reviewers = reviewers
            if len(approval.counting) >= self.required(deployment):
                self._approve(deployment, approval)
        return None

    # What deployments wait for.

    def lacks_reviewers(self, deployment: Deployment, approval: Approval | None) -> bool:
        """Return whether a wave's approval has reviewers, but too few of them can approve or have approved."""
        if approval is None or not approval.reviewers:
            return False
        may_be_self = deployment.policy.self_approval and not (deployment.approval and deployment.approval.broken)
        able = set(approval.reviewers) - self.gone - (set() if may_be_self else {approval.requester})
        return len(able | set(approval.counting)) < self.required(deployment)

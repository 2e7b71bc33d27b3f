"""The replay gate: whether a regression permits a deployment to start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from byteor.engine.blockers import Blocker, BlockerCode
from byteor.engine.machines import UNFINISHED_REGRESSION, RegressionStatus


class GateMode(StrEnum):
    """Whether deployments are tested by a regression, and whether its result can block them.

    The modes are ordered from loose to strict.
    """

    OFF = "off"
    WARN = "warn"
    REQUIRE = "require"


@dataclass(frozen=True, slots=True)
class GateFacts:
    """The facts that decide whether the gate blocks a deployment.

    ``status`` is that of the deployment's regression, and None if the regression was deleted or was completed by a
    worker of an older release, so that it has no usable result.
    ``progress`` is the number of known results and of all results. ``verdicts`` is the number of verdicts, without
    those that are ``not_tested``. ``failed`` is the number of verdicts that are ``failed`` or ``unstable``.
    ``unaccepted`` is the number of groups that lack an acceptance for at least one baseline that shows them. ``more``
    is the number of differences without a group. ``work`` is the work of the candidate and of the baselines. ``error``
    is None unless the regression was canceled or could not be completed. ``min_verdicts`` and
    ``max_work_increase_percent`` are the settings that the deployment copied. ``until`` is when the deployment fails if
    the gate still blocks it, and None without such a deadline.
    """

    status: RegressionStatus | None
    progress: tuple[int, int] = (0, 0)
    verdicts: int = 0
    failed: int = 0
    unaccepted: int = 0
    more: int = 0
    work: tuple[int, int] = (0, 0)
    error: str | None = None
    min_verdicts: int = 0
    max_work_increase_percent: int | None = None
    until: datetime | None = None

    @property
    def is_running(self) -> bool:
        """Whether the regression has not finished."""
        return self.status in UNFINISHED_REGRESSION

    @property
    def is_incomplete(self) -> bool:
        """Whether the regression has no ``status``, was canceled, or could not be completed."""
        return self.status in {None, RegressionStatus.CANCELLED} or self.error is not None


def find_gate_blockers(facts: GateFacts) -> list[Blocker]:
    """Return the blockers of the gate. Without blockers, the gate is open."""
    rules: list[Callable[[GateFacts], Blocker | None]] = [_running, _failed, _differs, _too_few]
    return [found for rule in rules if (found := rule(facts)) is not None]


def _running(facts: GateFacts) -> Blocker | None:
    if not facts.is_running:
        return None
    done, total = facts.progress
    known = "result is known" if total == 1 else "results are known"
    is_queued = facts.status is RegressionStatus.QUEUED
    so_far = "It has not started" if is_queued else f"{done:,} of {total:,} {known}"
    return Blocker(BlockerCode.GATE_RUNNING, f"The regression has not finished. {so_far}.")


def _failed(facts: GateFacts) -> Blocker | None:
    if facts.is_running:
        return None
    reasons = []
    if facts.status is None:
        reasons.append(
            "The regression was deleted, or was completed by a worker of an older release. Another one is requested "
            "automatically."
        )
    elif facts.status is RegressionStatus.CANCELLED:
        reasons.append("The regression was canceled. Request another one for the config bundle.")
    elif facts.error is not None:
        reasons.append("The regression could not be completed. Request another one for the config bundle.")
    if facts.failed:
        what = "verdict is" if facts.failed == 1 else "verdicts are"
        reasons.append(f'{facts.failed:,} {what} "failed" or "unstable".')
    candidate, baseline = facts.work
    limit = facts.max_work_increase_percent
    if limit is not None and candidate * 100 > baseline * (100 + limit) and baseline:
        increase = candidate / baseline - 1
        reasons.append(
            f"The candidate needs {increase:.1%} more work than the baselines. At most {limit}% more is permitted."
        )
    return Blocker(BlockerCode.GATE_FAILED, " ".join(reasons), until=facts.until) if reasons else None


def _differs(facts: GateFacts) -> Blocker | None:
    if facts.is_running or not (facts.unaccepted or facts.more):
        return None
    reasons = []
    if facts.unaccepted:
        what = "group of differences is" if facts.unaccepted == 1 else "groups of differences are"
        reasons.append(f"{facts.unaccepted:,} {what} not accepted.")
    if facts.more:
        what = "further difference is" if facts.more == 1 else "further differences are"
        reasons.append(f"{facts.more:,} {what} in no group and cannot be accepted.")
    return Blocker(BlockerCode.GATE_DIFFERS, " ".join(reasons), until=facts.until)


def _too_few(facts: GateFacts) -> Blocker | None:
    if facts.is_running or facts.is_incomplete or facts.verdicts >= facts.min_verdicts:
        return None
    has = f'{facts.verdicts:,} verdict{"" if facts.verdicts == 1 else "s"} other than "not tested"'
    verb = "is" if facts.min_verdicts == 1 else "are"
    detail = f"The regression has {has}, and at least {facts.min_verdicts:,} {verb} required."
    return Blocker(BlockerCode.GATE_TOO_FEW, detail, until=facts.until)

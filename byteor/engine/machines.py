"""The state machines of deployments, approvals, artifacts, requested captures, replays, bisects and regressions.

The module also defines the actions of offers, and the progress of an agent in a deployment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class StateMachine:
    """A state machine. ``table`` maps each event to its transitions, from the old status to the new one."""

    name: str
    states: type[StrEnum]
    events: type[StrEnum]
    table: Mapping[StrEnum, Mapping[StrEnum, StrEnum]]

    def target(self, status: str, event: StrEnum) -> StrEnum | None:
        """Return the status after ``event`` in ``status``; None if that transition is not permitted."""
        return self.table[event].get(self.states(status))


class DeploymentStatus(StrEnum):
    PENDING_APPROVAL = "pending_approval"
    APPROVED = "approved"
    DENIED = "denied"
    BUILDING = "building"
    DEPLOYING = "deploying"
    ACTIVE = "active"
    FAILED = "failed"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"


class DeploymentEvent(StrEnum):
    APPROVE = "approve"
    DENY = "deny"
    BUILD = "build"
    OFFER = "offer"
    ACTIVATE = "activate"
    FAIL = "fail"
    ABORT = "abort"
    RETRY = "retry"
    ROLL_BACK = "roll_back"
    RESTORE = "restore"


_D, _E = DeploymentStatus, DeploymentEvent

DEPLOYMENT = StateMachine(
    "deployment",
    DeploymentStatus,
    DeploymentEvent,
    {
        _E.APPROVE: {_D.PENDING_APPROVAL: _D.APPROVED},
        _E.DENY: {_D.PENDING_APPROVAL: _D.DENIED},
        _E.BUILD: {_D.APPROVED: _D.BUILDING},
        _E.OFFER: {_D.BUILDING: _D.DEPLOYING},
        _E.ACTIVATE: {_D.DEPLOYING: _D.ACTIVE},
        _E.FAIL: dict.fromkeys(
            (_D.PENDING_APPROVAL, _D.APPROVED, _D.BUILDING, _D.DEPLOYING, _D.ROLLING_BACK), _D.FAILED
        ),
        _E.ABORT: dict.fromkeys((_D.PENDING_APPROVAL, _D.APPROVED, _D.BUILDING, _D.DEPLOYING), _D.FAILED),
        _E.RETRY: {_D.FAILED: _D.DEPLOYING, _D.DEPLOYING: _D.DEPLOYING, _D.ACTIVE: _D.ACTIVE},
        _E.ROLL_BACK: dict.fromkeys((_D.ACTIVE, _D.FAILED, _D.DEPLOYING), _D.ROLLING_BACK),
        _E.RESTORE: {_D.ROLLING_BACK: _D.ROLLED_BACK},
    },
)
UNDER_WAY = (_D.BUILDING, _D.DEPLOYING, _D.ROLLING_BACK)
IN_FLIGHT = (_D.APPROVED, *UNDER_WAY)


class ApprovalStatus(StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"
    REVOKED = "revoked"


class ApprovalEvent(StrEnum):
    APPROVE = "approve"
    DENY = "deny"
    EXPIRE = "expire"
    REVOKE = "revoke"


_A, _AE = ApprovalStatus, ApprovalEvent

APPROVAL = StateMachine(
    "approval",
    ApprovalStatus,
    ApprovalEvent,
    {
        _AE.APPROVE: {_A.PENDING: _A.APPROVED},
        _AE.DENY: {_A.PENDING: _A.DENIED},
        _AE.EXPIRE: {_A.PENDING: _A.EXPIRED},
        _AE.REVOKE: {_A.PENDING: _A.REVOKED, _A.APPROVED: _A.REVOKED},
    },
)


class ArtifactStatus(StrEnum):
    RECEIVED = "received"
    VERIFIED = "verified"
    REJECTED = "rejected"


class ArtifactEvent(StrEnum):
    VERIFY = "verify"
    REJECT = "reject"


_F, _FE = ArtifactStatus, ArtifactEvent

ARTIFACT = StateMachine(
    "artifact",
    ArtifactStatus,
    ArtifactEvent,
    {_FE.VERIFY: {_F.RECEIVED: _F.VERIFIED}, _FE.REJECT: {_F.RECEIVED: _F.REJECTED}},
)


class ReplayStatus(StrEnum):
    PENDING_APPROVAL = "pending_approval"
    QUEUED = "queued"
    DENIED = "denied"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    DIVERGED = "diverged"
    FAILED = "failed"


class ReplayEvent(StrEnum):
    APPROVE = "approve"
    DENY = "deny"
    START = "start"
    SUCCEED = "succeed"
    DIVERGE = "diverge"
    FAIL = "fail"


_R, _RE = ReplayStatus, ReplayEvent

REPLAY = StateMachine(
    "replay",
    ReplayStatus,
    ReplayEvent,
    {
        _RE.APPROVE: {_R.PENDING_APPROVAL: _R.QUEUED},
        _RE.DENY: {_R.PENDING_APPROVAL: _R.DENIED},
        _RE.START: {_R.QUEUED: _R.RUNNING},
        _RE.SUCCEED: {_R.RUNNING: _R.SUCCEEDED},
        _RE.DIVERGE: {_R.RUNNING: _R.DIVERGED},
        _RE.FAIL: {_R.QUEUED: _R.FAILED, _R.RUNNING: _R.FAILED},
    },
)


class BisectStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class BisectEvent(StrEnum):
    START = "start"
    SUCCEED = "succeed"
    FAIL = "fail"
    CANCEL = "cancel"


_B, _BE = BisectStatus, BisectEvent

BISECT = StateMachine(
    "bisect",
    BisectStatus,
    BisectEvent,
    {
        _BE.START: {_B.QUEUED: _B.RUNNING},
        _BE.SUCCEED: {_B.RUNNING: _B.SUCCEEDED},
        _BE.FAIL: {_B.QUEUED: _B.FAILED, _B.RUNNING: _B.FAILED},
        _BE.CANCEL: {_B.RUNNING: _B.CANCELLED},
    },
)


class RegressionStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    PASSED = "passed"
    DIFFERS = "differs"
    FAILED = "failed"
    CANCELLED = "cancelled"


class RegressionEvent(StrEnum):
    START = "start"
    SUCCEED = "succeed"
    DIFFER = "differ"
    FAIL = "fail"
    CANCEL = "cancel"


_G, _GE = RegressionStatus, RegressionEvent

REGRESSION = StateMachine(
    "regression",
    RegressionStatus,
    RegressionEvent,
    {
        _GE.START: {_G.QUEUED: _G.RUNNING},
        _GE.SUCCEED: {_G.RUNNING: _G.PASSED},
        _GE.DIFFER: {_G.RUNNING: _G.DIFFERS},
        _GE.FAIL: {_G.QUEUED: _G.FAILED, _G.RUNNING: _G.FAILED},
        _GE.CANCEL: {_G.QUEUED: _G.CANCELLED, _G.RUNNING: _G.CANCELLED},
    },
)
UNFINISHED_REGRESSION = (_G.QUEUED, _G.RUNNING)
# The final states of a regression that was not canceled. ``failed`` includes regressions that could not be completed.
FINISHED_REGRESSION = (_G.PASSED, _G.DIFFERS, _G.FAILED)


class CaptureStatus(StrEnum):
    """The status of a requested capture."""

    REQUESTED = "requested"
    UPLOADED = "uploaded"
    EXPIRED = "expired"


class CaptureEvent(StrEnum):
    UPLOAD = "upload"
    EXPIRE = "expire"


CAPTURE = StateMachine(
    "capture",
    CaptureStatus,
    CaptureEvent,
    {
        CaptureEvent.UPLOAD: {CaptureStatus.REQUESTED: CaptureStatus.UPLOADED},
        CaptureEvent.EXPIRE: {CaptureStatus.REQUESTED: CaptureStatus.EXPIRED},
    },
)
MACHINES = (DEPLOYMENT, APPROVAL, ARTIFACT, REPLAY, BISECT, REGRESSION, CAPTURE)


class OfferAction(StrEnum):
    """What an agent should do with the bundle that it is offered."""

    ACTIVATE = "activate"
    ROLLBACK = "rollback"


class AgentProgress(StrEnum):
    """An agent's progress in a deployment. The agent's reports on one offer only move it forward."""

    PENDING = "pending"
    OFFERED = "offered"
    DOWNLOADING = "downloading"
    ACTIVATING = "activating"
    ACTIVE = "active"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"


# The final states of an agent's progress.
FINISHED = (AgentProgress.ACTIVE, AgentProgress.FAILED, AgentProgress.ROLLED_BACK)
PROGRESS_RANK: dict[AgentProgress, int] = {
    AgentProgress.PENDING: 0,
    AgentProgress.OFFERED: 1,
    AgentProgress.DOWNLOADING: 2,
    AgentProgress.ACTIVATING: 3,
    **dict.fromkeys(FINISHED, 4),
}

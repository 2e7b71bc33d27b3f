"""Commands on artifacts, replays and regressions, the rollback of deployments, and requests for captures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apps.artifacts.api.serializers.bisects import BisectArtifactSerializer, BisectSerializer
from apps.artifacts.api.serializers.regressions import (
    AcceptanceSerializer,
    AcceptDifferencesSerializer,
    CancelRegressionSerializer,
)
from apps.artifacts.api.serializers.replays import CancelSerializer, ReplayArtifactSerializer, ReplaySerializer
from apps.artifacts.api.serializers.requested_captures import RequestCaptureSerializer, RequestedCaptureSerializer
from apps.artifacts.api.serializers.rollbacks import RollBackSerializer
from apps.artifacts.models import Artifact, Bisect, Replay, RequestedCapture
from apps.artifacts.services import bisects, proven_rollbacks, replays, requested_captures
from apps.fleet.models import Agent
from apps.fleet.services.keys import check_enrolled
from apps.releases.models import Acceptance, Deployment, Regression
from apps.releases.services import acceptances, regressions, rollbacks
from apps.tenancy.actors import Actor
from apps.tenancy.permissions import Permission as P
from byteor_cloud.api.commands import command
from byteor_cloud.api.operations import Operation
from byteor_cloud.errors import Conflict, Unprocessable, UnprovenRollback


@command(check=replays.check_request, creates="../../replays")
@Operation(
    "replayArtifact",
    P.OPERATE_ENVIRONMENT,
    body=ReplayArtifactSerializer,
    responses={202: ReplaySerializer},
    errors=(Conflict, Unprocessable),
    example={"mode": "dry_run"},
)
def replay(artifact: Artifact, *, actor: Actor, **request: Any) -> Replay:
    """Replay an artifact.

    Runs the recorded input of a verified incident bundle through a version. By default this is a dry run. The mode
    `execute` also performs the side effects that the allowlists of the server and the stages permit. Returns 409 if the
    environment does not permit `execute`. If an approval is needed and the request contains none, the approval is
    requested, and the replay waits for it. Returns 422 if the request names neither a version nor a config bundle, and
    no version has the artifact's spec hash.
    """
    return replays.request(artifact, environment=artifact.environment, actor=actor, **request)


@command(creates="../../bisects")
@Operation(
    "bisectArtifact",
    P.OPERATE_ENVIRONMENT,
    body=BisectArtifactSerializer,
    responses={202: BisectSerializer},
    errors=(Conflict, Unprocessable),
    example={"predicate": "fails"},
)
def bisect(artifact: Artifact, *, actor: Actor, **request: Any) -> Bisect:
    """Bisect an artifact.

    Searches for the first bad version of a pipeline by replaying a verified incident bundle through its versions. The
    search covers the versions from `good` to `bad`. It replays the oldest and the newest of these versions, and then
    only the versions between them that the search needs. With `exhaustive`, it replays all versions from `good` to
    `bad`.
    """
    return bisects.request(artifact, environment=artifact.environment, actor=actor, **request)


@command(check=lambda agent, **request: check_enrolled(agent), creates="captures")
@Operation(
    "requestCapture",
    P.OPERATE_ENVIRONMENT,
    body=RequestCaptureSerializer,
    responses={202: RequestedCaptureSerializer},
    errors=(Conflict,),
    example={"reason": "The latency has doubled.", "last_n": 10000},
)
def capture(agent: Agent, *, reason: str, last_n: int | None = None, actor: Actor) -> RequestedCapture:
    """Request a capture from an agent.

    Asks the agent to upload a capture of the pipeline that it runs. The response to the agent's next heartbeat contains
    the command `capture`. The agent then uploads an incident bundle, or a diagnostic that says why it cannot upload
    one. `getRequestedCapture` shows whether the agent has uploaded the capture. The request expires after an hour if
    nothing was uploaded. A capture that is uploaded later is still stored. At most one capture a minute can be
    requested from an agent. Further requests return 429.
    """
    return requested_captures.request(agent, reason=reason, last_n=last_n, actor=actor)


@command(check=replays.check_cancellable)
@Operation(
    "cancelReplay",
    P.OPERATE_ENVIRONMENT,
    body=CancelSerializer,
    errors=(Conflict,),
    example={"reason": "The wrong version was chosen."},
)
def cancel(row: Replay, *, reason: str, actor: Actor) -> None:
    """Cancel a replay.

    Cancels a queued or running dry run. Its status becomes `failed`, with the error code `cancelled`.
    """
    replays.cancel(row, reason=reason, actor=actor)


@command(check=regressions.check_cancellable)
@Operation(
    "cancelRegression",
    P.OPERATE_ENVIRONMENT,
    body=CancelRegressionSerializer,
    errors=(Conflict,),
    example={"reason": "The draft has changed."},
)
def cancel_regression(row: Regression, *, reason: str, actor: Actor) -> None:
    """Cancel a regression.

    Cancels a queued or running regression. The verdicts that it has already stored are kept. Other regressions use them
    instead of computing them again.
    """
    regressions.cancel(row, reason=reason, actor=actor)


@command(check=acceptances.check_acceptable)
@Operation(
    "acceptDifferences",
    P.OPERATE_ENVIRONMENT,
    body=AcceptDifferencesSerializer,
    responses={201: AcceptanceSerializer},
    errors=(Conflict,),
    example={"groups": ["7d1e" * 16], "reason": "The new mask is shorter."},
)
def accept(row: Regression, *, groups: Sequence[str], reason: str, actor: Actor) -> Acceptance:
    """Accept differences.

    States that groups of differences of a config bundle are wanted, for all compared configurations and golden results
    that show them in the regression. The acceptance is valid for all deployments of the configuration in this
    environment, until one of them becomes active. If deployments need approval, only a person can accept differences.
    An acceptance by the requester of a deployment then counts for that deployment only if `allow_self_approval` is true
    and the deployment does not use break-glass. If a deployment that needs approval has reviewers, only their
    acceptances count for it.
    """
    return acceptances.accept(row, groups=groups, reason=reason, actor=actor)


@command(check=rollbacks.check_start)
@Operation(
    "rollBackDeployment",
    P.OPERATE_ENVIRONMENT,
    body=RollBackSerializer,
    errors=(Conflict, UnprovenRollback, Unprocessable),
    example={"reason": "The latency has doubled."},
)
def rollback(
    deployment: Deployment, *, reason: str, artifact: Artifact | None = None, proceed: bool = False, actor: Actor
) -> Deployment | UnprovenRollback:
    """Roll back a deployment.

    Affects all agents that should run the deployment's bundle. Each of them is offered the bundle that it ran before.
    If that bundle cannot be restored, the agent is offered the bundle of the deployment in `restores`. The deployment's
    configuration becomes known bad.

    With `artifact_id`, a dry run of the whole capture must first succeed on each configuration that the rollback would
    restore. There may be several, because agents may have run different configurations before. Only dry runs that were
    requested after the creation of the deployment count. If a replay diverged or failed, the response is the error
    `rollback.proof_failed` with its `replay_id`. Otherwise, the request starts the missing replays. Until all replays
    have finished, the response is the error `rollback.proof_pending` with the `replay_id` of an unfinished replay and
    `Retry-After`. Repeat the request then. When all replays have succeeded, the next request starts the rollback. A
    replay that was canceled or interrupted is requested again. Returns 409 if the rollback would restore more than 10
    configurations, or a configuration of another pipeline. Returns 422 if no version in the environment has the
    artifact's spec hash. With `proceed`, the rollback starts immediately, without these checks.
    """
    if artifact is None or proceed:
        return rollbacks.start(deployment, reason=reason, skips_proof=artifact is not None, actor=actor)
    return proven_rollbacks.start(deployment, artifact=artifact, reason=reason, actor=actor)

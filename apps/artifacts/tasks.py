"""The functions that run this app's jobs."""

from __future__ import annotations

from uuid import UUID

from apps.artifacts.jobs import CHECK_WHAT_RUNS, EXPIRE_CAPTURES, RETENTION, IngestArtifact, RunReplay, StepBisect
from apps.artifacts.services import (
    bisects,
    current_tests,
    derived,
    expected_results,
    regression_runs,
    replay_runs,
    replays,
    requested_captures,
    retention,
    uploads,
)
from apps.releases.jobs import CheckCurrent, ReplayDecided, RunRegression
from byteor_cloud.errors import NotStored
from byteor_cloud.worker.jobs import Claim, GivenUp, runs, runs_claimed, runs_periodically


def _reject_after_last_attempt(why: GivenUp, job: IngestArtifact) -> None:
    """Reject the artifact, unless the blob store lost its bytes. In that case the agent can upload the file again."""
    if why.killed:
        detail = "The check of this artifact repeatedly killed the worker's process."
        uploads.reject_unchecked(job.artifact_id, "worker_killed", detail)
    elif not isinstance(why.cause, NotStored):
        detail = f"The check of this artifact failed repeatedly: {type(why.cause).__name__}."
        uploads.reject_unchecked(job.artifact_id, "unreadable", detail)


@runs_claimed(IngestArtifact, gave_up=_reject_after_last_attempt)
def ingest(claim: Claim, job: IngestArtifact) -> None:
    """Verify or reject a received artifact. ``_reject_after_last_attempt`` runs if no attempt completes the check."""
    uploads.ingest(job.artifact_id, claim)


def _fail_after_last_attempt(why: GivenUp, job: RunReplay) -> None:
    replay_runs.give_up(job.replay_id, replay_runs.INTERRUPTED if why.killed else why.error)


@runs_claimed(RunReplay, gave_up=_fail_after_last_attempt)
def replay(claim: Claim, job: RunReplay) -> None:
    """Run a replay. If an attempt fails, a dry run is attempted again, but an execute replay that had started fails."""
    replay_runs.run(job.replay_id, claim)


def _fail_bisect(why: GivenUp, job: StepBisect) -> None:
    bisects.give_up(job.bisect_id, why.error)


@runs(StepBisect, gave_up=_fail_bisect)
def step_bisect(job: StepBisect) -> None:
    """Request the next replays of a bisect, or finish the bisect."""
    bisects.step(job.bisect_id)


def _fail_regression(why: GivenUp, job: RunRegression) -> None:
    regression_runs.give_up(job.regression_id, why.error, is_killed=why.killed)


@runs_claimed(RunRegression, gave_up=_fail_regression)
def regression(claim: Claim, job: RunRegression) -> None:
    """Run a regression. Verdicts that were stored by an earlier attempt are not computed again."""
    regression_runs.run(job.regression_id, claim)


@runs(ReplayDecided)
def replay_decided(job: ReplayDecided) -> None:
    """Queue, deny or fail the replays of an approval that was decided, expired or revoked."""
    replays.follow_approval(job.approval_id)


@runs(CheckCurrent)
def check_current(job: CheckCurrent) -> None:
    """Add accepted results to a pipeline's golden fixtures, and queue the regression of what runs now if it is due."""
    environment_id = UUID(job.environment_id)
    expected_results.expect_accepted(environment_id, job.pipeline)
    current_tests.queue_due(environment_id, job.pipeline)


@runs_periodically(CHECK_WHAT_RUNS)
def check_what_runs() -> None:
    """Add accepted results to the golden fixtures of all environments, and queue due regressions of what runs now."""
    expected_results.expect_accepted()
    current_tests.queue_due()


@runs_periodically(EXPIRE_CAPTURES)
def expire_captures() -> None:
    """Expire the requested captures that no agent uploaded within an hour."""
    requested_captures.expire_overdue()


@runs_periodically(RETENTION)
def retain() -> None:
    """Delete old artifacts, requested captures and regressions, and agents that were decommissioned long ago.

    Also delete unused verdicts, unreferenced blobs, and unused folders of this host.
    """
    retention.delete_old_regressions()
    retention.delete_unused_verdicts()
    retention.delete_old_artifacts()
    requested_captures.delete_old()
    retention.delete_old_agents()
    retention.list_stray_blobs()
    retention.delete_unreferenced_blobs()
    derived.delete_unused()

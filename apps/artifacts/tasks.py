"""The worker's jobs of this app."""

from __future__ import annotations

from apps.artifacts import retention
from apps.artifacts.jobs import RETENTION, IngestArtifact, RunReplay
from apps.artifacts.services import replays, uploads
from apps.releases.jobs import ReplayDecided
from byteor_cloud.jobs import Claim, GivenUp, runs, runs_claimed, runs_periodically


def _ingest_given_up(why: GivenUp, job: IngestArtifact) -> None:
    if why.killed:
        uploads.reject_killed(job.artifact_id)


@runs_claimed(IngestArtifact, gave_up=_ingest_given_up)
def ingest(claim: Claim, job: IngestArtifact) -> None:
    """Check a received artifact; one that kills the worker's process again and again is rejected."""
    uploads.ingest(job.artifact_id, claim)


def _replay_given_up(why: GivenUp, job: RunReplay) -> None:
    replays.give_up(job.replay_id, replays.INTERRUPTED if why.killed else why.error)


@runs_claimed(RunReplay, gave_up=_replay_given_up)
def replay(claim: Claim, job: RunReplay) -> None:
    """Run a replay; after the last attempt it is failed, and at once when side effects may have happened."""
    replays.run(job.replay_id, claim)


@runs(ReplayDecided)
def replay_decided(job: ReplayDecided) -> None:
    """An approval was decided, expired or revoked: what waits for it goes on or ends."""
    replays.follow_approval(job.approval_id)


@runs_periodically(RETENTION)
def retain() -> None:
    """Once an hour: artifacts past their time, agents that left long ago, and bytes that nothing refers to."""
    retention.expire_artifacts()
    retention.forget_agents()
    retention.note_strays()
    retention.remove_unreferenced()

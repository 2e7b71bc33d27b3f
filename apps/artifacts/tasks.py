"""The worker's jobs of this app."""

from __future__ import annotations

from apps.artifacts import retention
from apps.artifacts.services import replays, uploads
from byteor_cloud.jobs import Claim, GivenUp, Lane, claimed_job, job, periodic


def _ingest_given_up(why: GivenUp, *, artifact_id: str) -> None:
    if why.killed:
        uploads.reject_killed(artifact_id)


@claimed_job("artifacts.ingest", lane=Lane.INGEST, gave_up=_ingest_given_up)
def ingest(claim: Claim, artifact_id: str) -> None:
    """Check a received artifact; one that kills the worker's process again and again is rejected."""
    uploads.ingest(artifact_id, claim)


def _replay_given_up(why: GivenUp, *, replay_id: str) -> None:
    replays.give_up(replay_id, replays.INTERRUPTED if why.killed else why.error)


@claimed_job("artifacts.replay", lane=Lane.REPLAY, gave_up=_replay_given_up)
def replay(claim: Claim, replay_id: str) -> None:
    """Run a replay; after the last attempt it is failed, and at once when side effects may have happened."""
    replays.run(replay_id, claim)


@job("artifacts.replay_decided", lane=Lane.INGEST)
def replay_decided(approval_id: str) -> None:
    """An approval was decided, expired or revoked: what waits for it goes on or ends."""
    replays.follow_approval(approval_id)


@periodic("artifacts.retention", every_s=3600, at_s=17 * 60, lane=Lane.CLEANING)
def retain() -> None:
    """Once an hour: artifacts past their time, agents that left long ago, and bytes that nothing refers to."""
    retention.expire_artifacts()
    retention.forget_agents()
    retention.note_strays()
    retention.remove_unreferenced()

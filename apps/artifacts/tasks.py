"""The worker's jobs of this app."""

from __future__ import annotations

from apps.artifacts import retention
from apps.artifacts.services import replays, uploads
from byteor_cloud.jobs import final_job, job, periodic


@job("artifacts.ingest")
def ingest(artifact_id: str) -> None:
    """Check a received artifact."""
    uploads.ingest(artifact_id)


@final_job("artifacts.replay")
def replay(replay_id: str, *, last: bool) -> None:
    """Run a replay; after the last attempt it is failed, and at once when side effects may have happened."""
    try:
        replays.run(replay_id)
    except Exception as error:
        replays.note_error(replay_id, f"{type(error).__name__}: {error}", last=last)
        raise


@job("artifacts.replay_decided")
def replay_decided(approval_id: str) -> None:
    """An approval was decided, expired or revoked: what waits for it goes on or ends."""
    replays.follow_approval(approval_id)


@periodic("artifacts.retention", cron="17 * * * *")
def retain() -> None:
    """Once an hour: artifacts past their time, agents that left long ago, and bytes that nothing refers to."""
    retention.expire_artifacts()
    retention.forget_agents()
    retention.note_strays()
    retention.remove_unreferenced()

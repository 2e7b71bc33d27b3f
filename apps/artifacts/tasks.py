"""The worker's jobs of this app."""

from __future__ import annotations

from apps.artifacts import retention, services
from byteor_cloud.jobs import final_job, job, periodic


@job("artifacts.ingest")
def ingest(artifact_id: str) -> None:
    """Check a received artifact."""
    services.ingest(artifact_id)


@final_job("artifacts.replay")
def replay(replay_id: str, *, last: bool) -> None:
    """Run a replay; after the last attempt it is failed."""
    try:
        services.run_replay(replay_id)
    except Exception as error:
        if last:
            services.give_up_replay(replay_id, f"{type(error).__name__}: {error}")
        raise


@periodic("artifacts.retention", cron="17 * * * *")
def retain() -> None:
    """Once an hour: artifacts past their time, and bytes that nothing refers to."""
    retention.expire_artifacts()
    retention.remove_orphans()

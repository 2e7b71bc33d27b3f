"""The jobs of this app. ``tasks.py`` has the functions that run them."""

from __future__ import annotations

from byteor_cloud.worker.jobs import Job, JobLane, Periodic


class IngestArtifact(Job, name="artifacts.ingest", lane=JobLane.INGEST):
    """Verify or reject a received artifact."""

    artifact_id: str


class RunReplay(Job, name="artifacts.replay", lane=JobLane.REPLAY):
    """Run a replay."""

    replay_id: str


class StepBisect(Job, name="artifacts.bisect", lane=JobLane.REPLAY):
    """Request the next replays of a bisect, or end it."""

    bisect_id: str


RETENTION = Periodic("artifacts.retention", every_s=3600, at_s=17 * 60, lane=JobLane.CLEANING)

"""The jobs of this app. The functions that run them are in ``tasks.py``."""

from __future__ import annotations

from byteor_cloud.worker.jobs import Job, JobLane, Periodic


class IngestArtifact(Job, name="artifacts.ingest", lane=JobLane.INGEST):
    """Check a received artifact and set its status to ``verified`` or ``rejected``."""

    artifact_id: str


class RunReplay(Job, name="artifacts.replay", lane=JobLane.REPLAY):
    """Run a queued replay."""

    replay_id: str


class StepBisect(Job, name="artifacts.bisect", lane=JobLane.REPLAY):
    """Request the next replays of a bisect, or finish the bisect."""

    bisect_id: str


EXPIRE_CAPTURES = Periodic("artifacts.expire_captures", every_s=60, lane=JobLane.CLEANING)
CHECK_WHAT_RUNS = Periodic("artifacts.check_what_runs", every_s=60, lane=JobLane.CLEANING)
RETENTION = Periodic("artifacts.retention", every_s=3600, at_s=17 * 60, lane=JobLane.CLEANING)

"""The jobs of this app, and the jobs that it enqueues for ``apps.artifacts``."""

from __future__ import annotations

from byteor_cloud.worker.jobs import Job, JobLane, Periodic


class BuildBundle(Job, name="releases.build", lane=JobLane.RELEASES):
    """Build a deployment's bundle and make its first offers, if the deployment can start now."""

    deployment_id: str


class StepRollout(Job, name="releases.step", lane=JobLane.RELEASES):
    """Run one rollout step of a deployment."""

    deployment_id: str


class UndoBreakGlass(Job, name="releases.undo_break_glass", lane=JobLane.RELEASES):
    """Roll back or stop a break-glass deployment whose approval was denied, expired or revoked, if possible."""

    deployment_id: str


class OfferAfterHold(Job, name="releases.offer_after_hold", lane=JobLane.RELEASES):
    """Offer late joiners what they did not get while offers were held. While offers are held, check every minute."""

    environment_id: str


class ReplayDecided(Job, name="artifacts.replay_decided", lane=JobLane.INGEST):
    """Queue, deny or fail the replays of an approval that was decided, expired or revoked."""

    approval_id: str


class RunRegression(Job, name="artifacts.regression", lane=JobLane.REGRESSIONS):
    """Find or compute the verdicts of a regression, and finish it."""

    regression_id: str


class CheckCurrent(Job, name="artifacts.check_current", lane=JobLane.CLEANING):
    """Add accepted results to a pipeline's golden fixtures, and queue the regression of what runs now if it is due."""

    environment_id: str
    pipeline: str


DELETE_OLD_DETAILS = Periodic("releases.forget_particulars", every_s=3600, at_s=29 * 60, lane=JobLane.CLEANING)
RENEW_TESTS = Periodic("releases.renew_tests", every_s=60, lane=JobLane.CLEANING)
SWEEP = Periodic("releases.sweep", every_s=5)
SUM_PROGRESS = Periodic("releases.sum_progress", every_s=5, lane=JobLane.CLEANING)

"""The kinds of jobs of this app, and one that it enqueues for ``apps.artifacts``, whose ``tasks.py`` runs it."""

from __future__ import annotations

from byteor_cloud.jobs import Job, Lane, Periodic


class BuildBundle(Job, name="releases.build", lane=Lane.RELEASES):
    """Build a deployment's bundle and make its first offers, when its turn has come."""

    deployment_id: str


class StepRollout(Job, name="releases.step", lane=Lane.RELEASES):
    """Take a deployment's next step."""

    deployment_id: str


class UndoBreakGlass(Job, name="releases.undo_break_glass", lane=Lane.RELEASES):
    """Roll back a deployment that went ahead by break-glass and was not approved."""

    deployment_id: str


class ReplayDecided(Job, name="artifacts.replay_decided", lane=Lane.INGEST):
    """Let the replay that waited for an approval go on or end, as the approval was decided, expired or revoked."""

    approval_id: str


FORGET_PARTICULARS = Periodic("releases.forget_particulars", every_s=3600, at_s=29 * 60, lane=Lane.CLEANING)
SWEEP = Periodic("releases.sweep", every_s=5)

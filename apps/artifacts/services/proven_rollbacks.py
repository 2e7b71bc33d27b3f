"""Rollbacks that start only after a capture was replayed successfully on the configuration to restore."""

from __future__ import annotations

from django.db import transaction

from apps.artifacts.models import Artifact, Replay
from apps.artifacts.services import replays
from apps.artifacts.services.uploads import version_for
from apps.releases.models import Deployment
from apps.releases.services import rollbacks
from apps.releases.services.deployments import RELATED
from apps.tenancy.actors import Actor
from apps.tenancy.services.state import lock_row
from byteor.engine.machines import ArtifactStatus, ReplayStatus
from byteor_cloud.database.large_columns import without_large
from byteor_cloud.errors import Conflict, InvalidInput, Unprocessable, UnprovenRollback

_SEARCHED = 1_000  # newest incident bundles of an environment that are searched for those of a pipeline
_RETRY_S = 5  # seconds after which a client should repeat the request
# The error codes of replays that ended early, and therefore say nothing about the configuration.
_INCONCLUSIVE = frozenset({"cancelled", "interrupted"})
_UNFINISHED = frozenset({ReplayStatus.QUEUED, ReplayStatus.RUNNING})
_PROCEED = "To roll back without this proof, set `proceed`."


@transaction.atomic
def start(found: Deployment, *, artifact: Artifact, reason: str, actor: Actor) -> Deployment | UnprovenRollback:
    """Start a rollback if a dry run of the whole capture has succeeded on the configuration to restore.

    If there is no such replay, request it. While the replay has not succeeded, return the error instead of raising it,
    so that the caller's transaction keeps the requested replay. Raises Conflict if the rollback or the replay is not
    possible, InvalidInput if the capture belongs to another pipeline, and Unprocessable if its version is unknown.
    """
    # Because of the locks, no other deployment becomes the one to restore, and concurrent requests request one replay.
    environment = lock_row(found.environment, related=("project__organization",))
    deployment = lock_row(found, related=RELATED)
    target = rollbacks.check_start(deployment)
    _check_capture(artifact, deployment)
    proof = _find_proof(artifact, target)
    if proof is None:
        proof = replays.request(artifact, environment=environment, config_bundle=target.config_bundle, actor=actor)
    if proof.status == ReplayStatus.SUCCEEDED:
        return rollbacks.start(deployment, reason=reason, proof=proof.pk, actor=actor)
    if proof.status in _UNFINISHED:
        detail = "The capture is being replayed on the configuration that the rollback would restore. Try again later."
        return UnprovenRollback(
            f"{detail} {_PROCEED}", state="proof_pending", replay_id=str(proof.pk), retry_after=_RETRY_S
        )
    detail = f"The replay of the capture on the configuration that the rollback would restore has {proof.status}."
    return UnprovenRollback(f"{detail} {_PROCEED}", state="proof_failed", replay_id=str(proof.pk))


def find_captures(deployment: Deployment, most: int) -> list[Artifact]:
    """Return the newest verified incident bundles of the deployment's pipeline and environment, with their agent.

    Return at most ``most``. Only the environment's newest 1,000 incident bundles are searched.
    """
    rows = Artifact.objects.filter(environment=deployment.environment_id, kind=Artifact.Kind.INCIDENT_BUNDLE)
    newest = rows.order_by("-pk").values("pk")[:_SEARCHED]
    fitting = rows.filter(pk__in=newest, status=ArtifactStatus.VERIFIED, version__name=deployment.pipeline)
    return list(without_large(fitting.select_related("agent", "version")).order_by("-pk")[:most])


def _check_capture(artifact: Artifact, deployment: Deployment) -> None:
    """Raise an error unless the capture can be replayed and belongs to the deployment's pipeline.

    Raises Conflict if no replay is permitted, Unprocessable if the pipeline is unknown, and InvalidInput if it differs.
    """
    try:
        replays.check_permitted(artifact, deployment.environment, Replay.Mode.DRY_RUN)
    except Conflict as refused:
        raise Conflict(f"{refused.detail} {_PROCEED}", code=refused.reason) from None
    version = artifact.version or version_for(artifact, artifact.spec_hash or "")
    if version is None:
        detail = "No version of this environment has the artifact's spec hash, so its pipeline is unknown."
        raise Unprocessable(f"{detail} {_PROCEED}", code="replay.no_version")
    if version.name != deployment.pipeline:
        detail = f"The capture belongs to the pipeline {version.name}. Choose a capture of {deployment.pipeline}."
        raise InvalidInput.at("/artifact_id", detail, code="other_pipeline")


def _find_proof(artifact: Artifact, target: Deployment) -> Replay | None:
    """Return the newest dry run of the whole capture with the target's config bundle.

    Returns None if there is none, or if it was canceled or interrupted.
    """
    rows = Replay.objects.filter(
        artifact=artifact,
        config_bundle=target.config_bundle_id,
        mode=Replay.Mode.DRY_RUN,
        journal_lane=None,
        last_n=None,
        bisect=None,
    )
    newest = without_large(rows).order_by("-pk").first()
    return None if newest is None or newest.error_code in _INCONCLUSIVE else newest

"""Rollbacks that start only after a capture was replayed successfully on each configuration to restore."""

from __future__ import annotations

from collections.abc import Collection

from django.db import transaction
from django.db.models import F

from apps.artifacts.models import Artifact, Replay
from apps.artifacts.services import replays
from apps.artifacts.services.uploads import version_for
from apps.releases.models import ConfigBundle, Deployment
from apps.releases.services import rollbacks
from apps.releases.services.deployments import RELATED
from apps.tenancy.actors import Actor
from apps.tenancy.services.state import lock_row
from byteor.engine.machines import ArtifactStatus, ReplayStatus
from byteor_cloud.database.large_columns import without_large
from byteor_cloud.errors import Conflict, InvalidInput, Unprocessable, UnprovenRollback

_SEARCHED = 1_000  # newest incident bundles of an environment that are searched for those of a pipeline
_MAX_CONFIGURATIONS = 10  # configurations that a rollback with a proof may restore
_RETRY_S = 5  # seconds after which a client should repeat the request
# The error codes of canceled and interrupted replays, which say nothing about the configuration.
_INCONCLUSIVE = frozenset({"cancelled", "interrupted"})
_UNFINISHED = frozenset({ReplayStatus.QUEUED, ReplayStatus.RUNNING})
_PROCEED = "To roll back without this proof, set `proceed`."


@transaction.atomic
def start(found: Deployment, *, artifact: Artifact, reason: str, actor: Actor) -> Deployment | UnprovenRollback:
    """Start a rollback if a dry run of the whole capture has succeeded on each configuration to restore.

    Agents may return to different configurations. Unless a replay has failed or diverged, request one on each
    configuration that has none. While not all replays have succeeded, return UnprovenRollback instead of raising it, so
    that the caller's transaction keeps the requested replays. The error names a failed or diverged replay if there is
    one, otherwise an unfinished replay. Raises Conflict if the rollback or a replay is not possible, or if the capture
    cannot prove the rollback. Raises InvalidInput if the capture belongs to another pipeline, and Unprocessable if its
    version is unknown.
    """
    # Because of the locks, the deployments to restore do not change, and concurrent requests queue no replay twice.
    environment = lock_row(found.environment, related=("project__organization",))
    deployment = lock_row(found, related=RELATED)
    target = rollbacks.check_start(deployment)
    _check_capture(artifact, deployment)
    bundles = _find_config_bundles(deployment, target)
    found_proofs = _find_proofs(artifact, deployment, bundles)
    for proof in found_proofs.values():
        if proof.status not in _UNFINISHED and proof.status != ReplayStatus.SUCCEEDED:
            detail = f"The replay of the capture on a configuration that the rollback would restore has {proof.status}."
            return UnprovenRollback(f"{detail} {_PROCEED}", state="proof_failed", replay_id=str(proof.pk))
    proofs = [
        found_proofs.get(config_hash)
        or replays.request(artifact, environment=environment, config_bundle=bundle, actor=actor)
        for config_hash, bundle in bundles.items()
    ]
    for proof in proofs:
        if proof.status in _UNFINISHED:
            detail = "Not all replays of the capture on the configurations to restore have finished."
            return UnprovenRollback(
                f"{detail} Try again later. {_PROCEED}",
                state="proof_pending",
                replay_id=str(proof.pk),
                retry_after=_RETRY_S,
            )
    return rollbacks.start(deployment, reason=reason, proofs=[proof.pk for proof in proofs], actor=actor)


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


def _find_config_bundles(deployment: Deployment, target: Deployment) -> dict[str, ConfigBundle]:
    """Return a config bundle for each config hash that the rollback would restore, first that of ``target``.

    Raises Conflict if there are too many, or if agents would return to another pipeline.
    """
    bundles: dict[str, ConfigBundle] = {}
    for restored in rollbacks.find_restored(deployment, target):
        if restored.pipeline != deployment.pipeline:
            detail = f"Agents would return to the pipeline {restored.pipeline}, for which this capture proves nothing."
            raise Conflict(f"{detail} {_PROCEED}", code="rollback.other_pipeline")
        if restored.config_hash in bundles:
            continue
        if len(bundles) == _MAX_CONFIGURATIONS:
            detail = f"The rollback would restore more than {_MAX_CONFIGURATIONS} configurations."
            raise Conflict(f"{detail} {_PROCEED}", code="rollback.too_many_configurations")
        bundles[restored.config_hash] = restored.config_bundle
    return bundles


def _find_proofs(artifact: Artifact, deployment: Deployment, config_hashes: Collection[str]) -> dict[str, Replay]:
    """Return the newest dry run of the whole capture for each config hash, in the order of ``config_hashes``.

    Leaves out config hashes without a dry run, or whose newest dry run was canceled or interrupted. Replays do not
    store the engine version. Therefore, replays that were requested before the creation of the deployment do not count,
    because an older engine may have run them.
    """
    rows = Replay.objects.filter(
        artifact=artifact,
        config_bundle__config_hash__in=list(config_hashes),
        created_at__gte=deployment.created_at,
        mode=Replay.Mode.DRY_RUN,
        journal_lane=None,
        last_n=None,
        bisect=None,
    ).annotate(config_hash=F("config_bundle__config_hash"))
    newest = without_large(rows.order_by("config_hash", "-pk").distinct("config_hash"))
    found = {row.config_hash: row for row in newest if row.error_code not in _INCONCLUSIVE}
    return {config_hash: found[config_hash] for config_hash in config_hashes if config_hash in found}

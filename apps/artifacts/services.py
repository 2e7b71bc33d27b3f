"""Artifacts received and ingested; replays requested and run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, cast
from uuid import UUID

from django.conf import settings
from django.core.files.base import File
from django.db import IntegrityError, transaction
from django.utils import timezone

from apps.artifacts.models import Artifact, Replay
from apps.fleet.models import Agent
from apps.pipelines.models import Version
from apps.pipelines.services import installed_ops
from apps.releases.models import Deployment
from apps.tenancy import audit
from apps.tenancy.actors import Actor, system
from apps.tenancy.models import Environment
from apps.tenancy.policy import ReplayPolicy
from apps.tenancy.state import advance
from byteor_cloud import blobs
from byteor_cloud.engine.compiler import decode
from byteor_cloud.engine.machines import ArtifactEvent, ArtifactStatus, ReplayEvent, ReplayStatus
from byteor_cloud.engine.replay import (
    IncidentBundle,
    Mode,
    RejectedBundle,
    Status,
    extract,
    replay,
    validate,
)
from byteor_cloud.errors import Conflict, InvalidInput, Unprocessable
from byteor_cloud.jobs import enqueue

WORKER = system("artifacts")
_OUTCOME = {
    Status.SUCCEEDED: ReplayEvent.SUCCEED,
    Status.DIVERGED: ReplayEvent.DIVERGE,
    Status.FAILED: ReplayEvent.FAIL,
}


def receive(
    *,
    environment: Environment,
    agent: Agent,
    kind: str,
    captured_at: datetime,
    content_hash: str,
    file: File,  # type: ignore[type-arg]  # any kind of open file
    spec_hash: str | None = None,
    deployment_id: UUID | None = None,
    metadata: Mapping[str, Any] | None = None,
    actor: Actor,
) -> tuple[Artifact, bool]:
    """Store an upload; the artifact, and whether it is new: the same content of an environment is kept once."""
    deployment = None
    if deployment_id is not None:
        deployment = Deployment.objects.filter(pk=deployment_id, environment=environment).first()
        if deployment is None:
            raise InvalidInput.at("/deployment_id", "There is no such deployment here.", code="does_not_exist")
    known = Artifact.objects.filter(environment=environment, content_hash=content_hash)
    if (existing := known.first()) is not None:
        return existing, False
    blobs.put_file(content_hash, file)  # first: a row never names bytes that are not there
    try:
        with transaction.atomic():
            artifact = Artifact.objects.create(
                environment=environment,
                agent=agent,
                kind=kind,
                captured_at=captured_at,
                spec_hash=spec_hash,
                deployment=deployment,
                metadata=dict(metadata or {}),
                content_hash=content_hash,
                size_bytes=file.size,
            )
            audit.record(
                "artifact.receive",
                actor=actor,
                scope=environment,
                resource=("artifact", artifact.pk),
                changes={"kind": kind, "content_hash": content_hash, "size_bytes": file.size},
            )
            enqueue("artifacts.ingest", artifact_id=str(artifact.pk))
    except IntegrityError:
        if (existing := known.first()) is None:
            raise
        return existing, False  # the same upload on another connection was faster
    return artifact, True


@contextmanager
def _unpacked(artifact: Artifact) -> Iterator[IncidentBundle]:
    """The artifact's incident bundle in a folder that ends with the block. Raises RejectedBundle."""
    scratch = settings.CONFIG.data_dir / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as folder, blobs.read(artifact.content_hash) as source:
        extract(cast("BinaryIO", source), Path(folder))  # Django's storage says only IO[bytes]
        yield validate(Path(folder))


def ingest(artifact_id: str) -> None:
    """Check what was received: ``verified``, or ``rejected`` with reasons. Safe to run twice."""
    artifact = Artifact.objects.select_related("deployment__config_bundle").filter(pk=artifact_id).first()
    if artifact is None or artifact.status != ArtifactStatus.RECEIVED:
        return
    if artifact.kind != Artifact.Kind.INCIDENT_BUNDLE:
        advance(artifact, ArtifactEvent.VERIFY, actor=WORKER)
        return
    try:
        with _unpacked(artifact) as bundle:
            spec_hash = bundle.spec_hash
    except RejectedBundle as rejected:
        _reject(artifact, [{"code": r.code, "detail": _storable(r.detail)} for r in rejected.reasons])
        return
    if artifact.spec_hash not in {None, spec_hash}:
        detail = f"the upload said {artifact.spec_hash}, the bundle's spec.kv is {spec_hash}"
        _reject(artifact, [{"code": "spec_hash", "detail": detail}])
        return
    version = version_for(artifact, spec_hash)
    advance(artifact, ArtifactEvent.VERIFY, actor=WORKER, spec_hash=spec_hash, version=version)


def _storable(text: str) -> str:
    """A text that any store takes: an error may quote whatever strangers put into a bundle."""
    return "".join(character if character.isprintable() else "?" for character in text[:2000])


def _reject(artifact: Artifact, reasons: list[dict[str, str]]) -> None:
    advance(artifact, ArtifactEvent.REJECT, actor=WORKER, reasons=reasons, changes={"reasons": reasons[:20]})


def version_for(artifact: Artifact, spec_hash: str) -> Version | None:
    """The version that produced it: of several with that spec, the deployment's, else the newest."""
    fitting = Version.objects.filter(environment_id=artifact.environment_id, spec_hash=spec_hash)
    if artifact.deployment is not None:
        of_deployment = fitting.filter(pk=artifact.deployment.config_bundle.version_id).first()
        if of_deployment is not None:
            return of_deployment
    return fitting.order_by("-id").first()


@transaction.atomic
def request_replay(
    artifact: Artifact,
    *,
    environment: Environment,
    mode: str = Replay.Mode.DRY_RUN,
    journal_lane: str | None = None,
    last_n: int | None = None,
    version: Version | None = None,
    actor: Actor,
) -> Replay:
    """Queue a replay. Raises Conflict where the artifact or the policy forbids it, Unprocessable without a version."""
    if artifact.kind != Artifact.Kind.INCIDENT_BUNDLE:
        raise Conflict(f"Only incident bundles can be replayed; this is a {artifact.kind}.", code="not_replayable")
    if artifact.status != ArtifactStatus.VERIFIED:
        raise Conflict(f"The artifact is {artifact.status}; only a verified one can be replayed.", code="not_verified")
    policy = environment.effective_settings["replay_policy"]
    if policy == ReplayPolicy.DISABLED:
        raise Conflict("Replays are disabled in this environment.", code="replay.disabled")
    if mode == Replay.Mode.EXECUTE:
        raise Conflict(
            "Execute replays are not offered by this version of the server; nothing was run.",
            code="replay.execute_unavailable",
        )
    chosen = version or version_for(artifact, artifact.spec_hash or "")
    if chosen is None:
        raise Unprocessable(
            "No version of this environment has the artifact's spec hash; name one with version_id.",
            code="replay.no_version",
        )
    row = Replay.objects.create(
        environment=environment,
        artifact=artifact,
        version=chosen,
        mode=mode,
        journal_lane=journal_lane,
        last_n=last_n,
        requested_by=actor.display,
    )
    audit.record(
        "replay.request",
        actor=actor,
        scope=environment,
        resource=("replay", row.pk),
        changes={"artifact": str(artifact.pk), "version": str(chosen), "mode": mode},
    )
    enqueue("artifacts.replay", replay_id=str(row.pk))
    return row


def run_replay(replay_id: str) -> None:
    """Run a queued replay; one whose worker was killed is run again, since a dry run has no effect outside."""
    row = (
        Replay.objects.select_related("artifact__deployment__config_bundle", "version", "environment")
        .filter(pk=replay_id)
        .first()
    )
    if row is None or row.status not in {ReplayStatus.QUEUED, ReplayStatus.RUNNING}:
        return
    artifact, version, environment = row.artifact, row.version, row.environment
    if row.status == ReplayStatus.QUEUED:
        row = advance(row, ReplayEvent.START, actor=WORKER, started_at=timezone.now())
    started_at = row.started_at or row.created_at
    with _unpacked(artifact) as bundle:
        stage_config = bundle.stage_config
        if stage_config is None and artifact.deployment is not None:
            stage_config = artifact.deployment.config_bundle.stage_config
        spec = decode(version.spec_kv)
        ops = installed_ops()
        processes = {op: process for _, op in spec.stages if (process := ops.process(op)) is not None}
        outcome = replay(
            bundle,
            created_unix_ms=int(started_at.timestamp() * 1000),
            bundle_dir=f"artifacts/{artifact.pk}",
            policy_env=environment.posture,
            spec=spec,
            stage_config=stage_config,
            ops=processes,
            mode=Mode.DRY_RUN,
            journal_lane=row.journal_lane,
            last_n=row.last_n,
        )
    advance(
        row,
        _OUTCOME[outcome.status],
        actor=WORKER,
        result=outcome.result,
        audit=outcome.audit,
        warnings=list(outcome.warnings),
        error=None if outcome.error is None else _storable(outcome.error),
        finished_at=timezone.now(),
    )


@transaction.atomic
def give_up_replay(replay_id: str, error: str) -> None:
    """The job's last attempt failed."""
    row = Replay.objects.filter(pk=replay_id).first()
    if row is not None and row.status in {ReplayStatus.QUEUED, ReplayStatus.RUNNING}:
        advance(row, ReplayEvent.FAIL, actor=WORKER, error=_storable(error), finished_at=timezone.now())

"""Stores uploaded artifacts, and verifies or rejects them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, cast
from uuid import UUID

from django.core.files.base import File
from django.db import IntegrityError, transaction

from apps.artifacts.jobs import IngestArtifact
from apps.artifacts.models import Artifact, UnreferencedBlob
from apps.artifacts.services import derived, incidents, requested_captures
from apps.artifacts.services.incidents import Incident
from apps.fleet.models import Agent
from apps.pipelines.models import Version
from apps.releases.models import Deployment
from apps.tenancy.actors import Actor, system_actor
from apps.tenancy.models import Environment, Membership, Quota
from apps.tenancy.services import audit, quotas
from apps.tenancy.services.state import advance, keep_environments, lock_row
from byteor.engine.machines import ArtifactEvent, ArtifactStatus
from byteor.engine.replay import RejectedBundle, extract_incident
from byteor_cloud.captures.files import build_capture, size_of
from byteor_cloud.database.connections import release_connection
from byteor_cloud.errors import InvalidInput, QuotaExceeded, Unavailable
from byteor_cloud.storage import blobs, data_folders
from byteor_cloud.worker import dead_letters, jobs
from byteor_cloud.worker.jobs import Claim, enqueue

WORKER = system_actor("artifacts")


def receive(
    *,
    environment: Environment,
    agent: Agent,
    kind: str,
    captured_at: datetime,
    content_hash: str,
    file: File,  # type: ignore[type-arg]  # File's type argument makes no difference here
    spec_hash: str | None = None,
    deployment_id: UUID | None = None,
    metadata: Mapping[str, Any] | None = None,
    capture_id: UUID | None = None,
    actor: Actor,
) -> tuple[Artifact, bool]:
    """Store an upload. Returns the artifact and whether it is new.

    If the environment already has an artifact with the same content and the same declared kind, spec hash and
    deployment, that artifact is returned, and its check is requeued if necessary (see ``_ensure_checked``). If the
    upload declares a different kind, spec hash or deployment, a new artifact is created, so that an agent can correct a
    mistake.

    ``capture_id`` is the id of the requested capture that the upload is for. The request then refers to the returned
    artifact, unless an upload for it was already noted.

    When a new artifact is returned, its blob is stored and is kept as long as the artifact exists. Raises InvalidInput
    if the deployment or the requested capture does not exist, Unavailable if an older copy is being deleted or the blob
    store does not work, InsufficientStorage if the file does not fit, and QuotaExceeded if a new artifact would exceed
    a quota; its bytes are then not kept.
    """
    deployment = None
    if deployment_id is not None:
        deployment = Deployment.objects.filter(pk=deployment_id, environment=environment).first()
        if deployment is None:
            raise InvalidInput.at(
                "/deployment_id", "There is no such deployment in the agent's environment.", code="does_not_exist"
            )
    if capture_id is not None:
        requested_captures.check_known(agent, capture_id)
    # Look for the row without a lock first, so that a new file needs only one transaction. An existing row is then read
    # again under its lock.
    declared = declared_key(kind, spec_hash, deployment_id)
    known = Artifact.objects.filter(environment=environment, content_hash=content_hash, declared=declared)
    if known.exists() and (existing := _existing(environment, content_hash, declared)) is not None:
        existing = _ensure_checked(existing, file, actor=actor)
        return _note_upload(existing, capture_id, actor=actor), False
    organization = environment.project.organization_id
    needed = {Quota.STORED_BYTES: file.size}
    if kind == Artifact.Kind.INCIDENT_BUNDLE:
        needed[Quota.CAPTURES_PER_DAY] = 1
    has_quota = quotas.check(organization, needed)
    blobs.put_file(content_hash, file)  # before the row, because a row must never refer to a blob that is not stored
    try:
        with transaction.atomic():
            blobs.protect(content_hash)
            if not blobs.is_stored(content_hash):  # retention has just deleted an older copy
                raise Unavailable(
                    "An older copy of this file was being deleted at the same time. Upload the file again.",
                    retry_after=1,
                )
            if has_quota:
                quotas.reserve(organization, needed)
            artifact = Artifact.objects.create(
                environment=environment,
                agent=agent,
                kind=kind,
                captured_at=captured_at,
                spec_hash=spec_hash,
                deployment=deployment,
                metadata=dict(metadata or {}),
                declared=declared,
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
            key = str(artifact.pk)
            enqueue(
                IngestArtifact(artifact_id=key),
                organization=organization,
                person=Membership.first_admin(organization),
                serial=key,
            )
            if capture_id is not None:
                requested_captures.note_upload(capture_id, artifact, actor=actor)
    except QuotaExceeded:  # the usage or the quota has changed since ``quotas.check``
        UnreferencedBlob.objects.bulk_create([UnreferencedBlob(content_hash=content_hash)], ignore_conflicts=True)
        raise
    except IntegrityError:
        # A concurrent upload of the same content was faster. Its artifact may already have been deleted.
        if (existing := _existing(environment, content_hash, declared)) is None:
            raise Unavailable(
                "Another copy of this file was being deleted at the same time. Upload the file again.", retry_after=1
            ) from None
        return _note_upload(existing, capture_id, actor=actor), False
    return artifact, True


@transaction.atomic
def _note_upload(artifact: Artifact, capture_id: UUID | None, *, actor: Actor) -> Artifact:
    """Note an existing artifact in the requested capture, if there is one. Returns the artifact.

    Raises Unavailable if the artifact is being deleted.
    """
    if capture_id is None:
        return artifact
    keep_environments(artifact.environment_id)
    row = _existing(artifact.environment, artifact.content_hash, artifact.declared)
    if row is None:
        raise Unavailable("The artifact was being deleted at the same time. Upload the file again.", retry_after=1)
    requested_captures.note_upload(capture_id, row, actor=actor)
    return row


def check_declared_size(agent: Agent, declared: int, allowance: int) -> None:
    """Raise QuotaExceeded if a new artifact for this upload would certainly exceed the quota of stored bytes.

    ``declared`` is the Content-Length of the request, of which at most ``allowance`` bytes do not belong to the file.
    Nothing is raised if the agent already has an artifact of about this size. The upload may repeat that artifact and
    then needs no more space, but only the received content can show that.
    """
    least = declared - allowance
    if least <= 0:
        return
    try:
        quotas.check(agent.environment.project.organization_id, {Quota.STORED_BYTES: least})
    except QuotaExceeded:
        if not Artifact.objects.filter(agent=agent, size_bytes__range=(least, declared)).exists():
            raise


def declared_key(kind: str, spec_hash: str | None, deployment_id: UUID | None) -> str:
    """Return a string that distinguishes uploads of the same content by kind, spec hash and deployment."""
    return f"{kind}:{spec_hash or ''}:{deployment_id or ''}"


@transaction.atomic
def _existing(environment: Environment, content_hash: str, declared: str) -> Artifact | None:
    """Lock and return the artifact of an identical upload, or None. Waits for a transaction that is deleting it."""
    known = Artifact.objects.filter(environment=environment, content_hash=content_hash, declared=declared)
    return known.select_for_update(no_key=True).first()


def _ensure_checked(artifact: Artifact, file: File, *, actor: Actor) -> Artifact:  # type: ignore[type-arg]  # as in ``receive``
    """Requeue the check of a received artifact if its job is a dead letter or was deleted. Returns the artifact.

    Before requeuing the check, store the blob again, because it may have been lost. A job that killed its process too
    often is not requeued. Raises Unavailable if the artifact is being deleted, and the errors of ``blobs.put_file``.
    """
    key = str(artifact.pk)
    if artifact.status != ArtifactStatus.RECEIVED or jobs.is_queued(IngestArtifact, key):
        return artifact
    blobs.put_file(artifact.content_hash, file)
    with transaction.atomic():
        row = _existing(artifact.environment, artifact.content_hash, artifact.declared)
        if row is None:
            raise Unavailable("The artifact was being deleted at the same time. Upload the file again.", retry_after=1)
        organization = row.environment.project.organization_id
        if row.status == ArtifactStatus.RECEIVED and dead_letters.resume(
            IngestArtifact(artifact_id=key), organization=organization, serial=key
        ):
            audit.record("artifact.requeue", actor=actor, scope=row.environment, resource=("artifact", row.pk))
    return row


def find_obstacles(artifacts: Iterable[Artifact]) -> dict[UUID, dead_letters.Obstacle]:
    """Return the obstacles of the artifacts whose checks cannot continue, by artifact id."""
    by_key = {str(row.pk): row.pk for row in artifacts if row.status == ArtifactStatus.RECEIVED}
    return {by_key[key]: obstacle for key, obstacle in dead_letters.find_obstacles(by_key).items()}


@contextmanager
def unpacked(artifact: Artifact) -> Iterator[Path]:
    """Unpack the artifact's incident bundle into a folder that exists while the block runs.

    Raises RejectedBundle, NotStored, Unavailable or OSError.
    """
    with data_folders.scratch_folder() as folder, blobs.read(artifact.content_hash) as source:
        extract_incident(cast("BinaryIO", source), folder)  # Django's storage is typed as IO[bytes]
        yield folder


def _check(artifact: Artifact) -> tuple[str, Incident]:
    """Check the artifact's incident bundle. Returns the bundle's spec hash and its incident.

    Keeps the unpacked files for readers, unless the artifact declared another spec hash or the host is full. Raises
    RejectedBundle, NotFound, Unavailable or OSError.
    """
    with data_folders.scratch_folder() as folder, blobs.read(artifact.content_hash) as source:
        capture = folder / "capture"
        capture.mkdir()
        bundle = build_capture(cast("BinaryIO", source), capture)
        if artifact.spec_hash in {None, bundle.spec_hash}:  # otherwise the artifact will be rejected
            derived.keep(artifact, capture, size_of(capture))
        return bundle.spec_hash, incidents.read(bundle)


def ingest(artifact_id: str, claim: Claim | None = None) -> None:
    """Check a received artifact, and set its status to ``verified`` or ``rejected``. Safe to run repeatedly.

    Artifacts that are not incident bundles are always verified.
    """
    claim = claim or Claim()
    related = ("deployment__config_bundle", "environment__project")
    artifact = Artifact.objects.select_related(*related).filter(pk=artifact_id).first()
    if artifact is None or artifact.status != ArtifactStatus.RECEIVED:
        return
    if artifact.kind != Artifact.Kind.INCIDENT_BUNDLE:
        _verify(artifact, claim)
        return
    release_connection()
    try:
        spec_hash, incident = _check(artifact)
    except RejectedBundle as rejected:
        _reject(artifact, [{"code": r.code, "detail": storable(r.detail)} for r in rejected.reasons], claim)
        return
    if artifact.spec_hash not in {None, spec_hash}:
        detail = f"The upload declared the spec hash {artifact.spec_hash}, but spec.kv in the bundle has {spec_hash}."
        _reject(artifact, [{"code": "spec_hash", "detail": detail}], claim)
        return
    version = version_for(artifact, spec_hash)
    with transaction.atomic():
        _verify(artifact, claim, spec_hash=spec_hash, version=version)
        # If nobody promoted the spec, its names come only from the agent, and could be different in each upload.
        incidents.record(artifact, incident if version is not None else incidents.UNKNOWN)


def storable(text: str) -> str:
    """Return the first 2,000 characters of the text, with ``?`` for unprintable ones, as an error message to store.

    An error may quote arbitrary bytes of an untrusted bundle.
    """
    return "".join(character if character.isprintable() else "?" for character in text[:2000])


@transaction.atomic
def reject_unchecked(artifact_id: str, code: str, detail: str) -> None:
    """Reject a received artifact whose check failed in its last attempt, with this reason."""
    found = Artifact.objects.filter(pk=artifact_id).first()
    if found is not None and lock_row(found).status == ArtifactStatus.RECEIVED:
        _reject(found, [{"code": code, "detail": detail}], Claim())


@transaction.atomic
def _verify(artifact: Artifact, claim: Claim, **fields: Any) -> None:
    claim.confirm()
    advance(artifact, ArtifactEvent.VERIFY, actor=WORKER, **fields)


@transaction.atomic
def _reject(artifact: Artifact, reasons: list[dict[str, str]], claim: Claim) -> None:
    claim.confirm()
    advance(artifact, ArtifactEvent.REJECT, actor=WORKER, reasons=reasons, changes={"reasons": reasons[:20]})


def version_for(artifact: Artifact, spec_hash: str) -> Version | None:
    """Return the version that produced the artifact, or None.

    This is the version of the artifact's deployment if that version has ``spec_hash``. Otherwise it is the newest
    version with ``spec_hash`` in the environment.
    """
    fitting = Version.objects.filter(environment_id=artifact.environment_id, spec_hash=spec_hash)
    if artifact.deployment is not None:
        of_deployment = fitting.filter(pk=artifact.deployment.config_bundle.version_id).first()
        if of_deployment is not None:
            return of_deployment
    return fitting.order_by("-id").first()

"""Request, cancel and finish replays, and follow their approvals. ``replay_runs`` runs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet, Window
from django.db.models.functions import RowNumber
from django.utils import timezone

from apps.artifacts.jobs import RunReplay, StepBisect
from apps.artifacts.models import Artifact, Bisect, Replay
from apps.artifacts.services.uploads import WORKER, version_for
from apps.pipelines.models import Version
from apps.releases.models import Approval, ConfigBundle, Deployment
from apps.releases.services import approvals, reviewers
from apps.tenancy.actors import Actor
from apps.tenancy.models import Environment
from apps.tenancy.policy import Posture, ReplayPolicy
from apps.tenancy.services import audit
from apps.tenancy.services.state import advance, lock_row
from apps.tenancy.services.tokens import person_behind
from byteor.engine.approval_subject import ApprovalSubject
from byteor.engine.compiler import SIDE_EFFECTS, split_op
from byteor.engine.machines import ApprovalStatus, ArtifactStatus, ReplayEvent, ReplayStatus
from byteor.engine.signing.credential import REPLAY_EXECUTE
from byteor.engine.target import ReplayTarget
from byteor_cloud.errors import Conflict, InvalidInput, Unprocessable
from byteor_cloud.worker.jobs import enqueue

_BUNDLES = 10  # how many of a version's newest config bundles are offered; the deployed one is always offered


@transaction.atomic
def request(
    artifact: Artifact,
    *,
    environment: Environment,
    mode: str = Replay.Mode.DRY_RUN,
    journal_lane: str | None = None,
    last_n: int | None = None,
    version: Version | None = None,
    config_bundle: ConfigBundle | None = None,
    credential: str | None = None,
    repeats: Replay | None = None,
    actor: Actor,
) -> Replay:
    """Queue a replay. If it needs an approval and no ``credential`` is given, request the approval first.

    ``config_bundle`` implies its version and provides the parameters. ``repeats`` is an earlier replay, whose fallback
    config bundle is used again. ``credential`` belongs to an earlier approval. Raises Conflict if the artifact, the
    environment's policy or the approval does not permit the replay, or if too few of the environment's reviewers can
    approve, InvalidInput for contradictory arguments or an invalid credential, Forbidden if the caller may not use or
    request the approval, and Unprocessable if no version is given and none has the artifact's spec hash.
    """
    check_permitted(artifact, environment, mode)
    if mode != Replay.Mode.EXECUTE and credential is not None:
        raise InvalidInput.at("/approval", "A dry run needs no approval.", code="approval.not_needed")
    if config_bundle is not None:
        if version is not None and version.pk != config_bundle.version_id:
            detail = "The config bundle belongs to another version. Omit `version_id`."
            raise InvalidInput.at("/version_id", detail, code="version.not_of_config_bundle")
        version = config_bundle.version
    chosen = version or recorded_version(artifact)
    if repeats is not None:
        fallback = repeats.fallback_config_bundle
    else:
        fallback = _fallback(artifact, chosen) if config_bundle is None else None
    row = Replay(
        environment=environment,
        artifact=artifact,
        version=chosen,
        mode=mode,
        journal_lane=journal_lane,
        last_n=last_n,
        config_bundle=config_bundle,
        fallback_config_bundle=fallback,
        requested_by=actor.display,
        person=person_behind(actor),
    )
    policy = environment.effective_settings.release
    if credential is not None:
        row.approval = approvals.check_submitted_credential(
            credential,
            environment,
            approval_subject(row),
            policy=policy,
            is_needed=needs_approval(row),
            actor=actor,
        )
    elif needs_approval(row):
        reviewers.check_enough(environment, policy=policy, requester=approvals.requester_of(actor))
        row.status = ReplayStatus.PENDING_APPROVAL
        row.approval = approvals.request_approval(
            environment=environment,
            policy=policy,
            subject=approval_subject(row),
            replay_id=row.pk,
            actor=actor,
        )
    row.save(force_insert=True)
    audit.record(
        "replay.request",
        actor=actor,
        scope=environment,
        resource=("replay", row.pk),
        changes={
            "artifact": str(artifact.pk),
            "version": str(chosen),
            "mode": mode,
            "approval": _text(row.approval_id),
        },
    )
    if row.status == ReplayStatus.QUEUED:
        _enqueue(row)
    return row


def check_request(artifact: Artifact, *, mode: str) -> None:
    """Raise Conflict if the artifact cannot be replayed in this mode, and Unprocessable without a recorded version."""
    check_permitted(artifact, artifact.environment, mode)
    recorded_version(artifact)


def _has_other_spec(version: Version, artifact: Artifact) -> bool:
    """Return whether the version's spec differs from the capture's."""
    return version.spec_hash != artifact.spec_hash


def _fallback(artifact: Artifact, version: Version) -> ConfigBundle | None:
    """Return the version's newest config bundle, or None if there is none or the version has the capture's spec."""
    if not _has_other_spec(version, artifact):
        return None
    return ConfigBundle.objects.filter(version=version).only("pk", "version_id").order_by("-pk").first()


def repeat(
    replay: Replay, *, version: Version | None = None, config_bundle: ConfigBundle | None = None, actor: Actor
) -> Replay:
    """Queue a dry run of the same records, with the given config bundle or through the given version.

    Without either, the version and the config bundles of ``replay`` are used again. Raises the errors of ``request``.
    """
    environment, artifact = replay.environment, replay.artifact
    selected: dict[str, Any] = {"journal_lane": replay.journal_lane, "last_n": replay.last_n}
    if version is None and config_bundle is None:
        selected |= {"version": replay.version, "config_bundle": replay.config_bundle, "repeats": replay}
    else:
        selected |= {"version": version, "config_bundle": config_bundle}
    return request(artifact, environment=environment, **selected, actor=actor)


def other_versions(replay: Replay) -> QuerySet[Version]:
    """Return the other versions of the replay's pipeline in its environment."""
    same = Version.objects.filter(environment=replay.environment_id, name=replay.version.name)
    return same.exclude(pk=replay.version_id)


@dataclass(frozen=True, slots=True)
class OfferedVersion:
    """A version to replay through, and its config bundles: ``deployed`` first, and then the newest ones.

    ``deployed`` is the config bundle that was activated last. ``fallback`` is the config bundle whose parameters are
    used for stages that have none in the capture or its deployment. Each is None if there is no such bundle.
    """

    version: Version
    config_bundles: list[ConfigBundle]
    deployed: ConfigBundle | None
    fallback: ConfigBundle | None


def offered_versions(replay: Replay, most: int) -> list[OfferedVersion]:
    """Return at most ``most`` other versions of the replay's pipeline, newest first, with config bundles to choose."""
    versions = list(other_versions(replay).only("pk", "name", "number", "spec_hash").order_by("-number")[:most])
    bundles = ConfigBundle.objects.filter(version__in=versions).only("pk", "name", "version_id")
    rank = Window(RowNumber(), partition_by="version", order_by="-pk")
    newest = list(bundles.annotate(rank=rank).filter(rank__lte=_BUNDLES).order_by("-pk"))
    activated = Deployment.objects.filter(config_bundle__version__in=versions, activated_at__isnull=False)
    last = activated.order_by("config_bundle__version", "-activated_at").distinct("config_bundle__version")
    last_bundles = bundles.in_bulk(list(last.values_list("config_bundle_id", flat=True)))
    deployed = {bundle.version_id: bundle for bundle in last_bundles.values()}
    of_version: dict[UUID, dict[UUID, ConfigBundle]] = {}
    for bundle in (*deployed.values(), *newest):
        of_version.setdefault(bundle.version_id, {}).setdefault(bundle.pk, bundle)
    fallbacks = {bundle.version_id: bundle for bundle in reversed(newest)}
    return [
        OfferedVersion(
            each,
            list(of_version.get(each.pk, {}).values()),
            deployed.get(each.pk),
            fallbacks.get(each.pk) if _has_other_spec(each, replay.artifact) else None,
        )
        for each in versions
    ]


def check_repeat(replay: Replay) -> None:
    """Raise the error that ``repeat`` would raise for this replay without another version or config bundle."""
    check_permitted(replay.artifact, replay.environment, Replay.Mode.DRY_RUN)


def request_for_bisect(bisect: Bisect, version_id: str, *, actor: Actor) -> Replay:
    """Queue the dry run of a bisect through one version."""
    row = Replay.objects.create(
        environment=bisect.environment,
        artifact=bisect.artifact,
        version_id=version_id,
        bisect=bisect,
        requested_by=bisect.requested_by,
        person=bisect.person,
    )
    audit.record(
        "replay.request",
        actor=actor,
        scope=bisect.environment,
        resource=("replay", row.pk),
        changes={
            "artifact": str(bisect.artifact_id),
            "version": version_id,
            "mode": row.mode,
            "bisect": str(bisect.pk),
        },
    )
    _enqueue(row)
    return row


def check_permitted(artifact: Artifact, environment: Environment, mode: str) -> None:
    """Raise Conflict unless the artifact can be replayed in this mode and environment."""
    if artifact.kind != Artifact.Kind.INCIDENT_BUNDLE:
        raise Conflict(
            f"Only incident bundles can be replayed. This artifact has the kind {artifact.kind}.", code="not_replayable"
        )
    if artifact.status != ArtifactStatus.VERIFIED:
        raise Conflict(
            f"The artifact is {artifact.status}. Only a verified artifact can be replayed.", code="not_verified"
        )
    policy = environment.effective_settings.replay_policy
    if policy == ReplayPolicy.DISABLED:
        raise Conflict("Replays are disabled in this environment.", code="replay.disabled")
    if mode == Replay.Mode.EXECUTE and policy != ReplayPolicy.ALLOWED:
        raise Conflict("This environment permits dry runs only. No replay was started.", code="replay.dry_run_only")


def recorded_version(artifact: Artifact) -> Version:
    """Return the version that produced the artifact. Raises Unprocessable if no version has its spec hash."""
    found = version_for(artifact, artifact.spec_hash or "")
    if found is None:
        raise Unprocessable(
            "No version of this environment has the artifact's spec hash. Choose a version with `version_id` or, for a "
            "bisect, a pipeline with `pipeline`.",
            code="replay.no_version",
        )
    return found


def _enqueue(row: Replay) -> None:
    organization = row.environment.project.organization_id
    enqueue(RunReplay(replay_id=str(row.pk)), organization=organization, person=row.person)


def _text(id: UUID | None) -> str | None:
    return None if id is None else str(id)


def needs_approval(row: Replay) -> bool:
    """Return whether the replay needs an approval before it runs."""
    return row.mode == Replay.Mode.EXECUTE and row.environment.posture != Posture.DEV


def approval_subject(row: Replay) -> ApprovalSubject:
    """Return the subject of the approval: the records, version, parameters, side effects, and reviewers."""
    artifact, version = row.artifact, row.version
    ops = [op for _, op in version.stages]
    listed = row.environment.effective_settings.reviewers if row.approval is None else row.approval.reviewers
    bundle = row.config_bundle or (artifact.deployment.config_bundle if artifact.deployment else None)
    return ApprovalSubject(
        spec_hash=version.spec_hash,
        # The stage parameters may also come from two other sources, and the approval covers both. The content hash
        # covers the parameters in the capture, which come before those of the artifact's deployment. The target covers
        # the fallback config bundle, whose parameters are used for stages that have no others.
        config_hash=bundle.config_hash if bundle else None,
        target=ReplayTarget(
            mode=row.mode,
            artifact_id=str(artifact.pk),
            content_hash=artifact.content_hash,
            version_id=str(version.pk),
            journal_lane=row.journal_lane,
            last_n=row.last_n,
            side_effects=tuple(op for op in ops if split_op(op)[0] in SIDE_EFFECTS),
            config_bundle_id=_text(row.config_bundle_id),
            fallback_config_bundle_id=_text(row.fallback_config_bundle_id),
        ),
        strategy=None,
        capabilities=(REPLAY_EXECUTE,),
        reviewers=tuple(listed),
    )


@transaction.atomic
def follow_approval(approval_id: str) -> None:
    """Queue, deny or fail the replays of an approval, depending on its status. Safe to run repeatedly."""
    approval = Approval.objects.filter(pk=approval_id).first()
    if approval is None:
        return
    for found in Replay.objects.filter(approval=approval).order_by("pk"):
        row = lock_row(found)
        waits = row.status == ReplayStatus.PENDING_APPROVAL
        if waits and approval.status == ApprovalStatus.APPROVED:
            advance(row, ReplayEvent.APPROVE, actor=WORKER)
            _enqueue(row)
        elif waits and approval.status != ApprovalStatus.PENDING:
            finish_without_result(row, ReplayEvent.DENY, error=f"approval.{approval.status}")
        elif row.status == ReplayStatus.QUEUED and approval.status == ApprovalStatus.REVOKED:
            finish_without_result(row, ReplayEvent.FAIL, error=f"approval.{approval.status}")


@transaction.atomic
def cancel(replay: Replay, *, reason: str = "", actor: Actor) -> Replay:
    """Cancel a queued or running dry run. Raises Conflict for any other replay."""
    row = lock_row(replay, related=("environment__project",))
    check_cancellable(row)
    return finish(
        row,
        ReplayEvent.FAIL,
        actor=actor,
        changes={"error": "cancelled", "reason": reason},
        error=f"cancelled: {reason}" if reason else "cancelled",
        error_code="cancelled",
    )


def check_cancellable(row: Replay) -> None:
    """Raise the Conflict that ``cancel`` would raise for this replay."""
    if row.mode != Replay.Mode.DRY_RUN:
        detail = "Only dry runs can be canceled, because an execute replay may already have performed side effects."
        raise Conflict(detail, code="replay.not_dry_run")
    if row.status not in {ReplayStatus.QUEUED, ReplayStatus.RUNNING}:
        detail = f"The replay is {row.status}. Only queued and running replays can be canceled."
        raise Conflict(detail, code="replay.ended")


def finish_without_result(
    row: Replay, event: ReplayEvent, *, error: str | None, detail: str = "", **fields: Any
) -> None:
    """Set the final status of a replay that has no result. ``detail`` is only recorded in the audit event."""
    changes = {"error": error, "detail": detail} if error else {}
    finish(row, event, actor=WORKER, changes=changes, error=error, **fields)


@transaction.atomic
def finish(row: Replay, event: ReplayEvent, *, actor: Actor, changes: Mapping[str, Any], **fields: Any) -> Replay:
    """Set the final status of a replay. If a bisect requested it, enqueue the bisect's next step."""
    finished = advance(row, event, actor=actor, changes=changes, finished_at=timezone.now(), **fields)
    if finished.bisect_id is not None:
        organization = finished.environment.project.organization_id
        enqueue(StepBisect(bisect_id=str(finished.bisect_id)), organization=organization, person=finished.person)
    return finished

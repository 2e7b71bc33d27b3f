"""Request, approve and run replays. An execute replay runs at most once."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import DatabaseError, transaction
from django.utils import timezone

from apps.artifacts import children
from apps.artifacts.effects import TOTAL_S, Executor
from apps.artifacts.jobs import RunReplay
from apps.artifacts.models import Artifact, Bisect, Replay, ReplayFrames
from apps.artifacts.services.uploads import WORKER, scratch_folder, storable, unpacked, version_for
from apps.pipelines.models import Version
from apps.releases.models import Approval, ConfigBundle
from apps.releases.services import approvals
from apps.tenancy import audit
from apps.tenancy.actors import Actor
from apps.tenancy.models import Environment
from apps.tenancy.policy import Posture, ReplayPolicy
from apps.tenancy.state import advance, lock_row
from byteor_cloud.database import release_connection
from byteor_cloud.engine.compiler import SIDE_EFFECTS, decode, split_op
from byteor_cloud.engine.delivery.credential import REPLAY_EXECUTE
from byteor_cloud.engine.delivery.refusals import Refused
from byteor_cloud.engine.machines import ApprovalStatus, ArtifactStatus, ReplayEvent, ReplayStatus
from byteor_cloud.engine.replay import Cancelled, Gate, OutcomeStatus, validate_incident
from byteor_cloud.engine.target import ReplayTarget
from byteor_cloud.errors import Conflict, InvalidInput, NotFound, Unprocessable
from byteor_cloud.jobs import Claim, enqueue, is_outage

MAX_FRAMES = 2 * 1024 * 1024  # characters of output frames that are kept of a replay
INTERRUPTED = "interrupted"  # the error of a replay whose worker was killed
RELATED = (
    "artifact__deployment__config_bundle",
    "config_bundle",
    "version",
    "environment__project__organization",
    "approval",
)
_OUTCOME = {
    OutcomeStatus.SUCCEEDED: ReplayEvent.SUCCEED,
    OutcomeStatus.DIVERGED: ReplayEvent.DIVERGE,
    OutcomeStatus.FAILED: ReplayEvent.FAIL,
}


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
    actor: Actor,
) -> Replay:
    """Queue a replay. If it needs approval and ``credential`` does not prove an earlier one, request approval instead.

    ``config_bundle`` implies its version, and its parameters are used. Raises Conflict if the artifact or the
    environment's policy forbids the replay, Unprocessable if no version fits.
    """
    check_permitted(artifact, environment, mode)
    if mode != Replay.Mode.EXECUTE and credential is not None:
        raise InvalidInput.at("/approval", "A dry run needs no approval.", code="approval.not_needed")
    if config_bundle is not None:
        if version is not None and version.pk != config_bundle.version_id:
            detail = "The config bundle has another version. Leave `version_id` out."
            raise InvalidInput.at("/version_id", detail, code="version.not_of_config_bundle")
        version = config_bundle.version
    chosen = version or recorded_version(artifact)
    row = Replay(
        environment=environment,
        artifact=artifact,
        version=chosen,
        mode=mode,
        journal_lane=journal_lane,
        last_n=last_n,
        config_bundle=config_bundle,
        requested_by=actor.display,
    )
    if credential is not None:
        row.approval = approvals.check_handed_in_credential(
            credential, environment, _subject(row), is_needed=_needs_approval(row), actor=actor
        )
    elif _needs_approval(row):
        row.status = ReplayStatus.PENDING_APPROVAL
        row.approval = approvals.request_approval(
            environment=environment,
            policy=environment.effective_settings.release,
            subject=_subject(row),
            replay_id=row.pk,
            actor=actor,
        )
    row.save(force_insert=True)
    audit.record(
        "replay.request",
        actor=actor,
        scope=environment,
        resource=("replay", row.pk),
        changes={"artifact": str(artifact.pk), "version": str(chosen), "mode": mode, "approval": _id(row.approval)},
    )
    if row.status == ReplayStatus.QUEUED:
        _enqueue(row)
    return row


def check_request(artifact: Artifact, *, mode: str) -> None:
    """Raise the error with which ``request`` would refuse a replay that names no version."""
    check_permitted(artifact, artifact.environment, mode)
    recorded_version(artifact)


def request_for_bisect(bisect: Bisect, version_id: str, *, actor: Actor) -> Replay:
    """Queue the dry run of one version of a bisect."""
    row = Replay.objects.create(
        environment=bisect.environment,
        artifact=bisect.artifact,
        version_id=version_id,
        bisect=bisect,
        requested_by=bisect.requested_by,
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
    """Raise Conflict unless the artifact can be replayed in this mode in the environment."""
    if artifact.kind != Artifact.Kind.INCIDENT_BUNDLE:
        raise Conflict(
            f"Only incident bundles can be replayed. This artifact is a {artifact.kind}.", code="not_replayable"
        )
    if artifact.status != ArtifactStatus.VERIFIED:
        raise Conflict(
            f"The artifact is {artifact.status}. Only a verified artifact can be replayed.", code="not_verified"
        )
    policy = environment.effective_settings.replay_policy
    if policy == ReplayPolicy.DISABLED:
        raise Conflict("Replays are disabled in this environment.", code="replay.disabled")
    if mode == Replay.Mode.EXECUTE and policy != ReplayPolicy.ALLOWED:
        raise Conflict("This environment permits dry runs only. Nothing was run.", code="replay.dry_run_only")


def recorded_version(artifact: Artifact) -> Version:
    """Return the version that produced the artifact. Raises Unprocessable if there is none."""
    found = version_for(artifact, artifact.spec_hash or "")
    if found is None:
        raise Unprocessable(
            "No version of this environment has the artifact's spec hash. Choose a version with `version_id`.",
            code="replay.no_version",
        )
    return found


def _enqueue(row: Replay) -> None:
    enqueue(RunReplay(replay_id=str(row.pk)), organization=row.environment.project.organization_id)


def _id(approval: Approval | None) -> str | None:
    return None if approval is None else str(approval.pk)


def _needs_approval(row: Replay) -> bool:
    return row.mode == Replay.Mode.EXECUTE and row.environment.posture != Posture.DEV


def _subject(row: Replay) -> approvals.ApprovalSubject:
    """Return what an approver consents to: the artifact's records, the version and its side effects."""
    artifact, version = row.artifact, row.version
    ops = [op for _, op in decode(version.spec_kv).stages]
    bundle = row.config_bundle or (artifact.deployment.config_bundle if artifact.deployment else None)
    return approvals.ApprovalSubject(
        spec_hash=version.spec_hash,
        # The replay uses the stage parameters of this config bundle, unless it is the deployment's and the incident
        # bundle contains parameters, which the content hash covers.
        config_hash=bundle.config_hash if bundle else None,
        target=ReplayTarget(
            mode=row.mode,
            artifact_id=str(artifact.pk),
            content_hash=artifact.content_hash,
            version_id=str(version.pk),
            journal_lane=row.journal_lane,
            last_n=row.last_n,
            side_effects=tuple(op for op in ops if split_op(op)[0] in SIDE_EFFECTS),
            config_bundle_id=None if row.config_bundle_id is None else str(row.config_bundle_id),
        ),
        strategy=None,
        capabilities=[REPLAY_EXECUTE],
    )


@transaction.atomic
def follow_approval(approval_id: str) -> None:
    """Start or end the replays of an approval according to its status. Safe to run twice."""
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
            _end(row, ReplayEvent.DENY, error=f"approval.{approval.status}")
        elif row.status == ReplayStatus.QUEUED and approval.status == ApprovalStatus.REVOKED:
            _end(row, ReplayEvent.FAIL, error=f"approval.{approval.status}")


def _end(row: Replay, event: ReplayEvent, *, error: str | None, detail: str = "", **fields: Any) -> None:
    changes = {"error": error, "detail": detail} if error else {}
    advance(row, event, actor=WORKER, changes=changes, error=error, finished_at=timezone.now(), **fields)


def run(replay_id: str, claim: Claim | None = None) -> None:
    """Run a queued replay. If its worker was killed, only a dry run is run again, since it has no side effects."""
    claim = claim or Claim()
    row = Replay.objects.select_related(*RELATED).filter(pk=replay_id).first()
    if row is None or row.status not in {ReplayStatus.QUEUED, ReplayStatus.RUNNING}:
        return
    if row.mode == Replay.Mode.EXECUTE and row.status == ReplayStatus.RUNNING:
        _end(row, ReplayEvent.FAIL, error=INTERRUPTED, error_code="interrupted")
        return
    release_connection()
    with unpacked(row.artifact) as folder:  # before the approval is spent: the blob store may fail
        started = _start(row, claim)
        if started is None:
            return
        try:
            outcome = _replay(started, folder, claim)
        except Cancelled:
            return
        except children.Refused as refused:
            store = partial(_end, started, ReplayEvent.FAIL, error=storable(str(refused)), error_code="bad_input")
        except Exception as error:
            if row.mode == Replay.Mode.EXECUTE and not is_outage(error):
                give_up(replay_id, f"{type(error).__name__}: {error}")
            raise
        else:
            store = partial(_store, started, outcome)

    @transaction.atomic
    def store_outcome() -> None:
        claim.confirm()
        if lock_row(started).status == ReplayStatus.RUNNING:  # else it was cancelled meanwhile
            store()

    # Side effects must not be executed again, so their result must not get lost with a database connection.
    with suppress(NotFound):  # it was deleted meanwhile
        claim.retry_until_stored(store_outcome)


def _store(row: Replay, outcome: Mapping[str, Any]) -> None:
    kept = 0
    frames: dict[str, str | None] = {}
    for name, text in outcome["egress_frames"].items():
        kept += len(text or "")
        frames[name] = text if kept <= MAX_FRAMES else None
    ReplayFrames.objects.update_or_create(replay=row, defaults={"frames": frames})
    counts = Counter(str(action["decision"]) for action in outcome["audit"]["actions"])
    advance(
        row,
        _OUTCOME[OutcomeStatus(outcome["status"])],
        actor=WORKER,
        changes={"actions": dict(counts)} if counts else {},
        result=outcome["result"],
        audit=outcome["audit"],
        warnings=outcome["warnings"],
        error=None if outcome["error"] is None else storable(outcome["error"]),
        error_code=outcome["error_code"],
        finished_at=timezone.now(),
    )


@transaction.atomic
def _start(found: Replay, claim: Claim) -> Replay | None:
    """Set the status ``running`` and spend the approval. Returns None if the replay must not run."""
    row = lock_row(found, related=RELATED)
    claim.confirm()
    if row.environment.deleted_at or row.environment.project.deleted_at:
        return None
    if row.status == ReplayStatus.RUNNING and row.mode == Replay.Mode.DRY_RUN:
        return row
    if row.status != ReplayStatus.QUEUED:
        return None
    if row.mode == Replay.Mode.EXECUTE:
        if row.environment.effective_settings.replay_policy != ReplayPolicy.ALLOWED:
            _end(row, ReplayEvent.FAIL, error="replay.dry_run_only")
            return None
        if _needs_approval(row) or row.approval is not None:
            try:
                credential = (row.approval and row.approval.credential) or ""
                approvals.spend_credential(credential, row.environment, _subject(row))
            except Refused as refused:
                _end(row, ReplayEvent.FAIL, error=str(refused.code), detail=refused.detail)
                return None
    advance(row, ReplayEvent.START, actor=WORKER, started_at=timezone.now())
    return lock_row(row, related=RELATED)


def _replay(row: Replay, capture: Path, claim: Claim) -> Any:
    """Run the replay in a process of its own. Raises Cancelled if the replay ended or was deleted meanwhile."""
    request = {
        **child_request(row),
        "kind": "replay",
        "folder": str(capture),
        "created_unix_ms": int((row.started_at or row.created_at).timestamp() * 1000),
        "bundle_dir": f"artifacts/{row.artifact_id}",
        "policy_env": row.environment.posture,
        "mode": row.mode,
        "performs": row.mode == Replay.Mode.EXECUTE,
        "approval_provided": row.approval is not None,
        "journal_lane": row.journal_lane,
        "last_n": row.last_n,
    }
    release_connection()

    def on_tick(progress: children.Progress) -> bool:
        """Store the progress. A database that is unavailable for a moment does not end the replay."""
        claim.ensure()
        running = Replay.objects.filter(pk=row.pk, status=ReplayStatus.RUNNING)
        try:
            return bool(running.update(progress_done=progress.done, progress_total=progress.total))
        except DatabaseError as error:
            if not is_outage(error):
                raise
            return True
        finally:
            release_connection()

    scratch = scratch_folder()
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        gate = Gate(
            urls=settings.CONFIG.replay_http_allowlist,
            programs=settings.CONFIG.replay_exec_allowlist,
            stage_config=_consented_config(row, capture),
            consented=row.approval is not None or not _needs_approval(row),
        )
        executor = Executor(gate, Path(folder), str(row.pk), until=time.monotonic() + TOTAL_S, may_act=claim.ensure)
        return children.run_apart(
            request,
            scratch=Path(folder),
            effects=executor if row.mode == Replay.Mode.EXECUTE else None,
            on_tick=on_tick if row.mode == Replay.Mode.DRY_RUN else lambda _: True,
        )


def child_request(row: Replay) -> dict[str, Any]:
    """Return the part of a request to a child process that says which spec and parameters are used."""
    of_deployment = row.artifact.deployment.config_bundle if row.artifact.deployment else None
    bundle = row.config_bundle or of_deployment
    return {
        "spec_kv": row.version.spec_kv,
        "stage_config": bundle.stage_config if bundle else None,
        "overrides": row.config_bundle is not None,
        "only_fitting": row.bisect_id is not None,
    }


def _consented_config(row: Replay, capture: Path) -> Mapping[str, Any]:
    """Return the stage parameters that may restrict the side effects of an execute replay."""
    if row.mode != Replay.Mode.EXECUTE:
        return {}
    given = child_request(row)
    own = None if given["overrides"] else validate_incident(capture).stage_config
    return own if own is not None else given["stage_config"] or {}


@transaction.atomic
def give_up(replay_id: str, error: str) -> None:
    """Fail a replay that must not run again: its last attempt failed, or side effects may have been executed."""
    found = Replay.objects.filter(pk=replay_id).first()
    row = lock_row(found) if found is not None else None
    if row is not None and row.status in {ReplayStatus.QUEUED, ReplayStatus.RUNNING}:
        _end(row, ReplayEvent.FAIL, error=storable(error), error_code="interrupted")

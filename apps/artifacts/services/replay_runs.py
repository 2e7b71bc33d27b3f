"""Runs replays. An execute replay runs at most once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import DatabaseError, transaction
from django.utils import timezone

from apps.artifacts.models import Replay, ReplayFrames
from apps.artifacts.services import children
from apps.artifacts.services.effects import TOTAL_S, Executor
from apps.artifacts.services.replays import approval_subject, finish, finish_without_result, needs_approval
from apps.artifacts.services.uploads import WORKER, storable, unpacked
from apps.releases.services import approvals
from apps.tenancy.policy import ReplayPolicy
from apps.tenancy.services import usage
from apps.tenancy.services.state import advance, lock_row
from byteor.engine.compiler import decode
from byteor.engine.machines import ReplayEvent, ReplayStatus
from byteor.engine.replay import (
    Cancelled,
    OutcomeStatus,
    RejectedBundle,
    SideEffectPolicy,
    parameters_of_replay,
    validate_incident,
)
from byteor.engine.signing.refusals import Refused
from byteor_cloud.database.connections import release_connection
from byteor_cloud.errors import NotFound
from byteor_cloud.storage import data_folders
from byteor_cloud.worker.jobs import Claim, JobLane, Requeued, is_outage
from byteor_cloud.worker.turns import TURNS, Turn

_TICK_S = 0.5  # seconds between checks that a replay has not been canceled while it waits for its turn
INTERRUPTED = "interrupted"  # the error of an interrupted replay, for example after its worker was killed
RELATED = (
    "artifact__deployment__config_bundle",
    "config_bundle",
    "fallback_config_bundle",
    "version",
    "environment__project__organization",
    "approval",
)
_OUTCOME = {
    OutcomeStatus.SUCCEEDED: ReplayEvent.SUCCEED,
    OutcomeStatus.DIVERGED: ReplayEvent.DIVERGE,
    OutcomeStatus.FAILED: ReplayEvent.FAIL,
}


def run(replay_id: str, claim: Claim | None = None) -> None:
    """Run a queued replay. If an earlier attempt already started it, repeat a dry run, but fail an execute replay."""
    claim = claim or Claim()
    row = Replay.objects.select_related(*RELATED).filter(pk=replay_id).first()
    if row is None or row.status not in {ReplayStatus.QUEUED, ReplayStatus.RUNNING}:
        return
    if row.mode == Replay.Mode.EXECUTE and row.status == ReplayStatus.RUNNING:
        finish_without_result(row, ReplayEvent.FAIL, error=INTERRUPTED, error_code="interrupted")
        return
    release_connection()
    with TURNS.join(claim) as turn:
        while not turn.wait(_TICK_S):
            claim.ensure()
            if not _is_active(row):
                return
        try:
            store = _compute(row, claim, turn)
        except RejectedBundle as rejected:  # for example, an older release did not have all limits
            store = partial(give_up, replay_id, str(rejected), "bad_input")
    if store is not None:
        # Side effects must not be executed again, so a lost database connection must not lose the result.
        with suppress(NotFound):  # the replay has been deleted
            claim.retry_until_stored(store)


def _compute(row: Replay, claim: Claim, turn: Turn) -> Callable[[], None] | None:
    """Run the replay. Returns the function that stores its outcome, or None if it must not run or was canceled."""
    with unpacked(row.artifact) as folder:  # unpack before spending the approval, as the blob store may fail
        started = _start(row, claim)
        if started is None:
            return None
        turn.is_repeatable = started.mode == Replay.Mode.DRY_RUN
        try:
            outcome = _replay(started, folder, claim, turn)
        except Cancelled:
            return None
        except (children.Refused, RejectedBundle) as refused:
            error_text = storable(str(refused))
            store = partial(finish_without_result, started, ReplayEvent.FAIL, error=error_text, error_code="bad_input")
        except Exception as error:
            if row.mode == Replay.Mode.EXECUTE and not is_outage(error):
                give_up(str(row.pk), f"{type(error).__name__}: {error}")
            raise
        else:
            store = partial(_store, started, outcome)

    @transaction.atomic
    def store_outcome() -> None:
        claim.confirm()
        if lock_row(started).status == ReplayStatus.RUNNING:  # unless it has been canceled
            store()

    return store_outcome


def _store(row: Replay, outcome: Mapping[str, Any]) -> None:
    ReplayFrames.objects.update_or_create(replay=row, defaults={"frames": outcome["egress_frames"]})
    usage.add_work(row.environment.project.organization_id, outcome["work"])
    counts = Counter(str(action["decision"]) for action in outcome["audit"]["actions"])
    finish(
        row,
        _OUTCOME[OutcomeStatus(outcome["status"])],
        actor=WORKER,
        changes={"actions": dict(counts)} if counts else {},
        result=outcome["result"],
        audit=outcome["audit"],
        warnings=outcome["warnings"],
        error=None if outcome["error"] is None else storable(outcome["error"]),
        error_code=outcome["error_code"],
    )


@transaction.atomic
def _start(found: Replay, claim: Claim) -> Replay | None:
    """Set the status to ``running`` and spend the approval, if any. Returns the replay, or None if it must not run."""
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
            finish_without_result(row, ReplayEvent.FAIL, error="replay.dry_run_only")
            return None
        if needs_approval(row) or row.approval is not None:
            try:
                credential = (row.approval and row.approval.credential) or ""
                approvals.spend_credential(credential, row.environment, approval_subject(row))
            except Refused as refused:
                finish_without_result(row, ReplayEvent.FAIL, error=str(refused.code), detail=refused.detail)
                return None
    advance(row, ReplayEvent.START, actor=WORKER, started_at=timezone.now())
    return lock_row(row, related=RELATED)


def _is_active(row: Replay, **progress: int) -> bool:
    """Store the progress, if given. Returns whether the replay is still queued or running.

    Returns True if the database is unavailable.
    """
    active = Replay.objects.filter(pk=row.pk, status__in=[ReplayStatus.QUEUED, ReplayStatus.RUNNING])
    try:
        return bool(active.update(**progress)) if progress else active.exists()
    except DatabaseError as error:
        if not is_outage(error):
            raise
        return True
    finally:
        release_connection()


def _leave_short_lane(row: Replay, claim: Claim) -> None:
    """Move the job to the lane of long replays. If a dry run gets no slot there, requeue it there (Requeued)."""
    try:
        has_moved = claim.move_to(JobLane.LONG_REPLAYS)
    except DatabaseError as error:
        if not is_outage(error):
            raise
        return
    finally:
        release_connection()
    if not has_moved and row.mode == Replay.Mode.DRY_RUN:
        _is_active(row, progress_done=0, progress_total=0)
        raise Requeued(JobLane.LONG_REPLAYS)


def _replay(row: Replay, capture: Path, claim: Claim, turn: Turn) -> Any:
    """Run the replay in a child process and return the outcome.

    Raises Cancelled if a dry run is canceled or deleted, Requeued as ``_leave_short_lane`` does, ClaimLost,
    RejectedBundle if the capture of an execute replay is invalid, and the other errors of ``children.run_in_child``.
    """
    release_connection()

    def on_tick(progress: children.Progress) -> bool:
        """Store the progress of a dry run. Returns False if it was canceled. Moves long replays to another lane."""
        claim.ensure()
        stored = {"progress_done": progress.done, "progress_total": progress.total}
        if row.mode == Replay.Mode.DRY_RUN and not _is_active(row, **stored):
            return False
        if turn.is_long:
            _leave_short_lane(row, claim)
        return True

    with data_folders.scratch_folder() as folder, data_folders.scratch_folder() as programs:
        return children.run_in_child(
            replay_request(row, capture),
            scratch=folder,
            readable=[capture],
            effects=_executor(row, capture, programs, claim, turn) if row.mode == Replay.Mode.EXECUTE else None,
            on_tick=on_tick,
            turn=turn,
        )


def _executor(row: Replay, capture: Path, programs: Path, claim: Claim, turn: Turn) -> Executor:
    """Return the executor of an execute replay's side effects. Programs run in the folder ``programs``."""
    bundle, spec = validate_incident(capture), decode(row.version.spec_kv)
    policy = SideEffectPolicy(
        urls=settings.CONFIG.replay_http_allowlist,
        programs=settings.CONFIG.replay_exec_allowlist,
        stage_config=parameters_of_replay(bundle, spec, **_parameter_sources(row)) or {},
        consented=row.approval is not None or not needs_approval(row),
        stages=frozenset(spec.stages),
    )
    until = turn.clock() + TOTAL_S
    return Executor(policy, programs, str(row.pk), until=until, may_act=claim.ensure, clock=turn.clock)


def replay_request(row: Replay, capture: Path) -> dict[str, Any]:
    """Return the request to a child process to run a replay of the unpacked ``capture``."""
    return {
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


def child_request(row: Replay) -> dict[str, Any]:
    """Return the part of a request to a child process that specifies the spec and the parameters."""
    return {"spec_kv": row.version.spec_kv, **_parameter_sources(row)}


def _parameter_sources(row: Replay) -> dict[str, Any]:
    """Return the keyword arguments of ``parameters_of_replay``."""
    of_deployment = row.artifact.deployment.config_bundle if row.artifact.deployment else None
    bundle = row.config_bundle or of_deployment
    return {
        "stage_config": bundle.stage_config if bundle else None,
        "overrides": row.config_bundle is not None,
        "only_fitting": row.bisect_id is not None,
        "fallback": row.fallback_config_bundle.stage_config if row.fallback_config_bundle else None,
    }


@transaction.atomic
def give_up(replay_id: str, error: str, error_code: str = "interrupted") -> None:
    """Fail a queued or running replay that must not run again, for example after its last attempt."""
    found = Replay.objects.filter(pk=replay_id).first()
    row = lock_row(found) if found is not None else None
    if row is not None and row.status in {ReplayStatus.QUEUED, ReplayStatus.RUNNING}:
        finish_without_result(row, ReplayEvent.FAIL, error=storable(error), error_code=error_code)

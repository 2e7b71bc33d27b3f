"""Cancel dry runs."""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone

from apps.artifacts.models import Replay
from apps.tenancy.actors import Actor
from apps.tenancy.services.state import advance, lock_row
from byteor.engine.machines import ReplayEvent, ReplayStatus
from byteor_cloud.errors import Conflict


@transaction.atomic
def cancel(replay: Replay, *, reason: str = "", actor: Actor) -> Replay:
    """End a queued or running dry run. Its process notices within a second. Raises Conflict for any other replay."""
    row = lock_row(replay, related=("environment__project",))
    check_cancellable(row)
    return advance(
        row,
        ReplayEvent.FAIL,
        actor=actor,
        changes={"error": "cancelled", "reason": reason},
        error=f"cancelled: {reason}" if reason else "cancelled",
        error_code="cancelled",
        finished_at=timezone.now(),
    )


def check_cancellable(row: Replay) -> None:
    """Raise the Conflict with which ``cancel`` would refuse the replay."""
    if row.mode != Replay.Mode.DRY_RUN:
        raise Conflict("Only a dry run can be cancelled. Side effects may have happened.", code="replay.not_dry_run")
    if row.status not in {ReplayStatus.QUEUED, ReplayStatus.RUNNING}:
        raise Conflict(f"The replay is {row.status}. There is nothing to cancel.", code="replay.ended")

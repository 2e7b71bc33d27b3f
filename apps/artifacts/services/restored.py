"""What does not continue after a restore from a backup: execute replays, whose side effects may have happened."""

from __future__ import annotations

from apps.artifacts.models import Replay
from apps.artifacts.services import replay_runs
from byteor.engine.machines import ReplayStatus


def settle() -> dict[str, int]:
    """Fail execute replays that are queued or running in the backup, as interrupted. Returns their number.

    Replays that wait for approval are not changed. Call this in a transaction.
    """
    unfinished = Replay.objects.filter(
        mode=Replay.Mode.EXECUTE, status__in=[ReplayStatus.QUEUED, ReplayStatus.RUNNING]
    )
    ids = list(unfinished.order_by("pk").values_list("pk", flat=True))
    for replay_id in ids:
        replay_runs.give_up(str(replay_id), replay_runs.INTERRUPTED)
    return {"replays_interrupted": len(ids)}

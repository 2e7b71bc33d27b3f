"""Replays after a restore from a backup.

Queued and running execute replays fail, because their side effects may have happened since the backup.

One completed dry run is repeated, to check that the restored installation computes the same result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from apps.artifacts.models import Replay
from apps.artifacts.services import children, replay_runs
from apps.artifacts.services.uploads import unpacked
from byteor.engine.machines import ReplayStatus
from byteor_cloud.storage import data_folders

# Of this many newest completed dry runs, the one with the smallest capture is repeated.
_RECENT = 1000


@dataclass(frozen=True, slots=True)
class Repeated:
    """A replay that was run again, and whether its output has the same digests as the stored result."""

    replay_id: UUID
    is_equal: bool


def settle() -> dict[str, int]:
    """Fail the execute replays that were queued or running at the time of the backup, with the error ``interrupted``.

    Returns their number, as ``replays_interrupted``.

    Replays that wait for approval are not changed. Call this in a transaction.
    """
    unfinished = Replay.objects.filter(mode=Replay.Mode.EXECUTE, status__in=[ReplayStatus.QUEUED, ReplayStatus.RUNNING])
    ids = list(unfinished.order_by("pk").values_list("pk", flat=True))
    for replay_id in ids:
        replay_runs.give_up(str(replay_id), replay_runs.INTERRUPTED)
    return {"replays_interrupted": len(ids)}


def repeat_replay() -> Repeated | None:
    """Run a completed dry run again, without storing anything. Returns None if there is none.

    Raises RejectedBundle, NotStored, Unavailable or OSError if its capture cannot be read, and the errors of
    ``children.run_in_child``.
    """
    completed = [ReplayStatus.SUCCEEDED, ReplayStatus.DIVERGED]
    done = Replay.objects.filter(mode=Replay.Mode.DRY_RUN, status__in=completed)
    newest = done.order_by("-pk").values_list("pk", "artifact__size_bytes")[:_RECENT]
    chosen = min(newest, key=lambda each: each[1], default=None)
    if chosen is None:
        return None
    row = Replay.objects.select_related(*replay_runs.RELATED).get(pk=chosen[0])
    with unpacked(row.artifact) as capture, data_folders.scratch_folder() as scratch:
        outcome: Any = children.run_in_child(
            replay_runs.replay_request(row, capture), scratch=scratch, readable=[capture]
        )
    result: Any = row.result
    return Repeated(row.pk, outcome["result"]["egress"] == result["egress"])

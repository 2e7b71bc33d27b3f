"""The records at which a replay diverged from its capture, and their neighbors."""

from __future__ import annotations

from typing import Any

from apps.artifacts.models import Replay
from apps.artifacts.services import captures
from byteor.engine.replay.divergence_context import Divergence, read_around_in
from byteor_cloud.computing.compute import Compute
from byteor_cloud.errors import DomainError


def read_divergence(replay: Replay, *, compute: Compute) -> Divergence:
    """Return the records at which the replay diverged, or the excerpts in its result if the records are unavailable.

    The replay must have a divergence. The caller must show the records only to people who may see records.
    """
    found = replay.result["divergence"]
    kept = replay.stored_frames().get(found["egress"])
    if kept is None:
        return _excerpt(found)
    try:
        with captures.open_file(replay.artifact, f"expected/{found['egress']}.bin") as expected:
            return compute(read_around_in, expected.name, found, kept) or _excerpt(found)
    except DomainError:
        return _excerpt(found)


def _excerpt(found: dict[str, Any]) -> Divergence:
    """Return the excerpts of the records that are stored in the result."""
    diff = found["diff"]
    expected, actual = (
        bytes.fromhex(diff[f"{side}_hex"]) if found[f"{side}_sha256"] else None for side in ("expected", "actual")
    )
    return Divergence(expected, actual, diff["offset"], [])

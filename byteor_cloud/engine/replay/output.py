"""The output of an egress during a replay: counted, hashed, and kept if it is short."""

from __future__ import annotations

import hashlib
from typing import Any

from byteor_cloud.engine.replay.journal import pack_frame_head

_PENDING = 1024  # parts of frames that are hashed together, because hashing each costs more than hashing all at once
_JOINED_BYTES = 4 * 1024 * 1024


class EgressOutput:
    """The number of frames of an egress, their digest, and the frames unless there are too many."""

    def __init__(self, max_bytes: int) -> None:
        self.records = 0
        self._digest = hashlib.sha256()
        self._frames: bytearray | None = bytearray()
        self._max_bytes = max_bytes
        self._pending: list[bytes] = []

    def add(self, sequence: int, payload: bytes) -> None:
        """Add a frame."""
        pending = self._pending
        pending.append(pack_frame_head(len(payload), sequence))
        pending.append(payload)
        if len(pending) >= _PENDING:
            self._flush()

    def as_json(self) -> dict[str, Any]:
        """Return what the result of a replay says about the egress."""
        self._flush()
        return {"records": self.records, "sha256": f"sha256:{self._digest.hexdigest()}"}

    def frames(self) -> bytes | None:
        """Return all frames, or None if there are too many."""
        self._flush()
        return None if self._frames is None else bytes(self._frames)

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        self.records += len(pending) // 2
        size = sum(map(len, pending))
        # Frames may share one long payload, so that joining them could take far more memory than they do.
        for part in [b"".join(pending)] if size <= _JOINED_BYTES else pending:
            self._digest.update(part)
        if self._frames is not None:
            if len(self._frames) + size > self._max_bytes:
                self._frames = None
            else:
                self._frames += b"".join(pending)

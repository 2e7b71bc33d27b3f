"""The output of an egress during a replay: counted, hashed, and kept if it is short."""

from __future__ import annotations

import hashlib
from typing import Any

from byteor.engine.replay.journal import pack_frame_head

_PENDING = 1024  # parts of frames that are hashed together, because that is faster than hashing each one
_JOINED_BYTES = 4 * 1024 * 1024  # bytes; pending parts with a larger total are hashed one by one
_MAX_BYTES = 64 * 1024 * 1024  # bytes of frames that are kept in total; half of this may wait to be hashed


class EgressOutput:
    """The number of frames of an egress, their digest, and the frames themselves unless they are too large."""

    def __init__(self, max_bytes: int, egresses: int = 1) -> None:
        """Keep at most ``max_bytes`` of frames, and at most an equal share of what all ``egresses`` may keep."""
        self.records = 0
        self._digest = hashlib.sha256()
        self._frames: bytearray | None = bytearray()
        self._max_bytes = min(max_bytes, _MAX_BYTES // egresses)
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._max_pending = _MAX_BYTES // 2 // egresses

    def add(self, sequence: int, payload: bytes) -> None:
        """Add the next frame of the egress."""
        pending = self._pending
        pending.append(pack_frame_head(len(payload), sequence))
        pending.append(payload)
        self._pending_bytes += len(payload)
        if len(pending) >= _PENDING or self._pending_bytes > self._max_pending:
            self._flush()

    def as_json(self) -> dict[str, Any]:
        """Return the egress's entry in the result of a replay."""
        self._flush()
        return {"records": self.records, "sha256": f"sha256:{self._digest.hexdigest()}"}

    def frames(self) -> bytes | None:
        """Return all frames, or None if they are too large in total."""
        self._flush()
        return None if self._frames is None else bytes(self._frames)

    def _flush(self) -> None:
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        self.records += len(pending) // 2
        size = sum(map(len, pending))
        # Frames may share one long payload, so joining them could take far more memory than they do.
        for part in [b"".join(pending)] if size <= _JOINED_BYTES else pending:
            self._digest.update(part)
        if self._frames is not None:
            if len(self._frames) + size > self._max_bytes:
                self._frames = None
            else:
                self._frames += b"".join(pending)

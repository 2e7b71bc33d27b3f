"""Break-glass, a deployment before its approval: the request for it and the record of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from byteor.engine.canonical import format_time


@dataclass(frozen=True, slots=True)
class BreakGlassRequest:
    """An org_admin's request. ``expires_in_s`` is the time to approve; by default, the environment's approval time."""

    reason: str
    expires_in_s: int | None = None


@dataclass(frozen=True, slots=True)
class BreakGlass:
    """Who deployed before approval, and why. Another person must approve by ``approve_by``, or a rollback starts."""

    by: str
    reason: str
    user_id: str
    approve_by: datetime

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> Self:
        """Read the stored form."""
        approve_by = datetime.fromisoformat(stored["approve_by"])
        return cls(stored["by"], stored["reason"], stored["user_id"], approve_by)

    def stored(self) -> dict[str, Any]:
        """Return the stored form."""
        return {
            "by": self.by,
            "reason": self.reason,
            "user_id": self.user_id,
            "approve_by": format_time(self.approve_by),
        }

"""Going ahead without approval in an emergency: as it is asked for, and as it is on the record. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from byteor_cloud.engine.delivery.encoding import format_time


@dataclass(frozen=True, slots=True)
class BreakGlassRequest:
    """An org_admin's request; without ``expires_in_s`` others have the environment's time to approve."""

    reason: str
    expires_in_s: int | None = None


@dataclass(frozen=True, slots=True)
class BreakGlass:
    """Who went ahead without approval and why; somebody else has to approve by ``approve_by``, or it is undone."""

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

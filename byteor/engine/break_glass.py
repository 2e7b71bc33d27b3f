"""Break-glass deployments, which start before their approval: the request and the record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from byteor.engine.canonical import format_time


@dataclass(frozen=True, slots=True)
class BreakGlassRequest:
    """A request to deploy before approval. The approval must follow within ``expires_in_s``.

    The default is ``approval_ttl_s`` of the environment's policy.
    """

    reason: str
    expires_in_s: int | None = None


@dataclass(frozen=True, slots=True)
class BreakGlass:
    """Who deployed before approval, and why.

    The deployment must be approved before ``approve_by``. This person cannot approve it.
    """

    by: str
    reason: str
    user_id: str
    approve_by: datetime

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> Self:
        """Read the stored JSON data."""
        approve_by = datetime.fromisoformat(stored["approve_by"])
        return cls(stored["by"], stored["reason"], stored["user_id"], approve_by)

    def stored(self) -> dict[str, Any]:
        """Return the JSON data to store."""
        return {
            "by": self.by,
            "reason": self.reason,
            "user_id": self.user_id,
            "approve_by": format_time(self.approve_by),
        }

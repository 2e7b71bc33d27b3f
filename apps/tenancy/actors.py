"""Who does something, as services and the audit trail see it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Literal

type ActorKind = Literal["user", "organization_key", "enrollment_token", "agent", "system"]


@dataclass(frozen=True, slots=True)
class Actor:
    """The doer of a change. ``user_id`` only for people: a machine key never counts as a person."""

    kind: ActorKind
    id: str
    display: str
    request_id: str = ""
    ip: str | None = None

    @property
    def user_id(self) -> uuid.UUID | None:
        """The person, if it is one."""
        return uuid.UUID(self.id) if self.kind == "user" else None


def system(job: str) -> Actor:
    """The control plane itself, in the named job."""
    return Actor("system", job, f"system:{job}")

"""Actors, which cause changes and audit events: people, organization keys, enrollment tokens, agents, the system."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Literal

type ActorKind = Literal["user", "organization_key", "enrollment_token", "agent", "system"]


@dataclass(frozen=True, slots=True)
class Actor:
    """The cause of a change or audit event. Only people have a ``user_id``."""

    kind: ActorKind
    id: str
    display: str
    request_id: str = ""
    ip: str | None = None

    @property
    def user_id(self) -> uuid.UUID | None:
        """The id of the person's account, or None if the actor is not a person."""
        return uuid.UUID(self.id) if self.kind == "user" else None


def system_actor(job: str) -> Actor:
    """Return the actor for changes that the control plane makes.

    ``job`` is the name of a group of jobs, a service or a command.
    """
    return Actor("system", job, f"system:{job}")

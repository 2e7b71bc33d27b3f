"""The release settings of an environment, which each deployment copies when it is created."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class ReleasePolicy:
    """The rules and the lifetime of approvals, the agent timeout, and the limit of deployments in flight."""

    approval_ttl_s: int
    agent_timeout_s: int
    approvals_required: bool
    required_approvals: int
    allow_self_approval: bool
    max_in_flight_deployments: int

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> Self:
        """Read the stored JSON data."""
        return cls(**{field.name: stored[field.name] for field in fields(cls)})

    def stored(self) -> dict[str, Any]:
        """Return the JSON data to store."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def loosened_by(self, new: Self) -> list[str]:
        """Return the names of the approval settings that are less strict in ``new`` than in this policy."""
        checks = {
            "approvals_required": self.approvals_required and not new.approvals_required,
            "required_approvals": new.required_approvals < self.required_approvals,
            "allow_self_approval": new.allow_self_approval and not self.allow_self_approval,
            "approval_ttl_s": new.approval_ttl_s > self.approval_ttl_s,
        }
        return [name for name, is_loosened in checks.items() if is_loosened]

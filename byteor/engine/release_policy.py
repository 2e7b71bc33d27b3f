"""The release settings of an environment, which each deployment copies when it is created."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from byteor.engine.replay_gate import GateMode


@dataclass(frozen=True, slots=True)
class ReleasePolicy:
    """The settings that a deployment copies: rules and lifetime of approvals, agent timeout, in-flight limit, gate.

    A new setting needs a default that keeps the previous behavior, because the rows of older deployments lack it.
    """

    approval_ttl_s: int
    agent_timeout_s: int
    approvals_required: bool
    required_approvals: int
    allow_self_approval: bool
    max_in_flight_deployments: int
    replay_gate: GateMode = GateMode.OFF
    replay_gate_min_fixtures: int = 0
    max_work_increase_percent: int | None = None

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> Self:
        """Read the stored JSON data. Older rows may lack settings that have a default."""
        known = {field.name: stored[field.name] for field in fields(cls) if field.name in stored}
        return cls(**{**known, "replay_gate": GateMode(known.get("replay_gate", GateMode.OFF))})

    def stored(self) -> dict[str, Any]:
        """Return the JSON data to store."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def loosened_by(self, new: Self) -> list[str]:
        """Return the names of the settings of approvals and the gate that are less strict in ``new``."""
        modes = list(GateMode)
        old_limit, new_limit = self.max_work_increase_percent, new.max_work_increase_percent
        checks = {
            "approvals_required": self.approvals_required and not new.approvals_required,
            "required_approvals": new.required_approvals < self.required_approvals,
            "allow_self_approval": new.allow_self_approval and not self.allow_self_approval,
            "approval_ttl_s": new.approval_ttl_s > self.approval_ttl_s,
            "replay_gate": modes.index(new.replay_gate) < modes.index(self.replay_gate),
            "replay_gate_min_fixtures": new.replay_gate_min_fixtures < self.replay_gate_min_fixtures,
            "max_work_increase_percent": old_limit is not None and (new_limit is None or new_limit > old_limit),
        }
        return [name for name, is_loosened in checks.items() if is_loosened]

"""The subject of an approval: the parts of a request to which the approval is bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

from byteor.engine.rollout import Strategy
from byteor.engine.target import ReplayTarget, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentOptions:
    """The options that decide how a deployment proceeds, in addition to its configuration, target and strategy.

    A new field needs a default that keeps the previous behavior: stored approvals that lack the field are read with its
    default. The subject of an execute replay has only defaults.
    """

    start_at: str | None = None  # the time before which the deployment does not start, as RFC 3339
    take_over: bool = False
    agent_timeout_s: int | None = None  # the agent timeout in the environment's policy
    override_freeze: str | None = None  # the reason why the deployment may start in a freeze window
    override_replay_gate: str | None = None  # the reason why the replay gate does not block the deployment

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> Self:
        """Read the stored JSON data. Older rows may lack keys."""
        return cls(**{field.name: stored[field.name] for field in fields(cls) if field.name in stored})

    def stored(self) -> dict[str, Any]:
        """Return the JSON data to store."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalSubject:
    """The subject of an approval. The approval permits only a request with an equal subject.

    For a deployment, the config hash covers the spec, the runtime configuration and the capabilities. The target is
    bound as it was requested: a selector is evaluated again when the deployment starts. ``explain`` is what the
    requester says about differences: the id of each group (``group``) and a text. ``reviewers`` are the ids of the only
    users who may decide, sorted. If there are none, decisions are not limited to certain users.
    """

    spec_hash: str
    config_hash: str | None
    capabilities: tuple[str, ...]
    target: Target | ReplayTarget | None
    strategy: Strategy | None
    options: DeploymentOptions = DeploymentOptions()
    explain: Sequence[Mapping[str, str]] = ()
    reviewers: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """Return all values by name, as JSON data."""
        return {
            "spec_hash": self.spec_hash,
            "config_hash": self.config_hash,
            "capabilities": list(self.capabilities),
            "target": self.target and self.target.stored(),
            "strategy": self.strategy and self.strategy.stored(),
            **self.options.stored(),
            "explain": list(self.explain),
            "reviewers": list(self.reviewers),
        }

    def differences(self, other: Self) -> list[str]:
        """Return the names of the values in which the two subjects differ."""
        theirs = other.document()
        return [name for name, value in self.document().items() if value != theirs[name]]

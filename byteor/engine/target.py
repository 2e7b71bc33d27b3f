"""Targets of deployments, replays and approvals, and their JSON form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Target:
    """The agents of a deployment, by ids or by a label selector. If both are None: all agents of the environment.

    The ids are kept as strings, because converting 100,000 of them each time a deployment is read would be slow.
    """

    agents: tuple[str, ...] | None = None
    selector: Mapping[str, str] | None = None

    @classmethod
    def of_agents(cls, agent_ids: Iterable[UUID]) -> Self:
        """Return the target of exactly these agents."""
        return cls(agents=tuple(sorted({str(agent_id) for agent_id in agent_ids})))

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> Self:
        """Read the stored JSON data."""
        agents = stored.get("agents")
        return cls(None if agents is None else tuple(agents), stored.get("selector"))

    def stored(self) -> dict[str, Any]:
        """Return the JSON data to store."""
        if self.agents is not None:
            return {"agents": list(self.agents)}
        return {"all": True} if self.selector is None else {"selector": dict(self.selector)}


@dataclass(frozen=True, slots=True)
class ReplayTarget:
    """The request for an execute replay: which records run through which version, with which side effects."""

    mode: str
    artifact_id: str
    content_hash: str
    version_id: str
    journal_lane: str | None = None
    last_n: int | None = None
    side_effects: tuple[str, ...] = ()
    config_bundle_id: str | None = None
    fallback_config_bundle_id: str | None = None  # for stages without other parameters

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> Self:
        """Read the stored JSON data."""
        return cls(
            stored["mode"],
            stored["artifact_id"],
            stored["content_hash"],
            stored["version_id"],
            stored.get("journal_lane"),
            stored.get("last_n"),
            tuple(stored.get("side_effects", ())),
            stored.get("config_bundle_id"),
            stored.get("fallback_config_bundle_id"),
        )

    def stored(self) -> dict[str, Any]:
        """Return the JSON data to store. The keys are in the order of PostgreSQL's jsonb."""
        stored = {
            "mode": self.mode,
            "last_n": self.last_n,
            "version_id": self.version_id,
            "artifact_id": self.artifact_id,
            "content_hash": self.content_hash,
            "journal_lane": self.journal_lane,
            "side_effects": list(self.side_effects),
        }
        bundles = {
            "config_bundle_id": self.config_bundle_id,
            "fallback_config_bundle_id": self.fallback_config_bundle_id,
        }
        return stored | {name: each for name, each in bundles.items() if each}


@dataclass(frozen=True, slots=True)
class ApprovalTarget:
    """The target that an approval is ``bound`` to, and the agents that matched when the deployment was requested.

    ``count`` is the number of these agents, and ``resolved`` contains the first of their ids. For the approval of a
    wave, ``resolved`` is empty. For a replay, ``count`` is None and ``resolved`` is empty.
    """

    bound: Target | ReplayTarget
    count: int | None = None
    resolved: tuple[str, ...] = ()

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> Self:
        """Read the stored JSON data."""
        bound = {name: value for name, value in stored.items() if name not in {"count", "resolved"}}
        kind = ReplayTarget if "artifact_id" in bound else Target
        return cls(kind.from_stored(bound), stored.get("count"), tuple(stored.get("resolved", ())))

    def stored(self) -> dict[str, Any]:
        """Return the JSON data to store. The top-level keys are in the order of PostgreSQL's jsonb."""
        found = {} if self.count is None else {"count": self.count, "resolved": list(self.resolved)}
        stored = {**self.bound.stored(), **found}
        return {name: stored[name] for name in sorted(stored, key=lambda name: (len(name), name))}

"""Holds before waves, and the report on the earlier waves that the approvers of a wave see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from byteor.engine.canonical import Json, canonical, format_time, parse_time, sha256
from byteor.engine.machines import AgentProgress
from byteor.engine.rollout import Hold

_WORDS = {AgentProgress.ROLLED_BACK: "rolled back"}


@dataclass(frozen=True, slots=True)
class WaveHold:
    """The hold before ``wave``, and when it began. ``approval_id`` is the id of the approval; None for a manual hold.

    When the wave has been approved, the hold ``is_over``, but the wave may still wait for the end of a pause.
    """

    wave: int
    kind: Hold
    since: datetime
    approval_id: UUID | None = None
    is_over: bool = False

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> Self:
        """Read the stored JSON data."""
        approval_id = stored["approval_id"]
        return cls(
            stored["wave"],
            Hold(stored["kind"]),
            parse_time(stored["since"]),
            None if approval_id is None else UUID(approval_id),
            stored["is_over"],
        )

    def stored(self) -> dict[str, Any]:
        """Return the JSON data to store."""
        return {
            "kind": self.kind.value,
            "wave": self.wave,
            "since": format_time(self.since),
            "is_over": self.is_over,
            "approval_id": None if self.approval_id is None else str(self.approval_id),
        }


@dataclass(frozen=True, slots=True)
class FailureCount:
    """The number of agents whose latest failure has this reason and this masked detail.

    With the reason ``other``, ``count`` is the number of agents with any of the rarer causes.
    """

    reason: str
    detail: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WaveReport:
    """What the counted agents of the waves before ``wave`` did: their number by progress, and failures by cause.

    ``failures`` include those of agents that were retried since. Waves are counted from 0.
    """

    deployment_id: str
    bundle_hash: str
    wave: int
    progress: Mapping[str, int]
    failures: Sequence[FailureCount]

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> Self:
        """Read the stored JSON data."""
        return cls(
            deployment_id=stored["deployment_id"],
            bundle_hash=stored["bundle_hash"],
            wave=stored["wave"],
            progress=stored["progress"],
            failures=tuple(FailureCount(**each) for each in stored["failures"]),
        )

    def stored(self) -> dict[str, Any]:
        """Return the JSON data to store, which the digest covers."""
        return {
            "wave": self.wave,
            "failures": [{"count": each.count, "detail": each.detail, "reason": each.reason} for each in self.failures],
            "progress": {word: self.progress[word] for word in AgentProgress if self.progress.get(word)},
            "bundle_hash": self.bundle_hash,
            "deployment_id": self.deployment_id,
        }

    @property
    def digest(self) -> str:
        """The SHA-256 of the report's canonical JSON."""
        document: Json = self.stored()
        return sha256(canonical(document))

    @property
    def summary(self) -> str:
        """The report in words."""
        total = sum(self.progress.values())
        known = [word for word in AgentProgress if self.progress.get(word)]
        counts = ", ".join(f"{self.progress[word]:,} {_WORDS.get(word, word)}" for word in known)
        waves = "Wave 1" if self.wave == 1 else f"Waves 1 to {self.wave}"
        sentences = [f"{waves}: {total:,} agent{'' if total == 1 else 's'}{f' ({counts})' if counts else ''}."]
        for each in self.failures:
            cause = f": {each.detail.rstrip('.')}" if each.detail else ""
            agents = f"{each.count:,} agent{'' if each.count == 1 else 's'}"
            sentences.append(f"{agents} failed ({each.reason.replace('_', ' ')}){cause}.")
        return " ".join(sentences)


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldFacts:
    """A hold in effect, and who can end it. ``given`` of ``required`` people have approved the wave.

    ``waves`` is the number of the deployment's waves. ``deciders`` names the people who can decide, as the subject of a
    sentence. It is empty for a manual hold, and if the approval has ended.
    """

    hold: WaveHold
    waves: int
    given: int = 0
    required: int = 0
    deciders: str = ""
    expires_at: datetime | None = None

    @property
    def sentence(self) -> str:
        """What the deployment waits for, as a sentence."""
        since = f"since {self.hold.since:%Y-%m-%d %H:%M:%S} UTC"
        wave = f"Wave {self.hold.wave + 1} of {self.waves}"
        if self.hold.kind is Hold.MANUAL:
            return f"{wave} has been waiting {since} for an operator or admin to start it."
        so_far = f"{self.given} of {self.required} people approved"
        if self.required == 1:
            so_far = "1 person has approved it" if self.given else "nobody has approved it yet"
        deciders = f" {self.deciders} can decide." if self.deciders else ""
        return f"{wave} has been waiting for approval {since}: {so_far}.{deciders}"

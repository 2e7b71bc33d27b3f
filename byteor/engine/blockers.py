"""Blockers: the reasons why a deployment does not proceed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from uuid import UUID

from byteor.engine.freeze import FreezeWindow
from byteor.engine.machines import UNDER_WAY, DeploymentStatus

NAMED = 3  # the maximum number of deployments that a sentence names


class BlockerCode(StrEnum):
    """The code of a blocker. The codes are stable, and programs may rely on them."""

    FREEZE_WINDOW = "freeze_window"
    IN_FLIGHT_LIMIT = "in_flight_limit"
    PIPELINE_BUSY = "pipeline_busy"
    AGENTS_BUSY = "agents_busy"
    START_AT = "start_at"
    # ``find_blockers`` does not return these three codes. It only decides whether a build may start.
    WAVE_HOLD = "wave_hold"
    TOO_FEW_REVIEWERS = "too_few_reviewers"
    HELD_UP = "held_up"  # a job or bundle download cannot continue
    # The codes of the replay gate, which ``find_gate_blockers`` returns.
    GATE_RUNNING = "replay_gate.running"
    GATE_DIFFERS = "replay_gate.differs"
    GATE_FAILED = "replay_gate.failed"
    GATE_TOO_FEW = "replay_gate.too_few_fixtures"

    @property
    def is_of_gate(self) -> bool:
        """Whether the replay gate is the reason."""
        return self.startswith("replay_gate.")


@dataclass(frozen=True, slots=True)
class Blocker:
    """One reason why a deployment does not proceed.

    ``until`` is when the reason ends. For the replay gate, it is when the deployment fails if the gate still blocks it.
    It is None if there is no such time or it is not known. ``ids`` are the ids of the blocking deployments, if other
    deployments are the reason.
    """

    code: BlockerCode
    detail: str
    until: datetime | None = None
    ids: tuple[UUID, ...] = ()


@dataclass(frozen=True, slots=True)
class OtherDeployment:
    """Another deployment in flight in the same environment.

    ``is_earlier``, ``has_same_pipeline`` and ``shares_agents`` compare it with the waiting deployment, if there is one.
    """

    id: UUID
    label: str
    status: DeploymentStatus
    is_earlier: bool = False
    has_same_pipeline: bool = False
    shares_agents: bool = False
    overrides_freeze: bool = False

    @property
    def is_under_way(self) -> bool:
        """Whether the deployment is building, deploying or rolling back."""
        return self.status in UNDER_WAY


@dataclass(frozen=True, slots=True)
class StartFacts:
    """Facts that decide whether a deployment may start. ``freeze`` is the open window that ends last, with its end."""

    limit: int
    others: tuple[OtherDeployment, ...] = ()
    freeze: tuple[FreezeWindow, datetime] | None = None
    overrides_freeze: bool = False
    waits_until: datetime | None = None  # the start time that was requested, if it is in the future


def find_blockers(facts: StartFacts) -> list[Blocker]:
    """Return the blockers that the facts show for the build of an approved deployment.

    The facts contain neither the replay gate nor failed jobs.
    """
    rules: list[Callable[[StartFacts], Blocker | None]] = [_start_time, _freeze, _limit, _pipeline, _agents]
    return [found for rule in rules if (found := rule(facts)) is not None]


def freeze_blocker(window: FreezeWindow, end: datetime) -> Blocker:
    """Return the blocker for a freeze window that is open until ``end``."""
    until = f"{end.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    reason = f": {window.reason.rstrip('.')}" if window.reason else ""
    return Blocker(BlockerCode.FREEZE_WINDOW, f"A freeze window lasts until {until}{reason}.", until=end)


def limit_blocker(in_flight: Sequence[OtherDeployment], limit: int) -> Blocker | None:
    """Return the blocker for the in-flight limit if ``in_flight`` has at least ``limit`` items, otherwise None."""
    if len(in_flight) < limit:
        return None
    most = f"{limit} deployment{'' if limit == 1 else 's'}"
    verb = "is" if len(in_flight) == 1 else "are"
    detail = f"At most {most} may be in flight at the same time, and {_names(in_flight)} already {verb}."
    return Blocker(BlockerCode.IN_FLIGHT_LIMIT, detail, ids=_ids(in_flight))


def _start_time(facts: StartFacts) -> Blocker | None:
    if facts.waits_until is None:
        return None
    until = facts.waits_until
    return Blocker(
        BlockerCode.START_AT,
        f"The start time ({until.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC) has not been reached.",
        until=until,
    )


def _freeze(facts: StartFacts) -> Blocker | None:
    return None if facts.freeze is None or facts.overrides_freeze else freeze_blocker(*facts.freeze)


def _limit(facts: StartFacts) -> Blocker | None:
    # Approved deployments do not count here; otherwise waiting deployments would wait for each other.
    return limit_blocker([other for other in facts.others if other.is_under_way], facts.limit)


def _pipeline(facts: StartFacts) -> Blocker | None:
    first = [other for other in _ahead(facts) if other.has_same_pipeline]
    if not first:
        return None
    detail = f"Only one deployment of a pipeline may be under way at a time, and {_names(first)} {_come(first)} first."
    return Blocker(BlockerCode.PIPELINE_BUSY, detail, ids=_ids(first))


def _agents(facts: StartFacts) -> Blocker | None:
    first = [other for other in _ahead(facts) if other.shares_agents and not other.has_same_pipeline]
    if not first:
        return None
    most = "Only one deployment to the same agents may be under way at a time"
    detail = f"{most}, and {_names(first)} {_come(first)} first."
    return Blocker(BlockerCode.AGENTS_BUSY, detail, ids=_ids(first))


def _ahead(facts: StartFacts) -> list[OtherDeployment]:
    """Return the deployments that come first if they have the same pipeline or share agents.

    Deployments under way would compete for the agents. Deployments created earlier must start first; otherwise the
    older release would later replace the newer one. During a freeze window, an earlier deployment that is not under way
    comes first only if it overrides the window; otherwise it waits for the window's end.
    """
    return [
        other
        for other in facts.others
        if other.is_under_way or (other.is_earlier and (facts.freeze is None or other.overrides_freeze))
    ]


def _names(deployments: Sequence[OtherDeployment]) -> str:
    named = [f"{each.label} ({each.status.replace('_', ' ')})" for each in deployments[:NAMED]]
    if more := len(deployments) - len(named):
        named.append(f"{more} more")
    return " and ".join([", ".join(named[:-1]), named[-1]] if len(named) > 1 else named)


def _come(deployments: Sequence[OtherDeployment]) -> str:
    return "comes" if len(deployments) == 1 else "come"


def _ids(deployments: Sequence[OtherDeployment]) -> tuple[UUID, ...]:
    return tuple(each.id for each in deployments)

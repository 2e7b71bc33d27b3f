"""How a deployment's waves look to people. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from apps.releases.admin.phrases import agents
from byteor_cloud.engine.machines import AgentProgress, DeploymentStatus
from byteor_cloud.engine.rollout import Strategy

type Counts = Mapping[tuple[int, str], int]

_S = DeploymentStatus
_BEFORE = {_S.PENDING_APPROVAL, _S.APPROVED, _S.BUILDING}
_STOPPED = {"threshold": "failed", "timeout": "failed", "rollback_failed": "rollback failed"}
TONE = {
    "done": "good", "under way": "busy", "pausing": "waiting", "paused": "warn", "failed": "bad", "stopped": "bad",
    "rolling back": "warn", "rolled back": "warn", "rollback failed": "bad",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wave:
    """One wave: how far it is; ``until`` when the pause after it ends."""

    number: int
    percent: int
    total: int
    state: str
    counts: Mapping[str, int] = field(default_factory=dict)
    until: datetime | None = None

    @property
    def is_touched(self) -> bool:
        """Whether it was offered to any of its agents."""
        return any(progress != AgentProgress.PENDING for progress in self.counts)

    @property
    def tone(self) -> str:
        """The colour of its state."""
        return TONE.get(self.state, "plain")


@dataclass(frozen=True, slots=True)
class Standing:
    """What of a deployment decides how its waves look."""

    status: str
    wave: int = 0
    wave_done_at: datetime | None = None
    paused: bool = False
    reason: str = ""


def waves(strategy: Strategy, standing: Standing, counts: Counts, *, expected: int) -> list[Wave]:
    """Each wave that has agents; ``counts`` by wave and progress, empty before the first offer, when ``expected``
    agents are spread over them as the rollout will.
    """
    shares = _shares(strategy, expected) if not counts else {}
    numbers = sorted({number for number, _ in counts} | shares.keys())
    found = []
    for number in numbers:
        mine = {progress: count for (wave, progress), count in counts.items() if wave == number}
        total = sum(mine.values()) or shares.get(number, 0)
        state = _state(number, standing, mine, last=number == numbers[-1], pause_s=strategy.pause_s)
        until = None
        if state == "pausing" and standing.wave_done_at is not None:
            until = standing.wave_done_at + timedelta(seconds=strategy.pause_s)
        percent = strategy.percents[min(number, len(strategy.percents) - 1)]
        found.append(Wave(number + 1, percent, total, state, mine, until))
    return found


def _shares(strategy: Strategy, count: int) -> dict[int, int]:
    bounds = strategy.bounds(count)
    sizes = {wave: bound - before for wave, (before, bound) in enumerate(zip([0, *bounds], bounds, strict=False))}
    return {wave: size for wave, size in sizes.items() if size > 0}


def _state(number: int, standing: Standing, counts: Mapping[str, int], *, last: bool, pause_s: int) -> str:
    touched = any(progress != AgentProgress.PENDING for progress in counts)
    match DeploymentStatus(standing.status):
        case status if status in _BEFORE:
            return "planned"
        case _S.ACTIVE:
            return "done"
        case _S.ROLLING_BACK | _S.ROLLED_BACK as status if touched:
            return str(status).replace("_", " ")
        case _S.DEPLOYING if number < standing.wave:
            return "done"
        case _S.DEPLOYING if number > standing.wave:
            return "waiting"
        case _S.DEPLOYING if standing.paused:
            return "paused"
        case _S.DEPLOYING:
            return "pausing" if standing.wave_done_at is not None and pause_s and not last else "under way"
        case _S.FAILED if touched and standing.reason == "rollback_failed":
            return "rollback failed" if AgentProgress.FAILED in counts else "rolled back"
        case _S.FAILED if touched:
            return _STOPPED.get(standing.reason, "stopped") if number == standing.wave else "done"
    return "never offered"


def headline(standing: Standing, found: Sequence[Wave], *, detail: str = "", current: bool = False) -> str:
    """Where the deployment stands, in a sentence that changes only when it moves on."""
    total = sum(wave.total for wave in found)
    counts: dict[str, int] = {}
    for wave in found:
        for progress, count in wave.counts.items():
            counts[progress] = counts.get(progress, 0) + count
    of_all = f"{counts.get(AgentProgress.ACTIVE, 0):,} of {agents(total)} active"
    failed = f", {counts[AgentProgress.FAILED]:,} failed" if counts.get(AgentProgress.FAILED) else ""
    why = f": {detail}" if detail else ""
    match DeploymentStatus(standing.status):
        case _S.PENDING_APPROVAL:
            return "Waits for approval."
        case _S.APPROVED:
            return "Waits for its turn to be built."
        case _S.BUILDING:
            return "Its bundle is being built."
        case _S.DENIED:
            return "Denied: nothing was deployed."
        case _S.DEPLOYING:
            here = next((wave for wave in found if wave.number == standing.wave + 1), None)
            state = here.state if here is not None else "under way"
            words = {"pausing": "done, the next one follows after a pause", "paused": "paused"}
            said = words.get(state, "under way")
            said = f"Wave {standing.wave + 1} of {found[-1].number} {said}" if len(found) > 1 else said.capitalize()
            return f"{said}: {of_all}{failed}."
        case _S.ACTIVE:
            return f"Active{'' if current else ', but not current any more'}: {of_all}{failed}."
        case _S.ROLLING_BACK:
            back = counts.get(AgentProgress.ROLLED_BACK, 0)
            touched = total - counts.get(AgentProgress.PENDING, 0)
            return f"Rolling back{why}. {back:,} of {agents(touched)} back{failed}."
        case _S.ROLLED_BACK:
            return f"Rolled back{why}."
        case _S.FAILED:
            reason = standing.reason.replace("_", " ")
            return f"Failed ({reason}){why}."

"""The waves and the headline on a deployment's page. Uses no database and no request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from apps.console.pages.deployments.phrases import agent_count
from byteor.engine.explain.wording import because
from byteor.engine.machines import AgentProgress, DeploymentStatus
from byteor.engine.rollout import Hold, Strategy

type CountsByWave = Mapping[tuple[int, str], int]

_S = DeploymentStatus
_BEFORE = {_S.PENDING_APPROVAL, _S.APPROVED, _S.BUILDING}
_STOPPED = {"threshold": "failed", "timeout": "failed", "rollback_failed": "rollback failed"}
TONE = {
    "done": "good", "under way": "busy", "pausing": "waiting", "paused": "warn", "failed": "bad", "stopped": "bad",
    "rolling back": "warn", "rolled back": "warn", "rollback failed": "bad", "held": "warn",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wave:
    """One wave and its progress. ``until`` is the end of the pause after it, if its state is ``pausing``.

    ``hold`` is the hold before the wave, or None. While the hold is in effect, the state of the wave is ``held``.
    """

    number: int
    percent: int
    total: int
    state: str
    counts: Mapping[str, int] = field(default_factory=dict)
    until: datetime | None = None
    hold: Hold | None = None

    @property
    def was_offered(self) -> bool:
        """Whether any agent of the wave was offered the deployment. Withdrawn offers do not count."""
        return any(progress != AgentProgress.PENDING for progress in self.counts)

    @property
    def tone(self) -> str:
        """The tone in which the wave's state is shown."""
        return TONE.get(self.state, "plain")


@dataclass(frozen=True, slots=True)
class DeploymentState:
    """The fields of a deployment that determine the states of its waves."""

    status: str
    wave: int = 0
    wave_done_at: datetime | None = None
    paused: bool = False
    reason: str = ""
    held_wave: int | None = None  # the wave whose hold is in effect, counted from 0


def build_waves(strategy: Strategy, deployment: DeploymentState, counts: CountsByWave, *, expected: int) -> list[Wave]:
    """Return the waves that have agents.

    ``counts`` maps wave and progress to the number of agents. Before the first offer, ``counts`` is empty, and
    ``expected`` agents are divided into waves as the rollout will divide them.
    """
    shares = _shares(strategy, expected) if not counts else {}
    numbers = sorted({number for number, _ in counts} | shares.keys())
    found: list[Wave] = []
    for number, before in zip(numbers, [None, *numbers], strict=False):
        mine = {progress: count for (wave, progress), count in counts.items() if wave == number}
        total = sum(mine.values()) or shares.get(number, 0)
        state = _state(number, deployment, mine, last=number == numbers[-1], pause_s=strategy.pause_s)
        until = None
        if state == "pausing" and deployment.wave_done_at is not None:
            until = pause_end(strategy, deployment.wave_done_at)
        percent = strategy.percents[min(number, len(strategy.percents) - 1)]
        hold = None if before is None else strategy.find_hold(before, number)
        found.append(Wave(number + 1, percent, total, state, mine, until, hold))
    return found


def pause_end(strategy: Strategy, wave_done_at: datetime) -> datetime:
    """Return when the pause after a wave ends."""
    return wave_done_at + timedelta(seconds=strategy.pause_s)


def _shares(strategy: Strategy, count: int) -> dict[int, int]:
    bounds = strategy.wave_bounds(count)
    sizes = {wave: bound - before for wave, (before, bound) in enumerate(zip([0, *bounds], bounds, strict=False))}
    return {wave: size for wave, size in sizes.items() if size > 0}


def _state(number: int, deployment: DeploymentState, counts: Mapping[str, int], *, last: bool, pause_s: int) -> str:
    was_offered = any(progress != AgentProgress.PENDING for progress in counts)
    match DeploymentStatus(deployment.status):
        case status if status in _BEFORE:
            return "planned"
        case _S.ACTIVE:
            return "done"
        case _S.ROLLING_BACK | _S.ROLLED_BACK as status if was_offered:
            return str(status).replace("_", " ")
        case _S.DEPLOYING if deployment.held_wave is not None and number in {deployment.wave, deployment.held_wave}:
            return "done" if number == deployment.wave else "held"
        case _S.DEPLOYING if number < deployment.wave:
            return "done"
        case _S.DEPLOYING if number > deployment.wave:
            return "waiting"
        case _S.DEPLOYING if deployment.paused:
            return "paused"
        case _S.DEPLOYING:
            return "pausing" if deployment.wave_done_at is not None and pause_s and not last else "under way"
        case _S.FAILED if was_offered and deployment.reason == "rollback_failed":
            return "rollback failed" if AgentProgress.FAILED in counts else "rolled back"
        case _S.FAILED if was_offered:
            return _STOPPED.get(deployment.reason, "stopped") if number == deployment.wave else "done"
    return "never offered"


def headline(deployment: DeploymentState, found: Sequence[Wave], *, detail: str = "", current: bool = False) -> str:
    """Return sentences about the state of the deployment. Screen readers announce them when they change."""
    total = sum(wave.total for wave in found)
    counts: dict[str, int] = {}
    for wave in found:
        for progress, count in wave.counts.items():
            counts[progress] = counts.get(progress, 0) + count
    of_all = f"{counts.get(AgentProgress.ACTIVE, 0):,} of {agent_count(total)} active"
    failed = f", {counts[AgentProgress.FAILED]:,} failed" if counts.get(AgentProgress.FAILED) else ""
    why = because(detail)
    match DeploymentStatus(deployment.status):
        case _S.PENDING_APPROVAL:
            return f"Waiting for approval. {detail}".rstrip()
        case _S.APPROVED:
            return f"Waiting. {detail}" if detail else "Waiting for the build to start."
        case _S.BUILDING:
            return "Building the deploy bundle."
        case _S.DENIED:
            return "Denied: nothing was deployed."
        case _S.DEPLOYING:
            here = next((wave for wave in found if wave.number == deployment.wave + 1), None)
            state = here.state if here is not None else "under way"
            phrases = {"pausing": "done, and the next wave starts after a pause", "paused": "paused"}
            phrase = phrases.get(state, "under way")
            if deployment.held_wave is not None:
                phrase = f"done, and wave {deployment.held_wave + 1} is held"
            phrase = (
                f"Wave {deployment.wave + 1} of {found[-1].number} {phrase}" if len(found) > 1 else phrase.capitalize()
            )
            return f"{phrase}: {of_all}{failed}."
        case _S.ACTIVE:
            return f"Active{'' if current else ', but no longer current'}: {of_all}{failed}."
        case _S.ROLLING_BACK:
            back = counts.get(AgentProgress.ROLLED_BACK, 0)
            was_offered = total - counts.get(AgentProgress.PENDING, 0)
            return f"Rolling back{why}. {back:,} of {agent_count(was_offered)} rolled back{failed}."
        case _S.ROLLED_BACK:
            return f"Rolled back{why}."
        case _S.FAILED:
            reason = deployment.reason.replace("_", " ")
            return f"Failed ({reason}){why}."

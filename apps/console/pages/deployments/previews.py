"""Previews of acts on a deployment or on one of its agents. Each states in one sentence what the act would do now.

A preview raises DomainError if it finds that the act is not possible now. It may check less than the act does. The
numbers of agents without an offer include drained agents, which get no offer. A deployment's attribute ``counted`` has
its ``AgentCounts``, which ``DeploymentAdmin.get_object`` reads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any
from uuid import UUID

from django.utils import timezone

from apps.console.frame.large import MOST_COUNTED
from apps.console.pages.deployments.phrases import HOLDS, agent_count, offers
from apps.console.pages.deployments.waves import pause_end
from apps.releases.models import ConfigBundle, Deployment, DeploymentAgent
from apps.releases.services import assignments, deployments, rollbacks, rollout_steps
from apps.releases.services.progress import AgentCounts
from apps.tenancy.services.state import check_transition
from byteor.engine.machines import AgentProgress as A
from byteor.engine.machines import DeploymentEvent, DeploymentStatus

# Up to this number of agents, the preview of a rollback reads what each agent ran before.
_MAX_READ = 1000
_WAITS = {hold: f"waits {until}" for hold, until in HOLDS.items()}
_MAX_NAMED = 3  # earlier bundles that the preview of a rollback names


def preview_next_wave(row: Any) -> str:
    """Return which wave would start, and how many agents would be offered the deployment."""
    rollout_steps.check_next_wave(row)
    wave, count = _find_next_wave(row)
    return f"{_begin(wave, 'starts now')}: {offers(count, _version_of(row), 'more ')}."


def preview_retry(row: Any) -> str:
    """Return how many failed agents would be offered the deployment again, and whether the rollout would continue."""
    count = len(deployments.check_retry(row, most=MOST_COUNTED + 1))
    shown = f"{count:,}" if count <= MOST_COUNTED else f"More than {MOST_COUNTED:,}"
    return _retried(row, f"{shown} failed agent{'s are' if count != 1 else ' is'}" if count else "")


def preview_retry_of_one(row: DeploymentAgent) -> str:
    """Return that the agent would be offered the deployment again, and whether the rollout would continue."""
    deployments.check_retry(row.deployment, agents=[row.agent_id])
    return _retried(row.deployment, f"{row.agent.name} is")


def _retried(row: Deployment, who: str) -> str:
    goes_on = f"the rollout continues with wave {row.wave + 1}"
    if not who:
        return f"{goes_on[0].upper()}{goes_on[1:]}, and no agent is retried."
    then = f", and {goes_on}" if row.status == DeploymentStatus.FAILED else ""
    return f"{who} offered {_version_of(row)} again{then}."


def preview_pause(row: Any) -> str:
    """Return how many agents would have to wait for an offer until the deployment is resumed."""
    deployments.check_set_paused(row, paused=True)
    counted: AgentCounts = row.counted
    if not (count := counted.by_progress.get(A.PENDING, 0)):
        return f"Nothing changes for enlisted agents, because all of them have been offered {_version_of(row)}."
    version = _version_of(row)
    waits = _clause(count, f"is not offered {version}", f"are not offered {version}")
    return f"{waits} until somebody resumes the deployment."


def preview_resume(row: Any) -> str:
    """Return what would follow: more offers in the current wave, the next wave, or what the next wave waits for."""
    deployments.check_set_paused(row, paused=False)
    counted: AgentCounts = row.counted
    hold = row.wave_hold
    if hold is not None and not hold.is_over:
        return f"The rollout continues, and wave {hold.wave + 1} still waits {HOLDS[hold.kind]}."
    if here := _pending(counted, row.wave):
        return f"Wave {row.wave + 1} continues: {offers(here, _version_of(row), 'more ')}."
    wave, count = _find_next_wave(row)
    if not count:
        return f"The rollout continues, and all enlisted agents have been offered {_version_of(row)} already."
    if row.wave_done_at is None:
        follows = _WAITS.get(row.strategy.find_hold(row.wave, wave), "starts")
        return f"The rollout continues, and wave {wave + 1} {follows} after wave {row.wave + 1} has finished."
    starts = "starts now" if pause_end(row.strategy, row.wave_done_at) <= timezone.now() else "starts after the pause"
    return f"{_begin(wave, starts)}: {offers(count, _version_of(row), 'more ')}."


def preview_abort(row: Any) -> str:
    """Return how many agents would keep or finish activating the bundle, lose their offer, or not be offered it."""
    check_transition(row, DeploymentEvent.ABORT)
    counted: AgentCounts = row.counted
    version, counts = _version_of(row), counted.by_progress
    if row.status != DeploymentStatus.DEPLOYING:
        return f"The deployment stops before any agent is offered {version}."
    started = counts.get(A.DOWNLOADING, 0) + counts.get(A.ACTIVATING, 0)
    clauses = [
        _clause(counts.get(A.ACTIVE, 0), f"keeps {version}", f"keep {version}"),
        _clause(started, f"finishes activating {version}", f"finish activating {version}"),
        _clause(counts.get(A.OFFERED, 0), "loses its offer", "lose their offers"),
        _clause(counts.get(A.PENDING, 0), f"is not offered {version}", f"are not offered {version}"),
    ]
    said = [clause for clause in clauses if clause]
    return f"The deployment fails: {_listed(said)}." if said else "The deployment fails, and no agent changes."


def preview_rollback(row: Any) -> str:
    """Return how many agents would return to which version and config bundle.

    With more than ``_MAX_READ`` agents, return only an approximate number of agents, and which deployment would be
    restored. Each sentence also says that the configuration would become known bad.
    """
    target = rollbacks.check_start(row)
    counted: AgentCounts = row.counted
    then = "this configuration becomes known bad here"
    if sum(counted.by_progress.values()) > _MAX_READ:
        count = sum(number for progress, number in counted.by_progress.items() if progress != A.PENDING)
        name = _read_names([target], row.pipeline)[target.pk]
        back = "returns to what it ran before" if count == 1 else "return to what they ran before"
        return f"About {agent_count(count)} {back}, {name} is restored, and {then}."
    before: Counter[UUID | None] = Counter(rollbacks.touched_agents(row).values_list("before_id", flat=True))
    groups: Counter[Deployment] = Counter()
    if before.keys() <= {target.pk, None}:  # saves a query
        groups[target] = before.total()
    else:
        for before_id, restored in assignments.find_restored(row, before, fallback=target).items():
            groups[restored] += before[before_id]
    names = _read_names([target, *groups], row.pipeline)
    shown = groups.most_common(_MAX_NAMED)
    clauses = [_clause(n, f"returns to {names[each.pk]}", f"return to {names[each.pk]}") for each, n in shown]
    rest = groups.total() - sum(n for _, n in shown)
    clauses.append(_clause(rest, "returns to an earlier bundle", "return to earlier bundles"))
    said = [clause for clause in clauses if clause] or [f"{names[target.pk]} is restored"]
    return f"{', '.join(said)}, and {then}."


def _version_of(row: Deployment) -> str:
    """Return the pipeline and version of the deployment, such as "quotes v8"."""
    return str(row.config_bundle.version)


def _read_names(rows: Collection[Deployment], pipeline: str) -> dict[UUID, str]:
    """Return the version and config bundle of each deployment as a phrase, by the deployment's id.

    The pipeline is named if it is not ``pipeline``.
    """
    found = ConfigBundle.objects.filter(pk__in={row.config_bundle_id for row in rows})
    named = found.values_list("pk", "version__number", "name")
    by_bundle = {pk: f"v{number} (bundle {name})" for pk, number, name in named}
    return {
        row.pk: f"{'' if row.pipeline == pipeline else f'{row.pipeline} '}{by_bundle[row.config_bundle_id]}"
        for row in rows
    }


def _begin(wave: int, starts: str) -> str:
    return f"Wave {wave + 1} {starts}"


def _clause(count: int, one: str, several: str) -> str:
    """Return what ``count`` agents do; "" without agents."""
    return f"{agent_count(count)} {one if count == 1 else several}" if count else ""


def _pending(counted: AgentCounts, last: int) -> int:
    """Return the number of agents without an offer in the waves up to ``last``, including drained agents."""
    return sum(n for (wave, progress), n in counted.by_wave.items() if progress == A.PENDING and wave <= last)


def _find_next_wave(row: Any) -> tuple[int, int]:
    """Return the next wave with agents, counted from 0, and how many agents of the waves up to it have no offer.

    If no further wave has agents, the wave is the one after the current wave.
    """
    counted: AgentCounts = row.counted
    wave = min((wave for wave, _ in counted.by_wave if wave > row.wave), default=row.wave + 1)
    return wave, _pending(counted, wave)


def _listed(clauses: list[str]) -> str:
    """Join clauses with commas, and with "and" before the last."""
    *others, last = clauses
    return f"{', '.join(others)}{',' if len(others) > 1 else ''} and {last}" if others else last

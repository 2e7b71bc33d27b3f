"""Why the agents of a deployment failed, grouped by cause."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.contrib.postgres.aggregates import ArrayAgg
from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import Case, Count, F, Func, OuterRef, Q, QuerySet, Subquery, When
from django.db.models.functions import JSONObject, Left

from apps.releases.models import AgentFailure, Deployment
from apps.releases.services import timeline
from apps.tenancy.actors import system_actor
from byteor.engine.failures import OTHER_CAUSES
from byteor.engine.machines import AgentProgress, DeploymentEvent, DeploymentStatus, OfferAction
from byteor_cloud.database.together import Plan, run

MAX_CAUSES = 50
AGENTS_FAILED = "agents_failed"  # the event of a timeline entry
_MAX_TIMELINE_CAUSES = 5  # the maximum number of causes in a timeline entry, without the sum of the rarer ones
_PHASE_STARTS = [DeploymentEvent.OFFER, DeploymentEvent.RETRY, DeploymentEvent.ROLL_BACK, DeploymentEvent.ACTIVATE]
# The deployment has neither retried the agent nor rolled it back since the failure.
_IS_STILL_FAILED = Q(part__progress=AgentProgress.FAILED, part__action=F("action"))


@dataclass(frozen=True, slots=True)
class Cause:
    """The agents that failed with one reason and one masked detail, or the sum of all rarer causes."""

    reason: str
    detail: str
    count: int
    still_failed: int
    agents: list[UUID]  # the ids of the first five agents; empty for the sum


def find_causes(deployment: Deployment) -> list[Cause]:
    """Return the most frequent causes of the deployment's failures, and last the sum of all rarer causes, if any."""
    return run(plan_causes(deployment))


def plan_causes(deployment: Deployment) -> Plan[list[Cause]]:
    """Return the ``Plan`` of ``find_causes``."""
    return _plan(AgentFailure.objects.filter(deployment=deployment), MAX_CAUSES)


def group(failures: QuerySet[AgentFailure], limit: int) -> list[Cause]:
    """Return the most frequent causes of these failures, at most ``limit``, and the sum of all rarer ones, if any."""
    return run(_plan(failures, limit))


def _plan(failures: QuerySet[AgentFailure], limit: int) -> Plan[list[Cause]]:
    first_ids = Func(ArrayAgg("part__agent_id", order_by="part__agent_id"), template="(%(expressions)s)[1:5]")
    groups = (
        failures.order_by()
        .values_list("reason", "cause")
        .annotate(n=Count("pk"), still_failed=Count("pk", filter=_IS_STILL_FAILED), agents=first_ids)
        .order_by("-n", "reason", "cause")
    )
    (rows,) = yield [groups[: limit + 1]]
    found = [Cause(*row) for row in rows]
    if len(found) > limit:
        named = found[:limit]
        whole = failures.aggregate(n=Count("pk"), still_failed=Count("pk", filter=_IS_STILL_FAILED))
        rest = whole["n"] - sum(cause.count for cause in named)
        still_failed = whole["still_failed"] - sum(cause.still_failed for cause in named)
        found = [*named, Cause(OTHER_CAUSES, "", rest, still_failed, [])]
    return found


def main_causes(limit: int) -> ArraySubquery:
    """Return a subquery with the most frequent causes of failure among a deployment's agents that are still failed.

    Each cause is an object with ``reason``, ``cause`` and ``count``.
    """
    groups = (
        AgentFailure.objects.filter(_IS_STILL_FAILED, deployment=OuterRef("pk"))
        .order_by()
        .values("reason", "cause")
        .annotate(n=Count("pk"))
        .order_by("-n", "reason", "cause")
    )
    return ArraySubquery(groups.values(found=JSONObject(reason="reason", cause="cause", count="n"))[:limit])


def failure_of_agent() -> Case:
    """Return an expression for the failure of an agent whose current offer failed; null for any other agent.

    The failure is an object with ``reason``, ``cause``, and the first 200 characters of ``detail``.
    """
    failure = AgentFailure.objects.filter(
        _IS_STILL_FAILED,
        part__agent=OuterRef("pk"),
        part__deployment=OuterRef("assignment__deployment_id"),
    )
    found = failure.values(found=JSONObject(reason="reason", cause="cause", detail=Left("detail", 200)))[:1]
    return Case(When(assignment__progress=AgentProgress.FAILED, then=Subquery(found)))


def note_in_timeline(deployment: Deployment) -> None:
    """Add or update the timeline entry for the failures of the current wave, of the rollback, or since the activation.

    Call this function with the deployment locked, and before the failed agents get new offers.
    """
    failures, wave = AgentFailure.objects.filter(_IS_STILL_FAILED, deployment=deployment), {}
    match deployment.status:
        case DeploymentStatus.DEPLOYING:
            wave = {"wave": deployment.wave + 1}
            failures = failures.filter(action=OfferAction.ACTIVATE, part__wave=deployment.wave)
        case DeploymentStatus.ROLLING_BACK:
            failures = failures.filter(action=OfferAction.ROLLBACK)
        case DeploymentStatus.ACTIVE:
            failures = failures.filter(action=OfferAction.ACTIVATE, at__gte=deployment.activated_at)
        case _:
            return
    if not (causes := group(failures, _MAX_TIMELINE_CAUSES)):
        return
    detail: dict[str, Any] = {
        **wave,
        "failed": sum(cause.count for cause in causes),
        "causes": [{"reason": cause.reason, "detail": cause.detail, "count": cause.count} for cause in causes],
    }
    entries = deployment.timeline.filter(event__in=[*_PHASE_STARTS, AGENTS_FAILED])
    latest = entries.order_by("-id").first()
    if latest is not None and latest.event == AGENTS_FAILED and latest.detail.get("wave") == detail.get("wave"):
        if latest.detail != detail:
            latest.detail = detail
            latest.save(update_fields=["detail"])
    else:
        timeline.add_entry(deployment, AGENTS_FAILED, actor=system_actor("rollout"), detail=detail)

"""The table of a deployment's agents, page by page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from django.db.models import Case, OuterRef, Q, QuerySet, Subquery, Value, When

from apps.console.frame.personal import CountRows
from apps.console.frame.table_pages import TablePage, page_of
from apps.releases.models import AgentFailure, Deployment, DeploymentAgent
from apps.releases.services.progress import AgentCounts
from byteor.engine.machines import AgentProgress as A
from byteor_cloud.database.large_columns import with_small_values, without_large
from byteor_cloud.database.together import Plan

PAGE = 25  # agents per page
# Agents that need attention come first, and active agents last.
_ORDER = (A.FAILED, A.ACTIVATING, A.DOWNLOADING, A.OFFERED, A.ROLLED_BACK, A.PENDING, A.ACTIVE)
_FAILURES = AgentFailure.objects.filter(part=OuterRef("pk")).order_by("action")  # as in ``DeploymentAgent.failure``
_RANK = Case(*(When(progress=word, then=Value(rank)) for rank, word in enumerate(_ORDER)))


@dataclass(frozen=True, slots=True)
class AgentsPage(TablePage[DeploymentAgent]):
    """A page of a deployment's agents, with the search and filter that selected them."""

    search: str
    progress: str
    kinds: list[tuple[str, int]]


def plan_page(deployment: Deployment, counted: AgentCounts, query: Mapping[str, str]) -> Plan[AgentsPage]:
    """Return the ``Plan`` for a page of agents, failed ones first.

    Each agent has ``failure_detail``, which is None without a failure. ``query`` may have ``q`` (part of a name),
    ``progress`` and ``page``.
    """
    search = query.get("q", "").replace("\0", "").strip()[:200]
    by_progress = counted.by_progress
    progress = query.get("progress", "")
    rows: QuerySet[DeploymentAgent] = deployment.agents.all()
    if progress in set(A):
        rows = rows.filter(progress=progress)
    else:
        progress = ""
    if search:
        rows = rows.filter(agent__name__icontains=search)
        ((total,),) = yield [
            Deployment.objects.filter(pk=deployment.pk).values_list(CountRows(rows.values("pk")), flat=True)
        ]
    else:
        total = by_progress.get(progress, 0) if progress else sum(by_progress.values())
    number, start = page_of(query.get("page", ""), total, PAGE)
    # Select the page's keys first, because this may sort 100,000 rows.
    keys = rows.order_by(_RANK, "agent_id").values("pk")[start : start + PAGE]
    shown = DeploymentAgent.objects.filter(pk__in=keys).select_related("agent")
    shown = without_large(shown, {"detail"}).annotate(
        reported_tuning=Q(tuning__isnull=False), failure_detail=Subquery(_FAILURES.values("detail")[:1])
    )
    found: list[DeploymentAgent] = []
    if total:
        (found,) = yield [with_small_values(shown, {"tuning"}).order_by(_RANK, "agent_id")]
    kinds = [(word.value, by_progress[word]) for word in _ORDER if by_progress.get(word)]
    return AgentsPage(found, total, start + 1 if found else 0, number, search, progress, kinds)

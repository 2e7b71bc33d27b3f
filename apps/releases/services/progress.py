"""Counts of a deployment's agents by wave and progress, summed from the rows of ``ProgressCount``.

Counting reads no rows of agents, because a deployment may have 100,000 agents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from django.db import connection, transaction
from django.db.models import OuterRef, Q, Subquery, Sum
from django.db.models.functions import JSONObject

from apps.releases.models import Deployment, ProgressCount
from byteor.engine.machines import AgentProgress

# Rows that another transaction has locked are left for the next run.
_SUM = """
WITH gone AS (
    DELETE FROM releases_progresscount WHERE id IN (
        SELECT id FROM releases_progresscount WHERE deployment_id = %(id)s FOR UPDATE SKIP LOCKED
    ) RETURNING wave, counted, progress, count
)
INSERT INTO releases_progresscount (deployment_id, wave, counted, progress, count, is_sum)
SELECT %(id)s, wave, counted, progress, sum(count), true FROM gone GROUP BY 2, 3, 4 HAVING sum(count) <> 0
"""


@dataclass(frozen=True, slots=True)
class AgentCounts:
    """The number of agents by wave and progress. ``uncounted`` is how many do not count for waves and thresholds.

    ``counted`` contains only the agents that count.
    """

    by_wave: Mapping[tuple[int, str], int]
    uncounted: int
    counted: Mapping[tuple[int, str], int]

    @property
    def by_progress(self) -> dict[str, int]:
        """The number of agents by progress, over all waves."""
        found: Counter[str] = Counter()
        for (_, progress), count in self.by_wave.items():
            found[progress] += count
        return dict(found)


def count_agents(deployment: Deployment) -> AgentCounts:
    """Count the deployment's agents by wave and progress."""
    by_wave: Counter[tuple[int, str]] = Counter()
    counts: Counter[tuple[int, str]] = Counter()
    rows = deployment.progress_counts.order_by().values_list("wave", "progress", "counted").annotate(n=Sum("count"))
    for wave, progress, counted, n in rows.filter(n__gt=0):
        by_wave[wave, progress] += n
        counts[wave, progress] += n if counted else 0
    return AgentCounts(by_wave, by_wave.total() - counts.total(), +counts)


def of_each_deployment() -> Subquery:
    """Return a subquery for a query of deployments: the number of agents by progress, or null without counts."""
    mine = ProgressCount.objects.filter(deployment=OuterRef("pk")).order_by().values("deployment")
    numbers = {word.value: Sum("count", filter=Q(progress=word), default=0) for word in AgentProgress}
    return Subquery(mine.annotate(numbers=JSONObject(**numbers)).values("numbers"))


def sum_up() -> None:
    """Replace the rows of each deployment that has new rows with their sums. The counts do not change."""
    changed = ProgressCount.objects.filter(is_sum=False).order_by()
    for deployment_id in changed.values_list("deployment_id", flat=True).distinct():
        _sum_up(deployment_id)


@transaction.atomic
def _sum_up(deployment_id: UUID) -> None:
    with connection.cursor() as cursor:
        # A deployment that is being deleted must not get new rows. Steps and reports do not wait for this lock.
        cursor.execute("SELECT FROM releases_deployment WHERE id = %s FOR KEY SHARE", [deployment_id])
        cursor.execute(_SUM, {"id": deployment_id})

"""How far a deployment's agents are: counted in one query, and a page of them; never all of them at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from django.db.models import Case, Count, QuerySet, Value, When

from apps.releases.models import Deployment, DeploymentAgent
from byteor_cloud.engine.machines import AgentProgress as A

PAGE = 25
# What needs eyes comes first, what is done last.
_ORDER = (A.FAILED, A.ACTIVATING, A.DOWNLOADING, A.OFFERED, A.ROLLED_BACK, A.PENDING, A.ACTIVE)
_RANK = Case(*(When(progress=word, then=Value(rank)) for rank, word in enumerate(_ORDER)))


@dataclass(frozen=True, slots=True)
class Counts:
    """How many agents are how far; ``uncounted`` do not count for waves and thresholds."""

    by_wave: Mapping[tuple[int, str], int]
    uncounted: int

    @property
    def by_progress(self) -> dict[str, int]:
        """Over all waves."""
        found: Counter[str] = Counter()
        for (_, progress), count in self.by_wave.items():
            found[progress] += count
        return dict(found)


def counts(deployment: Deployment) -> Counts:
    """Count the deployment's agents."""
    by_wave: Counter[tuple[int, str]] = Counter()
    uncounted = 0
    rows = deployment.agents.order_by().values_list("wave", "progress", "counted").annotate(n=Count("pk"))
    for wave, progress, counted, n in rows:
        by_wave[wave, progress] += n
        uncounted += 0 if counted else n
    return Counts(by_wave, uncounted)


@dataclass(frozen=True, slots=True)
class AgentsPage:
    """A page of a deployment's agents, and what was asked for."""

    rows: list[DeploymentAgent]
    total: int
    first: int
    page: int
    search: str
    progress: str
    kinds: list[tuple[str, int]]

    @property
    def last(self) -> int:
        """The place of the last row."""
        return self.first + len(self.rows) - 1

    @property
    def previous(self) -> int | None:
        """The page before."""
        return self.page - 1 if self.page > 1 else None

    @property
    def next(self) -> int | None:
        """The page after."""
        return self.page + 1 if self.last < self.total else None


def page(deployment: Deployment, counted: Counts, asked: Mapping[str, str]) -> AgentsPage:
    """The agents that ``q`` (in the name) and ``progress`` leave, ``page`` by page, failed ones first."""
    search = asked.get("q", "").replace("\0", "").strip()[:200]
    by_progress = counted.by_progress
    progress = asked.get("progress", "")
    rows: QuerySet[DeploymentAgent] = deployment.agents.all()
    if progress in set(A):
        rows = rows.filter(progress=progress)
    else:
        progress = ""
    if search:
        rows = rows.filter(agent__name__icontains=search)
        total = rows.count()
    else:
        total = by_progress.get(progress, 0) if progress else sum(by_progress.values())
    pages = max(1, -(-total // PAGE))
    number = min(_number(asked.get("page", "")), pages)
    start = (number - 1) * PAGE
    # The page is found by its keys alone: 100,000 agents are sorted, but 25 are joined and fetched.
    keys = rows.order_by(_RANK, "agent_id").values("pk")[start : start + PAGE]
    shown = DeploymentAgent.objects.filter(pk__in=keys).select_related("agent").order_by(_RANK, "agent_id")
    found = list(shown) if total else []
    kinds = [(word.value, by_progress[word]) for word in _ORDER if by_progress.get(word)]
    return AgentsPage(found, total, start + 1 if found else 0, number, search, progress, kinds)


def _number(text: str) -> int:
    return max(1, int(text)) if text.isascii() and text.isdigit() and len(text) < 10 else 1

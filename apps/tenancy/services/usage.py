"""The usage of organizations: read usage, add to it, and sum it up."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models import BigIntegerField, DateField, DateTimeField, OuterRef, Q, Subquery, Sum, Value
from django.db.models.functions import Cast, Coalesce
from django.utils import timezone

from apps.tenancy.models import MonthlyPeak, Organization, OrganizationQuotas, Quota, UseCount

MONTHS = 13  # months that are kept and returned, including the current one
_HELD = {
    Quota.AGENTS: UseCount.Kind.AGENTS,
    Quota.STORED_BYTES: UseCount.Kind.STORED_BYTES,
    Quota.DRAFTS: UseCount.Kind.DRAFTS,
}
_OF_MONTH = (UseCount.Kind.HEARTBEATS, UseCount.Kind.UPLOADED_BYTES, UseCount.Kind.REPLAYS, UseCount.Kind.WORK)
# Rows that another transaction has locked, and environments that are being purged, are skipped until the next run.
_SUM = """
WITH places AS (
    SELECT DISTINCT environment_id, organization_id, kind, since FROM tenancy_usecount WHERE NOT is_sum
), kept AS (
    SELECT id FROM tenancy_environment WHERE id IN (SELECT environment_id FROM places) FOR KEY SHARE SKIP LOCKED
), gone AS (
    DELETE FROM tenancy_usecount WHERE id IN (
        SELECT id FROM tenancy_usecount WHERE (
            environment_id IN (SELECT id FROM kept)
            AND (environment_id, kind) IN (SELECT environment_id, kind FROM places)
        ) OR (organization_id, kind, since) IN (SELECT organization_id, kind, since FROM places)
        FOR UPDATE SKIP LOCKED
    ) RETURNING environment_id, organization_id, kind, since, count
)
INSERT INTO tenancy_usecount (environment_id, organization_id, kind, since, count, is_sum)
SELECT environment_id, organization_id, kind, since, sum(count), true FROM gone
GROUP BY 1, 2, 3, 4 HAVING sum(count) <> 0
"""
# The statement only writes rows that change.
_PEAKS = """
WITH present AS (
    SELECT organization.id AS organization_id,
        coalesce(sum(held.count) FILTER (WHERE held.kind = 'agents'), 0) AS agents,
        coalesce(sum(held.count) FILTER (WHERE held.kind = 'stored_bytes'), 0) AS stored_bytes
    FROM tenancy_organization AS organization
        LEFT JOIN tenancy_project AS project ON project.organization_id = organization.id AND project.deleted_at IS NULL
        LEFT JOIN tenancy_environment AS environment
            ON environment.project_id = project.id AND environment.deleted_at IS NULL
        LEFT JOIN tenancy_usecount AS held ON held.environment_id = environment.id
    GROUP BY organization.id
)
INSERT INTO tenancy_monthlypeak (organization_id, month, agents, stored_bytes)
SELECT organization_id, %(month)s, greatest(present.agents, peak.agents),
    greatest(present.stored_bytes, peak.stored_bytes)
FROM present LEFT JOIN (SELECT * FROM tenancy_monthlypeak WHERE month = %(month)s) AS peak USING (organization_id)
WHERE peak.id IS NULL OR present.agents > peak.agents OR present.stored_bytes > peak.stored_bytes
ORDER BY organization_id
ON CONFLICT (organization_id, month) DO UPDATE SET agents = excluded.agents, stored_bytes = excluded.stored_bytes
"""


@dataclass(frozen=True, slots=True)
class Usage:
    """The current month, an organization's quotas and current usage, and its usage by month, newest first."""

    month: date
    limits: Mapping[Quota, int | None]
    used: Mapping[Quota, int]
    by_month: list[dict[str, Any]]


def count_used(organization_id: UUID, quotas: Collection[Quota] = tuple(Quota)) -> dict[Quota, int]:
    """Return the organization's current usage of each of these quotas.

    Deleted environments and projects do not count, except for their captures of today.
    """
    rows = UseCount.objects.filter(_is_counted([organization_id], quotas)).order_by()
    counts = dict(rows.values_list("kind").annotate(total=Sum("count")))
    return {quota: counts.get(_HELD.get(quota, UseCount.Kind.CAPTURES), 0) for quota in quotas}


def count_used_by_all(organization_ids: Collection[UUID]) -> dict[UUID, dict[Quota, int]]:
    """Return the current usage of each of these organizations. Counts as ``count_used`` does."""
    owner = Coalesce("organization", "environment__project__organization")
    rows = UseCount.objects.filter(_is_counted(organization_ids, tuple(Quota))).order_by()
    counts = rows.values_list(owner, "kind").annotate(total=Sum("count"))
    totals = {(organization_id, kind): total for organization_id, kind, total in counts}
    return {
        each: {quota: totals.get((each, _HELD.get(quota, UseCount.Kind.CAPTURES)), 0) for quota in Quota}
        for each in organization_ids
    }


def used_of_organization(quota: Quota, now: datetime) -> Coalesce:
    """Return an expression for the current usage of a quota by the organization of an ``OrganizationQuotas``."""
    if quota == Quota.CAPTURES_PER_DAY:
        # The database connection uses UTC, so this is the date in UTC.
        today = Cast(Value(now, DateTimeField()), DateField())
        counted = UseCount.objects.filter(
            organization=OuterRef("organization"), kind=UseCount.Kind.CAPTURES, since=today
        )
    else:
        counted = UseCount.objects.filter(
            environment__project__organization=OuterRef("organization"),
            environment__deleted_at=None,
            environment__project__deleted_at=None,
            kind=_HELD[quota],
        )
    total = counted.order_by().values("kind").annotate(total=Sum("count")).values("total")
    return Coalesce(Subquery(total), Value(0), output_field=BigIntegerField())


def _is_counted(organization_ids: Collection[UUID], quotas: Collection[Quota]) -> Q:
    """Return the condition that a count is part of the current usage of one of these quotas."""
    counted = Q(
        environment__project__organization__in=organization_ids,
        environment__deleted_at=None,
        environment__project__deleted_at=None,
        kind__in=[_HELD[quota] for quota in quotas if quota in _HELD],
    )
    if Quota.CAPTURES_PER_DAY in quotas:
        counted |= Q(organization__in=organization_ids, kind=UseCount.Kind.CAPTURES, since=_today())
    return counted


def read_usage(organization: Organization) -> Usage:
    """Return the organization's quotas, its current usage, and its usage by month.

    Earlier months for which nothing is stored are left out.
    """
    month, used = _today().replace(day=1), count_used(organization.pk)
    quotas = OrganizationQuotas.objects.filter(organization=organization).first() or OrganizationQuotas()
    peaks = {each.month: each for each in MonthlyPeak.objects.filter(organization=organization, month__gte=_oldest())}
    done = UseCount.objects.filter(organization=organization, kind__in=_OF_MONTH, since__gte=_oldest()).order_by()
    sums = {(since, kind): count for since, kind, count in done.values_list("since", "kind").annotate(Sum("count"))}
    by_month: list[dict[str, Any]] = [
        {"month": each, **_month_values(peaks.get(each), sums, each)}
        for each in sorted({month, *peaks, *(since for since, _ in sums)}, reverse=True)
    ]
    present = by_month[0]
    for quota in (Quota.AGENTS, Quota.STORED_BYTES):
        present[quota] = max(used[quota], present[quota] or 0)
    return Usage(month, quotas.limits, used, by_month)


def kept_months() -> list[date]:
    """Return the first days of the months whose counts are kept, newest first."""
    first = _oldest()
    count = first.year * 12 + first.month - 1
    return [date(each // 12, each % 12 + 1, 1) for each in range(count + MONTHS - 1, count - 1, -1)]


def usage_in_month(organization_ids: Collection[UUID], month: date) -> dict[UUID, dict[str, int | None]]:
    """Return the usage of each of these organizations in the month, as in ``Usage.by_month``.

    The peaks of the current month are those that ``count_use`` has stored.
    """
    peaks = MonthlyPeak.objects.filter(organization__in=organization_ids, month=month)
    by_organization = {each.organization_id: each for each in peaks}
    done = UseCount.objects.filter(organization__in=organization_ids, kind__in=_OF_MONTH, since=month).order_by()
    counts = done.values_list("organization", "kind").annotate(Sum("count"))
    sums = {(organization, kind): count for organization, kind, count in counts}
    return {each: _month_values(by_organization.get(each), sums, each) for each in organization_ids}


def sum_months(organization_ids: Collection[UUID] | None) -> list[dict[str, Any]]:
    """Return the sums of the organizations' usage (None: of all organizations) by month, newest first.

    The peaks of agents and stored bytes are sums of the peaks of each organization.
    """
    peaks = MonthlyPeak.objects.filter(month__gte=_oldest()).order_by()
    done = UseCount.objects.filter(organization__isnull=False, kind__in=_OF_MONTH, since__gte=_oldest()).order_by()
    if organization_ids is not None:
        peaks = peaks.filter(organization__in=organization_ids)
        done = done.filter(organization__in=organization_ids)
    highest = {
        month: MonthlyPeak(agents=agents, stored_bytes=stored)
        for month, agents, stored in peaks.values_list("month").annotate(Sum("agents"), Sum("stored_bytes"))
    }
    sums = {(since, kind): count for since, kind, count in done.values_list("since", "kind").annotate(Sum("count"))}
    months = sorted({*highest, *(since for since, _ in sums)}, reverse=True)
    return [{"month": each, **_month_values(highest.get(each), sums, each)} for each in months]


def _month_values(peak: MonthlyPeak | None, sums: Mapping[Any, int], key: Any) -> dict[str, int | None]:
    """Return the values of a month. ``sums`` are the counts by ``key`` and kind."""
    return {
        "agents": None if peak is None else peak.agents,
        "stored_bytes": None if peak is None else peak.stored_bytes,
        **{kind.value: sums.get((key, kind), 0) for kind in _OF_MONTH},
    }


def add_work(organization_id: UUID, work: int) -> None:
    """Add units of work of replays or regressions to the organization's usage of this month."""
    UseCount.objects.create(
        organization_id=organization_id, kind=UseCount.Kind.WORK, since=_today().replace(day=1), count=work
    )


def count_use() -> None:
    """Replace the rows of each count with their sum, store the month's peaks, and delete old counts."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_SUM)
    with connection.cursor() as cursor:
        cursor.execute(_PEAKS, {"month": _today().replace(day=1)})
    UseCount.objects.filter(since__lt=_oldest()).delete()
    UseCount.objects.filter(kind=UseCount.Kind.CAPTURES, since__lt=_today()).delete()
    MonthlyPeak.objects.filter(month__lt=_oldest()).delete()


def _today() -> date:
    return timezone.now().astimezone(UTC).date()


def _oldest() -> date:
    """Return the first day of the oldest month whose counts are kept."""
    today = _today()
    years, month = divmod(today.year * 12 + today.month - MONTHS, 12)
    return date(years, month + 1, 1)

"""Record events about webhooks that keep failing and organizations that have used most of a quota."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from apps.notifications.models import ChatWebhook, NotifiedState
from apps.notifications.services.sweeps import new_events
from apps.tenancy.message_types import MessageType
from apps.tenancy.models import MessageEvent, OrganizationQuotas, Quota, Webhook
from apps.tenancy.services import usage

FAILING_FOR = timedelta(hours=1)
LEVELS = (100, 90)  # percent of a quota, highest first


def record_failing_webhooks(now: datetime | None = None) -> None:
    """Record an event for each enabled webhook and chat webhook that has been failing for at least an hour.

    Excludes those of deleted projects and environments, and those that have been failing for more than 7 days and an
    hour.
    """
    now = now or timezone.now()
    hooks = {"webhook": Webhook.objects.all(), "chat_webhook": ChatWebhook.objects.all()}
    new_events.insert(
        MessageEvent(
            organization_id=organization_id,
            type=MessageType.WEBHOOK_FAILING,
            resource_kind=kind,
            resource_id=str(pk),
            key=f"{MessageType.WEBHOOK_FAILING}:{pk}:{since.isoformat()}",
        )
        for kind, rows in hooks.items()
        for pk, organization_id, since in _find_failing(rows, now)
    )


def _find_failing(webhooks: QuerySet[Any], now: datetime) -> QuerySet[Any, tuple[UUID, UUID, datetime]]:
    failing = webhooks.filter(
        Q(project=None) | Q(project__deleted_at=None),
        Q(environment=None) | Q(environment__deleted_at=None, environment__project__deleted_at=None),
        enabled=True,
        failing_since__gt=now - FAILING_FOR - new_events.LOOKED_BACK,
        failing_since__lte=now - FAILING_FOR,
    )
    return failing.values_list("pk", "organization_id", "failing_since")


@transaction.atomic
def record_used_quotas(now: datetime | None = None) -> None:
    """Record an event for each organization that has reached 90 or 100 percent of a quota.

    Another event for the same level requires that the level was not reached in between, and is recorded at most once a
    day (UTC). If the usage reaches both levels at the same time, only the higher one causes an event. A quota of 0
    causes no event.
    """
    now = now or timezone.now()
    reached = set[tuple[str, UUID]]()
    events = dict[tuple[str, UUID], MessageEvent]()
    for organization_id, quota, limit, used in _read_quotas():
        levels = [level for level in LEVELS if limit and used * 100 >= limit * level]
        reached |= {(_kind(quota, level), organization_id) for level in levels}
        if levels:
            key = f"{organization_id}:{quota}:{levels[0]}:{now.astimezone(UTC).date()}"
            events[_kind(quota, levels[0]), organization_id] = MessageEvent(
                organization_id=organization_id,
                type=MessageType.QUOTA_NEAR,
                resource_kind="organization",
                resource_id=str(organization_id),
                subject=quota,
                data={"quota": quota, "limit": limit, "used": used},
                key=f"{MessageType.QUOTA_NEAR}:{key}",
            )
    states = NotifiedState.objects.filter(kind__startswith=f"{MessageType.QUOTA_NEAR}:")
    known = {
        (kind, organization_id): pk for pk, kind, organization_id in states.values_list("pk", "kind", "resource_id")
    }
    NotifiedState.objects.filter(pk__in=[pk for state, pk in known.items() if state not in reached]).delete()
    new = reached - known.keys()
    NotifiedState.objects.bulk_create(
        [NotifiedState(kind=kind, resource_id=pk, at=now) for kind, pk in sorted(new)], ignore_conflicts=True
    )
    new_events.insert(event for state, event in events.items() if state in new)


def _kind(quota: Quota, level: int) -> str:
    return f"{MessageType.QUOTA_NEAR}:{quota}:{level}"


def _read_quotas() -> Iterator[tuple[UUID, Quota, int, int]]:
    """Yield the organization id, quota, limit and usage for each quota that is set."""
    rows = list(OrganizationQuotas.objects.order_by("pk"))
    used = usage.count_used_by_all([row.pk for row in rows])
    for row in rows:
        for quota, limit in row.limits.items():
            if limit is not None:
                yield row.pk, quota, limit, used[row.pk][quota]

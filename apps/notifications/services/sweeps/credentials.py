"""Record events about organization API keys, user tokens and enrollment tokens that expire soon."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import DateTimeField, F, OuterRef, QuerySet, Subquery, Value
from django.utils import timezone

from apps.fleet.models import EnrollmentToken
from apps.notifications.services.sweeps import new_events
from apps.tenancy.message_types import MessageType
from apps.tenancy.models import Environment, Membership, MessageEvent, OrganizationKey, Project, UserToken

# Days before the expiry. There is an event for each of them.
_DAYS = (1, 7)
EXPIRING_FOR = timedelta(days=max(_DAYS))
_SHORTEST_LIFE = timedelta(days=8)  # credentials with a shorter lifetime are not renewed in advance


def record_expiring(now: datetime | None = None) -> None:
    """Record an event for each credential that expires within 7 days, and another when it expires within 1 day.

    Excludes credentials that are revoked, used up or valid for less than 8 days in total, credentials of deleted
    projects and environments, and the tokens of people who are inactive or not members of any organization.
    """
    now = now or timezone.now()
    member = Membership.objects.filter(user=OuterRef("user")).order_by("pk")
    tokens = find_expiring(UserToken.objects.filter(user__is_active=True), now)
    found = [
        _event("user_token", *row, now=now)
        for row in tokens.annotate(of=Subquery(member.values("organization")[:1])).exclude(of=None)
        .values_list("pk", "expires_at", "of")
    ]  # fmt: skip
    keys = find_expiring(OrganizationKey.objects.exclude(project__in=Project.objects.exclude(deleted_at=None)), now)
    found += [_event("organization_key", *row, now=now) for row in keys.values_list("pk", "expires_at", "organization")]
    enrollment = find_expiring(EnrollmentToken.objects.filter(environment__in=Environment.objects.live()), now)
    found += [
        _event("enrollment_token", *row, now=now)
        for row in enrollment.filter(uses__lt=F("max_uses")).values_list(
            "pk", "expires_at", "environment__project__organization", "environment__project", "environment"
        )
    ]
    new_events.insert(found)


def find_expiring(credentials: QuerySet[Any], now: datetime) -> QuerySet[Any]:
    """Keep only credentials with a lifetime of at least 8 days that expire within 7 days after ``now``.

    Excludes credentials that are revoked or have already expired, but not those that are used up.
    """
    latest = Value(now, DateTimeField()) + Value(EXPIRING_FOR)
    return credentials.usable(now).filter(  # type: ignore[attr-defined, no-any-return]  # of CredentialQuerySet
        expires_at__lte=latest, expires_at__gte=F("created_at") + _SHORTEST_LIFE
    )


def _event(
    kind: str,
    pk: UUID,
    expires_at: datetime,
    organization_id: UUID,
    project_id: UUID | None = None,
    environment_id: UUID | None = None,
    *,
    now: datetime,
) -> MessageEvent:
    days = next(days for days in _DAYS if expires_at <= now + timedelta(days=days))
    return MessageEvent(
        organization_id=organization_id,
        project_id=project_id,
        environment_id=environment_id,
        type=MessageType.KEY_EXPIRES,
        resource_kind=kind,
        resource_id=str(pk),
        key=f"{MessageType.KEY_EXPIRES}:{pk}:{days}",
    )

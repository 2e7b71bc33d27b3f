"""Quotas of organizations: set them, and reject requests that would exceed them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, reduce
from operator import or_
from uuid import UUID

from django.db import transaction
from django.db.models import Q

from apps.tenancy.actors import Actor
from apps.tenancy.models import Organization, OrganizationQuotas, Quota
from apps.tenancy.services import audit
from apps.tenancy.services.state import lock_row
from apps.tenancy.services.usage import count_used
from byteor_cloud.database.compiled import CompiledQuery
from byteor_cloud.errors import InvalidInput, QuotaExceeded

MAX_LIMIT = 2**63 - 1
_REFUSALS = {
    Quota.AGENTS: "The quota for agents is {limit:,}, and the organization uses {used:,}. Decommission unused agents",
    Quota.STORED_BYTES: "The organization stores {used:,} bytes, and with {more:,} more it would exceed its quota of "
    "{limit:,}. Shorten the retention of artifacts",
    Quota.CAPTURES_PER_DAY: "The quota for captures per day is {limit:,}, and the organization has used {used:,} "
    "today (UTC). Try again tomorrow (UTC)",
    Quota.DRAFTS: "The quota for drafts is {limit:,}, and the organization uses {used:,}. Delete unused drafts",
}


@transaction.atomic
def set_quotas(organization: Organization, limits: Mapping[Quota, int | None], *, actor: Actor) -> None:
    """Set the given quotas of the organization (None: no limit) and keep the others.

    A quota below the current usage deletes nothing. Raises InvalidInput if a quota is not from 0 to ``MAX_LIMIT``.
    """
    for quota, limit in limits.items():
        if limit is not None and not 0 <= limit <= MAX_LIMIT:
            raise InvalidInput.at(f"/{quota}", f"{quota} must be from 0 to {MAX_LIMIT}.", code="out_of_range")
    lock_row(organization)
    rows = OrganizationQuotas.objects.filter(organization=organization)
    quotas = rows.select_for_update(no_key=True).first() or OrganizationQuotas(organization=organization)
    changes = {
        str(quota): [old, limits[quota]] for quota, old in quotas.limits.items() if limits.get(quota, old) != old
    }
    if not changes:
        return
    for name, (_, limit) in changes.items():
        setattr(quotas, name, limit)
    if any(limit is not None for limit in quotas.limits.values()):
        quotas.save()
    else:
        rows.delete()  # without a row, transactions need no lock
    resource = ("organization", organization.pk)
    audit.record("organization.set_quotas", actor=actor, scope=organization, resource=resource, changes=changes)


@dataclass(slots=True)
class Allowance:
    """An organization's limit for a quota, and its current usage."""

    quota: Quota
    limit: int
    used: int

    def take(self, amount: int = 1) -> None:
        """Add ``amount`` to the usage. Raises QuotaExceeded if the sum exceeds the limit, unless ``amount`` is 0."""
        if amount and self.used + amount > self.limit:
            advice = _REFUSALS[self.quota].format(used=self.used, more=amount, limit=self.limit)
            detail = f"{advice}, or request a higher quota from the installation operator."
            raise QuotaExceeded(detail, quota=self.quota, limit=self.limit, used=self.used)
        self.used += amount


def check(organization_id: UUID, amounts: Mapping[Quota, int]) -> bool:
    """Raise QuotaExceeded if adding these amounts to the usage would exceed a quota of the organization.

    An amount of 0 is always permitted. Returns whether any of these quotas is set. If so, concurrent
    requests can still exceed them, unless the caller also uses ``reserve``.
    """
    quotas = _quotas(frozenset(amounts), lock=False).first(organization_id)
    if quotas is None:
        return False
    _take(quotas, amounts)
    return True


def reserve(organization_id: UUID, amounts: Mapping[Quota, int]) -> None:
    """Check the amounts as ``check`` does, and lock the quotas against concurrent use until the transaction ends."""
    quotas = _quotas(frozenset(amounts), lock=True).first(organization_id)
    if quotas is not None:
        _take(quotas, amounts)


def lock_allowances(organization_ids: Iterable[UUID], quota: Quota) -> dict[UUID, Allowance]:
    """Lock the quotas of organizations that have this quota, and return their allowances by organization id."""
    found = {}
    for organization_id in sorted(set(organization_ids)):  # always in the same order, to avoid deadlocks
        quotas = _quotas(frozenset({quota}), lock=True).first(organization_id)
        if quotas is not None:
            found[organization_id] = _allowances(quotas, [quota])[quota]
    return found


@cache
def _quotas(kinds: frozenset[Quota], *, lock: bool) -> CompiledQuery[OrganizationQuotas]:
    """Return a query for an organization's quotas. It finds no row if none of ``kinds`` is set."""
    is_set = reduce(or_, (Q(**{f"{quota}__isnull": False}) for quota in sorted(kinds)))
    rows = OrganizationQuotas.objects.filter(is_set)
    if lock:
        rows = rows.select_for_update(no_key=True)
    return CompiledQuery(lambda organization_id: rows.filter(pk=organization_id), UUID)


def _allowances(quotas: OrganizationQuotas, kinds: Iterable[Quota]) -> dict[Quota, Allowance]:
    limits = {quota: limit for quota in kinds if (limit := quotas.limits[quota]) is not None}
    used = count_used(quotas.pk, limits)
    return {quota: Allowance(quota, limit, used[quota]) for quota, limit in limits.items()}


def _take(quotas: OrganizationQuotas, amounts: Mapping[Quota, int]) -> None:
    for quota, allowance in _allowances(quotas, amounts).items():
        allowance.take(amounts[quota])

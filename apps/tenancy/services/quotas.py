"""Quotas of organizations: set them, and refuse what would exceed them."""

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
    Quota.AGENTS: "The organization has {used:,} agents, and its quota is {limit:,}. Decommission agents that are gone",
    Quota.STORED_BYTES: "The organization stores {used:,} bytes, and with {more:,} more it would exceed its quota of "
    "{limit:,}. Shorten the retention of artifacts",
    Quota.CAPTURES_PER_DAY: "The organization has uploaded {used:,} captures today (UTC), and its quota is {limit:,}. "
    "Try again tomorrow",
    Quota.DRAFTS: "The organization has {used:,} drafts, and its quota is {limit:,}. Delete drafts that nobody needs",
}


@transaction.atomic
def set_quotas(organization: Organization, limits: Mapping[Quota, int | None], *, actor: Actor) -> None:
    """Set these quotas of the organization (None: no limit) and keep the others. Raises InvalidInput.

    What the organization has already stays, also if it is more than a new quota.
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
        rows.delete()  # so that nobody locks it
    resource = ("organization", organization.pk)
    audit.record("organization.set_quotas", actor=actor, scope=organization, resource=resource, changes=changes)


@dataclass(slots=True)
class Allowance:
    """What an organization may use of a quota, and what it uses."""

    quota: Quota
    limit: int
    used: int

    def take(self, amount: int = 1) -> None:
        """Count that the organization uses more. Raises QuotaExceeded, unless the amount is 0."""
        if amount and self.used + amount > self.limit:
            advice = _REFUSALS[self.quota].format(used=self.used, more=amount, limit=self.limit)
            detail = f"{advice}, or ask the operators of this installation for a higher quota."
            raise QuotaExceeded(detail, quota=self.quota, limit=self.limit, used=self.used)
        self.used += amount


def check(organization_id: UUID, wanted: Mapping[Quota, int]) -> bool:
    """Raise QuotaExceeded if the organization may not use this much more now.

    Returns whether one of these quotas is set: then only ``reserve`` is certain.
    """
    quotas = _quotas(frozenset(wanted), lock=False).first(organization_id)
    if quotas is None:
        return False
    _take(quotas, wanted)
    return True


def reserve(organization_id: UUID, wanted: Mapping[Quota, int]) -> None:
    """Let the organization use this much more. Nobody else does before the transaction ends. Raises QuotaExceeded."""
    quotas = _quotas(frozenset(wanted), lock=True).first(organization_id)
    if quotas is not None:
        _take(quotas, wanted)


def lock_allowances(organization_ids: Iterable[UUID], quota: Quota) -> dict[UUID, Allowance]:
    """Return what the organizations that have this quota may use. Nobody else uses more before the transaction ends."""
    found = {}
    for organization_id in sorted(set(organization_ids)):  # all in the same order, so that none waits in a circle
        quotas = _quotas(frozenset({quota}), lock=True).first(organization_id)
        if quotas is not None:
            found[organization_id] = _allowances(quotas, [quota])[quota]
    return found


@cache
def _quotas(wanted: frozenset[Quota], *, lock: bool) -> CompiledQuery[OrganizationQuotas]:
    """Return the query of an organization's quotas if one of those ``wanted`` is set."""
    is_set = reduce(or_, (Q(**{f"{quota}__isnull": False}) for quota in sorted(wanted)))
    rows = OrganizationQuotas.objects.filter(is_set)
    if lock:
        rows = rows.select_for_update(no_key=True)
    return CompiledQuery(lambda organization_id: rows.filter(pk=organization_id), UUID)


def _allowances(quotas: OrganizationQuotas, wanted: Iterable[Quota]) -> dict[Quota, Allowance]:
    limits = {quota: limit for quota in wanted if (limit := quotas.limits[quota]) is not None}
    used = count_used(quotas.pk, limits)
    return {quota: Allowance(quota, limit, used[quota]) for quota, limit in limits.items()}


def _take(quotas: OrganizationQuotas, wanted: Mapping[Quota, int]) -> None:
    for quota, allowance in _allowances(quotas, wanted).items():
        allowance.take(wanted[quota])

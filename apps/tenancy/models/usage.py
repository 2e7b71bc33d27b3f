"""The quotas and the usage of organizations."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from django.db import models
from django.db.models import Q

from apps.tenancy.models.organizations import Environment, Organization


class Quota(StrEnum):
    """The limits that an installation operator can set for an organization."""

    AGENTS = "agents"
    STORED_BYTES = "stored_bytes"
    CAPTURES_PER_DAY = "captures_per_day"
    DRAFTS = "drafts"


class OrganizationQuotas(models.Model):
    """The quotas of an organization. An organization without a quota has no row.

    ``quotas.reserve`` and ``quotas.lock_allowances`` lock the row until the transaction ends, if it has a limit for one
    of the quotas that they check.
    """

    organization = models.OneToOneField(Organization, on_delete=models.PROTECT, primary_key=True, related_name="+")
    agents = models.BigIntegerField(null=True)
    stored_bytes = models.BigIntegerField(null=True)
    captures_per_day = models.BigIntegerField(null=True)
    drafts = models.BigIntegerField(null=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(**{f"{quota}__isnull": True}) | Q(**{f"{quota}__gte": 0}),
                name=f"tenancy_organizationquotas_{quota}",
            )
            for quota in Quota
        ]

    def __str__(self) -> str:
        return ", ".join(f"{quota} {limit}" for quota, limit in self.limits.items() if limit is not None)

    @property
    def limits(self) -> Mapping[Quota, int | None]:
        """The limit of each quota, or None if the quota is not set."""
        return {quota: getattr(self, quota) for quota in Quota}


class UseCount(models.Model):
    """A part of a count: how much an environment contains, or how much an organization did in a period.

    The count is the sum of its rows. Services and the triggers of the counted tables only add rows, so no transaction
    waits for another. The job ``tenancy.count_use`` replaces the rows of a count with their sum.
    """

    class Kind(models.TextChoices):
        # What an environment contains now. When the environment is purged, a trigger deletes these rows.
        AGENTS = "agents"
        DRAFTS = "drafts"
        STORED_BYTES = "stored_bytes"
        # What an organization did on a day (captures) or in a month (all others).
        CAPTURES = "captures"
        HEARTBEATS = "heartbeats"
        UPLOADED_BYTES = "uploaded_bytes"
        REPLAYS = "replays"
        WORK = "work"

    # No foreign key constraint, because it could cause deadlocks: a transaction that adds a row would lock the
    # environment last, but a purge locks the environment first. A purge deletes agents, drafts and artifacts, which
    # adds rows here. A trigger deletes these rows together with the environment.
    environment = models.ForeignKey(
        Environment, on_delete=models.DO_NOTHING, null=True, related_name="+", db_index=False, db_constraint=False
    )
    # No foreign key constraint, because it would lock the organization's row at each upload. It is not needed:
    # organizations are never deleted, so a row cannot refer to a missing one.
    organization = models.ForeignKey(
        Organization, on_delete=models.DO_NOTHING, null=True, related_name="+", db_index=False, db_constraint=False
    )
    kind = models.CharField(max_length=16, choices=Kind.choices)
    since = models.DateField(null=True)  # the day, or the first day of the month; null in counts of environments
    count = models.BigIntegerField()
    is_sum = models.BooleanField(db_default=False)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(environment__isnull=False, organization=None, since=None)
                | Q(environment=None, organization__isnull=False, since__isnull=False),
                name="tenancy_usecount_owner",
            ),
        ]
        indexes = [
            models.Index(
                fields=["environment", "kind"], condition=Q(environment__isnull=False), name="tenancy_usecount_held"
            ),
            models.Index(
                fields=["organization", "kind", "since"],
                condition=Q(organization__isnull=False),
                name="tenancy_usecount_done",
            ),
            models.Index(fields=["id"], condition=Q(is_sum=False), name="tenancy_usecount_new"),
        ]

    def __str__(self) -> str:
        return f"{self.kind}: {self.count}"


class MonthlyPeak(models.Model):
    """The highest numbers of agents and stored bytes that the job ``tenancy.count_use`` found in a month."""

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="+", db_index=False)
    month = models.DateField()  # the first day of the month
    agents = models.BigIntegerField()
    stored_bytes = models.BigIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["organization", "month"], name="tenancy_monthlypeak_unique"),
        ]

    def __str__(self) -> str:
        return f"{self.month:%Y-%m}"

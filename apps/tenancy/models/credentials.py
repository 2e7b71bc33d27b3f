"""Bearer credentials, and the keys that sign."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Self

from django.db import models
from django.db.models import Q
from django.utils import timezone

from apps.tenancy.credentials import Family
from apps.tenancy.models.accounts import User
from apps.tenancy.models.base import Row, choices, one_of
from apps.tenancy.models.organizations import Organization, Project
from apps.tenancy.permissions import Role
from apps.tenancy.vault import SealedField
from byteor_cloud.engine.delivery.keys import KeyStatus


class CredentialQuerySet(models.QuerySet[Any]):
    def usable(self) -> Self:
        """Neither revoked nor expired."""
        return self.filter(Q(expires_at=None) | Q(expires_at__gt=timezone.now()), revoked_at=None)


class Credential(Row):
    """What is kept of a secret: its digest, and enough to recognise and end it."""

    family: ClassVar[Family]

    digest = models.CharField(max_length=64, unique=True, editable=False)
    prefix = models.CharField(max_length=20, editable=False)
    expires_at = models.DateTimeField(null=True)
    last_used_at = models.DateTimeField(null=True, editable=False)
    revoked_at = models.DateTimeField(null=True, editable=False)

    objects = CredentialQuerySet.as_manager()

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.prefix}…"


class UserToken(Credential):
    """A person's bearer token, from login or made by them."""

    family = Family.USER
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="tokens")
    name = models.CharField(max_length=200)


class OrganizationKey(Credential):
    """A machine's bearer token: a role in an organization, or in one project of it.

    ``created_by`` is the person who made it; for a key that was made with another key, the person who made that one.
    It is null where nobody knows.
    """

    family = Family.ORGANIZATION
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="keys")
    project = models.ForeignKey(Project, on_delete=models.CASCADE, null=True, related_name="+")
    name = models.CharField(max_length=200)
    role = models.CharField(max_length=20, choices=choices(Role))
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, null=True, editable=False, related_name="+")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "name"],
                condition=Q(revoked_at=None),
                name="tenancy_organizationkey_unique_name",
            ),
            one_of("role", Role, "tenancy_organizationkey_role"),
        ]


class SigningKeyQuerySet(models.QuerySet[Any]):
    def due(self, moment: datetime) -> Self:
        """Those whose ``status`` lags behind their times."""
        return self.filter(
            Q(status=KeyStatus.NEXT, not_before__lte=moment)
            | Q(status=KeyStatus.ACTIVE, signs_until__lte=moment)
            | (~Q(status=KeyStatus.RETIRED) & Q(not_after__lte=moment))
        )


class SigningKey(Row):
    """The Ed25519 key of an organization, or (null) of the installation, which signs the checkpoints of its own chain.

    Its times say what it is at any moment; ``status`` notes it within seconds. The private half is encrypted under the
    master key, and destroyed when the key is retired.
    """

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, null=True, related_name="signing_keys")
    kid = models.CharField(max_length=43, unique=True)
    public_key = models.BinaryField()
    private_key = SealedField(context="signing-key:{row.organization_id}:{row.kid}", null=True)
    status = models.CharField(max_length=10, choices=choices(KeyStatus))
    not_before = models.DateTimeField(default=timezone.now)
    # The moment that the next one becomes active, once there is a next one.
    signs_until = models.DateTimeField(null=True)
    not_after = models.DateTimeField(null=True)

    objects = SigningKeyQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organization"],
                condition=Q(status="active"),
                nulls_distinct=False,
                name="tenancy_signingkey_one_active",
            ),
            models.UniqueConstraint(
                fields=["organization"],
                condition=Q(status="next"),
                nulls_distinct=False,
                name="tenancy_signingkey_one_next",
            ),
            one_of("status", KeyStatus, "tenancy_signingkey_status"),
            models.CheckConstraint(
                condition=Q(status="retired", private_key=None) | (~Q(status="retired") & Q(private_key__isnull=False)),
                name="tenancy_signingkey_retired_has_no_private_key",
            ),
        ]

    def __str__(self) -> str:
        return self.kid

    def status_at(self, moment: datetime) -> KeyStatus:
        """What the key is then, however late the worker is. What was noted stays, though a clock steps back."""
        return max(KeyStatus(self.status), self._by_its_times(moment), key=list(KeyStatus).index)

    def _by_its_times(self, moment: datetime) -> KeyStatus:
        if self.not_after is not None and self.not_after <= moment:
            return KeyStatus.RETIRED
        if self.signs_until is not None and self.signs_until <= moment:
            return KeyStatus.RETIRING
        return KeyStatus.ACTIVE if self.not_before <= moment else KeyStatus.NEXT

    @property
    def current_status(self) -> KeyStatus:
        """What the key is now."""
        return self.status_at(timezone.now())

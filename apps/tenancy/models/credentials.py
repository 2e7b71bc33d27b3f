"""Bearer credentials, and the keys that sign."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from django.db import models
from django.db.models import Q
from django.utils import timezone

from apps.tenancy.credentials import Family
from apps.tenancy.models.accounts import User
from apps.tenancy.models.base import Row, choices, one_of
from apps.tenancy.models.organizations import Organization, Project
from apps.tenancy.permissions import Role


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
    """A machine's bearer token: a role in an organization, or in one project of it."""

    family = Family.ORGANIZATION
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="keys")
    project = models.ForeignKey(Project, on_delete=models.CASCADE, null=True, related_name="+")
    name = models.CharField(max_length=200)
    role = models.CharField(max_length=20, choices=choices(Role))

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "name"],
                condition=Q(revoked_at=None),
                name="tenancy_organizationkey_unique_name",
            ),
            one_of("role", Role, "tenancy_organizationkey_role"),
        ]


class SigningKey(Row):
    """An organization's Ed25519 key. The private half is encrypted under the master key."""

    class Status(models.TextChoices):
        ACTIVE = "active"
        RETIRING = "retiring"
        RETIRED = "retired"

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="signing_keys")
    kid = models.CharField(max_length=43, unique=True)
    public_key = models.BinaryField()
    private_key = models.BinaryField()
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.ACTIVE)
    not_before = models.DateTimeField(default=timezone.now)
    not_after = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organization"], condition=Q(status="active"), name="tenancy_signingkey_one_active"
            ),
            models.CheckConstraint(
                condition=Q(status__in=["active", "retiring", "retired"]), name="tenancy_signingkey_status"
            ),
        ]

    def __str__(self) -> str:
        return self.kid

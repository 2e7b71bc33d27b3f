"""Bearer credentials and signing keys."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Self

from django.db import models
from django.db.models import Q
from django.utils import timezone

from apps.tenancy.credentials import Family
from apps.tenancy.models.accounts import User
from apps.tenancy.models.base import Row, enum_choices, one_of_constraint
from apps.tenancy.models.organizations import Organization, Project
from apps.tenancy.models.sealed_field import SealedField
from apps.tenancy.permissions import Role
from byteor.engine.signing.keys import KeyStatus


class CredentialQuerySet(models.QuerySet[Any]):
    def usable(self, now: datetime | None = None) -> Self:
        """Keep only credentials that are neither revoked nor expired at ``now``, which defaults to the current time."""
        return self.filter(Q(expires_at=None) | Q(expires_at__gt=now or timezone.now()), revoked_at=None)


class Credential(Row):
    """Base of all API credentials. A row has the digest of the secret, and a prefix by which people recognize it."""

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
    """A person's bearer token, issued at sign-in or by ``bootstrap``, or created by the person."""

    family = Family.USER
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="tokens")
    name = models.CharField(max_length=200)


class OrganizationKey(Credential):
    """An organization API key, which gives a program a role in an organization or in one of its projects.

    ``created_by`` is the person who created the key or, if another organization key created it, that key's
    ``created_by``. Null if unknown.
    """

    family = Family.ORGANIZATION
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="keys")
    project = models.ForeignKey(Project, on_delete=models.CASCADE, null=True, related_name="+")
    name = models.CharField(max_length=200)
    role = models.CharField(max_length=20, choices=enum_choices(Role))
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, null=True, editable=False, related_name="+")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "name"],
                condition=Q(revoked_at=None),
                name="tenancy_organizationkey_unique_name",
            ),
            one_of_constraint("role", Role, "tenancy_organizationkey_role"),
        ]


class SigningKeyQuerySet(models.QuerySet[Any]):
    def due(self, moment: datetime) -> Self:
        """Keep only keys whose stored ``status`` is out of date at ``moment``."""
        return self.filter(
            Q(status=KeyStatus.NEXT, not_before__lte=moment)
            | Q(status=KeyStatus.ACTIVE, signs_until__lte=moment)
            | (~Q(status=KeyStatus.RETIRED) & Q(not_after__lte=moment))
        )


class SigningKey(Row):
    """An Ed25519 key of an organization (null: of the installation, to sign the checkpoints of its own audit chain).

    The key's times define its status at any moment; the worker updates the stored ``status`` later. The
    private key is encrypted under the master key, and destroyed when the key is retired.
    """

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, null=True, related_name="signing_keys")
    kid = models.CharField(max_length=43, unique=True)
    public_key = models.BinaryField()
    private_key = SealedField(context="signing-key:{row.organization_id}:{row.kid}", noun="signing key", null=True)
    status = models.CharField(max_length=10, choices=enum_choices(KeyStatus))
    not_before = models.DateTimeField(default=timezone.now)
    # When the key stops signing because the next key becomes active. Null while it has no successor.
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
            one_of_constraint("status", KeyStatus, "tenancy_signingkey_status"),
            models.CheckConstraint(
                condition=Q(status="retired", private_key=None) | (~Q(status="retired") & Q(private_key__isnull=False)),
                name="tenancy_signingkey_retired_has_no_private_key",
            ),
        ]

    def __str__(self) -> str:
        return self.kid

    def status_at(self, moment: datetime) -> KeyStatus:
        """Return the key's status at ``moment``, even if the worker has not stored it yet.

        The result is never earlier than the stored status, so that a clock that steps back does not revive a key.
        """
        return max(KeyStatus(self.status), self._status_from_times(moment), key=list(KeyStatus).index)

    def _status_from_times(self, moment: datetime) -> KeyStatus:
        if self.not_after is not None and self.not_after <= moment:
            return KeyStatus.RETIRED
        if self.signs_until is not None and self.signs_until <= moment:
            return KeyStatus.RETIRING
        return KeyStatus.ACTIVE if self.not_before <= moment else KeyStatus.NEXT

    @property
    def current_status(self) -> KeyStatus:
        """The key's status now."""
        return self.status_at(timezone.now())

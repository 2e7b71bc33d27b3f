"""Accounts of people and their one-time sign-in links."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower

from apps.tenancy.models.base import Row, enum_choices, one_of_constraint


class UserManager(BaseUserManager["User"]):
    """Manager without passwords: people sign in through the identity provider or with a one-time link."""

    def find_by_verified_email(self, email: str) -> User | None:
        """Return the account whose verified address is ``email``, ignoring case, or None."""
        return self.filter(email__iexact=email, email_verified=True).first()

    def claimed(self) -> models.QuerySet[User]:
        """Return the accounts to which somebody has signed in, or whose tokens somebody has used.

        For any other account, it is not proven that the address belongs to the person.
        """
        with_identity, with_used_token = Q(social_auth__isnull=False), Q(tokens__last_used_at__isnull=False)
        return self.filter(
            Q(last_login__isnull=False)
            | Q(pk__in=self.filter(with_identity).values("pk"))
            | Q(pk__in=self.filter(with_used_token).values("pk"))
        )


class User(AbstractBaseUser, Row):
    """A person's account. A row of social_django binds an account to an issuer and a subject.

    ``email_verified`` is also true for an unclaimed account that an operator or an invitation created. It can also be
    true for an account that an organization has vouched for.
    """

    password = None  # type: ignore[assignment]  # people have no passwords
    email = models.EmailField()
    email_verified = models.BooleanField(default=False)
    name = models.CharField(max_length=200, blank=True)
    is_active = models.BooleanField(default=True)
    is_superuser = models.BooleanField(default=False)
    # The organization whose admin saw the link with which somebody first signed in. The admin could have used the link,
    # so other organizations must not trust the address. Null if nobody used such a link, or if the address was
    # confirmed later.
    vouched_by = models.ForeignKey(
        "tenancy.Organization", on_delete=models.PROTECT, null=True, related_name="+", editable=False
    )

    USERNAME_FIELD = "id"
    objects: ClassVar[UserManager] = UserManager()

    class Meta:
        constraints = [
            models.UniqueConstraint(Lower("email"), condition=Q(email_verified=True), name="tenancy_user_unique_email")
        ]

    def __str__(self) -> str:
        return self.email

    @property
    def is_staff(self) -> bool:
        """Whether the account passes Django's own admin check. The console's site class decides who may enter."""
        return self.is_active

    def has_perm(self, perm: str, obj: object = None) -> bool:
        """Return whether the person is an active installation operator. The console uses roles instead of ``perm``."""
        return self.is_active and self.is_superuser

    def get_session_auth_hash(self) -> str:
        """Return a value that changes with ``vouched_by``, so that confirming the address ends all earlier sessions."""
        return f"{super().get_session_auth_hash()}{self.vouched_by_id or ''}"

    def has_module_perms(self, app_label: str) -> bool:
        """Return whether the account is active. The console's admin classes check roles."""
        return self.is_active


class SignInLink(Row):
    """A one-time sign-in link to the console, from an invitation or from a command of the installation operator."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    digest = models.CharField(max_length=64, unique=True)
    # The organization whose admin saw the link. Null if only the person or the installation operator saw it.
    organization = models.ForeignKey("tenancy.Organization", on_delete=models.CASCADE, null=True, related_name="+")
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"link for {self.user}"


class DeviceStatus(StrEnum):
    """The status of a machine's request to sign in. Expired requests keep their status."""

    PENDING = "pending"
    ALLOWED = "allowed"
    DENIED = "denied"
    COLLECTED = "collected"


class DeviceSignIn(Row):
    """A machine's request to sign in as the person who enters its code in the console (RFC 8628)."""

    device_digest = models.CharField(max_length=64, unique=True)
    user_digest = models.CharField(max_length=64, unique=True)
    # The name is reported by the machine and not verified. The address is that of the request.
    client_name = models.CharField(max_length=100, blank=True)
    ip = models.GenericIPAddressField(null=True)
    status = models.CharField(max_length=10, choices=enum_choices(DeviceStatus), default=DeviceStatus.PENDING)
    user = models.ForeignKey(User, on_delete=models.CASCADE, null=True, related_name="+")  # who allowed or denied it
    polled_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField(db_index=True)

    class Meta:
        constraints = [one_of_constraint("status", DeviceStatus, "tenancy_devicesignin_status")]

    def __str__(self) -> str:
        return f"sign-in of {self.client_name or 'a machine'}"

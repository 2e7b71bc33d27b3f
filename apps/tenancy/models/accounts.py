"""People."""

from __future__ import annotations

from typing import ClassVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower

from apps.tenancy.models.base import Row


class UserManager(BaseUserManager["User"]):
    """People sign in through the provider or a one-time link; there are no passwords."""

    def standing_for(self, email: str) -> User | None:
        """The account that invitations to ``email`` go to."""
        return self.filter(email__iexact=email, email_verified=True).first()


class User(AbstractBaseUser, Row):
    """A person. Bound to (issuer, subject) by social_django's rows, never to the e-mail address alone.

    ``email_verified`` is also true of an account that an operator or an invitation made and nobody has claimed.
    """

    password = None  # type: ignore[assignment]  # nobody has one
    email = models.EmailField()
    email_verified = models.BooleanField(default=False)
    name = models.CharField(max_length=200, blank=True)
    is_active = models.BooleanField(default=True)
    is_superuser = models.BooleanField(default=False)

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
        """The console's site class decides who enters (apps.tenancy.console)."""
        return self.is_active

    def has_perm(self, perm: str, obj: object = None) -> bool:
        """Django's permissions are not used; the console's admin classes ask the roles."""
        return self.is_active and self.is_superuser

    def has_module_perms(self, app_label: str) -> bool:
        """See ``has_perm``."""
        return self.is_active


class SignInLink(Row):
    """A one-time link to the console (``bootstrap``, ``sign_in_link``)."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    digest = models.CharField(max_length=64, unique=True)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"link for {self.user}"

"""Tenants: organizations, their projects and environments, and who is a member of what."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from django.db import models
from django.db.models import Q

from apps.tenancy import policy
from apps.tenancy.models.accounts import User
from apps.tenancy.models.base import Revisioned, Row, choices, one_of
from apps.tenancy.permissions import Role


class Organization(Row, Revisioned):
    """The top-level tenant."""

    name = models.CharField(max_length=200)
    slug = models.SlugField(max_length=63)
    settings = models.JSONField(default=dict)
    # The ETag of the published signing keys, so that a heartbeat can say it without reading them.
    key_set_etag = models.CharField(max_length=32, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["name"], name="tenancy_organization_unique_name"),
            models.UniqueConstraint(fields=["slug"], name="tenancy_organization_unique_slug"),
        ]

    def __str__(self) -> str:
        return self.name

    DEFAULT_SETTINGS: ClassVar[dict[str, Any]] = {
        "token_max_days": 90,
        "email_domains": [],
        "default_environment_settings": {},
    }

    @property
    def settings_with_defaults(self) -> dict[str, Any]:
        """Every setting as JSON, the defaults filled in."""
        return {**self.DEFAULT_SETTINGS, **self.settings}


class LiveQuerySet(models.QuerySet[Any]):
    """Deleted rows stay until the worker purges them; nobody sees them meanwhile."""

    def live(self) -> Self:
        """Without the deleted."""
        return self.filter(deleted_at=None)


class Project(Row, Revisioned):
    """Groups environments of one organization."""

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="projects")
    name = models.CharField(max_length=200)
    slug = models.SlugField(max_length=63)
    deleted_at = models.DateTimeField(null=True, editable=False)

    objects = LiveQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "name"],
                condition=Q(deleted_at=None),
                name="tenancy_project_unique_name",
            ),
            models.UniqueConstraint(
                fields=["organization", "slug"],
                condition=Q(deleted_at=None),
                name="tenancy_project_unique_slug",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class EnvironmentQuerySet(LiveQuerySet):
    def live(self) -> Self:
        """Without the deleted, nor those of a deleted project."""
        return self.filter(deleted_at=None, project__deleted_at=None)


class Environment(Row, Revisioned):
    """A deployment target; agents, drafts and deployments belong to one."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="environments")
    name = models.CharField(max_length=200)
    posture = models.CharField(max_length=10, choices=choices(policy.Posture))
    settings = models.JSONField(default=dict)
    deleted_at = models.DateTimeField(null=True, editable=False)

    objects = EnvironmentQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["project", "name"],
                condition=Q(deleted_at=None),
                name="tenancy_environment_unique_name",
            ),
            one_of("posture", policy.Posture, "tenancy_environment_posture"),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def settings_with_defaults(self) -> dict[str, Any]:
        """Every setting as JSON, the posture's defaults filled in."""
        return {**policy.defaults(policy.Posture(self.posture)), **self.settings}

    @property
    def effective_settings(self) -> policy.EnvironmentSettings:
        """What the settings come to."""
        return policy.EnvironmentSettings.from_stored(policy.Posture(self.posture), self.settings)


class EnvironmentOwned(Row):
    """A row of an environment; the base of every resource below one."""

    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, related_name="+")

    class Meta:
        abstract = True


class Membership(Row, Revisioned):
    """A person's role in an organization, or in one project of it."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="memberships")
    project = models.ForeignKey(Project, on_delete=models.CASCADE, null=True, related_name="memberships")
    role = models.CharField(max_length=20, choices=choices(Role))

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "user"],
                condition=Q(project=None),
                name="tenancy_membership_unique_org",
            ),
            models.UniqueConstraint(fields=["project", "user"], name="tenancy_membership_unique_project"),
            one_of("role", Role, "tenancy_membership_role"),
            models.CheckConstraint(
                condition=~Q(role=Role.ORG_ADMIN, project__isnull=False), name="tenancy_membership_org_admin"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user}: {self.role}"

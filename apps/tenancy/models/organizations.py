"""Organizations, projects, environments and memberships."""

from __future__ import annotations

from typing import Any, ClassVar, Self
from uuid import UUID

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from apps.tenancy import policy
from apps.tenancy.models.accounts import User
from apps.tenancy.models.base import Revisioned, Row, enum_choices, one_of_constraint
from apps.tenancy.permissions import Role
from byteor.engine.machines import StateMachine


class Organization(Row, Revisioned):
    """The top level of tenancy. People's accounts belong to no organization. Memberships give people their roles."""

    name = models.CharField(max_length=200)
    slug = models.SlugField(max_length=63)
    settings = models.JSONField(default=dict)
    # The ETag of the published signing keys, stored so that heartbeat responses include it without reading the keys.
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
        "default_notification_settings": {},
    }

    @property
    def settings_with_defaults(self) -> dict[str, Any]:
        """Every setting as JSON, with defaults filled in."""
        return {**self.DEFAULT_SETTINGS, **self.settings}


class LiveQuerySet(models.QuerySet[Any]):
    """Queries on a table whose rows are first marked as deleted. The worker deletes these rows later."""

    def live(self) -> Self:
        """Leave out rows that are marked as deleted."""
        return self.filter(deleted_at=None)


class Project(Row, Revisioned):
    """A group of environments in one organization."""

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
        """Leave out environments that are deleted or whose project is deleted."""
        return self.filter(deleted_at=None, project__deleted_at=None)


class Environment(Row, Revisioned):
    """The level at which agents run and deployments are made. Each agent and deployment belongs to one environment."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="environments")
    name = models.CharField(max_length=200)
    posture = models.CharField(max_length=10, choices=enum_choices(policy.Posture))
    settings = models.JSONField(default=dict)
    # The place in the order of the project's environments: 1, 2, and so on, without gaps. A deleted environment keeps
    # its last position. The default is only for processes of a release without this column.
    position = models.PositiveIntegerField(db_default=1)
    deleted_at = models.DateTimeField(null=True, editable=False)

    objects = EnvironmentQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["project", "name"],
                condition=Q(deleted_at=None),
                name="tenancy_environment_unique_name",
            ),
            one_of_constraint("posture", policy.Posture, "tenancy_environment_posture"),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def settings_with_defaults(self) -> dict[str, Any]:
        """Every setting as JSON, with the posture's defaults filled in."""
        return {**policy.default_settings(policy.Posture(self.posture)), **self.settings}

    @property
    def effective_settings(self) -> policy.EnvironmentSettings:
        """The settings as typed values, with the posture's defaults filled in."""
        return policy.EnvironmentSettings.from_stored(policy.Posture(self.posture), self.settings)


class EnvironmentOwned(Row):
    """Base of most models whose rows belong to an environment."""

    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, related_name="+")

    class Meta:
        abstract = True


class Stateful(EnvironmentOwned):
    """Base of rows whose ``status`` changes only through transitions of a state machine (``services/state.py``)."""

    machine: ClassVar[StateMachine]
    status: models.CharField[str, str]

    class Meta:
        abstract = True


class MembershipQuerySet(models.QuerySet[Any]):
    """Queries on memberships. A project that is marked as deleted still has its memberships until it is purged."""

    def live(self) -> Self:
        """Leave out memberships of deleted projects."""
        return self.filter(Q(project=None) | Q(project__deleted_at=None))


class Membership(Row, Revisioned):
    """A person's role in an organization, or in one of its projects."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="memberships")
    project = models.ForeignKey(Project, on_delete=models.CASCADE, null=True, related_name="memberships")
    role = models.CharField(max_length=20, choices=enum_choices(Role))
    # When the person was last invited, or was added without an invitation.
    invited_at = models.DateTimeField(default=timezone.now, db_default=Now(), editable=False)

    objects = MembershipQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "user"],
                condition=Q(project=None),
                name="tenancy_membership_unique_org",
            ),
            models.UniqueConstraint(fields=["project", "user"], name="tenancy_membership_unique_project"),
            one_of_constraint("role", Role, "tenancy_membership_role"),
            models.CheckConstraint(
                condition=~Q(role=Role.ORG_ADMIN, project__isnull=False), name="tenancy_membership_org_admin"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user}: {self.role}"

    @classmethod
    def first_admin(cls, organization_id: UUID) -> UUID | None:
        """Return the user id of the org_admin who has been a member longest, or None without an org_admin."""
        admins = cls.objects.filter(organization=organization_id, project=None, role=Role.ORG_ADMIN)
        return admins.order_by("pk").values_list("user_id", flat=True).first()


type Tenant = Organization | Project | Environment | None


def tenant_ids(tenant: Tenant) -> dict[str, Any]:
    """Return the ids of a tenant and of the tenants above it, by column name."""
    match tenant:
        case Environment():
            return {
                "organization_id": tenant.project.organization_id,
                "project_id": tenant.project_id,
                "environment_id": tenant.pk,
            }
        case Project():
            return {"organization_id": tenant.organization_id, "project_id": tenant.pk}
        case Organization():
            return {"organization_id": tenant.pk}
    return {}

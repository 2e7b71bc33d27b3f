"""Organizations, people, roles, credentials, signing keys, the audit trail."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower
from django.utils import timezone

from apps.tenancy import policy
from apps.tenancy.credentials import Family
from apps.tenancy.permissions import Role
from byteor_cloud.ids import uuid7


def choices(enum: Any) -> list[tuple[str, str]]:
    """A StrEnum as Django's choices."""
    return [(member.value, member.value) for member in enum]


def one_of(field: str, enum: Any, name: str) -> models.CheckConstraint:
    """The database agrees that ``field`` holds a member of ``enum``."""
    return models.CheckConstraint(condition=Q(**{f"{field}__in": [m.value for m in enum]}), name=name)


class Row(models.Model):
    """Every row: a UUIDv7 and when it was made."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        abstract = True


class Revisioned(models.Model):
    """A row that people edit; ``revision`` counts the edits and backs ``If-Match``."""

    updated_at = models.DateTimeField(default=timezone.now, editable=False)
    revision = models.PositiveIntegerField(default=1, editable=False)

    class Meta:
        abstract = True


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
    def effective_settings(self) -> dict[str, Any]:
        """Every setting, the defaults filled in."""
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
    def effective_settings(self) -> dict[str, Any]:
        """Every setting, the posture's defaults filled in."""
        return {**policy.defaults(policy.Posture(self.posture)), **self.settings}


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


class SignInLink(Row):
    """A one-time link to the console (``bootstrap``, ``sign_in_link``)."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    digest = models.CharField(max_length=64, unique=True)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"link for {self.user}"


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


class AuditEvent(models.Model):
    """What happened. Append-only in the database: a trigger refuses UPDATE, DELETE and TRUNCATE.

    The scope is plain ids, since an event outlives what it tells of.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    timestamp = models.DateTimeField(default=timezone.now)
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, null=True, related_name="+")
    project_id = models.UUIDField(null=True)
    environment_id = models.UUIDField(null=True)
    resource_kind = models.CharField(max_length=40)
    resource_id = models.CharField(max_length=80)
    action = models.CharField(max_length=80)
    outcome = models.CharField(max_length=10)
    actor_kind = models.CharField(max_length=20)
    actor_id = models.CharField(max_length=80)
    actor_display = models.CharField(max_length=300)
    request_id = models.CharField(max_length=64, blank=True)
    ip = models.GenericIPAddressField(null=True)
    changes = models.JSONField(default=dict)

    class Meta:
        indexes = [
            models.Index(fields=["organization", "-id"], name="tenancy_auditevent_org"),
            models.Index(fields=["resource_id"], name="tenancy_auditevent_resource"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(outcome__in=["success", "denied", "error"]), name="tenancy_auditevent_outcome"
            )
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.resource_id}"


class AuditSeal(models.Model):
    """A link of an organization's hash chain over its events. Append-only, as they are."""

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="+")
    seq = models.BigIntegerField()
    event = models.OneToOneField(AuditEvent, on_delete=models.PROTECT, related_name="seal")
    prev_hash = models.CharField(max_length=71)
    hash = models.CharField(max_length=71)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["organization", "seq"], name="tenancy_auditseal_unique_seq")]

    def __str__(self) -> str:
        return f"#{self.seq}"


class DenialCount(models.Model):
    """Denials of one actor, action and minute; the minute's close makes one audit event of them."""

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, null=True, related_name="+")
    actor_kind = models.CharField(max_length=20)
    actor_id = models.CharField(max_length=80)
    actor_display = models.CharField(max_length=300)
    action = models.CharField(max_length=80)
    minute = models.DateTimeField()
    count = models.PositiveIntegerField(default=1)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "actor_kind", "actor_id", "action", "minute"],
                nulls_distinct=False,
                name="tenancy_denialcount_unique",
            )
        ]

    def __str__(self) -> str:
        return f"{self.actor_display} {self.action} x{self.count}"


class RateCounter(models.Model):
    """Requests of one caller in the current minute; UNLOGGED in the database: a crash may forget it."""

    key = models.CharField(max_length=100, primary_key=True)
    minute = models.BigIntegerField()
    count = models.IntegerField()

    def __str__(self) -> str:
        return f"{self.key}: {self.count}"


class IdempotencyKeyQuerySet(models.QuerySet[Any]):
    def expired(self) -> Self:
        """Those that are over."""
        return self.filter(expires_at__lte=timezone.now())


class IdempotencyKey(models.Model):
    """The first response to a caller's ``Idempotency-Key``, encrypted; it commits with the write."""

    caller = models.CharField(max_length=100)
    key = models.CharField(max_length=255)
    fingerprint = models.CharField(max_length=64)
    status = models.PositiveSmallIntegerField()
    response = models.BinaryField()
    expires_at = models.DateTimeField()

    objects = IdempotencyKeyQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["caller", "key"], name="tenancy_idempotencykey_unique"),
        ]

    def __str__(self) -> str:
        return self.key

"""Create user tokens and organization API keys, revoke credentials, and store when a credential was last used."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from django.db import DatabaseError, transaction
from django.db.models import Q
from django.utils import timezone

from apps.tenancy.actors import Actor
from apps.tenancy.credentials import Family, generate
from apps.tenancy.models import Credential, Membership, Organization, OrganizationKey, Project, User, UserToken
from apps.tenancy.permissions import Permission, Role, may_grant
from apps.tenancy.services import audit
from apps.tenancy.services.state import lock_row
from byteor_cloud.errors import Conflict, Forbidden, InvalidInput
from byteor_cloud.storage import space

DEFAULT_LIFETIME = timedelta(days=30)
_USE_PRECISION = timedelta(minutes=1)


def _expiry(expires_in_s: int | None, max_lifetime: timedelta) -> datetime:
    lifetime = min(DEFAULT_LIFETIME, max_lifetime) if expires_in_s is None else timedelta(seconds=expires_in_s)
    if lifetime > max_lifetime:
        longest_s = int(max_lifetime.total_seconds())
        detail = f"Must be at most {longest_s} seconds, because `token_max_days` is {max_lifetime.days}."
        raise InvalidInput.at("/expires_in_s", detail)
    return timezone.now() + lifetime


def max_key_lifetime(organization: Organization) -> timedelta:
    """Return the maximum lifetime of the organization's keys."""
    return timedelta(days=organization.settings_with_defaults["token_max_days"])


def max_token_lifetime(user: User) -> timedelta:
    """Return the maximum lifetime of the person's tokens.

    It is the shortest limit of the organizations in which the person has a role, or 90 days if there are none. Roles in
    deleted projects do not count.
    """
    mine = Membership.objects.live().filter(user=user)
    organizations = Organization.objects.filter(pk__in=mine.values("organization_id"))
    default = timedelta(days=Organization.DEFAULT_SETTINGS["token_max_days"])
    return min((max_key_lifetime(organization) for organization in organizations), default=default)


def default_token_lifetime(user: User) -> timedelta:
    """Return how long a new token of the person is valid if no lifetime is chosen."""
    return min(DEFAULT_LIFETIME, max_token_lifetime(user))


@transaction.atomic
def create_user_token(*, user: User, name: str, expires_in_s: int | None = None, actor: Actor) -> tuple[UserToken, str]:
    """Create a token for the person; return the token and its secret.

    Raises InvalidInput if the lifetime exceeds ``max_token_lifetime``.
    """
    secret = generate(Family.USER)
    token = UserToken.objects.create(
        user=user,
        name=name,
        digest=secret.digest,
        prefix=secret.prefix,
        expires_at=_expiry(expires_in_s, max_token_lifetime(user)),
    )
    record_credential("token.create", token, actor=actor, scope=None, changes={"name": [None, name]})
    return token, secret.text


@transaction.atomic
def create_organization_key(
    *,
    organization: Organization,
    name: str,
    role: Role,
    project: Project | None = None,
    expires_in_s: int | None = None,
    granter: frozenset[Permission],
    actor: Actor,
) -> tuple[OrganizationKey, str]:
    """Create an organization key; return the key and its secret.

    Raises Forbidden if the role has permissions that the granter lacks, InvalidInput for the role org_admin in a
    project or a lifetime beyond ``max_key_lifetime``, and IntegrityError (409) if the name is taken.
    """
    if not may_grant(granter, role):
        raise Forbidden(f"You cannot grant the role {role}, because it has permissions that you do not have.")
    if project is not None and role is Role.ORG_ADMIN:
        raise InvalidInput.at("/role", "org_admin is a role of the whole organization. Choose another role.")
    secret = generate(Family.ORGANIZATION)
    key = OrganizationKey.objects.create(
        organization=organization,
        project=project,
        name=name,
        role=role,
        digest=secret.digest,
        prefix=secret.prefix,
        expires_at=_expiry(expires_in_s, max_key_lifetime(organization)),
        created_by_id=person_behind(actor),
    )
    record_credential(
        "api_key.create",
        key,
        actor=actor,
        scope=project or organization,
        changes={"name": [None, name], "role": [None, role]},
    )
    return key, secret.text


def person_behind(actor: Actor) -> UUID | None:
    """Return the id of the acting person, or the ``created_by`` of the acting key. None if there is no person."""
    if actor.kind == "organization_key":
        key = OrganizationKey.objects.filter(pk=actor.id).first()
        return None if key is None else key.created_by_id
    return actor.user_id


def record_credential(
    action: str,
    credential: Credential,
    *,
    actor: Actor,
    scope: audit.Scope,
    changes: dict[str, object] | None = None,
    subject: tuple[str, object] | None = None,
) -> None:
    """Record an audit event of a credential. The event contains the credential's prefix, never its secret.

    ``scope`` and ``subject`` are as in ``audit.record``. For a user token they are ignored, because
    ``audit.record_of_person`` records its event.
    """
    resource = (credential._meta.model_name or "credential", credential.pk)
    recorded = {"prefix": credential.prefix, **(changes or {})}
    if isinstance(credential, UserToken):
        audit.record_of_person(action, person=credential.user, actor=actor, resource=resource, changes=recorded)
    else:
        audit.record(action, actor=actor, scope=scope, resource=resource, changes=recorded, subject=subject)


@transaction.atomic
def revoke(
    credential: Credential,
    *,
    action: str,
    actor: Actor,
    scope: audit.Scope,
    subject: tuple[str, object] | None = None,
) -> None:
    """Revoke a credential. Raises Conflict if it is already revoked, and NotFound if it was deleted."""
    locked = lock_row(credential)
    if locked.revoked_at is not None:
        raise Conflict("This credential is already revoked.", code="revoked")
    locked.revoked_at = timezone.now()
    locked.save(update_fields=["revoked_at"])
    record_credential(action, locked, actor=actor, scope=scope, subject=subject)


def note_use(credential: Credential) -> None:
    """Store when the credential was last used, at most once a minute.

    Nothing is stored while the database's disk is full or, with the embedded database, almost full, because read-only
    requests must still work.
    """
    now = timezone.now()
    used_before = now - _USE_PRECISION
    if (credential.last_used_at or used_before) > used_before or space.is_low_for_database():
        return
    stale = Q(last_used_at=None) | Q(last_used_at__lt=used_before)
    try:
        type(credential)._base_manager.filter(stale, pk=credential.pk).update(last_used_at=now)
    except DatabaseError as error:
        if not space.is_disk_error(error):
            raise

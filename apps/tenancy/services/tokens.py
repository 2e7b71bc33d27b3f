"""Bearer credentials: people's tokens and organizations' keys."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from apps.tenancy import audit
from apps.tenancy.actors import Actor
from apps.tenancy.credentials import Family, generate
from apps.tenancy.models import Credential, Organization, OrganizationKey, Project, User, UserToken
from apps.tenancy.permissions import Permission, Role, covers
from apps.tenancy.state import lock
from byteor_cloud.errors import Conflict, Forbidden, InvalidInput

DEFAULT_LIFETIME = timedelta(days=30)


def _lifetime(expires_in_s: int | None, longest: timedelta) -> datetime:
    asked = min(DEFAULT_LIFETIME, longest) if expires_in_s is None else timedelta(seconds=expires_in_s)
    if asked > longest:
        raise InvalidInput.at("/expires_in_s", f"At most {int(longest.total_seconds())} s ({longest.days} days).")
    return timezone.now() + asked


def _longest(organizations: list[Organization]) -> timedelta:
    """The shortest of the organizations' limits; the default's for a person without one."""
    days = [o.settings_with_defaults["token_max_days"] for o in organizations]
    return timedelta(days=min(days, default=Organization.DEFAULT_SETTINGS["token_max_days"]))


@transaction.atomic
def create_user_token(*, user: User, name: str, expires_in_s: int | None = None, actor: Actor) -> tuple[UserToken, str]:
    """A token of the person and its secret. Raises InvalidInput beyond the organizations' ``token_max_days``."""
    organizations = list(Organization.objects.filter(memberships__user=user).distinct())
    secret = generate(Family.USER)
    token = UserToken.objects.create(
        user=user,
        name=name,
        digest=secret.digest,
        prefix=secret.prefix,
        expires_at=_lifetime(expires_in_s, _longest(organizations)),
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
    """A machine's key and its secret. Nobody grants more than they hold."""
    if not covers(granter, role):
        raise Forbidden(f"You can't grant {role}: it holds more than you do.")
    if project is not None and role is Role.ORG_ADMIN:
        raise InvalidInput.at("/role", "org_admin is a role of the organization, not of a project.")
    secret = generate(Family.ORGANIZATION)
    key = OrganizationKey.objects.create(
        organization=organization,
        project=project,
        name=name,
        role=role,
        digest=secret.digest,
        prefix=secret.prefix,
        expires_at=_lifetime(expires_in_s, _longest([organization])),
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
    """Return the id of the person who acts, or who made the organization key that acts; None where nobody knows."""
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
) -> None:
    """Write the audit event of a credential, with its prefix and never more of it.

    That of a user token goes to the organizations that its owner has joined; ``scope`` is then None.
    """
    resource = (credential._meta.model_name or "credential", credential.pk)
    said = {"prefix": credential.prefix, **(changes or {})}
    if isinstance(credential, UserToken):
        audit.record_of_person(action, person=credential.user, actor=actor, resource=resource, changes=said)
    else:
        audit.record(action, actor=actor, scope=scope, resource=resource, changes=said)


@transaction.atomic
def revoke(credential: Credential, *, action: str, actor: Actor, scope: audit.Scope) -> None:
    """End a credential at once. Raises Conflict when it was revoked before."""
    locked = lock(credential)
    if locked.revoked_at is not None:
        raise Conflict("It is revoked already.", code="revoked")
    locked.revoked_at = timezone.now()
    locked.save(update_fields=["revoked_at"])
    record_credential(action, locked, actor=actor, scope=scope)

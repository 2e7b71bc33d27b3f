"""Accounts of people, one-time sign-in links to the console, and the role of installation operator."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from django.db import IntegrityError, transaction
from django.utils import timezone

from apps.tenancy.actors import Actor, system_actor
from apps.tenancy.credentials import credential_digest, generate_link
from apps.tenancy.models import DeviceSignIn, DeviceStatus, Organization, SignInLink, User, UserToken
from apps.tenancy.services import audit, tokens
from apps.tenancy.services.state import lock_row
from byteor_cloud.errors import Conflict, Unauthenticated

LINK_LIFETIME = timedelta(hours=1)
INVITATION_LIFETIME = timedelta(days=7)
_SYSTEM = system_actor("accounts")


@transaction.atomic
def get_or_create_account(email: str, *, organization: Organization | None = None, actor: Actor = _SYSTEM) -> User:
    """Return the account whose verified address is ``email``, locked. Create an unclaimed account if there is none.

    If an organization other than ``organization`` vouches for the account, an admin of that organization may have
    signed in to it. The address of that account then becomes unverified, and a new account gets the verified address.
    """
    verified = User.objects.select_for_update(no_key=True).filter(email__iexact=email, email_verified=True)
    found = verified.first()
    if found is not None and found.vouched_by_id not in {None, organization and organization.pk}:
        found.email_verified = False
        found.save(update_fields=["email_verified"])
        audit.record("account.lose_address", actor=actor, scope=None, resource=("user", found.pk))
        found = None
    if found is None:
        try:
            with transaction.atomic():
                return User.objects.create(email=email, email_verified=True)
        except IntegrityError:  # another transaction has just created the account
            found = verified.get()
    return found


@transaction.atomic
def claim_or_create_account(
    email: str, *, is_verified: bool, name: str, request_id: str = "", ip: str | None = None
) -> User:
    """Return the account of a person who signs in with a new identity.

    An account without an identity is claimed only with its verified e-mail address; otherwise a new account is created.
    Claiming deletes the account's unused sign-in links and, if an organization vouched for the account, confirms the
    address. Raises Unauthenticated if the account is not active, and IntegrityError if a concurrent sign-in or
    invitation has just created an account with this address.
    """
    holder = None
    if email and is_verified:
        holder = User.objects.select_for_update().filter(email__iexact=email, email_verified=True).first()
    if holder is not None and not holder.social_auth.exists():
        if not holder.is_active:
            raise Unauthenticated("This account is not active. Contact the installation operator.")
        account, action = holder, "account.claim"
    else:
        # If the address already belongs to another identity, the new account has it as an unverified address only.
        is_own = bool(email) and is_verified and holder is None
        account, action = User.objects.create(email=email, email_verified=is_own, name=name), "account.create"
    actor = Actor("user", str(account.pk), account.email, request_id, ip)
    if account == holder:
        delete_unused_links(account)
        _confirm_address(account, actor=actor)
    audit.record_of_person(action, person=account, actor=actor, resource=("user", account.pk))
    return account


def _confirm_address(account: User, *, actor: Actor) -> None:
    """Record that the account belongs to the owner of its address. The caller must hold the lock of the account.

    If an admin may have signed in to the account, this revokes its tokens, ends its sessions, and denies machines'
    sign-ins that were allowed but have not collected their token yet.
    """
    if account.vouched_by_id is None:
        return
    for token in UserToken.objects.filter(user=account, revoked_at=None):
        tokens.revoke(token, action="token.revoke", actor=actor, scope=None)
    DeviceSignIn.objects.filter(user=account, status=DeviceStatus.ALLOWED).update(status=DeviceStatus.DENIED)
    account.vouched_by = None
    account.save(update_fields=["vouched_by"])


@transaction.atomic
def create_sign_in_link(
    *, user: User, actor: Actor, lifetime: timedelta = LINK_LIFETIME, organization: Organization | None = None
) -> str:
    """Create a link that signs ``user`` in to the console once. Return the secret part of the link.

    ``organization`` is the organization whose admin will see the link. Such a link works only as long as
    ``may_get_invitation`` is true, and the person has roles in ``organization`` and in no other.
    """
    secret = generate_link()
    SignInLink.objects.create(
        user=user, digest=secret.digest, organization=organization, expires_at=timezone.now() + lifetime
    )
    audit.record_of_person("sign_in_link.create", person=user, actor=actor, resource=("user", user.pk))
    return secret.text


@transaction.atomic
def create_invitation_link(user: User, *, organization: Organization | None = None, actor: Actor) -> str | None:
    """Create a link with which an invited person signs in.

    ``organization`` is the organization whose admin will see the link. None means that the link is sent to the person's
    address. Earlier unused links become invalid if an admin sees the new one. Returns the secret part of the link, or
    None if the account must not get such a link.
    """
    locked = lock_row(user)
    if not may_get_invitation(locked, organization) or (
        organization is not None and not _belongs_only_to(locked, organization.pk)
    ):
        return None
    if organization is not None:
        delete_unused_links(locked)  # earlier e-mails stay valid, because a mail server may have dropped the last one
    return create_sign_in_link(user=locked, actor=actor, lifetime=INVITATION_LIFETIME, organization=organization)


def delete_unused_links(user: User) -> None:
    """Invalidate the person's unused sign-in links. The caller must hold the lock of the account."""
    SignInLink.objects.filter(user=user, used_at=None).delete()


def is_claimed(user: User) -> bool:
    """Return whether somebody has signed in to the account or used one of its tokens (``UserManager.claimed``)."""
    return User.objects.claimed().filter(pk=user.pk).exists()


def may_get_invitation(user: User, organization: Organization | None) -> bool:
    """Return whether an invitation may contain a link that signs in to the account.

    ``organization`` is the organization whose admin will see the link, or None. An account that is not active or
    belongs to an installation operator never gets a link. For a claimed account, a link is permitted only while the
    address is not confirmed, because the person may have no other way to sign in again. Only an admin of the
    organization that vouches for the account may then see the link.
    """
    if not user.is_active or user.is_superuser:
        return False
    if not is_claimed(user):
        return True
    return user.vouched_by_id is not None and (organization is None or user.vouched_by_id == organization.pk)


def _belongs_only_to(user: User, organization_id: UUID) -> bool:
    """Return whether the person has roles in this organization and in no other.

    Otherwise, an admin with a link could get into another organization.
    """
    joined = user.memberships.order_by().values_list("organization_id", flat=True).distinct()
    return list(joined) == [organization_id]


@transaction.atomic
def spend_sign_in_link(text: str, *, ip: str | None) -> User:
    """Mark a sign-in link as used and return the person whom it signs in.

    Raises Unauthenticated if the link is unknown, used, expired or no longer permitted, or the account is not active.
    """
    digest = credential_digest(text)
    # Lock the account before its links, to avoid deadlocks, and then read the link again.
    user = User.objects.select_for_update(no_key=True).filter(
        pk__in=SignInLink.objects.filter(digest=digest).values("user")
    ).first()  # fmt: skip
    found = None if user is None else SignInLink.objects.select_for_update().filter(digest=digest).first()
    if user is None or found is None or not _is_valid(found, user):
        raise Unauthenticated(
            "This sign-in link was already used, has expired, was withdrawn, or never existed. Request a new link."
        )
    if not user.is_active:
        raise Unauthenticated("This account is not active. Contact the installation operator.")
    actor = Actor("user", str(user.pk), user.email, ip=ip)
    found.used_at = timezone.now()
    found.save(update_fields=["used_at"])
    if not is_claimed(user):
        delete_unused_links(user)
    if found.organization_id is None:
        _confirm_address(user, actor=actor)
    user.last_login = timezone.now()  # from now on, the account is claimed
    user.vouched_by_id = found.organization_id
    user.save(update_fields=["last_login", "vouched_by"])
    audit.record_of_person(
        "session.sign_in",
        person=user,
        actor=actor,
        resource=("user", user.pk),
        changes={"by": "link"},
    )
    return user


def _is_valid(link: SignInLink, user: User) -> bool:
    """Return whether the link is currently valid. The caller must hold the locks of both rows."""
    if link.used_at is not None or link.expires_at <= timezone.now():
        return False
    if link.organization_id is None:
        return True
    return may_get_invitation(user, link.organization) and _belongs_only_to(user, link.organization_id)


@transaction.atomic
def set_installation_operator(user: User, *, is_operator: bool, actor: Actor) -> bool:
    """Grant or revoke the role of installation operator, who sees all organizations in the console.

    Returns False if nothing had to change. Raises Conflict when granting the role to an account that is not active, or
    whose address was not confirmed (``vouched_by``).
    """
    locked = lock_row(user)
    if locked.is_superuser is is_operator:
        return False
    if is_operator and not locked.is_active:
        raise Conflict(f"The account of {locked.email} is not active.", code="not_active")
    if is_operator and locked.vouched_by_id is not None:
        raise Conflict(
            f"The address of the account {locked.email} is not confirmed. Before you grant the role, create a "
            "link with `manage.py sign_in_link`, and let the person sign in with it.",
            code="not_confirmed",
        )
    locked.is_superuser = is_operator
    locked.save(update_fields=["is_superuser"])
    action = "installation_operator.grant" if is_operator else "installation_operator.revoke"
    audit.record(action, actor=actor, scope=None, resource=("user", locked.pk), changes={"email": locked.email})
    return True

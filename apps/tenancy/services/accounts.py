"""Accounts of people, one-time sign-in links to the console, and the role of installation operator."""

from __future__ import annotations

from datetime import timedelta

from django.db import IntegrityError, transaction
from django.utils import timezone

from apps.tenancy.actors import Actor
from apps.tenancy.credentials import credential_digest, generate_link
from apps.tenancy.models import SignInLink, User
from apps.tenancy.services import audit
from apps.tenancy.services.state import lock_row
from byteor_cloud.errors import Conflict, Unauthenticated

LINK_LIFETIME = timedelta(hours=1)


def get_or_create_account(email: str) -> User:
    """Return the account whose verified address is ``email``. Create an unclaimed account if there is none."""
    found = User.objects.find_by_verified_email(email)
    if found is None:
        try:
            with transaction.atomic():
                return User.objects.create(email=email, email_verified=True)
        except IntegrityError:  # another transaction has just created the account
            found = User.objects.get(email__iexact=email, email_verified=True)
    return found


@transaction.atomic
def claim_or_create_account(
    email: str, *, is_verified: bool, name: str, request_id: str = "", ip: str | None = None
) -> User:
    """Return the account of a person who signs in with a new identity.

    An unclaimed account is claimed only with its verified e-mail address; otherwise a new account is created. Raises
    Unauthenticated if the unclaimed account is not active.
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
    audit.record_of_person(action, person=account, actor=actor, resource=("user", account.pk))
    return account


@transaction.atomic
def create_sign_in_link(*, user: User, actor: Actor) -> str:
    """Create a link that signs ``user`` in to the console once, within an hour. Return the secret part of the link."""
    secret = generate_link()
    SignInLink.objects.create(user=user, digest=secret.digest, expires_at=timezone.now() + LINK_LIFETIME)
    audit.record_of_person("sign_in_link.create", person=user, actor=actor, resource=("user", user.pk))
    return secret.text


@transaction.atomic
def spend_sign_in_link(text: str, *, ip: str | None) -> User:
    """Mark a sign-in link as used and return the person whom it signs in.

    Raises Unauthenticated if the link is unknown, used or expired, or if the account is not active.
    """
    found = SignInLink.objects.select_for_update().filter(digest=credential_digest(text)).first()
    if found is None or found.used_at is not None or found.expires_at <= timezone.now():
        raise Unauthenticated("This sign-in link was already used, has expired, or never existed. Request a new link.")
    found.used_at = timezone.now()
    found.save(update_fields=["used_at"])
    user: User = found.user
    if not user.is_active:
        raise Unauthenticated("This account is not active. Contact the installation operator.")
    audit.record_of_person(
        "session.sign_in",
        person=user,
        actor=Actor("user", str(user.pk), user.email, ip=ip),
        resource=("user", user.pk),
        changes={"by": "link"},
    )
    return user


@transaction.atomic
def set_installation_operator(user: User, *, is_operator: bool, actor: Actor) -> bool:
    """Grant or revoke the role of installation operator, who sees everything in the console.

    Returns False if nothing had to change. Raises Conflict when granting the role to an account that is not active.
    """
    locked = lock_row(user)
    if locked.is_superuser is is_operator:
        return False
    if is_operator and not locked.is_active:
        raise Conflict(f"The account of {locked.email} is not active.", code="not_active")
    locked.is_superuser = is_operator
    locked.save(update_fields=["is_superuser"])
    action = "installation_operator.grant" if is_operator else "installation_operator.revoke"
    audit.record(action, actor=actor, scope=None, resource=("user", locked.pk), changes={"email": locked.email})
    return True

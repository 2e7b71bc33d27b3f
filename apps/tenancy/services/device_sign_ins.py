"""Sign-in of machines without a browser (RFC 8628). A token is issued after a person allows it in the console."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Final, NamedTuple

from django.db import transaction
from django.utils import timezone

from apps.tenancy.actors import Actor
from apps.tenancy.credentials import credential_digest, generate_device_code
from apps.tenancy.models import DeviceSignIn, DeviceStatus, User, UserToken
from apps.tenancy.services import audit, tokens
from apps.tenancy.services.state import lock_row
from byteor_cloud.errors import Conflict, DeviceSignInError, NotFound

LIFETIME: Final = timedelta(minutes=10)
INTERVAL: Final = timedelta(seconds=5)
_EARLY: Final = timedelta(seconds=1)  # tolerance for varying network delays
# RFC 8628, section 6.1: without vowels, codes form no words. Without digits, no letter is mistaken for a digit.
_LETTERS: Final = "BCDFGHJKLMNPQRSTVWXZ"
_HALF: Final = 4


class Started(NamedTuple):
    """The codes of a new request. Only their digests are stored."""

    device_code: str
    user_code: str


class Issued(NamedTuple):
    """The token of a machine, its secret, and its user."""

    token: UserToken
    secret: str
    user: User


def start(*, client_name: str, ip: str | None) -> Started:
    """Store a machine's request to sign in, and return its codes."""
    device_code = generate_device_code()
    letters = "".join(secrets.choice(_LETTERS) for _ in range(2 * _HALF))
    DeviceSignIn.objects.create(
        device_digest=device_code.digest,
        user_digest=credential_digest(letters),
        client_name=client_name,
        ip=ip,
        expires_at=timezone.now() + LIFETIME,
    )
    return Started(device_code.text, shown_code(letters))


def shown_code(text: str) -> str:
    """Format a code in upper case with a hyphen in the middle. Accepts any spaces and hyphens."""
    letters = "".join(text.upper().replace("-", " ").split())
    return f"{letters[:_HALF]}-{letters[_HALF:]}"


def find_pending(user_code: str) -> DeviceSignIn:
    """Return the pending request with this code. Raises NotFound for a code that is wrong, expired or used."""
    digest = credential_digest(shown_code(user_code).replace("-", ""))
    return _pending(DeviceSignIn.objects.filter(user_digest=digest).first())


def _pending(row: DeviceSignIn | None) -> DeviceSignIn:
    if row is None or row.status != DeviceStatus.PENDING or row.expires_at <= timezone.now():
        raise NotFound("This code is wrong, has expired, or was already used. Check it, or start the sign-in again.")
    return row


@transaction.atomic
def decide(user_code: str, *, allow: bool, user: User, actor: Actor) -> DeviceSignIn:
    """Allow or deny a machine's request to sign in as ``user``, and return the request.

    Raises NotFound for a code that is wrong, expired or used, and Conflict if the account is not active.
    """
    # Lock the account before its other rows, to avoid deadlocks.
    person = User.objects.select_for_update(no_key=True).filter(pk=user.pk, is_active=True).first()
    if person is None:
        raise Conflict("This account is not active.", code="not_active")
    found = _pending(lock_row(find_pending(user_code)))  # another person may have decided before the lock
    found.status = DeviceStatus.ALLOWED if allow else DeviceStatus.DENIED
    found.user = person
    found.save(update_fields=["status", "user"])
    audit.record_of_person(
        "device_sign_in.allow" if allow else "device_sign_in.deny",
        person=person,
        actor=actor,
        resource=("user", person.pk),
        changes={"name": [None, found.client_name]},
    )
    return found


def collect(device_code: str, *, request_id: str, ip: str | None) -> Issued:
    """Create the token of a machine whose request was allowed, once.

    Raises DeviceSignInError as specified in RFC 8628, section 3.5.
    """
    issued = _collect(credential_digest(device_code), request_id=request_id, ip=ip)
    if isinstance(issued, DeviceSignInError):
        raise issued  # outside the transaction, so that the time of the request is stored
    return issued


@transaction.atomic
def _collect(digest: str, *, request_id: str, ip: str | None) -> Issued | DeviceSignInError:
    found = DeviceSignIn.objects.filter(device_digest=digest).first()
    if found is None:
        return DeviceSignInError("invalid_grant", "The device code is unknown or expired.")
    # Lock the account before its other rows, to avoid deadlocks.
    user = None if found.user is None else lock_row(found.user)
    locked, now = lock_row(found), timezone.now()
    if locked.status == DeviceStatus.COLLECTED:
        return DeviceSignInError("invalid_grant", "The token of this device code was already collected.")
    if locked.status == DeviceStatus.DENIED or (user is not None and not user.is_active):
        return DeviceSignInError("access_denied", "The sign-in was denied, or the account is not active.")
    if locked.expires_at <= now:
        return DeviceSignInError("expired_token", "The code has expired. Start the sign-in again.")
    if user is None:
        is_early = locked.polled_at is not None and locked.polled_at > now - INTERVAL + _EARLY
        locked.polled_at = now
        locked.save(update_fields=["polled_at"])
        if is_early:
            return DeviceSignInError("slow_down", "Wait 5 seconds longer between requests.")
        return DeviceSignInError("authorization_pending", "Nobody has allowed or denied the sign-in yet.")
    locked.status = DeviceStatus.COLLECTED
    locked.save(update_fields=["status"])
    name = f"byteor on {locked.client_name}" if locked.client_name else "byteor"
    actor = Actor("user", str(user.pk), user.email, request_id, ip)
    return Issued(*tokens.create_user_token(user=user, name=name, actor=actor), user)

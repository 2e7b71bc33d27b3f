"""Deletion of tenancy's rows after their retention period (docs/tables.md lists the periods)."""

from __future__ import annotations

import time
from datetime import datetime, timedelta

from django.contrib.sessions.models import Session
from django.db.models import Q
from django.utils import timezone
from social_django.models import Association, Code, Nonce, Partial

from apps.tenancy.models import (
    Credential,
    DeviceSignIn,
    IdempotencyKey,
    OrganizationKey,
    RateCounter,
    SignInLink,
    UserToken,
)
from byteor_cloud.database.deletion import delete_in_batches

# Keep an invalid credential longer than requests for approval usually stay pending.
CREDENTIALS_KEPT_FOR = timedelta(days=90)
LINKS_KEPT_FOR = timedelta(days=1)
DEVICE_SIGN_INS_KEPT_FOR = timedelta(minutes=10)  # so that a machine gets the error expired_token
SIGN_IN_TIMEOUT = timedelta(hours=1)
COUNTER_MINUTES = 2  # past minutes whose rate counters are kept


def invalid_before(moment: datetime) -> Q:
    """Return the condition that a credential was revoked or expired before ``moment``."""
    return Q(revoked_at__lt=moment) | Q(expires_at__lt=moment)


def delete_old[C: Credential](family: type[C], now: datetime) -> int:
    """Delete credentials that became invalid over 90 days ago and return how many. Their audit events are kept."""
    return delete_in_batches(family._default_manager.filter(invalid_before(now - CREDENTIALS_KEPT_FOR)))


def delete_old_credentials(now: datetime | None = None) -> int:
    """Delete user tokens and organization keys that became invalid over 90 days ago, and old sign-in links.

    Returns the number of deleted rows.
    """
    now = now or timezone.now()
    links = SignInLink.objects.filter(expires_at__lt=now - LINKS_KEPT_FOR)
    return delete_old(UserToken, now) + delete_old(OrganizationKey, now) + delete_in_batches(links)


def delete_old_sign_ins(now: datetime | None = None) -> None:
    """Delete expired sessions and the leftovers of abandoned sign-ins."""
    now = now or timezone.now()
    abandoned_before = now - SIGN_IN_TIMEOUT
    delete_in_batches(Session.objects.filter(expire_date__lt=now))
    delete_in_batches(Nonce.objects.filter(timestamp__lt=abandoned_before.timestamp()))
    delete_in_batches(Code.objects.filter(timestamp__lt=abandoned_before))
    delete_in_batches(Partial.objects.filter(timestamp__lt=abandoned_before))
    expired = [
        row.pk for row in Association.objects.only("issued", "lifetime") if row.issued + row.lifetime < now.timestamp()
    ]
    delete_in_batches(Association.objects.filter(pk__in=expired))


def delete_old_requests(now: datetime | None = None) -> None:
    """Delete old rate counters, expired idempotency keys, and old sign-in requests of machines.

    A sign-in request is deleted 10 minutes after it expired.
    """
    expired_before = (now or timezone.now()) - DEVICE_SIGN_INS_KEPT_FOR
    delete_in_batches(DeviceSignIn.objects.filter(expires_at__lt=expired_before))
    minute = int((now.timestamp() if now else time.time()) // 60)
    delete_in_batches(RateCounter.objects.filter(minute__lt=minute - COUNTER_MINUTES))
    delete_in_batches(IdempotencyKey.objects.expired())

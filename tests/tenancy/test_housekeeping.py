"""Deletion of expired rows. Rows that are still needed are kept."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from django.contrib.sessions.models import Session
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from social_django.models import Association, Code, Nonce, Partial

from apps.tenancy import tasks
from apps.tenancy.api.serializers.settings import EnvironmentSettingsSerializer
from apps.tenancy.models import AuditEvent, IdempotencyKey, OrganizationKey, RateCounter, SignInLink, UserToken
from apps.tenancy.permissions import GRANTS, Role
from apps.tenancy.services import accounts, housekeeping, tokens
from byteor_cloud.database import deletion
from tests.worlds import World

pytestmark = pytest.mark.django_db


def test_only_old_sessions_and_sign_in_data_are_deleted() -> None:
    now = timezone.now()
    Session.objects.create(session_key="old", session_data="", expire_date=now - timedelta(seconds=1))
    Session.objects.create(session_key="young", session_data="", expire_date=now + timedelta(hours=1))
    Nonce.objects.create(server_url="https://a.example", timestamp=int(time.time()) - 4000, salt="old")
    Nonce.objects.create(server_url="https://a.example", timestamp=int(time.time()), salt="young")

    for handle, issued in (("old", time.time() - 100), ("young", time.time())):
        Association.objects.create(
            server_url="https://a.example", handle=handle, secret="", issued=int(issued), lifetime=50, assoc_type=""
        )
    for age, name in ((timedelta(hours=2), "old"), (timedelta(0), "young")):
        Code.objects.create(email=f"{name}@a.example", code=name, timestamp=now - age)
        Partial.objects.create(token=name, backend="oidc", data={})
    Code.objects.filter(code="old").update(timestamp=now - timedelta(hours=2))
    Partial.objects.filter(token="old").update(timestamp=now - timedelta(hours=2))

    tasks.delete_old_sign_ins()

    assert list(Session.objects.values_list("session_key", flat=True)) == ["young"]
    assert list(Nonce.objects.values_list("salt", flat=True)) == ["young"]
    assert list(Association.objects.values_list("handle", flat=True)) == ["young"]
    assert list(Code.objects.values_list("code", flat=True)) == ["young"]
    assert list(Partial.objects.values_list("token", flat=True)) == ["young"]


def test_old_rate_counters_and_expired_idempotency_keys_are_deleted(world: World) -> None:
    minute = int(time.time()) // 60
    for name, age in (("old", 3), ("last", 1), ("now", 0)):
        RateCounter.objects.create(key=name, minute=minute - age, count=1)
    world.admin.api.post("/api/v1/orgs", {"name": "kept"}, Idempotency_Key="kept")
    world.admin.api.post("/api/v1/orgs", {"name": "over"}, Idempotency_Key="over")
    IdempotencyKey.objects.filter(key="over").update(expires_at=timezone.now() - timedelta(seconds=1))

    tasks.close_minute()

    assert set(RateCounter.objects.exclude(key__startswith="usr").values_list("key", flat=True)) >= {"last", "now"}
    assert not RateCounter.objects.filter(key="old").exists()
    assert list(IdempotencyKey.objects.values_list("key", flat=True)) == ["kept"]


DAYS_89, DAYS_91 = timedelta(days=89), timedelta(days=91)


@pytest.mark.parametrize("column", ["expires_at", "revoked_at"])
def test_credentials_are_deleted_90_days_after_they_become_invalid(world: World, column: str) -> None:
    now = timezone.now()
    for name in ("old", "recent", "usable"):
        tokens.create_user_token(user=world.viewer.user, name=name, actor=world.viewer.actor)
        tokens.create_organization_key(
            organization=world.organization, name=name, role=Role.VIEWER, granter=GRANTS[Role.ORG_ADMIN],
            actor=world.admin.actor,
        )  # fmt: skip
    for name, age in (("old", DAYS_91), ("recent", DAYS_89)):
        for family in (UserToken, OrganizationKey):
            family.objects.filter(name=name).update(**{column: now - age})
    events = AuditEvent.objects.count()

    tasks.delete_old_credentials()

    for family in (UserToken, OrganizationKey):
        left = family.objects.filter(name__in=["old", "recent", "usable"]).order_by("id")
        assert list(left.values_list("name", flat=True)) == ["recent", "usable"]
    assert AuditEvent.objects.count() == events


def test_invalid_keys_are_kept_longer_than_longest_approval_lifetime() -> None:
    """The creator of a key must be known as long as an approval that the key requested can be decided."""
    longest = EnvironmentSettingsSerializer().fields["approval_ttl_s"].max_value  # type: ignore[attr-defined]  # an IntegerField has a max_value

    latest_start = timedelta(days=30)  # if a deployment has a start time, the lifetime of its approval begins then
    assert latest_start + timedelta(seconds=longest) < housekeeping.CREDENTIALS_KEPT_FOR


def test_one_time_links_are_deleted_one_day_after_expiry(world: World) -> None:
    SignInLink.objects.all().delete()  # the links in the invitations
    for _ in range(3):
        accounts.create_sign_in_link(user=world.viewer.user, actor=world.admin.actor)
    old, recent, _valid = SignInLink.objects.order_by("id")
    for link, hours in ((old, 25), (recent, 23)):
        SignInLink.objects.filter(pk=link.pk).update(expires_at=timezone.now() - timedelta(hours=hours))

    tasks.delete_old_credentials()

    assert SignInLink.objects.count() == 2
    assert not SignInLink.objects.filter(pk=old.pk).exists()


def test_each_delete_statement_deletes_at_most_one_batch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletion, "BATCH_SIZE", 10)
    minute = int(time.time()) // 60
    RateCounter.objects.bulk_create(RateCounter(key=f"k{n}", minute=minute - 9, count=1) for n in range(25))

    with CaptureQueriesContext(connection) as queries:
        assert deletion.delete_in_batches(RateCounter.objects.filter(minute=minute - 9)) == 25

    assert len([query for query in queries if query["sql"].startswith("DELETE")]) == 3

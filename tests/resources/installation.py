"""The installation itself, sign-in, and tables that the console shows only to installation operators or not at all."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from apps.artifacts.models import UnreferencedBlob
from apps.tenancy.models import IdempotencyKey, RateCounter, SignInLink
from apps.tenancy.services import accounts
from tests.permissions import NoRole
from tests.resources import Call, Place, Resource, Table

_LIBRARY = "none of our lists reads this library's table"


def sign_in_link(place: Place) -> SignInLink:
    accounts.create_sign_in_link(user=place.world.viewer.user, actor=place.world.admin.actor)
    return SignInLink.objects.latest("id")


def idempotency_key(place: Place) -> IdempotencyKey:
    expires = timezone.now() + timedelta(hours=1)
    return IdempotencyKey.objects.create(
        caller="user:x", key=place.name("key"), fingerprint="f", status=201, response=b"sealed", expires_at=expires
    )


def rate_counter(place: Place) -> RateCounter:
    return RateCounter.objects.create(key=place.name("sign-in"), minute=1, count=1)


def unreferenced_blob(place: Place) -> UnreferencedBlob:
    return UnreferencedBlob.objects.create(content_hash=place.name("sha256"))


RESOURCE = Resource(
    calls=(
        Call("checkLiveness", "GET", "/healthz", NoRole.ANYBODY),
        Call("checkReadiness", "GET", "/readyz", NoRole.ANYBODY),
        Call("scrapeMetrics", "GET", "/metrics", NoRole.ANYBODY),
        Call("startSignIn", "GET", "/auth/login", NoRole.ANYBODY),
        Call("finishSignIn", "GET", "/auth/callback", NoRole.ANYBODY),
        Call("startDeviceSignIn", "POST", "/auth/device", NoRole.ANYBODY),
        Call("finishDeviceSignIn", "POST", "/auth/device/token", NoRole.ANYBODY),
    ),
    tables=(
        Table("tenancy.signinlink", row=sign_in_link),
        Table("tenancy.idempotencykey", row=idempotency_key, large=frozenset({"response"})),
        Table("tenancy.ratecounter", row=rate_counter),
        Table("tenancy.masterkey"),
        Table("tenancy.host"),
        Table("tenancy.devicesignin"),
        Table("artifacts.unreferencedblob", row=unreferenced_blob),
        Table("sessions.session", short={"session_data": _LIBRARY}),
        Table("admin.logentry", short={"object_id": _LIBRARY, "change_message": _LIBRARY}),
        Table("social_django.usersocialauth", short={"extra_data": _LIBRARY}),
        Table("social_django.partial", short={"data": _LIBRARY}),
    ),
)

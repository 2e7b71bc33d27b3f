"""Signing keys: they are published, then sign, then are retired."""

from __future__ import annotations

import contextlib
import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from apps.tenancy import tasks
from apps.tenancy.models import AuditEvent, Organization, SigningKey
from apps.tenancy.services import signing_keys, vault
from byteor.engine.canonical import format_time
from byteor.engine.signing import keys
from byteor_cloud.errors import Conflict
from byteor_cloud.ids import smallest_uuid7
from tests.patience import PATIENCE_S
from tests.races import Race
from tests.worlds import Api, World

pytestmark = pytest.mark.django_db


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[timedelta]:
    """Return an empty list. The clock is moved by the sum of the durations that a test appends to the list."""
    passed: list[timedelta] = []
    now = timezone.now
    monkeypatch.setattr("django.utils.timezone.now", lambda: now() + sum(passed, timedelta()))
    return passed


def org(world: World, rest: str = "") -> str:
    return f"/api/v1/orgs/{world.organization.pk}/signing-keys{rest}"


def states(world: World) -> list[str]:
    """Return the stored statuses, oldest key first."""
    return list(
        SigningKey.objects.filter(organization=world.organization).order_by("id").values_list("status", flat=True)
    )


def published(world: World) -> list[str]:
    """Return the published statuses, oldest key first."""
    return [key.status.value for key in signing_keys.key_set(world.organization.pk)][::-1]


def signs(world: World) -> str:
    """Return the kid of the key that currently signs."""
    return keys.kid(keys.public_key(signing_keys.active_private_key(world.organization.pk)))


def events(world: World) -> list[tuple[str, str, Any]]:
    """Return the signing key events that follow the creation of the first key."""
    found = AuditEvent.objects.filter(organization=world.organization, resource_kind="signing_key").order_by("id")[1:]
    return [(e.action, e.resource_id, e.changes["status"]) for e in found]


def etag_of_heartbeat(agent: Any, api: Api) -> str:
    beat = {"status": "healthy", "agent_version": "1"}
    return str(api.post(f"/api/v1/agents/{agent.pk}/heartbeat", beat).json()["signing_key_etag"])


def test_new_key_is_published_before_it_signs_by_default(world: World, clock: list[timedelta]) -> None:
    agent, api = world.agent()
    old = SigningKey.objects.get(organization=world.organization)
    before = etag_of_heartbeat(agent, api)

    made = world.admin.api.post(org(world, "/rotate"))

    body = made.json()
    assert (made.status_code, body["status"], body["signs_until"], body["not_after"]) == (201, "next", None, None)
    starts = SigningKey.objects.get(kid=body["kid"]).not_before
    assert timedelta(seconds=85) < starts - timezone.now() <= timedelta(seconds=90)  # 3 heartbeats, one every 30 s
    old.refresh_from_db()
    assert (old.status, old.signs_until, old.not_after) == ("active", starts, starts + timedelta(days=7))
    # Agents receive the new ETag. Both keys verify, and the old key signs.
    assert etag_of_heartbeat(agent, api) != before
    response = api.get(f"/api/v1/agents/{agent.pk}/signing-key")
    assert response["ETag"] == f'"{etag_of_heartbeat(agent, api)}"'
    assert response.json()["active_kid"] == old.kid == signs(world)
    assert {k["kid"]: k["status"] for k in response.json()["keys"]} == {old.kid: "active", body["kid"]: "next"}
    parsed = keys.KeySet.parse(response.content)
    assert all(key.trusts(timezone.now()) for key in parsed)
    tasks.note_keys()
    assert states(world) == ["active", "next"]

    # At the activation time, all readers see the new key as active before the worker has stored the status.
    clock.append(timedelta(seconds=91))
    assert states(world) == ["active", "next"]
    assert published(world) == ["retiring", "active"]
    assert signs(world) == body["kid"]
    listed = world.viewer.api.get(org(world)).json()["results"]
    assert [(k["kid"], k["status"]) for k in listed] == [(body["kid"], "active"), (old.kid, "retiring")]
    fresh = api.get(f"/api/v1/agents/{agent.pk}/signing-key", If_None_Match=response["ETag"])
    assert (fresh.status_code, fresh.json()["active_kid"]) == (200, body["kid"])
    tasks.note_keys()
    assert states(world) == ["retiring", "active"]
    assert f'"{etag_of_heartbeat(agent, api)}"' == fresh["ETag"]

    # A week later, the old key is retired and its private key destroyed.
    clock.append(timedelta(days=7))
    assert published(world) == ["retired", "active"]
    tasks.note_keys()
    tasks.note_keys()
    assert states(world) == ["retired", "active"]
    old.refresh_from_db()
    assert old.private_key is None
    assert AuditEvent.objects.get(action="signing_key.create", resource_id=body["kid"]).changes == {
        "status": [None, "next"],
        "not_before": body["not_before"],
        "replaces": old.kid,
        "which_ends": format_time(starts + timedelta(days=7)),
    }
    assert events(world) == [
        ("signing_key.create", body["kid"], [None, "next"]),
        ("signing_key.supersede", old.kid, ["active", "retiring"]),
        ("signing_key.activate", body["kid"], ["next", "active"]),
        ("signing_key.retire", old.kid, ["retiring", "retired"]),
    ]


def test_rotation_stores_earlier_status_changes_that_worker_has_not_stored(
    world: World, clock: list[timedelta]
) -> None:
    old = SigningKey.objects.get(organization=world.organization)
    new = signing_keys.rotate(organization=world.organization, retire_in_s=60, actor=world.admin.actor)
    clock.append(timedelta(hours=1))
    assert (published(world), signs(world)) == (["retired", "active"], new.kid)

    # The next rotation does not have to wait for the worker.
    newest = signing_keys.rotate(organization=world.organization, activate_in_s=600, actor=world.admin.actor)

    assert states(world) == ["retired", "active", "next"]
    assert events(world)[1:] == [
        ("signing_key.retire", old.kid, ["active", "retired"]),
        ("signing_key.activate", new.kid, ["next", "active"]),
        ("signing_key.create", newest.kid, [None, "next"]),
    ]


def test_new_key_is_active_after_three_times_longest_heartbeat_interval_by_default(world: World) -> None:
    world.environment("dev", "slow", heartbeat_interval_s=300)
    gone = world.environment("dev", "slowest", heartbeat_interval_s=3000)
    type(gone).objects.filter(pk=gone.pk).update(deleted_at=timezone.now())

    key = signing_keys.rotate(organization=world.organization, actor=world.admin.actor)

    assert round((key.not_before - key.created_at).total_seconds()) == 900


def test_new_key_waits_at_least_one_minute_by_default(world: World) -> None:
    for environment in (world.dev, world.staging, world.prod):
        type(environment).objects.filter(pk=environment.pk).update(settings={"heartbeat_interval_s": 5})

    key = signing_keys.rotate(organization=world.organization, actor=world.admin.actor)

    assert round((key.not_before - key.created_at).total_seconds()) == 60


def test_new_key_signs_immediately_if_activation_delay_is_zero(world: World) -> None:
    old = SigningKey.objects.get(organization=world.organization)
    message = keys.sign(signing_keys.active_private_key(world.organization.pk), b"message")

    made = world.admin.api.post(org(world, "/rotate"), {"activate_in_s": 0, "retire_in_s": 3600})

    kid = made.json()["kid"]
    assert (made.status_code, made.json()["status"], signs(world)) == (201, "active", kid)
    assert states(world) == published(world) == ["retiring", "active"]
    found = signing_keys.key_set(world.organization.pk).find(old.kid)
    assert found is not None
    assert keys.verify(found.public, b"message", message)
    old.refresh_from_db()
    assert old.not_after is not None
    assert 3600 - PATIENCE_S < (old.not_after - timezone.now()).total_seconds() <= 3600
    assert events(world) == [
        ("signing_key.create", kid, [None, "next"]),
        ("signing_key.supersede", old.kid, ["active", "retiring"]),
        ("signing_key.activate", kid, ["next", "active"]),
    ]


def test_second_rotation_is_refused_while_next_key_exists(world: World) -> None:
    signing_keys.rotate(organization=world.organization, actor=world.admin.actor)
    before = list(SigningKey.objects.order_by("id").values()), AuditEvent.objects.count()

    again = world.admin.api.post(org(world, "/rotate"), {"activate_in_s": 0})

    assert (again.status_code, again.json()["type"]) == (409, "urn:byteor:problem:signing_key.next_waits")
    assert (list(SigningKey.objects.order_by("id").values()), AuditEvent.objects.count()) == before


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"activate_in_s": -1}, "/activate_in_s"),
        ({"activate_in_s": 30 * 86400 + 1}, "/activate_in_s"),
        ({"activate_in_s": None}, "/activate_in_s"),
        ({"retire_in_s": 59}, "/retire_in_s"),
        ({"retire_in_s": 366 * 86400 + 1}, "/retire_in_s"),
    ],
)
def test_invalid_activation_and_retirement_delays_are_rejected(world: World, body: Any, pointer: str) -> None:
    refused = world.admin.api.post(org(world, "/rotate"), body)

    assert refused.status_code == 400
    assert [error["pointer"] for error in refused.json()["errors"]] == [pointer]
    assert states(world) == ["active"]


def test_retiring_key_can_be_retired_manually(world: World) -> None:
    old = SigningKey.objects.get(organization=world.organization)
    signing_keys.rotate(organization=world.organization, activate_in_s=0, actor=world.admin.actor)
    signed_before = timezone.now()

    done = world.admin.api.post(org(world, f"/{old.kid}/retire"), {"reason": "a laptop was lost"})

    assert (done.status_code, done.json()["status"]) == (200, "retired")
    old.refresh_from_db()
    assert (old.status, old.private_key) == ("retired", None)
    found = signing_keys.key_set(world.organization.pk).find(old.kid)
    assert found is not None
    assert [found.trusts(at) for at in (signed_before, timezone.now(), None)] == [True, False, False]
    event = AuditEvent.objects.filter(action="signing_key.retire").get()
    assert event.changes == {"status": ["retiring", "retired"], "reason": "a laptop was lost"}
    again = world.admin.api.post(org(world, f"/{old.kid}/retire"), {"reason": "again"})
    assert (again.status_code, again.json()["type"]) == (409, "urn:byteor:problem:illegal_transition")


def test_next_key_can_be_withdrawn(world: World, clock: list[timedelta]) -> None:
    old = SigningKey.objects.get(organization=world.organization)
    new = signing_keys.rotate(organization=world.organization, actor=world.admin.actor)

    done = world.admin.api.post(org(world, f"/{new.kid}/retire"), {"reason": "made by mistake"})

    assert (done.status_code, done.json()["status"]) == (200, "retired")
    clock.append(timedelta(days=8))
    tasks.note_keys()
    assert states(world) == published(world) == ["active", "retired"]
    assert signs(world) == old.kid
    found = signing_keys.key_set(world.organization.pk).find(new.kid)
    assert found is not None
    for before in (timedelta(0), timedelta(days=1)):
        assert not found.trusts(new.created_at - before)
    assert world.admin.api.post(org(world, "/rotate")).status_code == 201


def test_stored_key_status_is_kept_when_clock_steps_back(world: World, clock: list[timedelta]) -> None:
    first = SigningKey.objects.get(organization=world.organization)
    clock.append(timedelta(minutes=-5))
    assert (published(world), signs(world)) == (["active"], first.kid)
    assert first.current_status == "active"

    second = signing_keys.rotate(organization=world.organization, activate_in_s=0, actor=world.admin.actor)

    assert states(world) == published(world) == ["retiring", "active"]
    clock.append(timedelta(minutes=-5))
    assert (published(world), signs(world)) == (["retiring", "active"], second.kid)
    third = signing_keys.rotate(organization=world.organization, activate_in_s=60, actor=world.admin.actor)
    assert published(world) == ["retiring", "active", "next"]

    signing_keys.retire(third, reason="made by mistake", actor=world.admin.actor)
    clock.append(timedelta(minutes=-5))
    assert states(world) == published(world) == ["retiring", "active", "retired"]
    assert signs(world) == second.kid


def test_new_key_may_have_smaller_id_than_key_that_it_replaces(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a key created by a process whose clock went backwards."""
    first = SigningKey.objects.get(organization=world.organization)
    with monkeypatch.context() as patched:
        patched.setattr(
            SigningKey._meta.pk, "_get_default", lambda: smallest_uuid7(first.created_at - timedelta(minutes=5))
        )
        second = signing_keys.rotate(organization=world.organization, activate_in_s=0, actor=world.admin.actor)

    assert second.pk < first.pk
    assert (second.status, signs(world)) == ("active", second.kid)
    assert [(kid, status) for _, kid, (_, status) in events(world)][-2:] == [
        (first.kid, "retiring"),
        (second.kid, "active"),
    ]


def test_active_key_cannot_be_retired(world: World, clock: list[timedelta]) -> None:
    new = signing_keys.rotate(organization=world.organization, actor=world.admin.actor)
    clock.append(timedelta(seconds=90))  # the new key is active, but the worker has not stored this status

    refused = world.admin.api.post(org(world, f"/{new.kid}/retire"), {"reason": "why not"})

    assert (refused.status_code, refused.json()["type"]) == (409, "urn:byteor:problem:signing_key.active")
    assert published(world) == ["retiring", "active"]


def test_key_of_another_organization_is_not_found(world: World, other: World) -> None:
    key = signing_keys.rotate(organization=other.organization, actor=other.admin.actor)

    refused = world.admin.api.post(org(world, f"/{key.kid}/retire"), {"reason": "mine"})

    assert refused.status_code == 404
    assert states(other) == ["active", "next"]


def test_database_rejects_second_active_key_second_next_key_and_private_key_of_retired_key(world: World) -> None:
    with pytest.raises(IntegrityError, match="tenancy_signingkey_one_active"), transaction.atomic():
        signing_keys.create(organization=world.organization, actor=world.admin.actor)
    signing_keys.rotate(organization=world.organization, actor=world.admin.actor)
    now = timezone.now()
    with pytest.raises(IntegrityError, match="tenancy_signingkey_one_next"), transaction.atomic():
        signing_keys._create(world.organization, keys.KeyStatus.NEXT, not_before=now, actor=world.admin.actor)
    with pytest.raises(IntegrityError, match="retired_has_no_private_key"), transaction.atomic():
        SigningKey.objects.filter(status="next").update(status="retired")

    assert states(world) == ["active", "next"]


def test_private_keys_are_encrypted_and_bound_to_organization(world: World, other: World) -> None:
    row = SigningKey.objects.get(organization=world.organization)
    raw = signing_keys.active_private_key(world.organization.pk)

    assert len(raw) == 32
    assert raw not in bytes(row.private_key)
    row.organization = other.organization
    with pytest.raises(vault.VaultError, match=r"tenancy\.SigningKey .*: neither BYTEOR_CLOUD_MASTER_KEY nor"):
        vault.unseal(row, "private_key")
    listed = world.viewer.api.get(org(world)).json()["results"]
    assert listed[0].keys() == {"id", "kid", "status", "not_before", "signs_until", "not_after", "created_at"}


# -- races ------------------------------------------------------------------------------------------------------


def test_concurrent_rotations_create_one_next_key(concurrently: Race, world: World) -> None:
    def rotate() -> SigningKey:
        return signing_keys.rotate(organization=world.organization, actor=world.admin.actor)

    results = concurrently(*[rotate] * 4)

    refused = [result for result in results if isinstance(result, Conflict)]
    assert [error.reason for error in refused] == ["signing_key.next_waits"] * 3
    assert states(world) == ["active", "next"]


def test_concurrent_rotation_and_activation_are_serialized(
    concurrently: Race, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In any order, each status change is recorded once, and the rotation replaces the second key."""
    first = SigningKey.objects.get(organization=world.organization)
    second = signing_keys.rotate(organization=world.organization, actor=world.admin.actor)
    past = timezone.now() - timedelta(seconds=1)
    SigningKey.objects.filter(pk=first.pk).update(signs_until=past)
    SigningKey.objects.filter(pk=second.pk).update(not_before=past)

    real = signing_keys._save_status
    all_have_checked = threading.Barrier(3)

    def slowly(*args: Any, **options: Any) -> None:
        # Without the lock, all threads would reach this point. With the lock, the others wait for this thread.
        with contextlib.suppress(threading.BrokenBarrierError):
            all_have_checked.wait(timeout=0.5)
        real(*args, **options)

    monkeypatch.setattr(signing_keys, "_save_status", slowly)

    def rotate() -> SigningKey:
        return signing_keys.rotate(organization=world.organization, activate_in_s=0, actor=world.admin.actor)

    *_, third = concurrently(signing_keys.update_all_statuses, signing_keys.update_all_statuses, rotate)

    assert isinstance(third, SigningKey)
    assert states(world) == published(world) == ["retiring", "retiring", "active"]
    assert signs(world) == third.kid
    assert sorted(events(world)) == sorted([
        ("signing_key.create", second.kid, [None, "next"]),
        ("signing_key.supersede", first.kid, ["active", "retiring"]),
        ("signing_key.activate", second.kid, ["next", "active"]),
        ("signing_key.create", third.kid, [None, "next"]),
        ("signing_key.supersede", second.kid, ["active", "retiring"]),
        ("signing_key.activate", third.kid, ["next", "active"]),
    ])  # fmt: skip
    etag = Organization.objects.get(pk=world.organization.pk).key_set_etag
    assert etag == signing_keys.etag(signing_keys.key_set(world.organization.pk))

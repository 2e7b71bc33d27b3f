"""Hosts with different master keys: which key they encrypt with, and when they refuse to encrypt."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from django.db import connection, transaction

from apps.tenancy.actors import system_actor
from apps.tenancy.models import AuditEvent, MasterKey, SigningKey
from apps.tenancy.services import master_key, signing_keys, vault
from apps.tenancy.services.state import lock_row
from apps.tenancy.services.webhooks import subscriptions
from byteor_cloud.database.connections import direct_connection
from tests.patience import PATIENCE_S, wait_until
from tests.tenancy.host_steps import NEW, OLD, THIRD, everything, rotate_master_key
from tests.worlds import World

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("first_key")]


def is_under(key: bytes, on_host: Any) -> bool:
    """Give this process only this key, and return whether it can decrypt the newest signing key."""
    on_host(key)
    row = SigningKey.objects.latest("pk")
    try:
        vault.unseal(row, "private_key")
    except (vault.VaultError, vault.MasterKeyUnavailable):
        return False
    return True


# -- the key that encrypts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("current", "previous"),
    [(OLD, None), (OLD, NEW), (NEW, OLD)],
    ids=["old key only", "new key as previous", "new key as current"],
)
def test_hosts_encrypt_with_old_master_key_before_rotation(
    world: World, on_host: Any, current: bytes, previous: bytes | None
) -> None:
    on_host(current, previous)

    signing_keys.rotate(organization=world.organization, actor=world.admin.actor)

    assert is_under(OLD, on_host)


@pytest.mark.parametrize(
    ("current", "previous"),
    [(NEW, None), (OLD, NEW), (NEW, OLD)],
    ids=["new key only", "new key as previous", "new key as current"],
)
def test_hosts_encrypt_with_new_master_key_after_rotation(
    world: World, on_host: Any, current: bytes, previous: bytes | None
) -> None:
    on_host(NEW, OLD)
    rotate_master_key()
    on_host(current, previous)

    signing_keys.rotate(organization=world.organization, actor=world.admin.actor)

    assert not is_under(OLD, on_host)
    assert is_under(NEW, on_host)


def test_host_without_new_master_key_refuses_only_requests_that_need_it(world: World, on_host: Any) -> None:
    on_host(NEW, OLD)
    rotate_master_key()
    on_host(OLD)
    before = everything()
    path = f"/api/v1/orgs/{world.organization.pk}"

    refused = [
        world.admin.api.post(f"{path}/signing-keys/rotate"),
        world.admin.api.post(f"{path}/webhooks", {"url": "https://hooks.example.com/", "events": ["*"]}),
        world.admin.api.post(f"{path}/api-keys", {"name": "ci", "role": "viewer"}, Idempotency_Key="k"),
        world.admin.api.get(f"{path}/audit-events/export"),
    ]

    assert everything() == before
    for response in refused:
        assert (response.status_code, response["Content-Type"]) == (503, "application/problem+json"), response.content
        assert "master key" in response.json()["detail"]
        assert int(response["Retry-After"]) >= 5
        assert vault.key_id(OLD) not in response.content.decode()
    # Requests that need no stored secret succeed.
    assert world.admin.api.post(f"{path}/api-keys", {"name": "ci", "role": "viewer"}).status_code == 201
    assert world.admin.api.get(f"{path}/signing-keys").status_code == 200


def test_encrypting_outside_transaction_is_rejected(transactional_db: None) -> None:
    key = SigningKey(kid="k")

    with pytest.raises(transaction.TransactionManagementError, match="in the transaction that stores it"):
        vault.seal(key, "private_key", b"secret")

    assert key.private_key is None


# -- the first key ------------------------------------------------------------------------------------------------


@pytest.fixture
def _without_id(db: None) -> None:
    """Delete the stored id of the master key, which older releases did not store."""
    MasterKey.objects.all().delete()


@pytest.mark.usefixtures("_without_id")
def test_id_of_first_master_key_of_empty_installation_is_stored(on_host: Any) -> None:
    on_host(THIRD)

    assert vault.ensure_key() == vault.key_id(THIRD)

    assert MasterKey.objects.get().key_id == vault.key_id(THIRD)
    event = AuditEvent.objects.get(action="master_key.store")
    assert (event.organization_id, event.changes) == (None, {"key_id": [None, vault.key_id(THIRD)]})
    on_host(OLD)
    with pytest.raises(vault.MasterKeyUnavailable):
        vault.ensure_key()


@pytest.mark.parametrize("damage", ["unreadable", "binary"])
def test_error_names_unusable_master_key_file(on_host: Any, tmp_path: Path, damage: str) -> None:
    file = tmp_path / "master_key"
    if damage == "binary":
        file.write_bytes(b"\xff" * 40)
    else:
        file.mkdir()
    on_host(file)

    with pytest.raises(vault.MasterKeyUnavailable) as refused:
        vault.own_key_ids()
    assert str(file) in refused.value.advice


@pytest.mark.usefixtures("_without_id")
def test_first_master_key_must_decrypt_values_stored_by_older_release(world: World, on_host: Any) -> None:
    on_host(NEW)
    with pytest.raises(vault.MasterKeyUnavailable) as refused:
        vault.ensure_key()
    assert not MasterKey.objects.exists()
    assert refused.value.advice.startswith("tenancy.SigningKey ")

    # During a rotation, the stored values may still be encrypted under a host's previous key.
    on_host(NEW, OLD)
    assert vault.ensure_key() == vault.key_id(OLD)


# -- races --------------------------------------------------------------------------------------------------------


def in_thread(pool: ThreadPoolExecutor, work: Any) -> Future[Any]:
    def run() -> Any:
        try:
            return work()
        finally:
            connection.close()

    return pool.submit(run)


def waiting_for_locks() -> int:
    """Return how many sessions on this database wait for a lock."""
    with closing(direct_connection()) as session:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        row = session.execute(query).fetchone()
    return 0 if row is None else int(row[0])


@pytest.mark.django_db(transaction=True)
def test_master_key_rotation_waits_for_uncommitted_values(on_host: Any) -> None:
    world = World("acme")
    on_host(NEW, OLD)
    may_commit, is_sealed = Event(), Event()

    @transaction.atomic
    def rotate_signing_key() -> None:
        signing_keys.rotate(organization=world.organization, actor=world.admin.actor)
        is_sealed.set()
        assert may_commit.wait(PATIENCE_S)

    with ThreadPoolExecutor() as pool:
        sealing = in_thread(pool, rotate_signing_key)
        assert is_sealed.wait(PATIENCE_S)
        rotating = in_thread(pool, lambda: master_key.reseal(actor=system_actor("test")))
        wait_until(waiting_for_locks)
        assert not rotating.done()
        may_commit.set()
        sealing.result(PATIENCE_S)
        counts = rotating.result(PATIENCE_S)

    assert counts == {"tenancy.SigningKey.private_key": 2}
    on_host(NEW)
    for key in SigningKey.objects.all():
        assert len(vault.unseal(key, "private_key")) == 32


@pytest.mark.django_db(transaction=True)
def test_host_does_not_encrypt_with_old_master_key_after_waiting_for_rotation(on_host: Any) -> None:
    world = World("acme")
    on_host(OLD)
    before = everything()

    with ThreadPoolExecutor() as pool, closing(direct_connection()) as rotation:
        rotation.execute("BEGIN")
        rotation.execute("UPDATE tenancy_masterkey SET key_id = %s", [vault.key_id(NEW)])
        sealing = in_thread(pool, lambda: signing_keys.rotate(organization=world.organization, actor=world.admin.actor))
        wait_until(waiting_for_locks)
        rotation.execute("COMMIT")
        with pytest.raises(vault.MasterKeyUnavailable):
            sealing.result(PATIENCE_S)

    MasterKey.objects.update(key_id=vault.key_id(OLD))
    assert everything() == before


@pytest.mark.django_db(transaction=True)
def test_rotation_and_request_with_locked_value_do_not_deadlock(on_host: Any) -> None:
    world = World("acme")
    hook, _ = subscriptions.create(
        organization=world.organization, url="https://hooks.example.com/", events=["*"], actor=world.admin.actor
    )
    on_host(NEW, OLD)
    is_locked, may_continue = Event(), Event()

    @transaction.atomic
    def rotate_secret() -> None:
        lock_row(hook)
        is_locked.set()
        assert may_continue.wait(PATIENCE_S)
        subscriptions.rotate_secret(hook, actor=world.admin.actor)

    with ThreadPoolExecutor() as pool:
        requesting = in_thread(pool, rotate_secret)
        assert is_locked.wait(PATIENCE_S)
        rotating = in_thread(pool, lambda: master_key.reseal(actor=system_actor("test")))
        wait_until(waiting_for_locks)  # the rotation holds the lock on the key and waits for the webhook
        may_continue.set()
        requesting.result(PATIENCE_S)
        counts = rotating.result(PATIENCE_S)

    assert counts["tenancy.Webhook.secret"] == counts["tenancy.Webhook.previous_secret"] == 1
    on_host(NEW)
    hook.refresh_from_db()
    assert len(subscriptions.signing_secrets(hook)) == 2

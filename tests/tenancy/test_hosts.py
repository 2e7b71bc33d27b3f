"""Several hosts with different master keys: who encrypts with which key, and what a rotation says about the hosts."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from io import StringIO
from pathlib import Path
from threading import Event
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings as django_settings
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection, transaction
from django.utils import timezone

from apps.tenancy import vault
from apps.tenancy.actors import system_actor
from apps.tenancy.models import AuditEvent, Host, IdempotencyKey, MasterKey, OrganizationKey, SigningKey, Webhook
from apps.tenancy.services import hosts, master_key, signing_keys, webhooks
from apps.tenancy.state import lock_row
from byteor_cloud.config import Key, read_key
from byteor_cloud.database import direct_connection
from byteor_cloud.ids import uuid7
from tests.patience import PATIENCE_S, wait_until
from tests.worlds import World

pytestmark = pytest.mark.django_db
OLD = read_key(django_settings.CONFIG.master_key) or b""
NEW, THIRD = b"n" * 32, b"t" * 32


@pytest.fixture(autouse=True)
def _first_key(db: None) -> Iterator[None]:
    """Make the tests' own key the installation's again. No table is emptied of it."""
    yield
    MasterKey.objects.update_or_create(defaults={"key_id": vault.key_id(OLD), "previous_key_id": None})


@pytest.fixture
def on_host(settings: Any) -> Any:
    """Return a function that gives this process the keys of a host."""

    def use(current: Key, previous: Key | None = None) -> None:
        settings.CONFIG = replace(django_settings.CONFIG, master_key=current, master_key_previous=previous)

    return use


def is_under(key: bytes, on_host: Any) -> bool:
    """Return whether the newest signing key is encrypted under this key alone."""
    on_host(key)
    row = SigningKey.objects.latest("pk")
    try:
        vault.unseal(row, "private_key")
    except (vault.VaultError, vault.MasterKeyUnavailable):
        return False
    return True


def announce(name: str, current: bytes, previous: bytes | None = None, **more: Any) -> UUID:
    row = Host.objects.create(
        name=name, data_dir="/srv", mode="api", key_id=vault.key_id(current),
        previous_key_id="" if previous is None else vault.key_id(previous), **{"has_key_files": False, **more},
    )  # fmt: skip
    return row.pk


def command(*argv: str) -> list[str]:
    out = StringIO()
    call_command("rotate_master_key", *argv, stdout=out)
    return out.getvalue().splitlines()


def everything() -> list[Any]:
    models = (SigningKey, Webhook, IdempotencyKey, AuditEvent, MasterKey, OrganizationKey)
    return [list(model._base_manager.order_by("pk").values()) for model in models]


# -- which key encrypts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("current", "previous"), [(OLD, None), (OLD, NEW), (NEW, OLD)], ids=["not yet", "prepared", "changed"]
)
def test_every_host_encrypts_with_the_old_key_before_the_rotation(
    world: World, on_host: Any, current: bytes, previous: bytes | None
) -> None:
    on_host(current, previous)

    signing_keys.rotate(organization=world.organization, actor=world.admin.actor)

    assert is_under(OLD, on_host)


@pytest.mark.parametrize(
    ("current", "previous"), [(NEW, None), (OLD, NEW), (NEW, OLD)], ids=["finished", "prepared", "changed"]
)
def test_every_host_encrypts_with_the_new_key_after_the_rotation(
    world: World, on_host: Any, current: bytes, previous: bytes | None
) -> None:
    on_host(NEW, OLD)
    command()
    on_host(current, previous)

    signing_keys.rotate(organization=world.organization, actor=world.admin.actor)

    assert not is_under(OLD, on_host)
    assert is_under(NEW, on_host)


def test_lagging_host_returns_503_for_what_needs_the_key_and_changes_nothing(world: World, on_host: Any) -> None:
    on_host(NEW, OLD)
    command()
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
    for answer in refused:
        assert (answer.status_code, answer["Content-Type"]) == (503, "application/problem+json"), answer.content
        assert "master key" in answer.json()["detail"]
        assert int(answer["Retry-After"]) >= 5
        assert vault.key_id(OLD) not in answer.content.decode()
    # What needs no secret works.
    assert world.admin.api.post(f"{path}/api-keys", {"name": "ci", "role": "viewer"}).status_code == 201
    assert world.admin.api.get(f"{path}/signing-keys").status_code == 200


def test_encrypting_outside_of_a_transaction_is_refused(transactional_db: None) -> None:
    key = SigningKey(kid="k")

    with pytest.raises(transaction.TransactionManagementError, match="in the transaction that stores it"):
        vault.seal(key, "private_key", b"secret")

    assert key.private_key is None


# -- the first key ------------------------------------------------------------------------------------------------


@pytest.fixture
def _without_id(db: None) -> None:
    """Remove the id, as in the database of an older release."""
    MasterKey.objects.all().delete()


@pytest.mark.usefixtures("_without_id")
def test_first_key_of_an_empty_installation_is_stored(on_host: Any) -> None:
    on_host(THIRD)

    assert vault.ensure_key() == vault.key_id(THIRD)

    assert MasterKey.objects.get().key_id == vault.key_id(THIRD)
    event = AuditEvent.objects.get(action="master_key.store")
    assert (event.organization_id, event.changes) == (None, {"key_id": [None, vault.key_id(THIRD)]})
    on_host(OLD)
    with pytest.raises(vault.MasterKeyUnavailable):
        vault.ensure_key()


@pytest.mark.usefixtures("_without_id")
def test_first_key_must_decrypt_what_an_older_release_stored(world: World, on_host: Any) -> None:
    on_host(NEW)
    with pytest.raises(vault.MasterKeyUnavailable) as refused:
        vault.ensure_key()
    assert not MasterKey.objects.exists()
    assert refused.value.advice.startswith("tenancy.SigningKey ")

    # A host in the middle of a rotation knows the key of the values as the previous one.
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
def test_rotation_waits_for_values_that_are_not_committed_yet(on_host: Any) -> None:
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
def test_host_that_waited_for_a_rotation_does_not_encrypt_with_the_old_key(on_host: Any) -> None:
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
def test_rotation_and_a_request_that_locked_a_value_do_not_block_each_other(on_host: Any) -> None:
    world = World("acme")
    hook, _ = webhooks.create(
        organization=world.organization, url="https://hooks.example.com/", events=["*"], actor=world.admin.actor
    )
    on_host(NEW, OLD)
    is_locked, may_go_on = Event(), Event()

    @transaction.atomic
    def rotate_secret() -> None:
        lock_row(hook)
        is_locked.set()
        assert may_go_on.wait(PATIENCE_S)
        webhooks.rotate_secret(hook, actor=world.admin.actor)

    with ThreadPoolExecutor() as pool:
        requesting = in_thread(pool, rotate_secret)
        assert is_locked.wait(PATIENCE_S)
        rotating = in_thread(pool, lambda: master_key.reseal(actor=system_actor("test")))
        wait_until(waiting_for_locks)  # the rotation holds the key's lock, and waits for the webhook
        may_go_on.set()
        requesting.result(PATIENCE_S)
        counts = rotating.result(PATIENCE_S)

    assert counts["tenancy.Webhook.secret"] == counts["tenancy.Webhook.previous_secret"] == 1
    on_host(NEW)
    hook.refresh_from_db()
    assert len(webhooks.signing_secrets(hook)) == 2


# -- what the command says about hosts ----------------------------------------------------------------------------


def test_rotation_is_refused_while_a_host_does_not_have_the_new_key(world: World, on_host: Any) -> None:
    announce("edge-1", NEW, OLD)
    announce("edge-2", OLD)
    announce("edge-3", OLD, THIRD)
    on_host(NEW, OLD)
    before = everything()

    with pytest.raises(CommandError) as refused:
        command()

    first, *listed, last = str(refused.value).splitlines()
    assert first.startswith("nothing was changed, because these hosts have the master key ")
    assert [line.split(" since ")[0] for line in listed] == ["  edge-2 (api, /srv),", "  edge-3 (api, /srv),"]
    assert last == "Set it there, restart them, and run rotate_master_key again."
    assert everything() == before


def test_previous_key_is_needed_while_a_host_uses_it(world: World, on_host: Any) -> None:
    changed, behind = announce("edge-1", NEW, OLD), announce("edge-2", OLD, NEW)
    on_host(NEW, OLD)

    first, *rest = command()

    assert first.startswith("1 value was encrypted again")
    assert rest[0] == "These hosts still have the previous key as BYTEOR_CLOUD_MASTER_KEY:"
    assert rest[1].startswith("  edge-2 (api, /srv), since 20")
    assert rest[2:] == [
        "Next: set BYTEOR_CLOUD_MASTER_KEY to the current key on these hosts, and restart them.",
        "Then run rotate_master_key again. Keep the previous key until it lists no hosts.",
    ]
    # A host that started with the old key only while the command ran is listed as well.
    lagging = announce("edge-3", OLD)
    text = "\n".join(command())
    assert "These hosts do not have this key. They are not ready, and return 503 where they need it:\n  edge-3" in text
    assert "unset" not in text

    Host.objects.filter(pk__in=[behind, lagging]).delete()
    assert "Next: unset BYTEOR_CLOUD_MASTER_KEY_PREVIOUS on each host, and restart the host." in command()
    assert Host.objects.get().pk == changed


def test_hosts_that_were_not_seen_for_a_minute_do_not_count(world: World, on_host: Any) -> None:
    announce("edge-1", OLD, last_seen=timezone.now() - timedelta(seconds=90))
    announce("edge-2", NEW, OLD, last_seen=timezone.now() - timedelta(days=2))
    on_host(NEW, OLD)

    assert command()[1].startswith("None of the hosts seen in the last 60 seconds needs the previous key")
    assert hosts.forget_silent() == 1
    assert [host.name for host in Host.objects.all()] == ["edge-1"]


def test_command_run_before_the_new_key_is_the_current_one_says_what_to_do(world: World, on_host: Any) -> None:
    on_host(OLD, NEW)

    first, *rest = command()

    assert first.startswith("0 values")
    assert rest[0] == (
        f"BYTEOR_CLOUD_MASTER_KEY_PREVIOUS ({vault.key_id(NEW)}) is not the key that was replaced (none yet)."
    )
    assert MasterKey.objects.get().key_id == vault.key_id(OLD)
    on_host(OLD)
    assert command()[1] == "No previous key is set here. To change the key:"


def test_value_of_a_host_with_a_third_key_is_recovered_with_that_key(world: World, on_host: Any) -> None:
    on_host(THIRD)
    MasterKey.objects.update(key_id=vault.key_id(THIRD))
    lost = signing_keys.rotate(organization=world.organization, actor=world.admin.actor)
    MasterKey.objects.update(key_id=vault.key_id(OLD))
    on_host(OLD)

    with pytest.raises(CommandError, match=rf"decrypts tenancy\.SigningKey\.private_key of {lost.pk}\. A host"):
        command()

    on_host(OLD, THIRD)
    assert command()[0].endswith(": 1 signing key.")
    on_host(OLD)
    assert len(vault.unseal(SigningKey.objects.get(pk=lost.pk), "private_key")) == 32


def test_hosts_of_the_data_folder_do_not_prevent_the_rotation_of_its_key(
    world: World, on_host: Any, tmp_path: Path
) -> None:
    present, previous = tmp_path / "master_key", tmp_path / "master_key_previous"
    present.write_text(base64.b64encode(OLD).decode())
    on_host(present, previous)
    hosts.announce(uuid7())
    assert Host.objects.get().key_id == vault.key_id(OLD)
    stranger = announce("edge-2", OLD)

    with pytest.raises(CommandError, match=r"do not read the master key from this data folder:\n  edge-2"):
        command()
    assert (read_key(present), previous.exists()) == (OLD, False)

    Host.objects.filter(pk=stranger).delete()
    command()
    stranger = announce("edge-2", OLD, read_key(present))
    assert "The previous key is not removed." in command("--finish")
    assert previous.exists()

    Host.objects.filter(pk=stranger).delete()
    assert command("--finish")[1].startswith("The previous key is removed.")
    assert not previous.exists()


def test_announced_host_updates_its_keys_and_is_withdrawn(on_host: Any, tmp_path: Path) -> None:
    first, second = uuid7(), uuid7()
    on_host(OLD)
    hosts.announce(first)
    hosts.announce(second)
    row = Host.objects.get(pk=first)
    assert (row.key_id, row.previous_key_id, row.has_key_files) == (vault.key_id(OLD), "", False)

    on_host(tmp_path / "missing")
    hosts.announce(first)
    assert Host.objects.get(pk=first).key_id == ""
    on_host(NEW, OLD)
    hosts.announce(first)
    updated = Host.objects.get(pk=first)
    assert (updated.key_id, updated.previous_key_id) == (vault.key_id(NEW), vault.key_id(OLD))
    assert updated.started_at == row.started_at

    hosts.withdraw(first)
    assert [host.pk for host in hosts.live()] == [second]

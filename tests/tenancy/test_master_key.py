"""Encryption under the master key, and the command that rotates the key."""

from __future__ import annotations

import base64
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.conf import settings as django_settings
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import models
from django.utils import timezone

from apps.notifications.services.chat import webhooks as chat
from apps.tenancy.models import AuditEvent, IdempotencyKey, MasterKey, SigningKey
from apps.tenancy.models.sealed_field import SealedField, sealed_fields
from apps.tenancy.services import master_key, signing_keys, vault
from apps.tenancy.services.webhooks import subscriptions
from byteor_cloud.config import read_key
from tests.worlds import World

pytestmark = pytest.mark.django_db
NEW = b"n" * 32


def configure(settings: Any, **changes: Any) -> None:
    """Replace the tests' master keys."""
    settings.CONFIG = replace(django_settings.CONFIG, **changes)


def store_in_files(settings: Any, folder: Path, key: bytes | None) -> tuple[Path, Path]:
    """Use master key files in the data folder, and write ``key`` to the current one. Return both paths."""
    assert key is not None
    present, previous = folder / "master_key", folder / "master_key_previous"
    present.write_text(base64.b64encode(key).decode())
    configure(settings, master_key=present, master_key_previous=previous)
    return present, previous


def command(*argv: str) -> str:
    out = StringIO()
    call_command("rotate_master_key", *argv, stdout=out)
    return out.getvalue().strip()


def sealed() -> dict[str, bytes]:
    """Return all encrypted values as stored, by column and row."""
    return {
        f"{field} {row.pk}": bytes(getattr(row, field.attname))
        for field in sealed_fields()
        for row in field.model._base_manager.exclude(**{field.attname: None})
    }


def test_all_encrypted_columns_are_sealed_fields() -> None:
    """Only the vault encrypts columns, and only backups encrypt the master key.

    Each binary column must be a SealedField, or be listed here as not encrypted.
    """
    plain = {
        f"{field.model._meta.label}.{field.name}"
        for model in apps.get_models()
        for field in model._meta.fields
        if isinstance(field, models.BinaryField) and not isinstance(field, SealedField)
    }
    root = Path(__file__).parents[2]
    encrypting = [
        str(path.relative_to(root))
        for folder in ("byteor", "byteor_cloud", "apps")
        for path in sorted((root / folder).rglob("*.py"))
        if any(word in path.read_text() for word in ("AESGCM", "Fernet", "ChaCha20", ".ciphers"))
    ]

    assert plain == {"tenancy.SigningKey.public_key"}
    assert encrypting == ["byteor_cloud/backup/passphrase.py", "apps/tenancy/services/vault.py"]
    with pytest.raises(TypeError, match="is not a SealedField"):
        vault.seal(SigningKey(), "public_key", b"secret")


def test_rotation_encrypts_all_values_under_new_master_key(world: World, settings: Any) -> None:
    old = read_key(django_settings.CONFIG.master_key)
    path = f"/api/v1/orgs/{world.organization.pk}/api-keys"
    first = world.admin.api.post(path, {"name": "ci", "role": "viewer"}, Idempotency_Key="k")
    hook, _ = subscriptions.create(
        organization=world.organization, url="https://hooks.example.com/", events=["*"], actor=world.admin.actor
    )
    subscriptions.rotate_secret(hook, actor=world.admin.actor)
    hook.refresh_from_db()
    chat.create(
        scope=world.organization, name="ops", format="slack", url="https://chat.example.com/", events=["*"],
        actor=world.admin.actor,
    )  # fmt: skip
    before, raw = sealed(), signing_keys.active_private_key(world.organization.pk)
    secrets = subscriptions.signing_secrets(hook)
    assert {name.split()[0] for name in before} == {str(field) for field in sealed_fields()}

    # With both keys set, all values can be decrypted. New values are encrypted under the old key, which all hosts have.
    configure(settings, master_key=NEW, master_key_previous=old)
    assert signing_keys.active_private_key(world.organization.pk) == raw
    signing_keys.rotate(organization=world.organization, actor=world.admin.actor)
    old_id, new_id = MasterKey.objects.get().key_id, vault.key_id(NEW)
    output = command()

    assert output.splitlines() == [
        f"{len(before) + 1} values were re-encrypted with the current master key ({new_id}): 2 signing keys,"
        " 1 stored response, 1 webhook secret, 1 previous webhook secret, 1 chat webhook URL.",
        f"None of the hosts seen in the last 60 seconds needs the previous key ({old_id}).",
        "Next: unset BYTEOR_CLOUD_MASTER_KEY_PREVIOUS on each host, and restart the host.",
        "Older backups of the database still need the previous key.",
    ]
    after = sealed()
    assert len(after) == len(before) + 1
    assert all(after[name] != value for name, value in before.items())
    changes = AuditEvent.objects.get(action="master_key.rotate").changes
    assert changes["key_id"] == [old_id, new_id]
    assert sum(changes["values"].values()) == len(after)
    assert command().startswith("0 values")
    assert sealed() == after
    assert AuditEvent.objects.filter(action="master_key.rotate").count() == 1
    everything = output + str(list(AuditEvent.objects.values()))
    for key in (old, NEW):
        assert base64.b64encode(key or b"").decode() not in everything
        assert repr(key) not in everything

    # All values can be decrypted without the old key.
    configure(settings, master_key_previous=None)
    assert signing_keys.active_private_key(world.organization.pk) == raw
    hook.refresh_from_db()
    assert (len(secrets), subscriptions.signing_secrets(hook)) == (2, secrets)
    again = world.admin.api.post(path, {"name": "ci", "role": "viewer"}, Idempotency_Key="k")
    assert (again["Idempotent-Replayed"], again.json()) == ("true", first.json())


@pytest.mark.parametrize("previous", [None, b"x" * 32])
def test_missing_or_wrong_previous_key_is_rejected(world: World, settings: Any, previous: bytes | None) -> None:
    before = sealed(), AuditEvent.objects.count()
    configure(settings, master_key=NEW, master_key_previous=previous)

    with pytest.raises(CommandError) as refused:
        command()

    stored, own = MasterKey.objects.get().key_id, [vault.key_id(key) for key in (NEW, previous) if key]
    assert str(refused.value) == (
        f"the installation's master key has the id {stored}, but here neither BYTEOR_CLOUD_MASTER_KEY nor"
        f" BYTEOR_CLOUD_MASTER_KEY_PREVIOUS is that key (ids here: {' and '.join(own)}); nothing was changed"
    )
    assert (sealed(), AuditEvent.objects.count()) == before


def test_undecryptable_value_stops_rotation(world: World, settings: Any) -> None:
    configure(settings, master_key=NEW, master_key_previous=read_key(django_settings.CONFIG.master_key))
    row = IdempotencyKey(caller="somebody", key="k", fingerprint="", status=200, expires_at=timezone.now())
    row.response = b"under some third key, or none"
    row.save()
    before = sealed()

    with pytest.raises(CommandError) as refused:
        command()

    assert str(refused.value) == (
        "neither BYTEOR_CLOUD_MASTER_KEY nor BYTEOR_CLOUD_MASTER_KEY_PREVIOUS decrypts"
        f" tenancy.IdempotencyKey.response of {row.pk}. If a host with a third key encrypted these values,"
        " first run this command with the installation's present key as the master key and the key of that host as the"
        " previous key; nothing was changed"
    )
    assert sealed() == before
    assert MasterKey.objects.get().key_id == vault.key_id(read_key(django_settings.CONFIG.master_key_previous) or b"")


def test_master_key_in_data_folder_is_replaced(world: World, settings: Any, tmp_path: Path) -> None:
    present, previous = store_in_files(settings, tmp_path, read_key(django_settings.CONFIG.master_key))
    signing_keys.rotate(organization=world.organization, actor=world.admin.actor)
    old, raw = read_key(present), signing_keys.active_private_key(world.organization.pk)

    output = command()

    assert output.splitlines() == [
        f"2 values were re-encrypted with the current master key ({vault.own_key_ids()[0]}): 2 signing keys.",
        f"The previous key is kept in {previous} until you run rotate_master_key --finish.",
    ]
    assert read_key(previous) == old != read_key(present)
    # A process that was already running reads the same files.
    new, after = read_key(present), sealed()
    assert signing_keys.active_private_key(world.organization.pk) == raw

    # A second run replaces no key before the rotation is finished.
    assert command().startswith("0 values")
    assert (read_key(present), sealed()) == (new, after)
    assert "The data folder contains no previous key" in command("--finish")
    assert sorted(tmp_path.iterdir()) == [present]
    assert signing_keys.active_private_key(world.organization.pk) == raw
    assert command().startswith("2 values")


def test_rotation_with_wrong_master_key_file_changes_nothing(world: World, settings: Any, tmp_path: Path) -> None:
    present, previous = store_in_files(settings, tmp_path, NEW)
    before, text = sealed(), present.read_text()

    with pytest.raises(CommandError, match=r"nothing was changed$"):
        command()

    assert (sealed(), present.read_text(), previous.exists()) == (before, text, False)


def test_master_key_rotation_killed_after_key_swap_can_be_resumed(
    world: World, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, previous = store_in_files(settings, tmp_path, read_key(django_settings.CONFIG.master_key))
    raw, reseal = signing_keys.active_private_key(world.organization.pk), master_key.reseal

    def killed(**_: Any) -> dict[str, int]:
        if previous.exists():
            raise KeyboardInterrupt
        return reseal(**_)

    with monkeypatch.context() as patched:
        patched.setattr(master_key, "reseal", killed)
        with pytest.raises(KeyboardInterrupt):
            command()
    assert signing_keys.active_private_key(world.organization.pk) == raw

    assert command().startswith("1 value was")

    previous.unlink()
    assert signing_keys.active_private_key(world.organization.pk) == raw


def test_finish_option_is_refused_if_master_key_is_not_in_data_folder(settings: Any) -> None:
    configure(settings, master_key=NEW, master_key_previous=None)

    with pytest.raises(CommandError, match=r"unset BYTEOR_CLOUD_MASTER_KEY_PREVIOUS instead$"):
        command("--finish")


def test_missing_master_key_file_is_reported(world: World, settings: Any, tmp_path: Path) -> None:
    configure(settings, master_key=tmp_path / "master_key")

    with pytest.raises(vault.MasterKeyUnavailable) as refused:
        signing_keys.active_private_key(world.organization.pk)
    assert refused.value.advice == "the master key's file is missing from the data folder"

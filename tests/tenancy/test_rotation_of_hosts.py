"""The advice of ``rotate_master_key``, the hosts that make the command refuse to run, and how hosts are announced."""

from __future__ import annotations

import base64
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management.base import CommandError
from django.utils import timezone

from apps.tenancy.models import Host, MasterKey, SigningKey
from apps.tenancy.services import hosts, signing_keys, vault
from byteor_cloud.config import read_key
from byteor_cloud.ids import uuid7
from tests.tenancy.host_steps import NEW, OLD, THIRD, announce, everything, rotate_master_key
from tests.worlds import World

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("first_key")]


def test_master_key_rotation_is_refused_while_live_host_lacks_new_key(world: World, on_host: Any) -> None:
    announce("edge-1", NEW, OLD)
    announce("edge-2", OLD)
    announce("edge-3", OLD, THIRD)
    on_host(NEW, OLD)
    before = everything()

    with pytest.raises(CommandError) as refused:
        rotate_master_key()

    first, *listed, last = str(refused.value).splitlines()
    assert first.startswith("nothing was changed, because these hosts have the master key ")
    assert [line.split(" since ")[0] for line in listed] == ["  edge-2 (api, /srv),", "  edge-3 (api, /srv),"]
    assert last == "Set it there, restart these hosts, and run rotate_master_key again."
    assert everything() == before


def test_rotation_command_lists_hosts_that_use_previous_master_key(world: World, on_host: Any) -> None:
    changed, behind = announce("edge-1", NEW, OLD), announce("edge-2", OLD, NEW)
    on_host(NEW, OLD)

    first, *rest = rotate_master_key()

    assert first.startswith("1 value was re-encrypted")
    assert rest[0] == "These hosts have this key only as BYTEOR_CLOUD_MASTER_KEY_PREVIOUS:"
    assert rest[1].startswith("  edge-2 (api, /srv), since 20")
    assert rest[2:] == [
        "If BYTEOR_CLOUD_MASTER_KEY is already set to the new key on these hosts, run rotate_master_key on one of them,"
        " and skip the next steps.",
        "Next: set BYTEOR_CLOUD_MASTER_KEY to the current key on these hosts, and restart them.",
        "Then run rotate_master_key again. Keep the previous key until that command lists no hosts.",
    ]
    # A host that starts after the rotation with only the old key is listed as well.
    lagging = announce("edge-3", OLD)
    text = "\n".join(rotate_master_key())
    assert "They are not ready, and return 503 for requests that need it:\n  edge-3" in text
    assert "unset" not in text

    Host.objects.filter(pk__in=[behind, lagging]).delete()
    assert "Next: unset BYTEOR_CLOUD_MASTER_KEY_PREVIOUS on each host, and restart the host." in rotate_master_key()
    assert Host.objects.get().pk == changed


def test_master_key_rotation_ignores_hosts_not_seen_for_one_minute(world: World, on_host: Any) -> None:
    announce("edge-1", OLD, last_seen=timezone.now() - timedelta(seconds=90))
    announce("edge-2", NEW, OLD, last_seen=timezone.now() - timedelta(days=2))
    on_host(NEW, OLD)

    assert rotate_master_key()[1].startswith("None of the hosts seen in the last 60 seconds needs the previous key")
    assert hosts.delete_old_hosts() == 1
    assert [host.name for host in Host.objects.all()] == ["edge-1"]


def test_rotation_command_reports_unused_or_missing_previous_key(world: World, on_host: Any) -> None:
    on_host(OLD, NEW)

    first, *rest = rotate_master_key()

    assert first.startswith("0 values")
    assert rest[0] == (
        f"BYTEOR_CLOUD_MASTER_KEY_PREVIOUS ({vault.key_id(NEW)}) is set, but no key has been replaced yet."
    )
    assert MasterKey.objects.get().key_id == vault.key_id(OLD)
    on_host(OLD)
    assert rotate_master_key()[1] == "No previous key is set here. To change the key:"


def test_value_encrypted_under_third_key_is_recovered_with_that_key(world: World, on_host: Any) -> None:
    on_host(THIRD)
    MasterKey.objects.update(key_id=vault.key_id(THIRD))
    lost = signing_keys.rotate(organization=world.organization, actor=world.admin.actor)
    MasterKey.objects.update(key_id=vault.key_id(OLD))
    on_host(OLD)

    with pytest.raises(CommandError, match=rf"decrypts tenancy\.SigningKey\.private_key of {lost.pk}\. If a host"):
        rotate_master_key()

    on_host(OLD, THIRD)
    assert rotate_master_key()[0].endswith(": 1 signing key.")
    on_host(OLD)
    assert len(vault.unseal(SigningKey.objects.get(pk=lost.pk), "private_key")) == 32


def test_only_hosts_that_do_not_read_same_data_folder_block_rotation(
    world: World, on_host: Any, tmp_path: Path
) -> None:
    present, previous = tmp_path / "master_key", tmp_path / "master_key_previous"
    present.write_text(base64.b64encode(OLD).decode())
    on_host(present, previous)
    hosts.announce(uuid7())
    assert Host.objects.get().key_id == vault.key_id(OLD)
    stranger = announce("edge-2", OLD)

    with pytest.raises(CommandError, match=r"do not read the master key from this data folder:\n  edge-2"):
        rotate_master_key()
    assert (read_key(present), previous.exists()) == (OLD, False)

    Host.objects.filter(pk=stranger).delete()
    rotate_master_key()
    stranger = announce("edge-2", OLD, read_key(present))
    with pytest.raises(CommandError, match=r"^the previous key was not removed, .*:\n  edge-2"):
        rotate_master_key("--finish")
    assert previous.exists()

    Host.objects.filter(pk=stranger).delete()
    assert rotate_master_key("--finish")[1].startswith("The data folder contains no previous key.")
    assert not previous.exists()


def test_host_can_be_announced_updated_and_withdrawn(on_host: Any, tmp_path: Path) -> None:
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

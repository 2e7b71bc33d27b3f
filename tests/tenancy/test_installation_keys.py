"""The installation's signing keys, and exports of ledgers.

The keys sign the installation's export, can be rotated, and are encrypted under the master key.
"""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from apps.tenancy import tasks
from apps.tenancy.actors import system_actor
from apps.tenancy.models import AuditEvent, SigningKey
from apps.tenancy.services import ledger, master_key, signing_keys, vault
from byteor.engine.hash_chain import Checkpoint
from byteor.engine.signing.keys import KeyStatus
from byteor.verify import cli
from tests.tenancy.installation_steps import count_installation_events, make_token
from tests.tenancy.ledger_steps import run
from tests.worlds import World

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("ignoring_earlier_events")]


def test_installation_has_its_own_signing_key(world: World) -> None:
    signing_keys.ensure_installation_key()
    signing_keys.ensure_installation_key()

    key = SigningKey.objects.get(organization=None)
    assert key.status == "active"
    assert bytes(key.private_key) != vault.unseal(key, "private_key") == signing_keys.active_private_key(None)
    assert [each.kid for each in signing_keys.key_set(None)] == [key.kid]
    assert key.kid not in {each.kid for each in signing_keys.key_set(world.organization.pk)}
    assert AuditEvent.objects.get(resource_id=key.kid).organization_id is None


def test_export_is_verified_with_installation_keys(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_token(world.viewer)
    ledger.seal_all()
    export, keys_, theirs = tmp_path / "installation.ndjson", tmp_path / "keys.json", tmp_path / "acme.json"
    code, lines = run("export_ledger", "--installation")
    export.write_text("".join(f"{text}\n" for text in lines))
    keys_.write_text(run("installation_keys")[1][0])
    theirs.write_text(json.dumps(signing_keys.key_set(world.organization.pk).document()))

    assert code == 0
    assert Checkpoint.read(lines[-1]).org_id is None
    # The command created the key for this export. The event about the new key is not sealed yet.
    assert len(lines) - 1 == count_installation_events() - 1
    assert "my laptop" in export.read_text()
    assert cli.main(["ledger", str(export), "--keys", str(keys_)]) == 0
    assert capsys.readouterr().out.startswith("PROVEN\n")
    assert cli.main(["ledger", str(export), "--keys", str(theirs)]) == 1
    assert run("verify_ledger", "--checkpoint", str(export))[0] == 0
    assert run("verify_ledger", "--installation", "--checkpoint", str(export))[0] == 0
    code, output = run("verify_ledger", "--org", "acme", "--checkpoint", str(export))
    assert (code, output) == (
        1,
        [f"{export}: the checkpoint is of the installation, whose ledger is not being verified"],
    )


def test_organization_export_contains_only_its_own_events(world: World, other: World) -> None:
    make_token(world.viewer)
    make_token(other.viewer)
    ledger.seal_all()

    text = "".join(ledger.export_lines(world.organization))

    assert "token.create" in text
    assert "my laptop" not in text
    assert "umbrella" not in text
    assert str(other.organization.pk) not in text


def test_earlier_export_is_verified_after_rotation_of_installation_key(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger.seal_all()
    export = tmp_path / "before.ndjson"
    export.write_text("".join(f"{text}\n" for text in run("export_ledger", "--installation")[1]))

    rotated = json.loads(run("installation_keys", "--rotate")[1][0])

    assert [key["status"] for key in rotated["keys"]] == ["active", "retiring"]
    (tmp_path / "keys.json").write_text(json.dumps(rotated))
    assert cli.main(["ledger", str(export), "--keys", str(tmp_path / "keys.json")]) == 0
    assert Checkpoint.read(run("export_ledger", "--installation")[1][-1]).kid == rotated["active_kid"]
    retiring = SigningKey.objects.get(organization=None, status="retiring")
    assert signing_keys.retire(retiring, reason="lost", actor=system_actor("test")).status == KeyStatus.RETIRED
    signing_keys.update_all_statuses()


def test_replaced_installation_key_is_retired_on_time(world: World) -> None:
    signing_keys.ensure_installation_key()
    key = signing_keys.rotate(organization=None, retire_in_s=60, actor=system_actor("test"))
    old = SigningKey.objects.get(organization=None, status="retiring")
    SigningKey.objects.filter(pk=old.pk).update(not_after=old.created_at)

    tasks.note_keys()

    old.refresh_from_db()
    key.refresh_from_db()
    assert (old.status, old.private_key, key.status) == ("retired", None, "active")


def test_master_key_rotation_includes_installation_key(world: World, settings: Any) -> None:
    from dataclasses import replace

    signing_keys.ensure_installation_key()
    private = signing_keys.active_private_key(None)
    old, new = settings.CONFIG.master_key, bytes(range(32))
    settings.CONFIG = replace(settings.CONFIG, master_key=new, master_key_previous=old)

    assert sum(master_key.reseal(actor=system_actor("test")).values()) >= 3

    settings.CONFIG = replace(settings.CONFIG, master_key_previous=None)
    assert signing_keys.active_private_key(None) == private


@pytest.mark.parametrize(
    "argv",
    [
        ("export_ledger",), ("export_ledger", "--org", "acme", "--installation"),
        ("verify_ledger", "--org", "acme", "--installation"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_export_without_ledger_and_commands_with_two_ledgers_are_refused(argv: tuple[str, ...]) -> None:
    with pytest.raises(CommandError):
        call_command(*argv, stdout=StringIO())

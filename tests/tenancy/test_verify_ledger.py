"""The commands ``verify_ledger`` and ``export_ledger``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from apps.tenancy.models import AuditEvent
from byteor.engine.hash_chain import Checkpoint
from byteor_cloud.ids import uuid7
from tests.tenancy.ledger_steps import event_of, export_path, lines_of, run, without_triggers
from tests.worlds import World

pytestmark = pytest.mark.django_db


def test_verify_ledger_prints_one_line_per_intact_ledger(world: World, other: World, seals: Any) -> None:
    code, output = run("verify_ledger")

    assert code == 0
    assert len(output) == 3
    events = seals.count()
    assert output[0].startswith(
        f"acme {world.organization.pk}: ok; {events} events, to seq {events} {seals.last().hash}; "
    )
    assert output[0].endswith(" events/s")
    assert output[1].startswith(f"umbrella {other.organization.pk}: ok; ")
    assert output[2].startswith("the installation: ok; ")
    by_slug, by_id = run("verify_ledger", "--org", "umbrella"), run("verify_ledger", f"--org={other.organization.pk}")
    assert by_slug[0] == by_id[0] == 0
    assert by_slug[1][0].partition(";")[0] == by_id[1][0].partition(";")[0] == output[1].partition(";")[0]


def test_verify_ledger_locates_altered_event(world: World, other: World, seals: Any) -> None:
    third = event_of(seals, 3)
    with without_triggers():
        AuditEvent.objects.filter(pk=third).update(action="x")

    code, output = run("verify_ledger")

    assert code == 1
    assert output[0] == (
        f"acme: seq 3, event {third}: ledger.altered: the event, its sequence number or its link was altered"
    )
    assert f"acme {world.organization.pk}: 1 fault; " in output[1]
    assert f"umbrella {other.organization.pk}: ok; " in output[2]
    assert output[4] == "at least one ledger is not intact"


def test_verify_ledger_prints_number_of_unsealed_events(world: World, seals: Any) -> None:
    world.environment("dev", "another")

    assert ", 1 event not sealed since 20" in run("verify_ledger")[1][0]


def test_verify_ledger_compares_chain_with_checkpoint(world: World, seals: Any, tmp_path: Path) -> None:
    exported = tmp_path / "export.ndjson"
    exported.write_text("\n".join(run("export_ledger", "--org", "acme")[1]))
    last = seals.last()
    signed = ["verify_ledger", "--checkpoint", str(exported)]
    assert run(*signed)[0] == 0

    with without_triggers():
        seals.filter(pk=last.pk).delete()
        AuditEvent.objects.filter(pk=last.event_id).delete()

    code, output = run(*signed)
    assert code == 1
    assert output[0] == (
        f"acme: seq {last.seq}, event (none): ledger.cut_off: "
        f"the chain ends at {last.seq - 1}, but a checkpoint was signed when it reached {last.seq}"
    )


@pytest.mark.parametrize(
    ("spoil", "code", "expected"),
    [
        (lambda text: text.replace('"seq":', '"seq": 1'), 1, "checkpoint.bad_signature"),
        (lambda text: text[:-20] + "}", 1, "checkpoint.malformed"),
        (lambda text: "", 1, "checkpoint.malformed"),
        (lambda text: text.replace('"org_id":"', '"org_id":"x'), 1, "checkpoint.malformed"),
        (lambda text: text.replace('"kid":"', '"kid":"x'), 1, "checkpoint.unknown_key"),
    ],
)
def test_checkpoint_without_valid_signature_is_rejected(
    world: World, seals: Any, tmp_path: Path, spoil: Any, code: int, expected: str
) -> None:
    file = tmp_path / "checkpoint"
    file.write_text(spoil(run("export_ledger", "--org", "acme")[1][-1]))

    refused, output = run("verify_ledger", "--checkpoint", str(file))

    assert (refused, len(output)) == (code, 1)
    assert expected in output[0]


def test_checkpoint_of_another_organization_is_rejected(world: World, other: World, seals: Any, tmp_path: Path) -> None:
    file = tmp_path / "checkpoint"
    file.write_text(run("export_ledger", "--org", "umbrella")[1][-1])

    code, output = run("verify_ledger", "--org", "acme", "--checkpoint", str(file))

    assert (code, output) == (
        1,
        [f"{file}: the checkpoint is of organization {other.organization.pk}, whose ledger is not being verified"],
    )


@pytest.mark.parametrize(
    "argv",
    [
        ("verify_ledger", "--org", "nobody"),
        ("verify_ledger", "--org", str(uuid7())),
        ("verify_ledger", "--checkpoint", "/nowhere"),
        ("export_ledger", "--org", "nobody"),
        ("export_ledger", "--org", "acme", "--after-seq", "-1"),
        ("export_ledger", "--org", "acme", "--after-seq", "100000"),
    ],
)
def test_invalid_arguments_print_one_line_and_exit_2(world: World, argv: tuple[str, ...]) -> None:
    code, output = run(*argv)

    assert (code, len(output)) == (2, 1)


def test_export_command_writes_same_events_as_api(world: World, seals: Any) -> None:
    by_api = lines_of(world.admin.api.get(export_path(world, "?after_seq=5")))

    code, by_command = run("export_ledger", "--org", "acme", "--after-seq", "5")

    assert code == 0
    assert by_command[:-1] == by_api[:-1]
    assert Checkpoint.read(by_command[-1]).hash == Checkpoint.read(by_api[-1]).hash

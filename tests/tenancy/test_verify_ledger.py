"""The commands ``verify_ledger`` and ``export_ledger``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from apps.tenancy.models import AuditEvent
from byteor_cloud.engine.ledger import Checkpoint
from byteor_cloud.ids import uuid7
from tests.tenancy.ledger_steps import event_of, export_path, lines_of, run, unguarded
from tests.worlds import World

pytestmark = pytest.mark.django_db


def test_verify_ledger_says_a_line_an_organization(world: World, other: World, seals: Any) -> None:
    code, said = run("verify_ledger")

    assert code == 0
    assert len(said) == 3
    events = seals.count()
    assert said[0].startswith(
        f"acme {world.organization.pk}: ok; {events} events, to seq {events} {seals.last().hash}; "
    )
    assert said[0].endswith(" events/s")
    assert said[1].startswith(f"umbrella {other.organization.pk}: ok; ")
    assert said[2].startswith("the installation: ok; ")
    by_slug, by_id = run("verify_ledger", "--org", "umbrella"), run("verify_ledger", f"--org={other.organization.pk}")
    assert by_slug[0] == by_id[0] == 0
    assert by_slug[1][0].partition(";")[0] == by_id[1][0].partition(";")[0] == said[1].partition(";")[0]


def test_verify_ledger_says_where_it_was_altered(world: World, other: World, seals: Any) -> None:
    third = event_of(seals, 3)
    with unguarded():
        AuditEvent.objects.filter(pk=third).update(action="x")

    code, said = run("verify_ledger")

    assert code == 1
    assert said[0] == (f"acme: seq 3, event {third}: ledger.altered: the event, its place or its link was altered")
    assert f"acme {world.organization.pk}: 1 fault; " in said[1]
    assert f"umbrella {other.organization.pk}: ok; " in said[2]
    assert said[4] == "the ledger is not intact"


def test_verify_ledger_tells_what_waits(world: World, seals: Any) -> None:
    world.environment("dev", "another")

    assert ", 1 not sealed since 20" in run("verify_ledger")[1][0]


def test_verify_ledger_against_a_checkpoint(world: World, seals: Any, tmp_path: Path) -> None:
    exported = tmp_path / "export.ndjson"
    exported.write_text("\n".join(run("export_ledger", "--org", "acme")[1]))
    last = seals.last()
    signed = ["verify_ledger", "--checkpoint", str(exported)]
    assert run(*signed)[0] == 0

    with unguarded():
        seals.filter(pk=last.pk).delete()
        AuditEvent.objects.filter(pk=last.event_id).delete()

    code, said = run(*signed)
    assert code == 1
    assert said[0] == (
        f"acme: seq {last.seq}, event (none): ledger.cut_off: "
        f"the chain ends at {last.seq - 1}, and the checkpoint saw it reach {last.seq}"
    )


@pytest.mark.parametrize(
    ("spoil", "code", "says"),
    [
        (lambda text: text.replace('"seq":', '"seq": 1'), 1, "checkpoint.bad_signature"),
        (lambda text: text[:-20] + "}", 1, "checkpoint.malformed"),
        (lambda text: "", 1, "checkpoint.malformed"),
        (lambda text: text.replace('"org_id":"', '"org_id":"x'), 1, "checkpoint.malformed"),
        (lambda text: text.replace('"kid":"', '"kid":"x'), 1, "checkpoint.unknown_key"),
    ],
)
def test_a_checkpoint_that_nobody_signed_is_refused(
    world: World, seals: Any, tmp_path: Path, spoil: Any, code: int, says: str
) -> None:
    file = tmp_path / "checkpoint"
    file.write_text(spoil(run("export_ledger", "--org", "acme")[1][-1]))

    refused, said = run("verify_ledger", "--checkpoint", str(file))

    assert (refused, len(said)) == (code, 1)
    assert says in said[0]


def test_a_checkpoint_of_another_organization_is_refused(
    world: World, other: World, seals: Any, tmp_path: Path
) -> None:
    file = tmp_path / "checkpoint"
    file.write_text(run("export_ledger", "--org", "umbrella")[1][-1])

    code, said = run("verify_ledger", "--org", "acme", "--checkpoint", str(file))

    assert (code, said) == (1, [f"{file}: the checkpoint belongs to organization {other.organization.pk}"])


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
def test_what_cannot_be_told_is_said_so(world: World, argv: tuple[str, ...]) -> None:
    code, said = run(*argv)

    assert (code, len(said)) == (2, 1)


def test_the_command_exports_the_same_as_the_api(world: World, seals: Any) -> None:
    by_api = lines_of(world.admin.api.get(export_path(world, "?after_seq=5")))

    code, by_command = run("export_ledger", "--org", "acme", "--after-seq", "5")

    assert code == 0
    assert by_command[:-1] == by_api[:-1]
    assert Checkpoint.read(by_command[-1]).hash == Checkpoint.read(by_api[-1]).hash

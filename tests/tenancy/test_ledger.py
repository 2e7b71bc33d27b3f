"""The ledger: whatever was done to it behind our back is found and placed, and its export proves it elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.tenancy import audit, ledger
from apps.tenancy.ledger import Verification
from apps.tenancy.models import AuditEvent, AuditSeal
from apps.tenancy.services import signing_keys
from byteor_cloud.engine.delivery import keys
from byteor_cloud.engine.ledger import GENESIS, Chain, Checkpoint, LedgerCode, link_hash, read_line
from byteor_cloud.ids import uuid7
from tests.worlds import World

pytestmark = pytest.mark.django_db
GUARDED = ("tenancy_auditevent", "tenancy_auditseal")


@contextmanager
def unguarded() -> Iterator[Any]:
    """As somebody who may disable triggers, foreign keys among them: what the chain is for."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")  # no table is altered while checks of it wait
        for table in GUARDED:
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER {table}_append_only")
        cursor.execute("SET LOCAL session_replication_role = replica")
        yield cursor
        cursor.execute("SET LOCAL session_replication_role = origin")
        for table in GUARDED:
            cursor.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_append_only")


@pytest.fixture
def seals(world: World) -> Any:
    """The seals of a ledger with events of the whole tenant, sealed."""
    audit.seal_all()
    return AuditSeal.objects.filter(organization=world.organization).order_by("seq")


def faults(world: World, **known: Any) -> list[tuple[LedgerCode, int | None, str | None]]:
    return [(f.code, f.seq, f.event_id) for f in Verification(world.organization.pk, **known).faults()]


def event_of(seals: Any, seq: int) -> str:
    return str(seals.get(seq=seq).event_id)


def forged_seal(seal: AuditSeal, **changes: Any) -> str:
    """The link that somebody who knows how would write."""
    [link] = [
        x for x in ledger.links(seal.organization_id) if x.event_id == str(changes.pop("event_id", seal.event_id))
    ]
    assert link.event is not None
    return link_hash(link.event, **{"seq": seal.seq, "prev_hash": seal.prev_hash, **changes})


@pytest.mark.parametrize(
    "change",
    [
        {"action": "organization.created"}, {"outcome": "denied"}, {"changes": {}}, {"actor_id": "somebody"},
        {"actor_display": "x"}, {"actor_kind": "x"}, {"resource_id": "x"}, {"resource_kind": "x"},
        {"request_id": "x"}, {"ip": "192.0.2.1"}, {"timestamp": timezone.now() - timedelta(minutes=1)},
        {"project_id": None}, {"environment_id": None},
    ],
    ids=lambda c: next(iter(c)),
)  # fmt: skip
def test_an_altered_event_is_found(world: World, seals: Any, change: dict[str, Any]) -> None:
    seal = seals.filter(event__action="environment.create").latest("seq")

    with unguarded():
        assert AuditEvent.objects.filter(pk=seal.event_id).update(**change) == 1

    assert faults(world) == [(LedgerCode.ALTERED, seal.seq, str(seal.event_id))]


@pytest.mark.parametrize(
    "change",
    ["timestamp = 'infinity'", "timestamp = '-infinity'", "timestamp = '0044-03-15 BC'", "timestamp = '0001-01-01Z'",
     "changes = ('{\"n\": ' || repeat('9', 5000) || '}')::jsonb",
     "changes = (repeat('[', 5000) || repeat(']', 5000))::jsonb"],
)  # fmt: skip
def test_what_python_cannot_read_is_found_too(world: World, seals: Any, change: str) -> None:
    last = event_of(seals, seals.count())

    with unguarded() as cursor:
        cursor.execute(f"UPDATE tenancy_auditevent SET {change} WHERE id = %s", [last])

    found = faults(world)
    assert found[0] == (LedgerCode.ALTERED, seals.count(), last)
    assert len(found) <= 2


def test_an_event_removed_with_its_seal_is_found(world: World, seals: Any) -> None:
    third, fourth = event_of(seals, 3), event_of(seals, 4)

    with unguarded():
        seals.filter(seq=3).delete()
        AuditEvent.objects.filter(pk=third).delete()

    assert faults(world) == [(LedgerCode.MISSING, 3, None), (LedgerCode.BROKEN, 4, fourth)]


def test_many_events_removed_are_one_gap(world: World, seals: Any) -> None:
    with unguarded():
        removed = list(seals.filter(seq__range=(3, 6)).values_list("event_id", flat=True))
        seals.filter(seq__range=(3, 6)).delete()
        AuditEvent.objects.filter(pk__in=removed).delete()

    [missing, _] = Verification(world.organization.pk).faults()
    assert str(missing) == "seq 3, event (none): ledger.missing: 3 to 6 are missing"


def test_an_event_removed_from_under_its_seal_is_found(world: World, seals: Any) -> None:
    third = event_of(seals, 3)

    with unguarded() as cursor:
        cursor.execute("DELETE FROM tenancy_auditevent WHERE id = %s", [third])

    assert faults(world) == [(LedgerCode.EVENT_GONE, 3, third)]


def test_a_removed_seal_is_found(world: World, seals: Any) -> None:
    third, fourth = event_of(seals, 3), event_of(seals, 4)
    newest = AuditEvent.objects.create(
        organization=world.organization, timestamp=timezone.now() + timedelta(hours=2), outcome="success"
    )
    audit.seal_all()

    with unguarded():
        seals.filter(seq=3).delete()

    gap = [(LedgerCode.MISSING, 3, None), (LedgerCode.BROKEN, 4, fourth)]
    assert faults(world) == [*gap, (LedgerCode.UNSEALED, None, third)]
    # The worker seals it again, at the end, where it does not belong.
    audit.seal_all()
    assert faults(world) == [*gap, (LedgerCode.BACKDATED, seals.get(event=newest).seq + 1, third)]


def test_swapped_events_are_found(world: World, seals: Any) -> None:
    third, fourth = seals.filter(seq__in=[3, 4])

    with unguarded():
        seals.filter(pk=third.pk).update(seq=0)
        seals.filter(pk=fourth.pk).update(seq=3)
        seals.filter(pk=third.pk).update(seq=4)

    found = faults(world)
    assert (LedgerCode.BROKEN, 3, str(fourth.event_id)) in found
    assert (LedgerCode.ALTERED, 3, str(fourth.event_id)) in found
    assert (LedgerCode.ALTERED, 4, str(third.event_id)) in found


def test_events_swapped_under_their_seals_are_found(world: World, seals: Any) -> None:
    third, fourth = event_of(seals, 3), event_of(seals, 4)

    with unguarded() as cursor:
        swap = "UPDATE tenancy_auditseal SET event_id = %s WHERE event_id = %s AND seq = %s"
        cursor.execute(swap, [str(uuid7()), third, 3])
        cursor.execute(swap, [third, fourth, 4])
        cursor.execute("UPDATE tenancy_auditseal SET event_id = %s WHERE seq = 3 AND organization_id = %s",
                       [fourth, world.organization.pk])  # fmt: skip

    assert faults(world) == [(LedgerCode.ALTERED, 3, fourth), (LedgerCode.ALTERED, 4, third)]


def test_a_rewritten_link_is_found_at_the_next(world: World, seals: Any) -> None:
    seal = seals.get(seq=3)

    with unguarded():
        AuditEvent.objects.filter(pk=seal.event_id).update(actor_display="nobody")
        seals.filter(pk=seal.pk).update(hash=forged_seal(seal))

    assert faults(world) == [(LedgerCode.BROKEN, 4, event_of(seals, 4))]


def test_an_event_inserted_with_a_forged_seal_is_found(world: World, seals: Any) -> None:
    """Into the middle: the links after it would have to be made anew, up to the end."""
    third = seals.get(seq=3)
    inserted = AuditEvent.objects.create(organization=world.organization, outcome="success", action="x")

    with unguarded() as cursor:
        cursor.execute("UPDATE tenancy_auditseal SET seq = seq + 1000 WHERE organization_id = %s AND seq > 3",
                       [world.organization.pk])  # fmt: skip
        cursor.execute("UPDATE tenancy_auditseal SET seq = seq - 999 WHERE organization_id = %s AND seq > 1000",
                       [world.organization.pk])  # fmt: skip
        forged = AuditSeal.objects.create(
            organization=world.organization, seq=4, event=inserted, prev_hash=third.hash, hash=""
        )
        seals.filter(pk=forged.pk).update(hash=forged_seal(forged))

    found = faults(world)
    assert found[:2] == [
        (LedgerCode.BROKEN, 5, event_of(seals, 5)),
        (LedgerCode.ALTERED, 5, event_of(seals, 5)),
    ]
    assert not [f for f in found if f[1] == 4]


def test_a_backdated_event_is_found_once_it_is_sealed(world: World, seals: Any) -> None:
    AuditEvent.objects.create(
        organization=world.organization, outcome="success", timestamp=timezone.now() - timedelta(days=2)
    )
    assert [f[0] for f in faults(world)] == [LedgerCode.UNSEALED]

    audit.seal_all()

    last = seals.last()
    assert faults(world) == [(LedgerCode.BACKDATED, last.seq, str(last.event_id))]


def test_an_event_that_waits_for_the_worker_is_no_fault(world: World, seals: Any) -> None:
    early = timezone.now() - timedelta(minutes=50)  # its transaction was long
    AuditEvent.objects.create(organization=world.organization, outcome="success", timestamp=early)

    verification = Verification(world.organization.pk)

    assert list(verification.faults()) == []
    assert (verification.unsealed, verification.unsealed_since) == (1, early)
    audit.seal_all()
    assert faults(world) == []


def test_another_organizations_event_is_found(world: World, other: World, seals: Any) -> None:
    theirs = AuditSeal.objects.filter(organization=other.organization).latest("seq")
    last = seals.last()

    with unguarded():
        AuditSeal.objects.filter(pk=theirs.pk).update(
            organization=world.organization,
            seq=last.seq + 1,
            prev_hash=last.hash,
            hash=forged_seal(theirs, seq=last.seq + 1, prev_hash=last.hash),
        )

    assert faults(world) == [(LedgerCode.FOREIGN, last.seq + 1, str(theirs.event_id))]


def test_a_tail_that_was_cut_off_shows_against_a_checkpoint(world: World, seals: Any) -> None:
    last = seals.last()

    with unguarded():
        seals.filter(pk=last.pk).delete()
        AuditEvent.objects.filter(pk=last.event_id).delete()

    assert faults(world) == []
    assert faults(world, known={last.seq: last.hash}) == [(LedgerCode.CUT_OFF, last.seq, None)]


def test_a_chain_made_anew_shows_against_a_checkpoint(world: World, seals: Any) -> None:
    known = {seal.seq: seal.hash for seal in seals.filter(seq__in=[2, 9])}
    third = event_of(seals, 3)

    with unguarded():
        AuditEvent.objects.filter(pk=third).update(actor_display="nobody")
        AuditSeal.objects.filter(organization=world.organization).delete()
        audit.seal_chain(world.organization.pk)

    assert faults(world) == []
    assert faults(world, known=known) == [(LedgerCode.REWRITTEN, 9, event_of(seals, 9))]


def test_any_number_and_text_can_be_sealed(world: World) -> None:
    changes = {
        "n": 2**70,
        "f": 1.5,
        "e": 1e-7,
        "ключ": ['\u2028\x7f"\\/😀\n\x1f', None, True, -0.0],
        "a": {"z": 1, "b": 2},
    }
    audit.record("x", actor=world.admin.actor, scope=world.organization, resource=("x", '"\\é\t😀'), changes=changes)

    audit.seal_all()

    assert faults(world) == []
    exported = [read_line(text[:-1]) for text in list(ledger.export(world.organization))[:-1]]
    assert list(Chain(str(world.organization.pk)).walk(exported)) == []


def test_a_chain_is_read_in_pages(world: World, seals: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "PAGE", 3)
    everything = list(seals.values_list("seq", "hash"))
    end = len(everything)
    assert end >= 10
    with unguarded():
        seals.filter(seq__range=(4, end - 2)).delete()  # whole pages are gone

    read = [(link.seq, link.hash) for link in ledger.links(world.organization.pk)]

    assert read == everything[:3] + everything[-2:]
    until = list(ledger.links(world.organization.pk, after_seq=1, until=end - 1))
    assert [link.seq for link in until] == [2, 3, end - 1]


# -- export -----------------------------------------------------------------------------------------------------------


def lines_of(response: Any) -> list[str]:
    return b"".join(response.streaming_content).decode().splitlines()


def export_path(world: World, query: str = "") -> str:
    return f"/api/v1/orgs/{world.organization.pk}/audit-events/export{query}"


def test_the_export_is_the_chain_with_a_signed_checkpoint(world: World, seals: Any) -> None:
    response = world.admin.api.get(export_path(world))

    assert response["Content-Type"] == "application/x-ndjson"
    assert response["Content-Disposition"] == 'attachment; filename="acme-ledger.ndjson"'
    *events, last = lines_of(response)
    chain = Chain(str(world.organization.pk))
    assert list(chain.walk(map(read_line, events))) == []
    assert (chain.seq, chain.hash) == (seals.count(), seals.last().hash)
    checkpoint = Checkpoint.read(last)
    checkpoint.verify(signing_keys.key_set(world.organization.pk))
    assert (checkpoint.org_id, checkpoint.seq, checkpoint.hash) == (chain.organization_id, chain.seq, chain.hash)
    assert timezone.now() - checkpoint.created_at < timedelta(minutes=1)
    active = keys.public_key(signing_keys.active_private_key(world.organization.pk))
    assert checkpoint.kid == keys.kid(active)


def test_a_line_tells_the_event_as_the_api_does(world: World, seals: Any) -> None:
    [newest] = world.admin.api.get(export_path(world).replace("/export", "?limit=1")).json()["results"]

    line = json.loads(lines_of(world.admin.api.get(export_path(world)))[-2])

    assert {"seq": line["seq"], "prev_hash": line["prev_hash"], "hash": line["hash"]} == newest.pop("seal")
    assert line["event"] == newest


def test_an_export_reads_no_further_than_it_is_read(world: World, seals: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "EXPORT_PAGE", 3)
    lines = ledger.export(world.organization)

    with CaptureQueriesContext(connection) as one_page:
        for _ in range(3):
            next(lines)
    with CaptureQueriesContext(connection) as the_rest:
        rest = list(lines)

    assert len(one_page) == 2  # where the page begins, and the page
    assert len(rest) == seals.count() - 3 + 1
    assert len(the_rest) >= 2 * (len(rest) // 3)


def test_an_export_goes_on_from_an_earlier_one(world: World, seals: Any) -> None:
    whole = lines_of(world.admin.api.get(export_path(world)))
    end = seals.count()

    rest = lines_of(world.admin.api.get(export_path(world, "?after_seq=5")))
    nothing_new = lines_of(world.admin.api.get(export_path(world, f"?after_seq={end}")))

    assert rest[:-1] == whole[5:-1]
    assert [Checkpoint.read(lines[-1]).seq for lines in (rest, nothing_new)] == [end, end]
    assert len(nothing_new) == 1


def test_a_ledger_with_nothing_sealed_is_a_checkpoint_of_the_beginning(world: World) -> None:
    [line] = lines_of(world.admin.api.get(export_path(world)))

    assert (Checkpoint.read(line).seq, Checkpoint.read(line).hash) == (0, GENESIS)


@pytest.mark.parametrize(
    ("query", "parameter"),
    [("after_seq=-1", "after_seq"), ("after_seq=x", "after_seq"), ("after_seq=100000", "after_seq"), ("x=1", "x")],
)
def test_a_wrong_place_to_begin_is_refused(world: World, seals: Any, query: str, parameter: str) -> None:
    response = world.admin.api.get(export_path(world, f"?{query}"))

    assert response.status_code == 400
    assert [e["parameter"] for e in response.json()["errors"]] == [parameter]


def test_only_who_may_read_the_trail_may_export_it(world: World, other: World) -> None:
    assert world.project_admin.api.get(export_path(world)).status_code == 403
    assert other.admin.api.get(export_path(world)).status_code == 404


# -- the commands -----------------------------------------------------------------------------------------------------


def run(*argv: str) -> tuple[int, list[str]]:
    """The exit code and what was printed."""
    out = StringIO()
    try:
        call_command(*argv, stdout=out)
    except CommandError as error:
        return error.returncode, [*out.getvalue().splitlines(), str(error)]
    return 0, out.getvalue().splitlines()


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
    assert said[4] == "the ledger does not hold"


def test_verify_ledger_tells_what_waits(world: World, seals: Any) -> None:
    world.environment("dev", "another")

    assert ", 1 not sealed yet since 20" in run("verify_ledger")[1][0]


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

    assert (code, said) == (1, [f"{file}: the checkpoint is of organization {other.organization.pk}"])


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

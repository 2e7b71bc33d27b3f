"""Verification of the ledger: tampering is found and located."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.tenancy.models import AuditEvent, AuditSeal
from apps.tenancy.services import audit, ledger
from apps.tenancy.services.ledger import Verification
from byteor.engine.hash_chain import Chain, LedgerCode, link_hash, read_line
from byteor_cloud.ids import uuid7
from tests.tenancy.ledger_steps import event_of, without_triggers
from tests.worlds import World

pytestmark = pytest.mark.django_db


def faults(world: World, **known: Any) -> list[tuple[LedgerCode, int | None, str | None]]:
    return [(f.code, f.seq, f.event_id) for f in Verification(world.organization.pk, **known).faults()]


def forged_seal(seal: AuditSeal, **changes: Any) -> str:
    """Return the hash that an attacker who can compute hashes would write."""
    [link] = [
        x for x in ledger.read_links(seal.organization_id) if x.event_id == str(changes.pop("event_id", seal.event_id))
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
def test_altered_event_is_found(world: World, seals: Any, change: dict[str, Any]) -> None:
    seal = seals.filter(event__action="environment.create").latest("seq")

    with without_triggers():
        assert AuditEvent.objects.filter(pk=seal.event_id).update(**change) == 1

    assert faults(world) == [(LedgerCode.ALTERED, seal.seq, str(seal.event_id))]


@pytest.mark.parametrize(
    "change",
    ["timestamp = 'infinity'", "timestamp = '-infinity'", "timestamp = '0044-03-15 BC'", "timestamp = '0001-01-01Z'",
     "changes = ('{\"n\": ' || repeat('9', 5000) || '}')::jsonb",
     "changes = (repeat('[', 4000) || repeat(']', 4000))::jsonb"],
)  # fmt: skip
def test_unusual_altered_value_is_found(world: World, seals: Any, change: str) -> None:
    last = event_of(seals, seals.count())

    with without_triggers() as cursor:
        cursor.execute(f"UPDATE tenancy_auditevent SET {change} WHERE id = %s", [last])

    found = faults(world)
    assert found[0] == (LedgerCode.ALTERED, seals.count(), last)
    assert len(found) <= 2


def test_removal_of_event_and_its_seal_from_middle_of_chain_is_found(world: World, seals: Any) -> None:
    third, fourth = event_of(seals, 3), event_of(seals, 4)

    with without_triggers():
        seals.filter(seq=3).delete()
        AuditEvent.objects.filter(pk=third).delete()

    assert faults(world) == [(LedgerCode.MISSING, 3, None), (LedgerCode.BROKEN, 4, fourth)]


def test_adjacent_removed_events_are_reported_as_one_gap(world: World, seals: Any) -> None:
    with without_triggers():
        removed = list(seals.filter(seq__range=(3, 6)).values_list("event_id", flat=True))
        seals.filter(seq__range=(3, 6)).delete()
        AuditEvent.objects.filter(pk__in=removed).delete()

    [missing, _] = Verification(world.organization.pk).faults()
    assert str(missing) == "seq 3, event (none): ledger.missing: 3 to 6 are missing"


def test_removal_of_event_without_its_seal_is_found(world: World, seals: Any) -> None:
    third = event_of(seals, 3)

    with without_triggers() as cursor:
        cursor.execute("DELETE FROM tenancy_auditevent WHERE id = %s", [third])

    assert faults(world) == [(LedgerCode.EVENT_GONE, 3, third)]


def test_removal_of_seal_without_its_event_is_found(world: World, seals: Any) -> None:
    third, fourth = event_of(seals, 3), event_of(seals, 4)
    newest = AuditEvent.objects.create(
        organization=world.organization, timestamp=timezone.now() + timedelta(hours=2), outcome="success"
    )
    ledger.seal_all()

    with without_triggers():
        seals.filter(seq=3).delete()

    gap = [(LedgerCode.MISSING, 3, None), (LedgerCode.BROKEN, 4, fourth)]
    assert faults(world) == [*gap, (LedgerCode.UNSEALED, None, third)]
    # The worker seals the event again at the end of the chain, which is the wrong position.
    ledger.seal_all()
    assert faults(world) == [*gap, (LedgerCode.BACKDATED, seals.get(event=newest).seq + 1, third)]


def test_swapped_events_are_found(world: World, seals: Any) -> None:
    third, fourth = seals.filter(seq__in=[3, 4])

    with without_triggers():
        seals.filter(pk=third.pk).update(seq=0)
        seals.filter(pk=fourth.pk).update(seq=3)
        seals.filter(pk=third.pk).update(seq=4)

    found = faults(world)
    assert (LedgerCode.BROKEN, 3, str(fourth.event_id)) in found
    assert (LedgerCode.ALTERED, 3, str(fourth.event_id)) in found
    assert (LedgerCode.ALTERED, 4, str(third.event_id)) in found


def test_events_with_swapped_seals_are_found(world: World, seals: Any) -> None:
    third, fourth = event_of(seals, 3), event_of(seals, 4)

    with without_triggers() as cursor:
        swap = "UPDATE tenancy_auditseal SET event_id = %s WHERE event_id = %s AND seq = %s"
        cursor.execute(swap, [str(uuid7()), third, 3])
        cursor.execute(swap, [third, fourth, 4])
        cursor.execute("UPDATE tenancy_auditseal SET event_id = %s WHERE seq = 3 AND organization_id = %s",
                       [fourth, world.organization.pk])  # fmt: skip

    assert faults(world) == [(LedgerCode.ALTERED, 3, fourth), (LedgerCode.ALTERED, 4, third)]


def test_rewritten_link_is_found_at_next_link(world: World, seals: Any) -> None:
    seal = seals.get(seq=3)

    with without_triggers():
        AuditEvent.objects.filter(pk=seal.event_id).update(actor_display="nobody")
        seals.filter(pk=seal.pk).update(hash=forged_seal(seal))

    assert faults(world) == [(LedgerCode.BROKEN, 4, event_of(seals, 4))]


def test_inserted_event_with_forged_seal_is_found(world: World, seals: Any) -> None:
    """The event is inserted in the middle of the chain, and later links are not rebuilt."""
    third = seals.get(seq=3)
    inserted = AuditEvent.objects.create(organization=world.organization, outcome="success", action="x")

    with without_triggers() as cursor:
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


def test_backdated_event_is_found_before_and_after_sealing(world: World, seals: Any) -> None:
    AuditEvent.objects.create(
        organization=world.organization, outcome="success", timestamp=timezone.now() - timedelta(days=2)
    )
    assert [f[0] for f in faults(world)] == [LedgerCode.UNSEALED]

    ledger.seal_all()

    last = seals.last()
    assert faults(world) == [(LedgerCode.BACKDATED, last.seq, str(last.event_id))]


def test_recent_unsealed_event_is_not_reported(world: World, seals: Any) -> None:
    early = timezone.now() - timedelta(minutes=50)  # a long transaction may commit its events this late
    AuditEvent.objects.create(organization=world.organization, outcome="success", timestamp=early)

    verification = Verification(world.organization.pk)

    assert list(verification.faults()) == []
    assert (verification.unsealed, verification.unsealed_since) == (1, early)
    ledger.seal_all()
    assert faults(world) == []


def test_event_of_another_organization_in_chain_is_reported(world: World, other: World, seals: Any) -> None:
    theirs = AuditSeal.objects.filter(organization=other.organization).latest("seq")
    last = seals.last()

    with without_triggers():
        AuditSeal.objects.filter(pk=theirs.pk).update(
            organization=world.organization,
            seq=last.seq + 1,
            prev_hash=last.hash,
            hash=forged_seal(theirs, seq=last.seq + 1, prev_hash=last.hash),
        )

    assert faults(world) == [(LedgerCode.FOREIGN, last.seq + 1, str(theirs.event_id))]


def test_checkpoint_reveals_removed_end_of_chain(world: World, seals: Any) -> None:
    last = seals.last()

    with without_triggers():
        seals.filter(pk=last.pk).delete()
        AuditEvent.objects.filter(pk=last.event_id).delete()

    assert faults(world) == []
    assert faults(world, known={last.seq: last.hash}) == [(LedgerCode.CUT_OFF, last.seq, None)]


def test_checkpoint_reveals_rebuilt_chain(world: World, seals: Any) -> None:
    known = {seal.seq: seal.hash for seal in seals.filter(seq__in=[2, 9])}
    third = event_of(seals, 3)

    with without_triggers():
        AuditEvent.objects.filter(pk=third).update(actor_display="nobody")
        AuditSeal.objects.filter(organization=world.organization).delete()
        ledger.seal_chain(world.organization.pk)

    assert faults(world) == []
    assert faults(world, known=known) == [(LedgerCode.REWRITTEN, 9, event_of(seals, 9))]


def test_unusual_numbers_and_texts_can_be_sealed(world: World) -> None:
    changes = {
        "n": 2**70,
        "f": 1.5,
        "e": 1e-7,
        "ключ": ['\u2028\x7f"\\/😀\n\x1f', None, True, -0.0],
        "a": {"z": 1, "b": 2},
    }
    audit.record("x", actor=world.admin.actor, scope=world.organization, resource=("x", '"\\é\t😀'), changes=changes)

    ledger.seal_all()

    assert faults(world) == []
    exported = [read_line(text[:-1]) for text in list(ledger.export_lines(world.organization))[:-1]]
    assert list(Chain(str(world.organization.pk)).verify_links(exported)) == []


def test_links_around_gap_of_several_pages_in_chain_are_read(world: World, seals: Any) -> None:
    everything = list(seals.values_list("seq", "hash"))
    end = len(everything)
    assert end >= 10
    with without_triggers():
        seals.filter(seq__range=(4, end - 2)).delete()  # at least five links are missing

    read = [(link.seq, link.hash) for link in ledger.read_links(world.organization.pk, page=2)]

    assert read == everything[:3] + everything[-2:]
    until = list(ledger.read_links(world.organization.pk, after_seq=1, until=end - 1, page=2))
    assert [link.seq for link in until] == [2, 3, end - 1]

"""The export of the ledger: the chain with a signed checkpoint, read in pages."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.tenancy.models import AuditEvent, AuditSeal
from apps.tenancy.services import ledger, signing_keys
from byteor.engine.hash_chain import GENESIS, Chain, Checkpoint, read_line
from byteor.engine.signing import keys
from byteor_cloud.ids import smallest_uuid7
from tests.tenancy.ledger_steps import export_path, lines_of
from tests.worlds import World

pytestmark = pytest.mark.django_db


def test_export_contains_chain_and_signed_checkpoint(world: World, seals: Any) -> None:
    response = world.admin.api.get(export_path(world))

    assert response["Content-Type"] == "application/x-ndjson"
    assert response["Content-Disposition"] == 'attachment; filename="acme-ledger.ndjson"'
    *events, last = lines_of(response)
    chain = Chain(str(world.organization.pk))
    assert list(chain.verify_links(map(read_line, events))) == []
    assert (chain.seq, chain.hash) == (seals.count(), seals.last().hash)
    checkpoint = Checkpoint.read(last)
    checkpoint.verify(signing_keys.key_set(world.organization.pk))
    assert (checkpoint.org_id, checkpoint.seq, checkpoint.hash) == (chain.organization_id, chain.seq, chain.hash)
    assert timezone.now() - checkpoint.created_at < timedelta(minutes=1)
    active = keys.public_key(signing_keys.active_private_key(world.organization.pk))
    assert checkpoint.kid == keys.kid(active)


def test_export_line_contains_event_as_listed(world: World, seals: Any) -> None:
    [newest] = world.admin.api.get(export_path(world).replace("/export", "?limit=1")).json()["results"]

    line = json.loads(lines_of(world.admin.api.get(export_path(world)))[-2])

    assert {"seq": line["seq"], "prev_hash": line["prev_hash"], "hash": line["hash"]} == newest.pop("seal")
    assert line["event"] == newest


def test_export_reads_pages_on_demand(world: World, seals: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "EXPORT_PAGE", 3)
    lines = ledger.export_lines(world.organization)

    with CaptureQueriesContext(connection) as one_page:
        for _ in range(3):
            next(lines)
    with CaptureQueriesContext(connection) as the_rest:
        rest = list(lines)

    assert len(one_page) == 2  # one query for the start of the page, and one for the page
    assert len(rest) == seals.count() - 3 + 1
    assert len(the_rest) >= 2 * (len(rest) // 3)


def test_export_can_continue_earlier_export(world: World, seals: Any) -> None:
    whole = lines_of(world.admin.api.get(export_path(world)))
    end = seals.count()

    rest = lines_of(world.admin.api.get(export_path(world, "?after_seq=5")))
    nothing_new = lines_of(world.admin.api.get(export_path(world, f"?after_seq={end}")))

    assert rest[:-1] == whole[5:-1]
    assert [Checkpoint.read(lines[-1]).seq for lines in (rest, nothing_new)] == [end, end]
    assert len(nothing_new) == 1


def test_export_without_seals_contains_only_checkpoint(world: World) -> None:
    [line] = lines_of(world.admin.api.get(export_path(world)))

    assert (Checkpoint.read(line).seq, Checkpoint.read(line).hash) == (0, GENESIS)


@pytest.mark.parametrize(
    ("query", "parameter"),
    [("after_seq=-1", "after_seq"), ("after_seq=x", "after_seq"), ("after_seq=100000", "after_seq"), ("x=1", "x")],
)
def test_invalid_after_seq_and_unknown_parameter_are_rejected(
    world: World, seals: Any, query: str, parameter: str
) -> None:
    response = world.admin.api.get(export_path(world, f"?{query}"))

    assert response.status_code == 400
    assert [e["parameter"] for e in response.json()["errors"]] == [parameter]


def test_export_from_time_includes_all_later_events(world: World, seals: Any) -> None:
    """An event of a long transaction is older than the first event after the given time, but is sealed later."""
    now = timezone.now() + timedelta(hours=3)

    def seal(minutes: int) -> int:
        at = now + timedelta(minutes=minutes)
        event = AuditEvent.objects.create(
            id=smallest_uuid7(at), organization=world.organization, outcome="success", timestamp=at
        )
        ledger.seal_chain(world.organization.pk)
        return AuditSeal.objects.get(event=event).seq

    later, late = seal(10), seal(-30)

    assert later < late
    assert ledger.find_seq_before(world.organization, now) == later - 1


@pytest.mark.parametrize("moment", [datetime(1, 1, 1, tzinfo=UTC), datetime(1960, 1, 1, tzinfo=UTC)])
def test_export_from_time_before_first_event_starts_at_first_event(world: World, seals: Any, moment: datetime) -> None:
    assert ledger.find_seq_before(world.organization, moment) == 0


def test_export_requires_permission_to_read_ledger(world: World, other: World) -> None:
    assert world.project_admin.api.get(export_path(world)).status_code == 403
    assert other.admin.api.get(export_path(world)).status_code == 404

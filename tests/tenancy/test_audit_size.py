"""The changes of an audit event take at most 8 KiB. Values that do not fit are replaced by their size and hash."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
import rfc8785
from django.db import IntegrityError, connection, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.tenancy.actors import system_actor
from apps.tenancy.audit_changes import fit
from apps.tenancy.models import AuditEvent
from apps.tenancy.services import audit, ledger
from apps.tenancy.services.ledger import Verification
from byteor_cloud.ids import uuid7
from tests.worlds import World

LIMIT = 8192
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=6,
)
# Values are repeated so that the size of many examples is close to the limit.
LONG = st.tuples(VALUES, st.integers(1, 400)).map(lambda drawn: [drawn[0]] * drawn[1])
CHANGES = st.dictionaries(TEXT, VALUES | LONG | st.tuples(VALUES | LONG, VALUES | LONG).map(list), max_size=6)


def as_digest(value: object) -> dict[str, Any]:
    """Return the size and hash that replace a long value, computed from its canonical JSON by another library."""
    text = rfc8785.dumps(value)  # type: ignore[arg-type]  # its parameter's type is private to the library
    return {"size": len(text), "sha256": f"sha256:{hashlib.sha256(text).hexdigest()}"}


def is_digest(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"size", "sha256"}


def bytes_in_database(value: object) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT octet_length((%s::jsonb)::text)", [json.dumps(value)])
        return int(cursor.fetchone()[0])


@pytest.mark.django_db
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(CHANGES)
def test_changes_are_shortened_to_size_limit_only_if_necessary(changes: dict[str, Any]) -> None:
    before = json.dumps(changes)

    fitted = fit(changes)

    assert json.dumps(changes) == before  # the caller's values are not modified
    assert bytes_in_database(fitted) <= LIMIT
    assert fit(changes) == fitted == fit(fitted)
    # Nothing is shortened needlessly or left out. Python and PostgreSQL write floats such as 1e16 in different lengths.
    written = len(json.dumps(changes, ensure_ascii=False).encode())
    if max(written, bytes_in_database(changes)) < LIMIT - 2 * before.count("."):
        assert fitted == changes
    if not is_digest(fitted):
        assert fitted.keys() == changes.keys()
        for name, value in changes.items():
            for old, new in zip(*map(parts, (value, fitted[name])), strict=True):
                assert new == old or is_digest(new), name


def parts(value: Any) -> list[Any]:
    return value if isinstance(value, list) and len(value) == 2 else [value]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"a": "x" * (LIMIT - 9)}, {"a": "x" * (LIMIT - 9)}),  # {"a": "…"} takes nine more bytes
        ({"a": "x" * (LIMIT - 8)}, {"a": as_digest("x" * (LIMIT - 8))}),
        # Only the longest values are replaced. An old and a new value count as two values.
        ({"a": ["old", "é" * 5000], "b": 1}, {"a": ["old", as_digest("é" * 5000)], "b": 1}),
        ({"a": "x" * 5000, "b": "y" * 5001}, {"a": "x" * 5000, "b": as_digest("y" * 5001)}),
        ({"a": "x" * 5000, "b": "y" * 5000}, {"a": as_digest("x" * 5000), "b": "y" * 5000}),
        ({"a": {"z": ["q"] * 3000, "b": 1}}, {"a": as_digest({"b": 1, "z": ["q"] * 3000})}),
    ],
    ids=["longest", "longer by one", "new value", "longest of two", "equally long", "object"],
)
def test_longest_values_are_replaced_by_size_and_hash_only_above_limit(
    changes: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert fit(changes) == expected


def test_too_many_values_are_replaced_by_one_size_and_hash() -> None:
    changes = {f"field-{number}": [None, number] for number in range(1000)}

    assert fit(changes) == as_digest(changes)


@pytest.mark.django_db
def test_database_rejects_changes_above_size_limit(world: World) -> None:
    def insert(size: int) -> None:
        """Insert an event without calling the function that shortens changes."""
        changes = {"a": "x" * (size - len('{"a": ""}'))}
        with transaction.atomic():
            AuditEvent.objects.create(
                id=uuid7(), organization=world.organization, action="x", outcome="success", resource_kind="x",
                resource_id="x", actor_kind="system", actor_id="x", actor_display="x", changes=changes,
            )  # fmt: skip

    insert(LIMIT)
    with pytest.raises(IntegrityError, match="tenancy_auditevent_changes_size"):
        insert(LIMIT + 1)


@pytest.mark.django_db
def test_events_of_largest_labels_are_shortened_and_sealed(world: World) -> None:
    agent, _ = world.agent(zone="a")
    path = world.path(rest=f"/agents/{agent.pk}")
    labels = {f"{number:03}{'k' * 125}": "値" * 255 for number in range(63)}

    for given_labels in (labels, {"zone": "b"}):
        assert world.operator.api.patch(path, {"labels": given_labels}).status_code == 200
    many = {"selector": {"zone": "b"}, "set": labels}
    assert world.project_admin.api.post(world.path(rest="/agents/labels"), many).status_code == 200

    first, second = AuditEvent.objects.filter(action="agent.update").order_by("id")
    assert first.changes == {"labels": [{"zone": "a"}, as_digest(labels)]}
    assert second.changes == {"labels": [as_digest(labels), {"zone": "b"}]}
    changed = AuditEvent.objects.get(action="agent.label").changes
    assert changed["set"] == as_digest(labels)
    listed = world.admin.api.get(f"/api/v1/orgs/{world.organization.pk}/audit-events?action=agent.update").json()
    assert listed["results"][1]["changes"] == first.changes
    assert max(bytes_in_database(event.changes) for event in AuditEvent.objects.all()) <= LIMIT
    ledger.seal_all()
    assert list(Verification(world.organization.pk).faults()) == []


@pytest.mark.django_db
def test_large_changes_of_events_recorded_in_bulk_are_shortened(world: World) -> None:
    entry = audit.Entry("x", system_actor("test"), world.dev, ("x", "x"), {"before": ["y" * 9000]})

    audit.record_all([entry] * 3)

    changes = [event.changes for event in AuditEvent.objects.filter(action="x")]
    assert changes == [{"before": as_digest(["y" * 9000])}] * 3

"""The audit trail, its seals and the counts of denials."""

from __future__ import annotations

from apps.tenancy.models import AuditEvent, AuditSeal, DenialCount
from apps.tenancy.services import audit, ledger
from tests.permissions import ADMIN, OPERATE_PROJECT
from tests.resources import Call, O, Page, Place, Resource, Table


def event(place: Place) -> AuditEvent:
    return AuditEvent.objects.filter(organization=place.world.organization).latest("id")


def seal(place: Place) -> AuditSeal:
    ledger.seal_chain(place.world.organization.pk)
    return AuditSeal.objects.latest("pk")


def denials(place: Place) -> DenialCount:
    audit.count_denial(place.name("test"), actor=place.world.viewer.actor, organization_id=place.world.organization.pk)
    return DenialCount.objects.latest("pk")


RESOURCE = Resource(
    calls=(
        Call("listAuditEvents", "GET", O + "/audit-events", ADMIN, null=frozenset({"changes"})),
        Call("exportAuditEvents", "GET", O + "/audit-events/export", ADMIN),
    ),
    tables=(
        Table(
            "tenancy.auditevent", OPERATE_PROJECT, event, large=frozenset({"changes"}), in_organization=ADMIN,
            # Unlike the API operation, the CSV file contains only the events that the console lists for the person.
            pages={
                "tenancy_auditevent_csv": Page("listAuditEvents", of_row=False, is_file=True, needs=OPERATE_PROJECT),
            },
        ),
        Table("tenancy.auditseal", ADMIN, seal),
        Table("tenancy.denialcount", ADMIN, denials),
        Table("tenancy.repeatedevent", large=frozenset({"changes"})),
    ),
)  # fmt: skip

"""The view that lists and exports an organization's audit events."""

from __future__ import annotations

from typing import Any

from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse
from rest_framework.request import Request

from apps.tenancy.api.base import OrganizationViewSet
from apps.tenancy.api.serializers.audit import AuditEventSerializer
from apps.tenancy.models import AuditEvent
from apps.tenancy.permissions import Permission as P
from apps.tenancy.services import ledger
from byteor_cloud.api import bodies
from byteor_cloud.api.mixins import ListModelMixin
from byteor_cloud.api.operations import Operation, Tag
from byteor_cloud.api.parameters import (
    choice_parameter,
    id_parameter,
    integer_parameter,
    line_parameter,
    time_parameter,
)


class AuditEventViewSet(ListModelMixin, OrganizationViewSet):
    """The organization's audit events."""

    tag = Tag.AUDIT
    queryset = AuditEvent.objects.select_related("seal")
    serializer_class = AuditEventSerializer
    filters = {
        "action": line_parameter("action"),
        "outcome": choice_parameter(["success", "denied", "error"], "outcome"),
        "actor_id": line_parameter("actor_id", description="Returns only events whose actor has this id."),
        "resource_kind": line_parameter(
            "resource_kind", description="Returns only events whose resource is of this kind."
        ),
        "resource_id": line_parameter("resource_id", description="Returns only events whose resource has this id."),
        "project_id": id_parameter(
            "project_id",
            description="Returns only events of the project with this id, or of resources that belong to it.",
        ),
        "environment_id": id_parameter(
            "environment_id",
            description="Returns only events of the environment with this id, or of resources that belong to it.",
        ),
        "after": time_parameter("timestamp__gte", description="Returns only events at or after this time."),
        "before": time_parameter("timestamp__lt", description="Returns only events before this time."),
    }
    operations = {
        "list": Operation(
            "listAuditEvents",
            P.MANAGE_ORG_MEMBERSHIPS,
            "List audit events",
            "Returns the state changes, denials and sign-ins of the organization, newest first. Events are "
            "append-only.",
        ),
    }

    @Operation(
        "exportAuditEvents",
        P.MANAGE_ORG_MEMBERSHIPS,
        parameters={
            "after_seq": integer_parameter(
                0, (1 << 63) - 1, description="Returns only events after the one with this `seq`.", default=0
            )
        },
        responses={
            (200, "application/x-ndjson"): OpenApiResponse(
                OpenApiTypes.BINARY,
                "One line for each event, ordered by `seq`: `seq`, `prev_hash`, `hash` and the `event`. The last line "
                "is the `checkpoint` (`v`, `org_id`, `seq`, `hash`, `created_at`, `kid`) with its `signature`: Ed25519 "
                "over the checkpoint's RFC 8785 JSON. An export without a checkpoint is incomplete. `byteor-verify "
                "ledger` checks the whole export. If you used `after_seq`, pass the same number as `--after`.",
            )
        },
    )
    def export(self, request: Request, **kwargs: Any) -> StreamingHttpResponse:
        """Export the ledger.

        Returns the sealed audit events as newline-delimited JSON, ordered by `seq`. The last line is a signed
        checkpoint; `byteor-verify ledger` checks the export offline.
        """
        lines = ledger.export_lines(self.organization, after_seq=self.parameter_values.get("after_seq", 0))
        return StreamingHttpResponse(
            bodies.join_lines(lines),
            content_type="application/x-ndjson",
            headers={"Content-Disposition": f'attachment; filename="{self.organization.slug}-ledger.ndjson"'},
        )

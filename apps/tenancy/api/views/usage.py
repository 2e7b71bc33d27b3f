"""The view of an organization's quotas and usage."""

from __future__ import annotations

from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from apps.tenancy.api.base import OrganizationViewSet
from apps.tenancy.api.serializers.usage import UsageSerializer
from apps.tenancy.models import OrganizationQuotas
from apps.tenancy.permissions import Permission as P
from apps.tenancy.services.usage import read_usage
from byteor_cloud.api.operations import Operation, Tag


class UsageViewSet(OrganizationViewSet):
    """The quotas and the usage of the organization."""

    tag = Tag.ORGANIZATIONS
    queryset = OrganizationQuotas.objects.none()
    serializer_class = UsageSerializer

    @Operation("getUsage", P.VIEW_ORG, responses=UsageSerializer)
    def usage(self, request: Request, **kwargs: Any) -> Response:
        """Get the quotas and usage of an organization.

        Returns the organization's quotas, its current usage, and its usage by month. A request that would exceed a
        quota fails with 409. The problem's `type` is then `urn:byteor:problem:quota.NAME`, and the problem contains the
        `limit` and the amount `used`. Quotas never limit reads, heartbeats, reports, rollbacks or deletions.
        """
        return Response(UsageSerializer(read_usage(self.organization)).data)

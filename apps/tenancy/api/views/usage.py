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
    """What the organization may use, and what it uses."""

    tag = Tag.ORGANIZATIONS
    queryset = OrganizationQuotas.objects.none()
    serializer_class = UsageSerializer

    @Operation("getUsage", P.VIEW_ORG, responses=UsageSerializer)
    def usage(self, request: Request, **kwargs: Any) -> Response:
        """Get quotas and usage of an organization.

        Returns the quotas of the organization, what it uses now, and what it used in each of the last months. Whatever
        would exceed a quota is refused with 409: the type is `urn:byteor:problem:quota.NAME`, and `limit` and `used`
        say why. Reads, heartbeats, reports, rollbacks and deletions always work.
        """
        return Response(UsageSerializer(read_usage(self.organization)).data)

"""The view of an organization's quotas and usage."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.tenancy.api import operations
from apps.tenancy.api import serializers as s
from apps.tenancy.api.base import OrganizationViewSet
from apps.tenancy.models import OrganizationQuotas
from apps.tenancy.permissions import Permission as P
from apps.tenancy.services.usage import read_usage


class UsageViewSet(OrganizationViewSet):
    """What the organization may use, and what it uses."""

    operations = operations.USAGE
    queryset = OrganizationQuotas.objects.none()
    serializer_class = s.UsageSerializer
    permissions = {"usage": P.VIEW_ORG}

    @extend_schema(responses=s.UsageSerializer)
    def usage(self, request: Request, **kwargs: Any) -> Response:
        """Return the quotas, the present use and the use of the last months."""
        return Response(s.UsageSerializer(read_usage(self.organization)).data)

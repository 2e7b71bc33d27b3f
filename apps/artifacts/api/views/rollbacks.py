"""The view that rolls back deployments."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet

from apps.artifacts.api import commands as c
from apps.releases.api.serializers.deployments import DeploymentSerializer
from apps.releases.api.views.deployments import DeploymentViewSet
from apps.releases.services import progress
from apps.tenancy.api.base import EnvironmentViewSet
from byteor_cloud.api.operations import Tag


class RollbackViewSet(EnvironmentViewSet):
    """Rollbacks of deployments. They are in this app because a replay may have to prove them."""

    tag = Tag.DEPLOYMENTS
    queryset = DeploymentViewSet.queryset
    serializer_class = DeploymentSerializer
    commands = (c.rollback,)

    def narrow(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        counted: QuerySet[Any] = queryset.annotate(by_progress=progress.of_each_deployment())
        return counted

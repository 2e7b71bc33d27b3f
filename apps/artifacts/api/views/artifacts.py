"""Views that list, retrieve and download artifacts."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.http import FileResponse
from drf_spectacular.types import OpenApiTypes
from rest_framework.request import Request

from apps.artifacts.api import commands as c
from apps.artifacts.api.serializers.artifacts import ArtifactSerializer
from apps.artifacts.models import Artifact
from apps.tenancy.api.base import EnvironmentViewSet
from apps.tenancy.permissions import Permission as P
from byteor.engine.machines import ArtifactStatus
from byteor_cloud.api.filters import BY_CREATION
from byteor_cloud.api.mixins import ListModelMixin, RetrieveMixin
from byteor_cloud.api.operations import Operation, Tag
from byteor_cloud.api.parameters import choice_parameter, id_parameter, sha256_parameter, time_parameter
from byteor_cloud.storage import blobs


class ArtifactViewSet(RetrieveMixin, ListModelMixin, EnvironmentViewSet):
    """The artifacts of an environment."""

    tag = Tag.ARTIFACTS
    queryset = Artifact.objects.select_related("deployment__config_bundle")
    serializer_class = ArtifactSerializer
    filters = {
        **BY_CREATION,
        "kind": choice_parameter(Artifact.Kind.values, "kind"),
        "status": choice_parameter(ArtifactStatus, "status"),
        "agent_id": id_parameter("agent_id"),
        "deployment_id": id_parameter("deployment_id"),
        "version_id": id_parameter("version_id"),
        "spec_hash": sha256_parameter("spec_hash"),
        "captured_after": time_parameter(
            "captured_at__gte", description="Returns only artifacts captured at or after this time."
        ),
        "captured_before": time_parameter(
            "captured_at__lt", description="Returns only artifacts captured before this time."
        ),
    }
    operations = {
        "list": Operation(
            "listArtifacts",
            P.VIEW_ENVIRONMENT,
            "List artifacts",
            "Returns the artifacts of the environment, newest first.",
        ),
        "retrieve": Operation(
            "getArtifact",
            P.VIEW_ENVIRONMENT,
            "Get an artifact",
            "Returns the artifact. After its check, `status` and `reasons` contain the result.",
        ),
    }
    commands = (c.replay, c.bisect)

    def narrow(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Also select the environment and project, except for lists, which do not need them."""
        return queryset if self.is_list(self.action) else queryset.select_related("environment__project")

    # Operators only: the content may include captured records, which viewers may not see.
    @Operation(
        "downloadArtifact", P.OPERATE_ENVIRONMENT, responses={(200, "application/octet-stream"): OpenApiTypes.BINARY}
    )
    def content(self, request: Request, **kwargs: Any) -> FileResponse:
        """Download an artifact.

        Returns the unchanged content of the artifact.
        """
        artifact = self.get_object()
        response = FileResponse(
            blobs.read(artifact.content_hash),
            as_attachment=True,
            filename=artifact.download_name,
            content_type="application/octet-stream",
        )
        response["ETag"] = f'"{artifact.content_hash}"'
        return response

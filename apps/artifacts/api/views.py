"""API views of artifacts and replays, and the upload route of agents."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.http import FileResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.artifacts.api import operations
from apps.artifacts.api import serializers as s
from apps.artifacts.models import Artifact, Replay
from apps.artifacts.services import replays, uploads
from apps.fleet.api.base import AgentSelfViewSet
from apps.tenancy.api.base import SIGNED_IN, EnvironmentViewSet
from apps.tenancy.api.filters import BY_CREATION
from apps.tenancy.api.mixins import ListModelMixin, RetrieveMixin
from apps.tenancy.api.sizes import defer_large_json
from apps.tenancy.permissions import Permission as P
from byteor_cloud import blobs
from byteor_cloud.api.parameters import choice_parameter, id_parameter, sha256_parameter, time_parameter
from byteor_cloud.api.parsers import UploadParser
from byteor_cloud.engine.machines import ArtifactStatus, ReplayStatus
from byteor_cloud.errors import Conflict, InsufficientStorage, LengthRequired, Unprocessable


class UploadViewSet(AgentSelfViewSet):
    """The route on which an agent uploads artifacts."""

    operations = operations.UPLOAD
    queryset = Artifact.objects.none()
    serializer_class = s.UploadSerializer
    parser_classes = [UploadParser]
    errors = {"create": (Conflict, LengthRequired, InsufficientStorage)}
    takes_idempotency_key = False
    permissions = {"create": SIGNED_IN}
    agent_scope = "agent:artifact_upload"
    body_cap = "max_upload_bytes"
    body_allowance = 1 << 20

    @extend_schema(
        request={"multipart/form-data": s.UploadSerializer},
        responses={201: s.ArtifactSerializer, 200: s.ArtifactSerializer},
    )
    def create(self, request: Request, **kwargs: Any) -> Response:
        """Store an uploaded artifact. Returns 200 instead of 201 if the environment already has the same content."""
        body = s.UploadSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        file = body.validated_data.pop("file")
        artifact, is_new = uploads.receive(
            environment=self.environment,
            agent=self.agent,
            content_hash=file.content_hash,
            file=file,
            actor=self.actor,
            **body.validated_data,
        )
        return Response(s.ArtifactSerializer(artifact).data, status=201 if is_new else 200)


class ArtifactViewSet(RetrieveMixin, ListModelMixin, EnvironmentViewSet):
    """Artifacts of an environment."""

    operations = operations.ARTIFACT
    queryset = Artifact.objects.select_related("deployment__config_bundle")
    serializer_class = s.ArtifactSerializer
    filters = {
        **BY_CREATION,
        "kind": choice_parameter(Artifact.Kind.values, "kind"),
        "status": choice_parameter(ArtifactStatus, "status"),
        "agent_id": id_parameter("agent_id"),
        "deployment_id": id_parameter("deployment_id"),
        "version_id": id_parameter("version_id"),
        "spec_hash": sha256_parameter("spec_hash"),
        "captured_after": time_parameter(
            "captured_at__gte", description="Only artifacts captured at this time or later."
        ),
        "captured_before": time_parameter("captured_at__lt", description="Only artifacts captured before this time."),
    }
    errors = {"replay": (Conflict, Unprocessable)}
    permissions = {
        "list": P.VIEW_ENVIRONMENT,
        "retrieve": P.VIEW_ENVIRONMENT,
        # Captured records may contain data that operators may see and viewers may not.
        "content": P.OPERATE_ENVIRONMENT,
        "replay": P.OPERATE_ENVIRONMENT,
    }

    def get_serializer_class(self) -> type[s.ArtifactSerializer]:
        return s.ListedArtifactSerializer if self.action == "list" else s.ArtifactSerializer

    def narrow(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return defer_large_json(queryset, "metadata") if self.action == "list" else queryset

    @extend_schema(responses={(200, "application/octet-stream"): OpenApiTypes.BINARY})
    def content(self, request: Request, **kwargs: Any) -> FileResponse:
        """Return the bytes of the artifact as uploaded."""
        artifact = self.get_object()
        response = FileResponse(
            blobs.read(artifact.content_hash),
            as_attachment=True,
            filename=f"{artifact.kind}-{artifact.pk}",
            content_type="application/octet-stream",
        )
        response["ETag"] = f'"{artifact.content_hash}"'
        return response

    @extend_schema(request=s.ReplayArtifactSerializer, responses={202: s.ReplaySerializer})
    def replay(self, request: Request, **kwargs: Any) -> Response:
        """Request a replay of the artifact: a dry run unless ``execute`` is requested and permitted."""
        artifact = self.get_object()
        body = s.ReplayArtifactSerializer(data=request.data, context=self.get_serializer_context())
        body.is_valid(raise_exception=True)
        replay = replays.request(artifact, environment=self.environment, actor=self.actor, **body.validated_data)
        location = request.path.rsplit("/artifacts/", 1)[0] + f"/replays/{replay.pk}"
        return Response(s.ReplaySerializer(replay).data, status=202, headers={"Location": location})


class ReplayViewSet(RetrieveMixin, ListModelMixin, EnvironmentViewSet):
    """Replays of an environment."""

    operations = operations.REPLAY
    queryset = Replay.objects.all()
    serializer_class = s.ReplaySerializer
    filters = {
        **BY_CREATION,
        "status": choice_parameter(ReplayStatus, "status"),
        "mode": choice_parameter(Replay.Mode.values, "mode"),
        "artifact_id": id_parameter("artifact_id"),
        "version_id": id_parameter("version_id"),
    }
    errors = {"cancel": (Conflict,)}
    permissions = {"list": P.VIEW_ENVIRONMENT, "retrieve": P.VIEW_ENVIRONMENT, "cancel": P.OPERATE_ENVIRONMENT}

    @extend_schema(request=s.CancelSerializer, responses=s.ReplaySerializer)
    def cancel(self, request: Request, **kwargs: Any) -> Response:
        """End a queued or running dry run."""
        body = s.CancelSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        return self.represent(replays.cancel(self.get_object(), actor=self.actor, **body.validated_data))

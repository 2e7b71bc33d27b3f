"""API views of artifacts and replays, and the upload route of agents."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.http import FileResponse, HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.artifacts.api import operations
from apps.artifacts.api import reading as r
from apps.artifacts.api import serializers as s
from apps.artifacts.models import Artifact, Bisect, Replay
from apps.artifacts.services import bisects, captures, replays, uploads
from apps.fleet.api.base import AgentSelfViewSet
from apps.tenancy.api.base import SIGNED_IN, EnvironmentViewSet
from apps.tenancy.api.mixins import ListModelMixin, RetrieveMixin
from apps.tenancy.permissions import Permission as P
from byteor.engine.machines import ArtifactStatus, BisectStatus, ReplayStatus
from byteor.engine.replay import BisectOutcome
from byteor_cloud.api.bodies import declared_length
from byteor_cloud.api.computing_lane import lane
from byteor_cloud.api.filters import BY_CREATION
from byteor_cloud.api.parameters import (
    choice_parameter,
    id_parameter,
    integer_parameter,
    line_parameter,
    sha256_parameter,
    time_parameter,
)
from byteor_cloud.api.parsers import UploadParser
from byteor_cloud.computing.computations import compare_body, page_body
from byteor_cloud.errors import (
    Conflict,
    InsufficientStorage,
    InvalidInput,
    LengthRequired,
    NotFound,
    QuotaExceeded,
    Unavailable,
    Unprocessable,
)
from byteor_cloud.storage import blobs

_MAX_POSITION = 2**63 - 1
_MAX_SEQUENCE = 2**64 - 1


class UploadViewSet(AgentSelfViewSet):
    """The route on which an agent uploads artifacts."""

    operations = operations.UPLOAD
    queryset = Artifact.objects.none()
    serializer_class = s.UploadSerializer
    parser_classes = [UploadParser]
    errors = {"create": (Conflict, QuotaExceeded, LengthRequired, InsufficientStorage)}
    takes_idempotency_key = False
    permissions = {"create": SIGNED_IN}
    agent_scope = "agent:artifact_upload"
    body_cap = "max_upload_bytes"
    body_allowance = 1 << 20

    def admit_body(self, request: Request) -> bool:
        """Refuse a body that would surely exceed the quota before it is received."""
        has_body = super().admit_body(request)
        uploads.check_declared_size(self.agent, declared_length(request._request), self.body_allowance)
        return has_body

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
    errors = {"replay": (Conflict, Unprocessable), "bisect": (Conflict, Unprocessable)}
    permissions = {
        "list": P.VIEW_ENVIRONMENT,
        "retrieve": P.VIEW_ENVIRONMENT,
        # Captured records may contain data that operators may see and viewers may not.
        "content": P.OPERATE_ENVIRONMENT,
        "replay": P.OPERATE_ENVIRONMENT,
        "bisect": P.OPERATE_ENVIRONMENT,
    }

    @extend_schema(responses={(200, "application/octet-stream"): OpenApiTypes.BINARY})
    def content(self, request: Request, **kwargs: Any) -> FileResponse:
        """Return the bytes of the artifact as uploaded."""
        artifact = self.get_object()
        response = FileResponse(
            blobs.read(artifact.content_hash),
            as_attachment=True,
            filename=artifact.download_name,
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

    @extend_schema(request=s.BisectArtifactSerializer, responses={202: s.BisectSerializer})
    def bisect(self, request: Request, **kwargs: Any) -> Response:
        """Request a bisect of the artifact's pipeline."""
        artifact = self.get_object()
        body = s.BisectArtifactSerializer(data=request.data, context=self.get_serializer_context())
        body.is_valid(raise_exception=True)
        bisect = bisects.request(artifact, environment=self.environment, actor=self.actor, **body.validated_data)
        location = request.path.rsplit("/artifacts/", 1)[0] + f"/bisects/{bisect.pk}"
        return Response(s.BisectSerializer(bisect).data, status=202, headers={"Location": location})


class BisectViewSet(RetrieveMixin, ListModelMixin, EnvironmentViewSet):
    """Bisects of an environment."""

    operations = operations.BISECT
    queryset = Bisect.objects.all()
    serializer_class = s.BisectSerializer
    filters = {
        **BY_CREATION,
        "status": choice_parameter(BisectStatus, "status"),
        "outcome": choice_parameter(BisectOutcome, "outcome"),
        "artifact_id": id_parameter("artifact_id"),
    }
    permissions = {"list": P.VIEW_ENVIRONMENT, "retrieve": P.VIEW_ENVIRONMENT}


class CaptureViewSet(EnvironmentViewSet):
    """What a verified incident bundle holds."""

    operations = operations.CAPTURE
    queryset = Artifact.objects.select_related("environment__project")
    serializer_class = s.ArtifactSerializer
    parameters = {
        "files": {
            "path": line_parameter(max_length=1024, description="Download the file with this path."),
            "after": line_parameter(max_length=1024, description="List the files after this path."),
        },
        "journal": {
            "after": integer_parameter(0, _MAX_POSITION, description="Begin after the record at this position."),
            "sequence": integer_parameter(
                0, _MAX_SEQUENCE, description="Begin at the first record with at least this sequence."
            ),
            "time": time_parameter(description="Begin at the first record at this time or later."),
            "limit": integer_parameter(1, 200, description="The most records of a page.", default=50),
        },
    }
    errors = {"files": (Conflict,), "journal": (Conflict, Unavailable)}
    # Captured records may contain data that operators may see and viewers may not.
    permissions = {"files": P.OPERATE_ENVIRONMENT, "journal": P.OPERATE_ENVIRONMENT}

    @extend_schema(
        responses={
            (200, "application/json"): r.ArtifactFilesSerializer,
            (200, "application/octet-stream"): OpenApiTypes.BINARY,
        }
    )
    def files(self, request: Request, **kwargs: Any) -> Response | FileResponse:
        """List the files, or return one as an attachment."""
        artifact = self.get_object()
        if (path := self.parameter_values.get("path")) is None:
            return Response(captures.page_of_files(artifact, self.parameter_values.get("after", "")))
        return FileResponse(
            captures.open_file(artifact, path),
            as_attachment=True,
            filename=f"{artifact.pk}.bin",
            content_type="application/octet-stream",
        )

    @extend_schema(responses=r.JournalPageSerializer)
    def journal(self, request: Request, **kwargs: Any) -> HttpResponse:
        """Return a page of a journal."""
        begins = [name for name in ("after", "sequence", "time") if name in self.parameter_values]
        if len(begins) > 1:
            raise InvalidInput.at_parameter(begins[1], f"Send only one of {' and '.join(begins)}.")
        artifact, options = self.get_object(), self.parameter_values
        body = captures.read_journal(artifact, self.kwargs["lane"], page_body, compute=self.compute, **options)
        return HttpResponse(body, content_type="application/json")


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
    parameters = {
        "compare": {"with": id_parameter(required=True, description="The replay to compare with.")},
        "trace": {
            "sequence": integer_parameter(0, _MAX_SEQUENCE, required=True, description="The sequence of the record."),
            "ingress": line_parameter(description="The ingress of the record. Default: all that are replayed."),
            "after": integer_parameter(0, _MAX_POSITION, description="Begin after the step with this number."),
        },
    }
    errors = {"cancel": (Conflict,), "compare": (Conflict,), "trace": (Conflict, Unavailable)}
    permissions = {
        "list": P.VIEW_ENVIRONMENT,
        "retrieve": P.VIEW_ENVIRONMENT,
        "cancel": P.OPERATE_ENVIRONMENT,
        "compare": P.OPERATE_ENVIRONMENT,
        "trace": P.OPERATE_ENVIRONMENT,
    }

    @extend_schema(request=s.CancelSerializer, responses=s.ReplaySerializer)
    def cancel(self, request: Request, **kwargs: Any) -> Response:
        """End a queued or running dry run."""
        body = s.CancelSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        return self.represent(replays.cancel(self.get_object(), actor=self.actor, **body.validated_data))

    @extend_schema(responses=r.ComparisonSerializer)
    def compare(self, request: Request, **kwargs: Any) -> HttpResponse:
        """Compare the result with another replay's."""
        other = self.get_queryset().filter(pk=self.parameter_values["with"]).first()
        if other is None:
            raise NotFound("There is no replay to compare with.")
        body = captures.compare_replays(self.get_object(), other, compare_body, compute=self.compute)
        return HttpResponse(body, content_type="application/json")

    @extend_schema(responses=r.TraceSerializer)
    def trace(self, request: Request, **kwargs: Any) -> HttpResponse:
        """Follow a record through the pipeline."""
        body = captures.trace_record(self.get_object(), **self.parameter_values, lane=partial(lane, request._request))
        return HttpResponse(body, content_type="application/json")

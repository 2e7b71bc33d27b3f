"""API views of artifacts and replays, and the upload route of agents."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.http import FileResponse, HttpResponse
from drf_spectacular.types import OpenApiTypes
from rest_framework.request import Request
from rest_framework.response import Response

from apps.artifacts.api import reading as r
from apps.artifacts.api import serializers as s
from apps.artifacts.models import Artifact, Bisect, Replay
from apps.artifacts.services import bisects, cancellation, captures, replays, uploads
from apps.fleet.api.base import AgentSelfViewSet
from apps.tenancy.api.base import SIGNED_IN, EnvironmentViewSet
from apps.tenancy.permissions import Permission as P
from byteor.engine.machines import ArtifactStatus, BisectStatus, ReplayStatus
from byteor.engine.replay import BisectOutcome
from byteor_cloud.api.bodies import declared_length
from byteor_cloud.api.computing_lane import lane
from byteor_cloud.api.filters import BY_CREATION
from byteor_cloud.api.mixins import ListModelMixin, RetrieveMixin
from byteor_cloud.api.operations import Operation, Tag
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

    tag = Tag.AGENTS
    queryset = Artifact.objects.none()
    serializer_class = s.UploadSerializer
    parser_classes = [UploadParser]
    agent_scope = "agent:artifact_upload"
    body_cap = "max_upload_bytes"
    body_allowance = 1 << 20

    def admit_body(self, request: Request) -> bool:
        """Refuse a body that would surely exceed the quota before it is received."""
        has_body = super().admit_body(request)
        uploads.check_declared_size(self.agent, declared_length(request._request), self.body_allowance)
        return has_body

    @Operation(
        "uploadArtifact",
        SIGNED_IN,
        body={"multipart/form-data": s.UploadSerializer},
        responses={201: s.ArtifactSerializer, 200: s.ArtifactSerializer},
        errors=(Conflict, QuotaExceeded, LengthRequired, InsufficientStorage),
        example={"kind": "telemetry", "captured_at": "2026-11-24T12:00:00Z", "file": "…"},
        takes_idempotency_key=False,
    )
    def create(self, request: Request, **kwargs: Any) -> Response:
        """Upload an artifact.

        Called by an agent to upload an incident capture or telemetry. Uploading the same content again with the same
        kind, spec hash and deployment returns the existing artifact (200). If its check failed without a result
        (`check_failed` in `reasons`), it is checked again. A new artifact that would exceed a quota of the organization
        is not stored, and refused with `quota.stored_bytes` or, if it is an incident bundle, `quota.captures_per_day`.
        """
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

    tag = Tag.ARTIFACTS
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
    operations = {
        "list": Operation(
            "listArtifacts",
            P.VIEW_ENVIRONMENT,
            """List artifacts.

            Returns the artifacts that the environment's agents uploaded, newest first.
            """,
        ),
        "retrieve": Operation(
            "getArtifact",
            P.VIEW_ENVIRONMENT,
            """Get an artifact.

            Returns one artifact with the result of its check.
            """,
        ),
    }

    @Operation(
        "downloadArtifact", P.OPERATE_ENVIRONMENT, responses={(200, "application/octet-stream"): OpenApiTypes.BINARY}
    )
    def content(self, request: Request, **kwargs: Any) -> FileResponse:
        """Download an artifact.

        Returns the bytes as they were uploaded.
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

    @Operation(
        "replayArtifact",
        P.OPERATE_ENVIRONMENT,
        body=s.ReplayArtifactSerializer,
        responses={202: s.ReplaySerializer},
        errors=(Conflict, Unprocessable),
        example={"mode": "dry_run"},
    )
    def replay(self, request: Request, **kwargs: Any) -> Response:
        """Replay an artifact.

        Runs a verified incident bundle through a version again. By default this is a dry run. `execute` also performs
        the side effects that the environment's policy, an approval and the server's allowlists permit. Refused with 422
        if no version has the artifact's spec hash.
        """
        artifact = self.get_object()
        body = s.ReplayArtifactSerializer(data=request.data, context=self.get_serializer_context())
        body.is_valid(raise_exception=True)
        replay = replays.request(artifact, environment=self.environment, actor=self.actor, **body.validated_data)
        location = request.path.rsplit("/artifacts/", 1)[0] + f"/replays/{replay.pk}"
        return Response(s.ReplaySerializer(replay).data, status=202, headers={"Location": location})

    @Operation(
        "bisectArtifact",
        P.OPERATE_ENVIRONMENT,
        body=s.BisectArtifactSerializer,
        responses={202: s.BisectSerializer},
        errors=(Conflict, Unprocessable),
        example={"predicate": "fails"},
    )
    def bisect(self, request: Request, **kwargs: Any) -> Response:
        """Bisect an artifact.

        Searches the versions of a pipeline for the first that a verified incident bundle shows as bad. By default only
        the two ends and some versions between them are replayed; `exhaustive` replays all.
        """
        artifact = self.get_object()
        body = s.BisectArtifactSerializer(data=request.data, context=self.get_serializer_context())
        body.is_valid(raise_exception=True)
        bisect = bisects.request(artifact, environment=self.environment, actor=self.actor, **body.validated_data)
        location = request.path.rsplit("/artifacts/", 1)[0] + f"/bisects/{bisect.pk}"
        return Response(s.BisectSerializer(bisect).data, status=202, headers={"Location": location})


class BisectViewSet(RetrieveMixin, ListModelMixin, EnvironmentViewSet):
    """Bisects of an environment."""

    tag = Tag.ARTIFACTS
    queryset = Bisect.objects.all()
    serializer_class = s.BisectSerializer
    filters = {
        **BY_CREATION,
        "status": choice_parameter(BisectStatus, "status"),
        "outcome": choice_parameter(BisectOutcome, "outcome"),
        "artifact_id": id_parameter("artifact_id"),
    }
    operations = {
        "list": Operation(
            "listBisects",
            P.VIEW_ENVIRONMENT,
            """List bisects.

            Returns the environment's bisects, newest first.
            """,
        ),
        "retrieve": Operation(
            "getBisect",
            P.VIEW_ENVIRONMENT,
            """Get a bisect.

            Returns the bisect with the verdicts so far, and its outcome once it has ended.
            """,
        ),
    }


class CaptureViewSet(EnvironmentViewSet):
    """What a verified incident bundle holds."""

    tag = Tag.ARTIFACTS
    queryset = Artifact.objects.select_related("environment__project")
    serializer_class = s.ArtifactSerializer
    # Captured records may contain data that operators may see and viewers may not.

    @Operation(
        "listArtifactFiles",
        P.OPERATE_ENVIRONMENT,
        parameters={
            "path": line_parameter(max_length=1024, description="Download the file with this path."),
            "after": line_parameter(max_length=1024, description="List the files after this path."),
        },
        responses={
            (200, "application/json"): r.ArtifactFilesSerializer,
            (200, "application/octet-stream"): OpenApiTypes.BINARY,
        },
        errors=(Conflict,),
    )
    def files(self, request: Request, **kwargs: Any) -> Response | FileResponse:
        """List or download the files of an artifact.

        Returns path, size and SHA-256 of each file of a verified incident bundle. With `path` it returns the bytes of
        one file as an attachment. A list of more than 4 MiB is cut; `after` continues it.
        """
        artifact = self.get_object()
        if (path := self.parameter_values.get("path")) is None:
            return Response(captures.page_of_files(artifact, self.parameter_values.get("after", "")))
        return FileResponse(
            captures.open_file(artifact, path),
            as_attachment=True,
            filename=f"{artifact.pk}.bin",
            content_type="application/octet-stream",
        )

    @Operation(
        "readArtifactJournal",
        P.OPERATE_ENVIRONMENT,
        parameters={
            "after": integer_parameter(0, _MAX_POSITION, description="Begin after the record at this position."),
            "sequence": integer_parameter(
                0, _MAX_SEQUENCE, description="Begin at the first record with at least this sequence."
            ),
            "time": time_parameter(description="Begin at the first record at this time or later."),
            "limit": integer_parameter(1, 200, description="The most records of a page.", default=50),
        },
        responses=r.JournalPageSerializer,
        errors=(Conflict, Unavailable),
    )
    def journal(self, request: Request, **kwargs: Any) -> HttpResponse:
        """Read a journal of an artifact.

        Returns a page of the records of a lane, in sequence order. It begins after the position `after`, or at the
        first record with at least this `sequence`, or at this `time` or later. A page of more than 4 MiB ends early.
        """
        begins = [name for name in ("after", "sequence", "time") if name in self.parameter_values]
        if len(begins) > 1:
            raise InvalidInput.at_parameter(begins[1], f"Send only one of {' and '.join(begins)}.")
        artifact, options = self.get_object(), self.parameter_values
        body = captures.read_journal(artifact, self.kwargs["lane"], page_body, compute=self.compute, **options)
        return HttpResponse(body, content_type="application/json")


class ReplayViewSet(RetrieveMixin, ListModelMixin, EnvironmentViewSet):
    """Replays of an environment."""

    tag = Tag.ARTIFACTS
    queryset = Replay.objects.all()
    serializer_class = s.ReplaySerializer
    filters = {
        **BY_CREATION,
        "status": choice_parameter(ReplayStatus, "status"),
        "mode": choice_parameter(Replay.Mode.values, "mode"),
        "artifact_id": id_parameter("artifact_id"),
        "version_id": id_parameter("version_id"),
    }
    operations = {
        "list": Operation(
            "listReplays",
            P.VIEW_ENVIRONMENT,
            """List replays.

            Returns the environment's replays, newest first.
            """,
        ),
        "retrieve": Operation(
            "getReplay",
            P.VIEW_ENVIRONMENT,
            """Get a replay.

            Returns the replay with its result, once it has ended.
            """,
        ),
    }

    @Operation(
        "cancelReplay",
        P.OPERATE_ENVIRONMENT,
        body=s.CancelSerializer,
        responses=s.ReplaySerializer,
        errors=(Conflict,),
        example={"reason": "The wrong version was chosen."},
    )
    def cancel(self, request: Request, **kwargs: Any) -> Response:
        """Cancel a replay.

        Ends a queued or running dry run as `failed` with the error code `cancelled`.
        """
        body = s.CancelSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        return self.represent(cancellation.cancel(self.get_object(), actor=self.actor, **body.validated_data))

    @Operation(
        "compareReplays",
        P.OPERATE_ENVIRONMENT,
        parameters={"with": id_parameter(required=True, description="The replay to compare with.")},
        responses=r.ComparisonSerializer,
        errors=(Conflict,),
    )
    def compare(self, request: Request, **kwargs: Any) -> HttpResponse:
        """Compare two replays.

        Says where the results of two replays of the same records differ. In each pair the replay of the URL is first
        and the one in `with` second. A response of more than 4 MiB leaves out parts that are equal.
        """
        other = self.get_queryset().filter(pk=self.parameter_values["with"]).first()
        if other is None:
            raise NotFound("There is no replay to compare with.")
        body = captures.compare_replays(self.get_object(), other, compare_body, compute=self.compute)
        return HttpResponse(body, content_type="application/json")

    @Operation(
        "traceRecord",
        P.OPERATE_ENVIRONMENT,
        parameters={
            "sequence": integer_parameter(0, _MAX_SEQUENCE, required=True, description="The sequence of the record."),
            "ingress": line_parameter(description="The ingress of the record. Default: all that are replayed."),
            "after": integer_parameter(0, _MAX_POSITION, description="Begin after the step with this number."),
        },
        responses=r.TraceSerializer,
        errors=(Conflict, Unavailable),
    )
    def trace(self, request: Request, **kwargs: Any) -> HttpResponse:
        """Trace a record of a replay.

        Says what a record became at each stage and lane, why it was dropped, and which side effects it reached. Returns
        at most 4 MiB; `after` continues the trace. The trace is recomputed for each request, and 503 is returned if
        that takes longer than 10 s.
        """
        body = captures.trace_record(self.get_object(), **self.parameter_values, lane=partial(lane, request._request))
        return HttpResponse(body, content_type="application/json")

"""The files and journals of verified incident bundles."""

from __future__ import annotations

from typing import Any

from django.http import FileResponse, HttpResponse
from drf_spectacular.types import OpenApiTypes
from rest_framework.request import Request
from rest_framework.response import Response

from apps.artifacts.api.serializers.artifacts import ArtifactSerializer
from apps.artifacts.api.serializers.captures import ArtifactFilesSerializer, JournalPageSerializer
from apps.artifacts.models import Artifact
from apps.artifacts.services import captures
from apps.tenancy.api.base import EnvironmentViewSet
from apps.tenancy.permissions import Permission as P
from byteor_cloud.api.operations import Operation, Tag
from byteor_cloud.api.parameters import integer_parameter, line_parameter, time_parameter
from byteor_cloud.computing.computations import page_body
from byteor_cloud.errors import Conflict, InvalidInput, Unavailable

MAX_POSITION = 2**63 - 1


MAX_SEQUENCE = 2**64 - 1


class CaptureViewSet(EnvironmentViewSet):
    """What a verified incident bundle holds."""

    tag = Tag.ARTIFACTS
    queryset = Artifact.objects.select_related("environment__project")
    serializer_class = ArtifactSerializer

    # Captured records may contain data that operators may see and viewers may not.
    @Operation(
        "listArtifactFiles",
        P.OPERATE_ENVIRONMENT,
        parameters={
            "path": line_parameter(max_length=1024, description="Download the file with this path."),
            "after": line_parameter(max_length=1024, description="List the files after this path."),
        },
        responses={
            (200, "application/json"): ArtifactFilesSerializer,
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
            "after": integer_parameter(0, MAX_POSITION, description="Begin after the record at this position."),
            "sequence": integer_parameter(
                0, MAX_SEQUENCE, description="Begin at the first record with at least this sequence."
            ),
            "time": time_parameter(description="Begin at the first record at this time or later."),
            "limit": integer_parameter(1, 200, description="The most records of a page.", default=50),
        },
        responses=JournalPageSerializer,
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

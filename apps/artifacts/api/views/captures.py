"""Views of the files and journals in verified incident bundles."""

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
    """The files and journals in a verified incident bundle."""

    tag = Tag.ARTIFACTS
    queryset = Artifact.objects.select_related("environment__project")
    serializer_class = ArtifactSerializer

    # Operators only: captured records may contain data that viewers may not see.
    @Operation(
        "listArtifactFiles",
        P.OPERATE_ENVIRONMENT,
        parameters={
            "path": line_parameter(max_length=1024, description="The path of the file to download."),
            "after": line_parameter(
                max_length=1024, description="Returns only the files that follow this path in the sorted list."
            ),
        },
        responses={
            (200, "application/json"): ArtifactFilesSerializer,
            (200, "application/octet-stream"): OpenApiTypes.BINARY,
        },
        errors=(Conflict,),
    )
    def files(self, request: Request, **kwargs: Any) -> Response | FileResponse:
        """List or download the files of an artifact.

        Returns the path, size and SHA-256 of each file in a verified incident bundle. With `path`, returns the content
        of that file as an attachment. A page of the list is limited to 4 MiB; use `after` to get the next page.
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
            "after": integer_parameter(0, MAX_POSITION, description="Start after the record at this position."),
            "sequence": integer_parameter(
                0, MAX_SEQUENCE, description="Start at the first record with this sequence number or a higher one."
            ),
            "time": time_parameter(description="Start at the first record at or after this time."),
            "limit": integer_parameter(1, 200, description="The maximum number of records per page.", default=50),
        },
        responses=JournalPageSerializer,
        errors=(Conflict, Unavailable),
    )
    def journal(self, request: Request, **kwargs: Any) -> HttpResponse:
        """Read a journal of an artifact.

        Returns one page of the records of a lane, in sequence order. Use at most one of `after`, `sequence` and `time`
        to choose where the page starts. A page is limited to 4 MiB, so it may have fewer than `limit` records.
        """
        starts = [name for name in ("after", "sequence", "time") if name in self.parameter_values]
        if len(starts) > 1:
            raise InvalidInput.at_parameter(starts[1], f"Use only one of {' and '.join(starts)}.")
        artifact, options = self.get_object(), self.parameter_values
        body = captures.read_journal(artifact, self.kwargs["lane"], page_body, compute=self.compute, **options)
        return HttpResponse(body, content_type="application/json")

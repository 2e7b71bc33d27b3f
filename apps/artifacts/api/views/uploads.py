"""The view through which agents upload artifacts."""

from __future__ import annotations

from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from apps.artifacts.api.serializers.artifacts import ArtifactSerializer, UploadSerializer
from apps.artifacts.models import Artifact
from apps.artifacts.services import uploads
from apps.fleet.api.base import AgentSelfViewSet
from apps.tenancy.api.base import SIGNED_IN
from byteor_cloud.api.bodies import declared_length
from byteor_cloud.api.operations import Operation, Tag
from byteor_cloud.api.parsers import UploadParser
from byteor_cloud.errors import Conflict, InsufficientStorage, LengthRequired, QuotaExceeded


class UploadViewSet(AgentSelfViewSet):
    """The artifacts that an agent uploads."""

    tag = Tag.AGENTS
    queryset = Artifact.objects.none()
    serializer_class = UploadSerializer
    parser_classes = [UploadParser]
    agent_scope = "agent:artifact_upload"
    body_cap = "max_upload_bytes"
    body_allowance = 1 << 20

    def admit_body(self, request: Request) -> bool:
        """Return whether there is a body to read. Raises QuotaExceeded if the body would certainly exceed the quota."""
        has_body = super().admit_body(request)
        uploads.check_declared_size(self.agent, declared_length(request._request), self.body_allowance)
        return has_body

    @Operation(
        "uploadArtifact",
        SIGNED_IN,
        body=UploadSerializer,
        responses={201: ArtifactSerializer, 200: ArtifactSerializer},
        errors=(Conflict, QuotaExceeded, LengthRequired, InsufficientStorage),
        example={"kind": "telemetry", "captured_at": "2026-11-24T12:00:00Z", "file": "…"},
        takes_idempotency_key=False,
    )
    def create(self, request: Request, **kwargs: Any) -> Response:
        """Upload an artifact.

        Called by an agent to upload an incident bundle or another artifact. If the same content was uploaded before
        with the same kind, spec hash and deployment, returns the existing artifact (200). If the check of that artifact
        could not be completed (`check_failed` in `reasons`), the check is repeated. A new artifact that would exceed a
        quota of the organization is not stored: the error is `quota.stored_bytes`, or `quota.captures_per_day` if the
        daily number of incident bundles is reached. If the agent uploads a requested capture, `capture_id` names the
        request. The request then refers to the artifact. A request that has expired also refers to the artifact, but
        stays `expired`. If the request already refers to an artifact, the new artifact is stored, but the request does
        not change.
        """
        given = self.validated(request)
        file = given.pop("file")
        artifact, is_new = uploads.receive(
            environment=self.environment,
            agent=self.agent,
            content_hash=file.content_hash,
            file=file,
            actor=self.actor,
            **given,
        )
        return Response(ArtifactSerializer(artifact).data, status=201 if is_new else 200)

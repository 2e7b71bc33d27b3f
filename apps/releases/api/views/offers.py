"""An agent's offer, the offered bundle, and the agent's reports."""

from __future__ import annotations

import json
from typing import Any

from django.http import FileResponse, HttpResponse
from drf_spectacular.types import OpenApiTypes
from rest_framework.request import Request
from rest_framework.response import Response

from apps.fleet.api.base import AgentSelfViewSet
from apps.fleet.models import Agent, Assignment
from apps.releases.api.offered import WAIT_S, accept_report, read_offer
from apps.releases.api.serializers.offers import DesiredAnswerSerializer, ReportAnswerSerializer, ReportSerializer
from apps.releases.models import Attestation
from apps.tenancy.api.base import SIGNED_IN
from byteor_cloud.api.operations import HASH, ID, Operation, Tag
from byteor_cloud.api.parameters import sha256_parameter
from byteor_cloud.errors import Conflict, NotStored, Unavailable
from byteor_cloud.storage import blobs


class AgentDeploymentViewSet(AgentSelfViewSet):
    """An agent's own offer, its bundle, and the agent's reports on it.

    ``apps.releases.api.agent_path`` handles nearly all polls and reports before Django, with the same functions.
    """

    tag = Tag.AGENTS
    queryset = Agent.objects.none()
    serializer_class = ReportSerializer
    agent_scope = "agent:deployment"

    @Operation("getAgentDeployment", SIGNED_IN, parameters={"wait_s": WAIT_S}, responses=DesiredAnswerSerializer)
    def retrieve(self, request: Request, **kwargs: Any) -> Response:
        """Get the agent's current offer.

        Called by an agent. Returns what the agent should run, with the signed envelope of the deploy bundle.
        """
        offered = read_offer(self.agent.pk)
        return Response(json.loads(offered.text), headers={"ETag": offered.etag})

    @Operation(
        "reportDeployment",
        SIGNED_IN,
        body=ReportSerializer,
        responses={200: ReportAnswerSerializer},
        errors=(Conflict,),
        example={"deployment_id": ID, "status": "active", "bundle_hash": HASH},
    )
    def report(self, request: Request, **kwargs: Any) -> Response:
        """Report progress on an offer.

        Called by an agent while it downloads and activates the offered bundle, and when it has finished or failed. A
        report on an offer that is not current, or with a status that cannot follow the agent's progress, is recorded
        but returns 409. The repetition of an accepted report on the current offer is ignored and returns 200.
        """
        accepted = accept_report(request.data, agent_id=self.agent.pk, environment_id=self.environment.pk)
        return Response(accepted)

    @Operation(
        "downloadAttestation",
        SIGNED_IN,
        parameters={"sha256": sha256_parameter(required=True, description="The `sha256` of a statement of the offer.")},
        responses={200: OpenApiTypes.OBJECT},
        errors=(Conflict,),
    )
    def attestation(self, request: Request, **kwargs: Any) -> HttpResponse:
        """Download a signed statement.

        Called by an agent. Returns the DSSE envelope of one of the offer's `attestations`. Returns 409 if the agent's
        current offer has no statement with this hash.
        """
        digest = self.parameter_values["sha256"]
        offered = Assignment.objects.filter(agent=self.agent, bundle_hash__isnull=False, held_backup_at=None).values(
            "bundle_deployment_id"
        )
        found = Attestation.objects.filter(deployment__in=offered, sha256=digest).first()
        if found is None:
            raise Conflict("This statement is not offered to the agent now. Fetch the offer again.", code="not_desired")
        return HttpResponse(found.envelope, content_type="application/json", headers={"ETag": f'"{digest}"'})

    @Operation(
        "downloadDeployBundle",
        SIGNED_IN,
        parameters={"hash": sha256_parameter(required=True, description="The `bundle_hash` of the offer.")},
        responses={(200, "application/x-tar"): OpenApiTypes.BINARY},
        errors=(Conflict,),
    )
    def bundle(self, request: Request, **kwargs: Any) -> FileResponse:
        """Download the deploy bundle.

        Called by an agent. Returns the tar whose digest is in the signed envelope. Returns 409 if this is not the
        bundle of the agent's current offer.
        """
        bundle_hash = self.parameter_values["hash"]
        assignment = Assignment.objects.get(agent=self.agent)
        if assignment.bundle_hash != bundle_hash or assignment.held_backup_at is not None:
            raise Conflict("This bundle is not offered to the agent now. Fetch the offer again.", code="not_desired")
        try:
            source = blobs.read(bundle_hash)
        except NotStored as error:  # a fault of the control plane: the agent must retry, not fail the deployment
            raise Unavailable("The bundle is no longer stored. Try again later.", retry_after=30) from error
        response = FileResponse(source, content_type="application/x-tar")
        response["ETag"] = f'"{bundle_hash}"'
        return response

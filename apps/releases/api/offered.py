"""An agent's requests for its offer, and its reports. Django's views and the agent path share these functions."""

from __future__ import annotations

from typing import Any, NamedTuple
from uuid import UUID

from apps.fleet.api.serializers import offer
from apps.fleet.models import Assignment
from apps.releases.api.serializers.offers import ReportSerializer
from apps.releases.models import Deployment
from apps.releases.services import attestations, reports, rollout_steps
from byteor.engine.machines import AgentProgress
from byteor_cloud.api.etags import body_digest
from byteor_cloud.api.parameters import integer_parameter

MAX_WAIT_S = 30
WAIT_S = integer_parameter(
    0,
    MAX_WAIT_S,
    default=0,
    description="The maximum number of seconds to wait for a new offer if `If-None-Match` matches the current one. "
    "Returns the new offer when there is one. Returns 304 if there is no new offer within this time, if the server "
    "shuts down, or if the agent sends another poll. If too many agents are waiting, returns 304 with `Retry-After` "
    "immediately. Defaults to 0.",
)


class Offered(NamedTuple):
    """A JSON document with the bundle that an agent should run, and the document's ETag."""

    document: dict[str, Any]
    etag: str


def read_offer(agent_id: UUID) -> Offered:
    """Return the agent's current offer with its signed envelope. ``desired`` is null if the agent has no offer."""
    assignment = Assignment.objects.get(agent_id=agent_id)
    desired = None
    if assignment.bundle_hash is not None and assignment.bundle_deployment_id is not None:
        source = Deployment.objects.select_related("environment__project").get(pk=assignment.bundle_deployment_id)
        desired = {
            **offer(
                agent_id,
                deployment_id=assignment.deployment_id,
                action=assignment.action,
                bundle_hash=assignment.bundle_hash,
                offered_at=assignment.since,
            ),
            "bundle_size": assignment.bundle_size,
            "envelope": rollout_steps.sign_deployment_envelope(source),
            "attestations": [
                {
                    "sha256": digest,
                    "size": size,
                    "url": f"/api/v1/agents/{agent_id}/deployment/attestation?sha256={digest}",
                }
                for digest, size in attestations.list_of(source)
            ],
        }
    document = {"desired": desired}
    return Offered(document, f'"{body_digest(document)}"')


def accept_report(data: Any, *, agent_id: UUID, environment_id: UUID) -> dict[str, Any]:
    """Check and record an agent's report on its offer. Return the response body.

    Raises ValidationError, and the errors of ``reports.report``.
    """
    body = ReportSerializer(data=data)
    body.is_valid(raise_exception=True)
    values = {**body.validated_data, "status": AgentProgress(body.validated_data["status"])}
    reports.report(agent_id=agent_id, environment_id=environment_id, **values)
    return {"accepted": True}

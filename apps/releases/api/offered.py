"""The answers to an agent that asks for its offer, or reports on it. Django's views and the agent path share them."""

from __future__ import annotations

from typing import Any, NamedTuple
from uuid import UUID

from apps.fleet.api.serializers import offer
from apps.fleet.models import Assignment
from apps.releases.api.serializers.offers import ReportSerializer
from apps.releases.models import Deployment
from apps.releases.services import reports, rollout_steps
from byteor.engine.machines import AgentProgress
from byteor_cloud.api.etags import body_digest
from byteor_cloud.api.parameters import integer_parameter

MAX_WAIT_S = 30
WAIT_S = integer_parameter(
    0,
    MAX_WAIT_S,
    default=0,
    description="If `If-None-Match` matches: wait up to this many seconds for a change, and answer as soon as there "
    "is one. Answers 304 when the time is over, when the server stops, when the agent polls again meanwhile, and at "
    "once, with `Retry-After`, when too many agents wait.",
)


class Offered(NamedTuple):
    """What an agent should run, as JSON, and the ETag of that."""

    document: dict[str, Any]
    etag: str


def read_offer(agent_id: UUID) -> Offered:
    """Return the agent's current offer with its signed envelope. ``desired`` is null if nothing was offered."""
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
        }
    document = {"desired": desired}
    return Offered(document, f'"{body_digest(document)}"')


def accept_report(data: Any, *, agent_id: UUID, environment_id: UUID) -> dict[str, Any]:
    """Check and record an agent's report on its offer; return the answer. Raises as ``reports.report`` does."""
    body = ReportSerializer(data=data)
    body.is_valid(raise_exception=True)
    values = {**body.validated_data, "status": AgentProgress(body.validated_data["status"])}
    reports.report(agent_id=agent_id, environment_id=environment_id, **values)
    return {"accepted": True}

"""The operations that an agent calls on itself."""

from __future__ import annotations

from typing import Any

from apps.fleet.models import Agent
from apps.releases.models import Attestation
from byteor.engine.canonical import canonical, sha256
from byteor.engine.signing import gate_statement
from tests.permissions import NoRole
from tests.resources import A, Call, Place, Resource
from tests.resources.agents import enrolled
from tests.resources.deployments import deployment
from tests.resources.versions import INCIDENT

BOUNDARY = "law"


def multipart(file: bytes, **fields: str) -> bytes:
    """Encode a multipart upload form."""
    parts = [f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in fields.items()]
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="f"\r\nContent-Type: a/b\r\n\r\n'
    return "".join(parts).encode() + head.encode() + file + f"\r\n--{BOUNDARY}--\r\n".encode()


def running(place: Place) -> Agent:
    """Let the agent send the first heartbeat that reports the deployment. This starts the agent's history."""
    (agent, api), deployed = place.get(enrolled), place.get(deployment)
    active = {**_offer(place), "spec_hash": deployed.config_bundle.version.spec_hash}
    body = {"status": "healthy", "agent_version": "0.1.0", "active": active}
    assert api.post(f"/api/v1/agents/{agent.pk}/heartbeat", body).status_code == 200
    return agent


def statement(place: Place) -> Attestation:
    """Store a statement about the agent's deployment."""
    envelope = canonical({"payload": place.name("statement"), "payloadType": "text/plain", "signatures": []})
    return Attestation.objects.create(
        deployment=place.get(deployment), predicate_type=gate_statement.PREDICATE_TYPE, sha256=sha256(envelope),
        size=len(envelope), envelope=envelope.decode(),
    )  # fmt: skip


def _offer(place: Place) -> dict[str, Any]:
    deployed = place.get(deployment)
    return {"deployment_id": str(deployed.pk), "bundle_hash": deployed.bundle_hash}


AGENT = NoRole.AGENT
RESOURCE = Resource(
    calls=(
        Call("getOwnAgent", "GET", A, AGENT),
        Call(
            "sendHeartbeat", "POST", A + "/heartbeat", AGENT, scope="agent:heartbeat",
            body=lambda place: {"status": "healthy", "agent_version": "0.1.0", "active": None},
        ),
        Call(
            "uploadArtifact", "POST", A + "/artifacts", AGENT, 201, scope="agent:artifact_upload",
            body=lambda place: multipart(INCIDENT + b"\0", kind="telemetry", captured_at="2026-11-24T12:00:00Z"),
        ),
        Call("getPendingCapture", "GET", A + "/capture", AGENT, scope="agent:artifact_upload"),
        Call("getAgentDeployment", "GET", A + "/deployment", AGENT, scope="agent:deployment"),
        Call("reportDeployment", "POST", A + "/deployment", AGENT, values=_offer, scope="agent:deployment"),
        Call(
            "downloadDeployBundle", "GET", A + "/deployment/bundle", AGENT, scope="agent:deployment",
            query=lambda place: f"?hash={place.get(deployment).bundle_hash}",
        ),
        Call(
            "downloadAttestation", "GET", A + "/deployment/attestation", AGENT, scope="agent:deployment",
            query=lambda place: f"?sha256={place.get(statement).sha256}",
        ),
        Call("getSigningKeys", "GET", A + "/signing-key", AGENT, scope="agent:signing_key"),
        Call("rotateOwnKey", "POST", A + "/rotate-key", AGENT, 201, has_body=False),
    ),
    more=(running, statement),
)  # fmt: skip

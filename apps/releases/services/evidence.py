"""Evidence of a deployment, which ``byteor-verify`` checks offline: its bytes, their signer and their approvers."""

from __future__ import annotations

from apps.releases.models import Approval, Deployment
from apps.releases.services.rollout_steps import sign_deployment_envelope
from apps.tenancy.services import signing_keys
from byteor_cloud import blobs
from byteor_cloud.engine.delivery import tar
from byteor_cloud.engine.delivery.bundle import CREDENTIAL, SIGNING_KEYS, open_bundle
from byteor_cloud.engine.delivery.dsse import SUBJECT_NAME
from byteor_cloud.engine.delivery.encoding import Json, canonical, format_time
from byteor_cloud.errors import Conflict


def build_archive(deployment: Deployment) -> bytes:
    """Return the evidence as a tar, byte for byte the same if nothing changed. Raises Conflict before the build."""
    if deployment.bundle_hash is None:
        raise Conflict("The deployment has no evidence until its bundle is built.", code="deployment.not_built")
    with blobs.read(deployment.bundle_hash) as file:
        bundle = file.read()
    consent = deployment.consent
    files = {
        SUBJECT_NAME: bundle,
        # Sign before reading the key set: even if the keys rotate in between, the set has the key that signed.
        "envelope.json": canonical(sign_deployment_envelope(deployment)),
        SIGNING_KEYS: canonical(signing_keys.key_set(deployment.environment.project.organization_id).document()),
        "deployment.json": canonical(_summary(deployment, consent)),
    }
    # The bundle of a break-glass deployment holds no credential, but the deployment may have been approved afterwards.
    credential = open_bundle(bundle).credential or (consent.credential if consent else None)
    if credential:
        files[CREDENTIAL] = credential.encode("ascii")
    return tar.pack(files)


def _summary(deployment: Deployment, consent: Approval | None) -> Json:
    """Return ``deployment.json``: the signed facts in readable form, and the requester and decisions (not signed)."""
    signed = {name: value for name, value in (deployment.manifest or {}).items() if name not in {"manifest_v", "files"}}
    return {
        **signed,
        "bundle_hash": deployment.bundle_hash,
        "pipeline": deployment.pipeline,
        "requested_by": deployment.requested_by,
        "note": deployment.note,
        "break_glass": deployment.break_glass and deployment.break_glass.stored(),
        "freeze_override": deployment.freeze_override,
        "approval": consent
        and {
            "id": str(consent.pk),
            "status": consent.status,
            "requested_by": consent.requested_by,
            "required_approvals": consent.required_approvals,
            "target": consent.target and consent.target.stored(),
            "strategy": consent.strategy and consent.strategy.stored(),
            "bound": consent.subject.document(),
            "decisions": [
                {
                    "user_id": str(decision.user_id),
                    "decided_by": decision.decided_by,
                    "decision": decision.decision,
                    "comment": decision.comment,
                    "decided_at": format_time(decision.created_at),
                }
                for decision in consent.decisions.order_by("id")
            ],
        },
    }

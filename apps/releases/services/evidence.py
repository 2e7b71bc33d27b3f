"""The evidence of a deployment: the files with which ``byteor-verify`` checks its bundle and approval offline."""

from __future__ import annotations

from collections.abc import Sequence

from apps.releases.models import Approval, Deployment
from apps.releases.services import attestations, wave_statements
from apps.releases.services.rollout_steps import sign_deployment_envelope
from apps.tenancy.services import signing_keys
from byteor.engine.canonical import Json, canonical, sha256
from byteor.engine.signing import gate_statement, tar, test_result
from byteor.engine.signing.approval_record import ApprovalRecord, sign_record
from byteor.engine.signing.bundle import CREDENTIAL, SIGNING_KEYS, open_bundle
from byteor.engine.signing.dsse import SUBJECT_NAME
from byteor_cloud.errors import Conflict
from byteor_cloud.storage import blobs

_STATEMENTS = {test_result.PREDICATE_TYPE: "test-result.json", gate_statement.PREDICATE_TYPE: "gate.json"}


def build_archive(deployment: Deployment) -> bytes:
    """Return the evidence as a tar. Equal evidence has equal bytes.

    Raises Conflict if no bundle was built, and NotStored, Unavailable or OSError if the bundle cannot be read.

    The approval record is signed here, with the active key. It proves what the server had on record at the time of the
    export, not at the time of the decisions. The credential was signed when the request was approved. Each wave
    statement was signed when its wave was approved or denied.
    """
    if deployment.bundle_hash is None:
        raise Conflict("The deployment has no evidence until its bundle is built.", code="deployment.not_built")
    with blobs.read(deployment.bundle_hash) as file:
        bundle = file.read()
    waves = wave_statements.list_statements(deployment)
    listed = _list_hashes(deployment, waves)
    consent, organization_id = deployment.consent, deployment.environment.project.organization_id
    files = {
        SUBJECT_NAME: bundle,
        "envelope.json": canonical(sign_deployment_envelope(deployment)),
        "deployment.json": canonical(_summary(deployment, listed)),
    }
    statements = dict(deployment.attestations.values_list("predicate_type", "envelope"))
    for predicate_type, name in _STATEMENTS.items():
        if predicate_type in statements:
            files[name] = statements[predicate_type].encode()
    if waves:
        files["wave-approvals.json"] = canonical(waves)
    if consent is not None:
        private_key = signing_keys.active_private_key(organization_id)
        record = _record_approval(deployment, consent, listed)
        files["approval.json"] = canonical(sign_record(record, deployment.bundle_hash, private_key))
    # Read the key set after signing: even if keys are rotated in between, the set contains the keys that signed.
    files[SIGNING_KEYS] = canonical(signing_keys.key_set(organization_id).document())
    # A break-glass deployment's bundle contains no credential, but a person may have approved the deployment since.
    credential = open_bundle(bundle).credential or (consent.credential if consent else None)
    if credential:
        files[CREDENTIAL] = credential.encode("ascii")
    return tar.pack(files)


def _summary(deployment: Deployment, listed: Sequence[str]) -> Json:
    """Return the content of ``deployment.json``: values of the manifest, and unsigned details of the deployment.

    ``listed`` are the hashes of the statements that the evidence contains.
    """
    signed = {name: value for name, value in (deployment.manifest or {}).items() if name not in {"manifest_v", "files"}}
    return {
        **signed,
        "bundle_hash": deployment.bundle_hash,
        "pipeline": deployment.pipeline,
        "requested_by": deployment.requested_by,
        "note": deployment.note,
        "break_glass": deployment.break_glass and deployment.break_glass.stored(),
        "freeze_override": deployment.freeze_override,
        "replay_gate_override": deployment.replay_gate_override,
        "attestations": list(listed),
    }


def _record_approval(deployment: Deployment, consent: Approval, listed: Sequence[str]) -> ApprovalRecord:
    environment = deployment.environment
    return ApprovalRecord(
        org_id=str(environment.project.organization_id),
        project_id=str(environment.project_id),
        environment_id=str(environment.pk),
        deployment_id=str(deployment.pk),
        approval_id=str(consent.pk),
        status=consent.status,
        bound=consent.subject.document(),
        shown={**_describe_shown(consent), "attestations": list(listed)},
        break_glass=consent.break_glass,
        requester_id=None if consent.requester_id is None else str(consent.requester_id),
        requested_by=consent.requested_by,
        required_approvals=consent.required_approvals,
        allow_self_approval=consent.allow_self_approval,
        approved_at=consent.approved_at,
        expires_at=consent.expires_at,
        decisions=wave_statements.list_decisions(consent),
    )


def _list_hashes(deployment: Deployment, waves: Sequence[Json]) -> list[str]:
    """Return the hashes of the statements that the evidence contains, including the wave statements ``waves``."""
    return [*(digest for digest, _ in attestations.list_of(deployment)), *(sha256(canonical(each)) for each in waves)]


def _describe_shown(consent: Approval) -> Json:
    """Return the number and the first ids of the agents that approvers saw for the target. Empty without a target."""
    return {} if consent.target is None else {"agents": consent.target.count, "first": list(consent.target.resolved)}

"""The evidence of a deployment: proves what was delivered, who signed it, and who approved it for which environment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from byteor_cloud.engine.delivery import credential, dsse
from byteor_cloud.engine.delivery.bundle import CREDENTIAL, SIGNING_KEYS, Manifest, open_bundle
from byteor_cloud.engine.delivery.encoding import Fields, Json, canonical, format_time, from_base64url, parse_object
from byteor_cloud.engine.delivery.keys import KeySet
from byteor_cloud.engine.delivery.refusals import ApprovalCode, DeliveryCode, Refused
from byteor_cloud.engine.delivery.verify import verify_delivery

from .trust import EvidenceCode, Trust, Unproven

BUNDLE = dsse.SUBJECT_NAME
ENVELOPE = "envelope.json"
DEPLOYMENT = "deployment.json"
NAMES = (BUNDLE, ENVELOPE, CREDENTIAL, SIGNING_KEYS, DEPLOYMENT)
# The fields of deployment.json that the signed manifest has too.
_SIGNED_FIELDS = (
    "org_id", "project_id", "environment_id", "deployment_id", "version_id", "config_bundle_id", "posture",
    "spec_hash", "config_hash", "created_at", "approved_at",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The files to verify. ``is_export`` says that they are a whole export, which repeats the bundle's credential."""

    bundle: bytes
    envelope: bytes
    credential: bytes | None = None
    deployment: bytes | None = None
    is_export: bool = False

    @classmethod
    def from_export(cls, files: Mapping[str, bytes]) -> Evidence:
        """Create the evidence from the files of an export, by name. Raises Unproven if one is missing."""
        for name in (BUNDLE, ENVELOPE):
            if name not in files:
                raise Unproven(EvidenceCode.FILE_MISSING, f"{name} is missing")
        return cls(
            bundle=files[BUNDLE],
            envelope=files[ENVELOPE],
            credential=files.get(CREDENTIAL),
            deployment=files.get(DEPLOYMENT),
            is_export=True,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The verified facts about a deployment.

    ``is_approval_beside`` says that the approval is not inside the bundle. Such an approval is given after a
    break-glass deployment; it covers the spec and the environment, but neither the configuration nor the bytes of the
    bundle.
    """

    bundle_hash: str
    manifest: Manifest
    envelope_kid: str
    approval: credential.Payload | None
    is_approval_beside: bool
    unsigned: Json  # the fields of deployment.json that nobody signed

    def document(self) -> Json:
        """Return the proof as JSON data."""
        manifest = self.manifest.document()
        del manifest["files"]
        return {
            "approved": self.approval is not None and not self.is_approval_beside,
            "approval_beside": self.is_approval_beside,
            "bundle_hash": self.bundle_hash,
            "manifest": manifest,
            "approval": self.approval
            and {
                "approval_id": self.approval.approval_id,
                "issued_by": self.approval.issued_by,
                "issued_at": format_time(self.approval.issued_at),
                "expires_at": format_time(self.approval.expires_at),
                "capabilities": list(self.approval.capabilities),
                "kid": self.approval.kid,
            },
            "envelope_kid": self.envelope_kid,
            "unsigned": self.unsigned,
        }

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield the lines of the printed proof, each as a label and a text."""
        manifest, approval = self.manifest, self.approval
        if approval is None:
            yield "approved by", "NOBODY: no approval was needed, or the deployment used break-glass"
        else:
            at = format_time(approval.issued_at)
            if self.is_approval_beside:
                separate = f"a separate approval by {approval.issued_by} at {at} covers only the spec and environment"
                yield "approved by", f"NOBODY for these bytes; {separate}"
            else:
                yield "approved by", f"{approval.issued_by} at {at}, valid until {format_time(approval.expires_at)}"
            yield "approval", f"{approval.approval_id}, for {', '.join(approval.capabilities)}; key {approval.kid}"
        yield "environment", f"{manifest.environment_id} ({manifest.posture}), project {manifest.project_id}"
        yield "organization", manifest.org_id
        yield "deployment", f"{manifest.deployment_id}, requested at {format_time(manifest.created_at)}"
        yield "spec", manifest.spec_hash
        yield "config", manifest.config_hash
        yield "bundle", f"{self.bundle_hash}; key {self.envelope_kid}"
        for name in sorted(self.unsigned):
            yield "not signed", f"{name}: {canonical(self.unsigned[name]).decode()}"


def prove(
    evidence: Evidence, trust: Trust, *, environment_id: str | None = None, require_approval: bool = False
) -> Proof:
    """Verify the evidence and return what it proves. Raises Refused or Unproven at the first fault.

    With ``environment_id``, a bundle for another environment is refused; with ``require_approval``, a bundle that
    contains no approval.
    """
    try:
        envelope = parse_object(evidence.envelope)
    except ValueError as error:
        raise Refused(DeliveryCode.ENVELOPE_MALFORMED, f"envelope: {error}") from error
    statement = dsse.verify_envelope(envelope, trust.keyset)
    trust.check(statement.kid)
    expected_environment = environment_id or statement.manifest.environment_id
    verified = verify_delivery(evidence.bundle, envelope, trust.keyset, expected_environment)
    inside = open_bundle(evidence.bundle).credential
    beside = None if evidence.credential is None else evidence.credential.decode("ascii", "replace")
    if inside is not None and inside != beside and (evidence.is_export or beside is not None):
        fault = "is missing" if beside is None else "differs from the credential in the bundle"
        raise Unproven(EvidenceCode.CREDENTIAL, f"{CREDENTIAL} {fault}")
    approval = verified.approval
    if inside is None and beside is not None:
        approval = _verify_later_approval(beside, verified.manifest, trust.keyset)
    if approval is not None:
        trust.check(approval.kid)
    if require_approval and inside is None:
        reason = "the separate approval does not cover its bytes" if approval else "nobody approved it"
        raise Unproven(EvidenceCode.NOT_APPROVED, f"the bundle contains no approval: {reason}")
    return Proof(
        bundle_hash=verified.bundle_hash,
        manifest=verified.manifest,
        envelope_kid=statement.kid,
        approval=approval,
        is_approval_beside=inside is None and beside is not None,
        unsigned=_read_unsigned(evidence.deployment, verified.manifest, verified.bundle_hash),
    )


def _verify_later_approval(text: str, manifest: Manifest, keyset: KeySet) -> credential.Payload:
    """Check that an approval that was given after a break-glass deployment matches the manifest. Raises Refused."""
    payload = credential.verify(
        text,
        keyset=keyset,
        spec_hash=manifest.spec_hash,
        environment_id=manifest.environment_id,
        at=_issued_at(text),
        capabilities={credential.DEPLOY, *manifest.capabilities},
    )
    if (payload.org_id, payload.project_id, payload.environment_posture) != (
        manifest.org_id,
        manifest.project_id,
        manifest.posture,
    ):
        raise Refused(ApprovalCode.ENVIRONMENT, "the approval is for another organization, project or posture")
    if payload.issued_at < manifest.created_at.replace(microsecond=0):  # the credential's time may have whole seconds
        raise Refused(ApprovalCode.EXPIRED, "the approval is older than the deployment, but its bundle lacks it")
    return payload


def _issued_at(text: str) -> datetime:
    try:
        return Fields(parse_object(from_base64url(text.partition(".")[0]))).time("issued_at")
    except ValueError as error:
        raise Refused(ApprovalCode.MALFORMED, f"approval credential: {error}") from error


def _read_unsigned(data: bytes | None, manifest: Manifest, bundle_hash: str) -> Json:
    """Return the fields of deployment.json that nobody signed.

    The server adds this file without a signature. Raises Unproven if a field differs from the signed manifest.
    """
    if data is None:
        return {}
    try:
        deployment = parse_object(data)
        canonical(deployment)  # fails now rather than while the proof is printed
    except ValueError as error:
        raise Unproven(EvidenceCode.MALFORMED, f"{DEPLOYMENT}: {error}") from error
    signed = {**manifest.document(), "bundle_hash": bundle_hash}
    for name in (*_SIGNED_FIELDS, "bundle_hash"):
        if deployment.get(name) != signed[name]:
            raise Unproven(EvidenceCode.DEPLOYMENT, f"{DEPLOYMENT}: {name} differs from the signed value")
    return {name: value for name, value in deployment.items() if name not in signed}

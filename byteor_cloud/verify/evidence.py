"""A deployment's evidence: what was delivered, who signed it, and who approved exactly these bytes for which place."""

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
_SAME = (
    "org_id", "project_id", "environment_id", "deployment_id", "version_id", "config_bundle_id", "posture",
    "spec_hash", "config_hash", "created_at", "approved_at",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The files; ``whole`` when they are an export, where the credential of the bundle lies beside it too."""

    bundle: bytes
    envelope: bytes
    credential: bytes | None = None
    deployment: bytes | None = None
    whole: bool = False

    @classmethod
    def of(cls, files: Mapping[str, bytes]) -> Evidence:
        """Take the files of an export. Raises Unproven."""
        for name in (BUNDLE, ENVELOPE):
            if name not in files:
                raise Unproven(EvidenceCode.FILE_MISSING, f"{name} is missing")
        return cls(
            bundle=files[BUNDLE],
            envelope=files[ENVELOPE],
            credential=files.get(CREDENTIAL),
            deployment=files.get(DEPLOYMENT),
            whole=True,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What holds. ``approval`` is the signed consent; ``beside`` when the bundle does not carry it.

    Then it came after the delivery, and binds the spec and the environment, but neither the config nor the bytes.
    """

    bundle_hash: str
    manifest: Manifest
    envelope_kid: str
    approval: credential.Payload | None
    beside: bool
    told: Json  # what deployment.json says; nobody signed that

    def document(self) -> Json:
        """Return it as JSON."""
        manifest = self.manifest.document()
        del manifest["files"]
        return {
            "approved": self.approval is not None and not self.beside,
            "approval_beside": self.beside,
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
            "unsigned": self.told,
        }

    def lines(self) -> Iterator[tuple[str, str]]:
        """Say it to people."""
        manifest, approval = self.manifest, self.approval
        if approval is None:
            yield "approved by", "NOBODY: no approval was needed, or it went ahead by break-glass"
        else:
            at = format_time(approval.issued_at)
            if self.beside:
                lies = f"beside them lies {approval.issued_by}'s approval of {at} of this spec for this environment"
                yield "approved by", f"NOBODY within these bytes; {lies}, which is not bound to these bytes"
            else:
                yield "approved by", f"{approval.issued_by} at {at}, good until {format_time(approval.expires_at)}"
            yield "approval", f"{approval.approval_id}, for {', '.join(approval.capabilities)}; key {approval.kid}"
        yield "environment", f"{manifest.environment_id} ({manifest.posture}), project {manifest.project_id}"
        yield "organization", manifest.org_id
        yield "deployment", f"{manifest.deployment_id}, asked for at {format_time(manifest.created_at)}"
        yield "spec", manifest.spec_hash
        yield "config", manifest.config_hash
        yield "bundle", f"{self.bundle_hash}; key {self.envelope_kid}"
        for name in sorted(self.told):
            yield "not signed", f"{name}: {canonical(self.told[name]).decode()}"


def prove(
    evidence: Evidence, trust: Trust, *, environment_id: str | None = None, require_approval: bool = False
) -> Proof:
    """Return what these files say, if nothing is wrong with them. Raises Refused or Unproven with the first reason.

    ``environment_id`` refuses what is for another environment, ``require_approval`` what nobody approved as it is.
    """
    try:
        envelope = parse_object(evidence.envelope)
    except ValueError as error:
        raise Refused(DeliveryCode.ENVELOPE_MALFORMED, f"envelope: {error}") from error
    statement = dsse.verify_envelope(envelope, trust.keyset)
    trust.check(statement.kid)
    place = environment_id or statement.manifest.environment_id
    verified = verify_delivery(evidence.bundle, envelope, trust.keyset, place)
    inside = open_bundle(evidence.bundle).credential
    beside = None if evidence.credential is None else evidence.credential.decode("ascii", "replace")
    if inside is not None and inside != beside and (evidence.whole or beside is not None):
        what = "is missing" if beside is None else "is not the one in the bundle"
        raise Unproven(EvidenceCode.CREDENTIAL, f"{CREDENTIAL} {what}")
    approval = verified.approval
    if inside is None and beside is not None:
        approval = _beside(beside, verified.manifest, trust.keyset)
    if approval is not None:
        trust.check(approval.kid)
    if require_approval and inside is None:
        beside_it = "the approval beside the bundle is not bound to these bytes" if approval else "nobody approved this"
        raise Unproven(EvidenceCode.NOT_APPROVED, f"the bundle carries no approval: {beside_it}")
    return Proof(
        bundle_hash=verified.bundle_hash,
        manifest=verified.manifest,
        envelope_kid=statement.kid,
        approval=approval,
        beside=inside is None and beside is not None,
        told=_told(evidence.deployment, verified.manifest, verified.bundle_hash),
    )


def _beside(text: str, manifest: Manifest, keyset: KeySet) -> credential.Payload:
    """The approval that a break-glass deployment was given later: it fits the manifest, but names no bytes."""
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
        raise Refused(ApprovalCode.ENVIRONMENT, "another organization, project or posture was approved")
    if payload.issued_at < manifest.created_at.replace(microsecond=0):  # an approval may have whole seconds
        raise Refused(ApprovalCode.EXPIRED, "the approval is older than the deployment, whose bundle does not carry it")
    return payload


def _issued_at(text: str) -> datetime:
    try:
        return Fields(parse_object(from_base64url(text.partition(".")[0]))).time("issued_at")
    except ValueError as error:
        raise Refused(ApprovalCode.MALFORMED, f"approval credential: {error}") from error


def _told(data: bytes | None, manifest: Manifest, bundle_hash: str) -> Json:
    """Return what the server says beside what is signed. It may add to that, but not contradict it. Raises Unproven."""
    if data is None:
        return {}
    try:
        told = parse_object(data)
        canonical(told)  # what is shown must have a spelling
    except ValueError as error:
        raise Unproven(EvidenceCode.MALFORMED, f"{DEPLOYMENT}: {error}") from error
    signed = {**manifest.document(), "bundle_hash": bundle_hash}
    for name in (*_SAME, "bundle_hash"):
        if told.get(name) != signed[name]:
            raise Unproven(EvidenceCode.DEPLOYMENT, f"{DEPLOYMENT}: {name} is not what was signed")
    return {name: value for name, value in told.items() if name not in signed}

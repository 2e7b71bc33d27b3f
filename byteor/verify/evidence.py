"""Verifies what a deployment delivered, who signed and approved it and its waves, and how it was tested."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import datetime

from byteor.engine.canonical import Fields, Json, canonical, format_time, from_base64url, parse_object, sha256
from byteor.engine.compiler import KvError, decode
from byteor.engine.configuration import RuntimeConfig, hash_configuration, required_capabilities
from byteor.engine.signing import credential, dsse
from byteor.engine.signing.approval_record import ApprovalRecord
from byteor.engine.signing.bundle import CREDENTIAL, RUNTIME_CONFIG, SPEC, Manifest, open_bundle
from byteor.engine.signing.keys import KeySet
from byteor.engine.signing.refusals import ApprovalCode, DeliveryCode, Refused
from byteor.engine.signing.verify import VerifiedBundle, verify_delivery

from . import approval_record, statements, wave_approvals
from .files import APPROVAL_RECORD, BUNDLE, DEPLOYMENT, ENVELOPE, GATE, TEST_RESULT, WAVE_APPROVALS
from .statements import Statements
from .trust import Doubt, EvidenceCode, Signature, Trust, Unproven
from .wave_approvals import WaveApprovals

# The fields of the signed manifest with which deployment.json must agree.
_SIGNED_FIELDS = (
    "org_id", "project_id", "environment_id", "deployment_id", "version_id", "config_bundle_id", "posture",
    "spec_hash", "config_hash", "created_at", "approved_at",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The files to verify. In an export (``is_export``), a credential in the bundle must also be a separate file."""

    bundle: bytes
    envelope: bytes
    credential: bytes | None = None
    approval_record: bytes | None = None
    test_result: bytes | None = None
    gate: bytes | None = None
    wave_approvals: bytes | None = None
    deployment: bytes | None = None
    is_export: bool = False

    @classmethod
    def from_export(cls, files: Mapping[str, bytes]) -> Evidence:
        """Create the evidence from the files of an export, by name. Raises Unproven without a bundle or envelope."""
        for name in (BUNDLE, ENVELOPE):
            if name not in files:
                raise Unproven(EvidenceCode.FILE_MISSING, f"{name} is missing")
        return cls(
            bundle=files[BUNDLE],
            envelope=files[ENVELOPE],
            credential=files.get(CREDENTIAL),
            approval_record=files.get(APPROVAL_RECORD),
            test_result=files.get(TEST_RESULT),
            gate=files.get(GATE),
            wave_approvals=files.get(WAVE_APPROVALS),
            deployment=files.get(DEPLOYMENT),
            is_export=True,
        )

    @property
    def statements(self) -> dict[str, bytes]:
        """The statements about the tests and the replay gate, by the name of the file."""
        named = {TEST_RESULT: self.test_result, GATE: self.gate}
        return {name: data for name, data in named.items() if data is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The verified facts about a deployment.

    ``is_approval_separate`` is True if there is an approval, but not inside the bundle, as after a break-glass
    deployment. A credential covers the spec and the environment; only ``record`` names the approved configuration and
    deployment. ``are_waves_complete`` is True if the signed ``record`` lists the statements about tests, the gate and
    waves, and none of the listed ones is missing.
    """

    bundle_hash: str
    manifest: Manifest
    envelope_kid: str
    approval: credential.Payload | None
    is_approval_separate: bool
    record: ApprovalRecord | None
    record_kid: str | None
    statements: Statements | None
    waves: WaveApprovals
    are_waves_complete: bool
    unsigned: Json  # the fields of deployment.json that no signature covers

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        """The reasons, apart from the keys, why the evidence is only consistent and not proven."""
        if self.approval is None or self.record is not None:
            return ()
        detail = f"{APPROVAL_RECORD} is missing, so the approved configuration, target and deployment are unknown."
        return (Doubt(EvidenceCode.APPROVAL_RECORD_MISSING, detail),)

    @property
    def signatures(self) -> list[Signature]:
        """The verified signatures, and what each covers."""
        every = [Signature(ENVELOPE, self.envelope_kid, f"every byte of {BUNDLE}, and the ids, hashes and times in it")]
        if self.approval is not None:
            covered = "the spec, environment, capabilities, approver and validity, but not the configuration or target"
            every.append(Signature(CREDENTIAL, self.approval.kid, covered))
        if self.record is not None and self.record_kid is not None:
            bound = ", ".join(sorted(self.record.bound))
            covered = f"the server's record at the time of the export: {bound}, decisions"
            every.append(Signature(APPROVAL_RECORD, self.record_kid, covered))
        tested = () if self.statements is None else self.statements.signatures
        return [*every, *tested, *self.waves.signatures]

    def document(self) -> Json:
        """Return the proof as JSON data."""
        manifest = self.manifest.document()
        del manifest["files"]
        return {
            "approved": self.approval is not None and not self.is_approval_separate,
            "approval_beside": self.is_approval_separate,
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
            "approval_record": self.record and self.record.document(),
            "test_result": self.statements and self.statements.test_result and self.statements.test_result.document(),
            "gate": self.statements and self.statements.gate.content.document(),
            "wave_approvals": self.waves.documents(),
            "wave_approvals_complete": self.are_waves_complete,
            "envelope_kid": self.envelope_kid,
            "unsigned": self.unsigned,
        }

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield the lines of the printed proof, each as a label and a value."""
        manifest, approval = self.manifest, self.approval
        yield "approved by", self._approvers()
        if approval is not None:
            yield "approval", f"{approval.approval_id}, for {', '.join(approval.capabilities)}; key {approval.kid}"
        if self.record is not None:
            yield from approval_record.lines(self.record)
        yield from wave_approvals.lines(self.waves, self.record, is_complete=self.are_waves_complete)
        yield from statements.lines(self.statements)
        yield "environment", f"{manifest.environment_id} ({manifest.posture}), project {manifest.project_id}"
        yield "organization", manifest.org_id
        yield "deployment", f"{manifest.deployment_id}, requested at {format_time(manifest.created_at)}"
        yield "spec", manifest.spec_hash
        yield "config", manifest.config_hash
        yield "bundle", f"{self.bundle_hash}; key {self.envelope_kid}"
        for name in sorted(self.unsigned):
            yield "not signed", f"{name}: {canonical(self.unsigned[name]).decode()}"

    def _approvers(self) -> str:
        approval, record = self.approval, self.record
        if approval is None:
            if record is not None:
                return f"NOBODY: the approval {record.approval_id} is {record.status}"
            return "NOBODY: no approval was needed, or the deployment used break-glass"
        at = format_time(approval.issued_at)
        if not self.is_approval_separate:
            return f"{approval.issued_by} at {at}, valid until {format_time(approval.expires_at)}"
        if record is not None:
            return f"NOBODY before the deployment (break-glass); later {approval.issued_by} at {at}"
        separate = f"a separate approval by {approval.issued_by} at {at} covers only the spec and environment"
        return f"NOBODY for these bytes; {separate}"


def prove(
    evidence: Evidence, trust: Trust, *, environment_id: str | None = None, require_approval: bool = False
) -> Proof:
    """Verify the evidence and return what it proves. Raises Refused or Unproven at the first fault.

    With ``environment_id``, a bundle for another environment is rejected. With ``require_approval``, a bundle that
    contains no approval is rejected.
    """
    try:
        envelope = parse_object(evidence.envelope)
    except ValueError as error:
        raise Refused(DeliveryCode.ENVELOPE_MALFORMED, f"envelope: {error}") from error
    statement = dsse.verify_envelope(envelope, trust.keyset)
    trust.check(statement.kid)
    expected_environment = environment_id or statement.manifest.environment_id
    verified = verify_delivery(evidence.bundle, envelope, trust.keyset, expected_environment)
    _check_configuration(verified)
    embedded = open_bundle(evidence.bundle).credential
    separate = None if evidence.credential is None else evidence.credential.decode("ascii", "replace")
    if embedded is not None and embedded != separate and (evidence.is_export or separate is not None):
        fault = "is missing" if separate is None else "differs from the credential in the bundle"
        raise Unproven(EvidenceCode.CREDENTIAL, f"{CREDENTIAL} {fault}")
    approval = verified.approval
    if embedded is None and separate is not None:
        approval = _verify_later_approval(separate, verified.manifest, trust.keyset)
    if approval is not None:
        trust.check(approval.kid)
    record, record_kid = None, None
    if evidence.approval_record is not None:
        record, record_kid = approval_record.read(evidence.approval_record, trust, verified.bundle_hash)
        approval_record.check(record, verified.manifest, approval, is_separate=embedded is None)
    if require_approval and embedded is None:
        separately = "the separate approval does not cover its bytes" if approval else "there is no separate credential"
        raise Unproven(EvidenceCode.NOT_APPROVED, f"the bundle contains no approval, and {separately}")
    tested = statements.read(evidence.statements, trust, verified.manifest)
    unsigned = _read_unsigned(evidence.deployment, verified.manifest, verified.bundle_hash)
    statements.check(tested, record, unsigned, is_export=evidence.is_export)
    waves = wave_approvals.read(evidence.wave_approvals, trust, verified.manifest, verified.bundle_hash)
    wave_approvals.check_holds(waves, record)
    found = {sha256(content): name for name, content in evidence.statements.items()}
    is_complete = statements.check_listed({**found, **waves.listed}, record, unsigned, is_export=evidence.is_export)
    return Proof(
        bundle_hash=verified.bundle_hash,
        manifest=verified.manifest,
        envelope_kid=statement.kid,
        approval=approval,
        is_approval_separate=embedded is None and separate is not None,
        record=record,
        record_kid=record_kid,
        statements=tested,
        waves=waves,
        are_waves_complete=is_complete,
        unsigned=unsigned,
    )


def _check_configuration(bundle: VerifiedBundle) -> None:
    """Recompute the config hash and capabilities, and compare both with the manifest. Raises Refused or Unproven."""
    manifest = bundle.manifest
    try:
        ops = [op for _, op in decode(bundle.spec_kv).stages]
    except KvError as error:
        raise Refused(DeliveryCode.BUNDLE_MALFORMED, f"{SPEC}: {error}") from error
    capabilities = required_capabilities(ops)
    if list(manifest.capabilities) != capabilities:
        detail = f"{SPEC} needs the capabilities {', '.join(capabilities)}; the manifest does not list exactly these"
        raise Unproven(EvidenceCode.CAPABILITIES, detail)
    expected = {field.name for field in fields(RuntimeConfig)}
    if bundle.runtime_config.keys() != expected:
        detail = f"{RUNTIME_CONFIG} must have exactly the members {', '.join(sorted(expected))}"
        raise Refused(DeliveryCode.BUNDLE_MALFORMED, detail)
    computed = hash_configuration(manifest.spec_hash, bundle.runtime_config, capabilities)
    if computed != manifest.config_hash:
        detail = f"{SPEC} and {RUNTIME_CONFIG} have the config hash {computed}, the manifest has {manifest.config_hash}"
        raise Unproven(EvidenceCode.CONFIG_HASH, detail)


def _verify_later_approval(text: str, manifest: Manifest, keyset: KeySet) -> credential.Payload:
    """Verify the approval granted after a break-glass deployment against the manifest. Raises Refused."""
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
    if payload.issued_at < manifest.created_at.replace(microsecond=0):  # the credential's time may be in whole seconds
        detail = "the approval was granted before the deployment was requested, but the bundle does not contain it"
        raise Refused(ApprovalCode.EXPIRED, detail)
    return payload


def _issued_at(text: str) -> datetime:
    try:
        return Fields(parse_object(from_base64url(text.partition(".")[0]))).time("issued_at")
    except ValueError as error:
        raise Refused(ApprovalCode.MALFORMED, f"approval credential: {error}") from error


def _read_unsigned(data: bytes | None, manifest: Manifest, bundle_hash: str) -> Json:
    """Return the fields of deployment.json that no signature covers.

    The server adds this file without a signature. Raises Unproven if it is malformed, or if its bundle hash or one of
    ``_SIGNED_FIELDS`` differs from the signed value.
    """
    if data is None:
        return {}
    try:
        deployment = parse_object(data)
        canonical(deployment)  # fail here, not while the proof is printed
    except ValueError as error:
        raise Unproven(EvidenceCode.MALFORMED, f"{DEPLOYMENT}: {error}") from error
    signed = {**manifest.document(), "bundle_hash": bundle_hash}
    for name in (*_SIGNED_FIELDS, "bundle_hash"):
        if deployment.get(name) != signed[name]:
            raise Unproven(EvidenceCode.DEPLOYMENT, f"{DEPLOYMENT}: {name} differs from the signed value")
    return {name: value for name, value in deployment.items() if name not in signed}

"""Verifies an approval record, and compares it with the delivered bundle and the issued credential."""

from __future__ import annotations

from collections.abc import Iterator

from byteor.engine.canonical import canonical, format_time, parse_object
from byteor.engine.machines import ApprovalStatus
from byteor.engine.signing import approval_record
from byteor.engine.signing.approval_record import APPROVE, ApprovalRecord
from byteor.engine.signing.bundle import CREDENTIAL, Manifest
from byteor.engine.signing.credential import Payload
from byteor.engine.signing.refusals import ApprovalCode, Refused

from .files import APPROVAL_RECORD
from .trust import EvidenceCode, Trust, Unproven

_IDS = ("org_id", "project_id", "environment_id", "deployment_id")


def read(data: bytes, trust: Trust, bundle_hash: str) -> tuple[ApprovalRecord, str]:
    """Return the record and the id of the key that signed it for this bundle. Raises Unproven."""
    try:
        record, kid = approval_record.verify_record(parse_object(data), trust.keyset, bundle_hash)
        for member in (record.bound, record.shown):
            canonical(member)  # fail here, not while the proof is printed
    except (Refused, ValueError) as error:  # the text of a Refused begins with its code
        raise Unproven(EvidenceCode.APPROVAL_RECORD, f"{APPROVAL_RECORD}: {error}") from error
    trust.check(kid)
    return record, kid


def check(record: ApprovalRecord, manifest: Manifest, credential: Payload | None, *, is_separate: bool) -> None:
    """Check that the record is about this deployment, and that it supports the credential, if there is one.

    ``is_separate`` is True if the bundle does not contain the credential. Raises Refused or Unproven.
    """
    for name in _IDS:
        if getattr(record, name) != getattr(manifest, name):
            raise _differs(f"{name} differs from that in the manifest")
    if (record.spec_hash, record.config_hash) != (manifest.spec_hash, manifest.config_hash):
        approved = f"the approval is for the spec {record.spec_hash} with the configuration {record.config_hash}"
        raise Refused(ApprovalCode.BINDING, f"{approved}, not for those of the bundle")
    if record.break_glass != is_separate:
        found = "lacks" if is_separate else "contains"
        used = "used" if record.break_glass else "did not use"
        raise _differs(f"the deployment {used} break-glass, but the bundle {found} the approval credential")
    if credential is None:
        if record.status == ApprovalStatus.APPROVED:
            detail = f"{CREDENTIAL} is missing, although the approval in {APPROVAL_RECORD} was granted"
            raise Unproven(EvidenceCode.CREDENTIAL, detail)
        return
    if record.approval_id != credential.approval_id:
        raise _differs(f"{CREDENTIAL} was issued for another approval, {credential.approval_id}")
    if record.status != ApprovalStatus.APPROVED:
        raise Unproven(EvidenceCode.NOT_APPROVED, f"the approval {record.approval_id} is {record.status}")
    if (record.approved_at, record.expires_at) != (credential.issued_at, credential.expires_at):
        raise _differs(f"approved_at or expires_at differs from the time in {CREDENTIAL}")
    _check_decisions(record, credential)


def _check_decisions(record: ApprovalRecord, credential: Payload) -> None:
    """Check that nobody denied and enough people approved, including the credential's issuer. Raises Unproven."""
    if any(decision.decision != APPROVE for decision in record.decisions):
        raise Unproven(EvidenceCode.NOT_APPROVED, f"somebody denied the approval {record.approval_id}")
    if len(record.approvers) < record.required_approvals:
        detail = f"approvals required: {record.required_approvals}, counted: {len(record.approvers)}"
        raise Unproven(EvidenceCode.NOT_APPROVED, f"{detail}; each person counts once")
    counted = {decision.decided_by for decision in record.decisions if decision.user_id in record.approvers}
    if credential.issued_by not in counted:
        raise _differs(f"{CREDENTIAL} was issued by {credential.issued_by}, but no approval by this person counts")


def _differs(detail: str) -> Unproven:
    return Unproven(EvidenceCode.APPROVAL_RECORD, f"{APPROVAL_RECORD}: {detail}")


def lines(record: ApprovalRecord) -> Iterator[tuple[str, str]]:
    """Yield the lines of the printed proof about the decisions, the request and what the approval covers."""
    for decision in record.decisions:
        comment = f": {decision.comment}" if decision.comment else ""
        yield "decision", f"{decision.decision} by {decision.decided_by} at {format_time(decision.decided_at)}{comment}"
    yield "requested by", f"{record.requested_by}; required approvals: {record.required_approvals}"
    for name in sorted(record.bound.keys() - {"spec_hash", "config_hash"}):
        yield "bound to", f"{name}: {canonical(record.bound[name]).decode()}"

"""Verifies the signed statements of the decisions on waves, and compares them with the approved strategy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from byteor.engine.canonical import Json, canonical, format_time, parse_objects, sha256
from byteor.engine.counted import count_of
from byteor.engine.machines import ApprovalStatus
from byteor.engine.rollout import Hold
from byteor.engine.signing import wave_statement
from byteor.engine.signing.approval_record import APPROVE, ApprovalRecord
from byteor.engine.signing.bundle import Manifest
from byteor.engine.signing.configuration_statement import Verified
from byteor.engine.signing.refusals import Refused, StatementCode
from byteor.engine.signing.wave_statement import WaveStatement

from .files import APPROVAL_RECORD, WAVE_APPROVALS
from .trust import EvidenceCode, Signature, Trust, Unproven

_IDS = ("org_id", "project_id", "environment_id", "deployment_id")


@dataclass(frozen=True, slots=True)
class WaveApprovals:
    """The verified statements in order, and the hash of the envelope of each."""

    statements: Sequence[Verified[WaveStatement]] = ()
    hashes: Sequence[str] = ()

    @property
    def listed(self) -> Mapping[str, str]:
        """The name of each statement by the hash of its envelope."""
        names = (f"{WAVE_APPROVALS}, statement {number}" for number in range(1, len(self.hashes) + 1))
        return dict(zip(self.hashes, names, strict=True))

    @property
    def signatures(self) -> Iterator[Signature]:
        """The verified signatures, and what each covers."""
        for each in self.statements:
            covered = (
                f"the decisions on wave {each.content.wave + 1} of the deployment, what the earlier waves had done"
            )
            yield Signature(WAVE_APPROVALS, each.kid, f"{covered}, and the earlier wave statements")

    def documents(self) -> list[Json]:
        """Return the statements as JSON data."""
        return [each.content.document() for each in self.statements]


def read(data: bytes | None, trust: Trust, manifest: Manifest, bundle_hash: str) -> WaveApprovals:
    """Return the statements about this deployment and bundle. ``data`` is the content of the file, if it exists.

    Raises Refused if a statement is invalid, does not belong to the deployment, or does not follow the one before it,
    and Unproven if the caller named only other key ids. Does not detect that the last statements were removed.
    """
    if data is None:
        return WaveApprovals()
    try:
        envelopes = parse_objects(data)
        hashes = [sha256(canonical(envelope)) for envelope in envelopes]
    except ValueError as error:
        raise Refused(StatementCode.WAVE_MALFORMED, f"{WAVE_APPROVALS}: {error}") from error
    try:
        statements = [wave_statement.verify(envelope, trust.keyset) for envelope in envelopes]
        for each in statements:
            _check_subject(each.content, manifest, bundle_hash)
            wave_statement.check(each.content)
        wave_statement.check_order(statements)
    except Refused as refused:
        raise Refused(refused.code, f"{WAVE_APPROVALS}: {refused.detail}") from refused
    for each in statements:
        trust.check(each.kid)
    return WaveApprovals(statements, hashes)


def _check_subject(statement: WaveStatement, manifest: Manifest, bundle_hash: str) -> None:
    name = f"wave {statement.wave + 1}"
    if statement.bundle_hash != bundle_hash:
        detail = f"{name}: the statement is about the bundle {statement.bundle_hash}, not about this bundle"
        raise Refused(StatementCode.WAVE_SUBJECT, detail)
    for id_ in _IDS:
        ours, theirs = getattr(manifest, id_), getattr(statement, id_)
        if ours != theirs:
            raise Refused(StatementCode.WAVE_DEPLOYMENT, f"{name}: {id_} is {theirs}, but the manifest has {ours}")
    if early := [each.decided_by for each in statement.decisions if each.decided_at < manifest.created_at]:
        raise Refused(StatementCode.WAVE_TIME, f"{name}: {early[0]} decided before the deployment was requested")


def check_holds(approvals: WaveApprovals, record: ApprovalRecord | None) -> None:
    """Check that the approved strategy has an approval hold for each statement. Raises Refused or Unproven.

    The hold may also be that of an earlier wave, because the hold of a wave without available agents applies to a later
    wave. Without a record, the strategy is unknown, and nothing is checked.
    """
    holds = _read_holds(record)  # fail here, not while the proof is printed
    for each in approvals.statements if record is not None else ():
        wave = each.content.wave
        if not 0 < wave < len(holds):
            detail = f"wave {wave + 1}: the strategy in {APPROVAL_RECORD} has no hold before this wave"
        elif Hold.APPROVAL not in holds[: wave + 1]:
            detail = f"wave {wave + 1}: the strategy in {APPROVAL_RECORD} requires no approval before this wave"
        else:
            continue
        raise Refused(StatementCode.WAVE_HOLD, f"{WAVE_APPROVALS}: {detail}")


def _is_approved(statement: Verified[WaveStatement]) -> bool:
    return statement.content.status == ApprovalStatus.APPROVED


def _read_holds(record: ApprovalRecord | None) -> Sequence[Hold | None]:
    """Return the holds of the approved strategy, or none without a record. Raises Unproven if they are malformed."""
    strategy = None if record is None else record.bound.get("strategy")
    holds = strategy.get("holds") if isinstance(strategy, dict) else None
    try:
        return [None if hold is None else Hold(hold) for hold in holds or ()]
    except (TypeError, ValueError) as error:
        raise Unproven(EvidenceCode.APPROVAL_RECORD, f"{APPROVAL_RECORD}: the holds are malformed") from error


def lines(approvals: WaveApprovals, record: ApprovalRecord | None, *, is_complete: bool) -> Iterator[tuple[str, str]]:
    """Yield the lines of the printed proof about the decisions on waves, and what is not proven about them.

    ``is_complete`` is True if a signed record lists the statements and none is missing.
    """
    holds = _read_holds(record)
    for each in approvals.statements:
        yield from _statement_lines(each.content)
        if record is not None:
            yield from _difference_lines(each.content, record)
    approved = {each.content.wave for each in approvals.statements if _is_approved(each)}
    for wave, hold in enumerate(holds):
        if hold is Hold.APPROVAL and wave not in approved:
            reason = "the wave had not been started at the time of the export, or had no available agents"
            detail = f"wave {wave + 1}: {APPROVAL_RECORD} requires an approval before this wave"
            yield "NOT APPROVED", f"{detail}; {reason}" if is_complete else detail
        elif hold is not Hold.APPROVAL and wave in approved:
            reason = f"the hold of an earlier wave without available agents applied to wave {wave + 1}"
            yield "hold", f"wave {wave + 1} has no approval hold in {APPROVAL_RECORD}: {reason}"
    if is_complete:
        return
    if approvals.statements:
        yield "NOT COVERED", "no signature covers the list of the wave approvals: the last ones could be missing"
    elif record is None:
        yield "NOT COVERED", "nothing signed states whether a wave needed an approval"


def _statement_lines(statement: WaveStatement) -> Iterator[tuple[str, str]]:
    name = f"Wave {statement.wave + 1}"
    is_approved = statement.status == ApprovalStatus.APPROVED
    people = [
        each.decided_by
        for each in statement.decisions
        if (each.user_id in statement.approvers if is_approved else each.decision != APPROVE)
    ]
    by = " and ".join([", ".join(people[:-1]), people[-1]]) if len(people) > 1 else people[0]
    at = format_time(statement.signed_at)
    yield (
        "wave approval",
        f"{name} was {statement.status} by {by} at {at}. {statement.report.summary}",
    )
    for each in statement.decisions:
        ignored = each.decision == APPROVE and each.user_id not in statement.approvers
        comment = f": {each.comment}" if each.comment else ""
        text = f"{each.decision} by {each.decided_by} at {format_time(each.decided_at)}{comment}"
        yield "on the wave", f"(does not count) {text}" if ignored else text


def _difference_lines(statement: WaveStatement, record: ApprovalRecord) -> Iterator[tuple[str, str]]:
    """Yield a line if the reviewers differ from those of the deployment's approval, and a line if other rules do.

    Such differences are allowed: an org_admin may change the reviewers, and the deployment may use the approval of
    an earlier request.
    """
    name = f"wave {statement.wave + 1}"
    if statement.reviewers != record.reviewers:
        now = ", ".join(statement.reviewers) or "anybody with the permission"
        text = f"of {name} ({now}) differ from those in {APPROVAL_RECORD}"
        yield "reviewers", f"{text}; an org_admin can change the reviewers, and the ledger records who did"
    ours = (statement.required_approvals, statement.allow_self_approval)
    if ours != (record.required_approvals, record.allow_self_approval):
        self_approval = "allowed" if statement.allow_self_approval else "not allowed"
        text = f"{count_of(statement.required_approvals, 'required approval')}, self-approval {self_approval}"
        yield "rules", f"of {name} ({text}) differ from those in {APPROVAL_RECORD}"

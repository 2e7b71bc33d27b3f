"""The signed statement of the decisions on a wave, and the check whether these decisions approve or deny the wave.

The statement is a DSSE envelope around an in-toto statement about the deploy bundle. It is signed when the wave is
approved or denied. Each statement of a deployment names the one before it. Therefore, a removed statement is noticed,
unless no statement follows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from byteor.engine.canonical import Fields, Json, canonical, format_time, from_base64, parse_object, sha256
from byteor.engine.machines import AgentProgress, ApprovalStatus
from byteor.engine.wave_hold import FailureCount, WaveReport

from . import configuration_statement, dsse
from .approval_record import APPROVE, Decision, find_approvers
from .configuration_statement import Verified
from .keys import KeySet
from .refusals import Refused, StatementCode

PREDICATE_TYPE = "urn:byteor:wave-approval:v1"

_IDS = ("org_id", "project_id", "environment_id", "deployment_id", "approval_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class WaveStatement:
    """The decisions on a wave, and the report on the earlier waves. Waves are counted from 0.

    ``number`` counts the statements of the deployment from 1. ``previous`` is the hash of the payload of the statement
    before, or None for the first statement. ``status`` is ``approved`` or ``denied``. ``requester_id`` is the person
    behind the request for the deployment; None if unknown. If there are ``reviewers``, only their consents count.
    """

    bundle_hash: str
    org_id: str
    project_id: str
    environment_id: str
    deployment_id: str
    approval_id: str
    number: int
    previous: str | None
    wave: int
    report: WaveReport
    digest: str
    status: str
    required_approvals: int
    allow_self_approval: bool
    reviewers: tuple[str, ...]
    requester_id: str | None
    requested_by: str
    decisions: tuple[Decision, ...]
    signed_at: datetime

    @property
    def approvers(self) -> frozenset[str]:
        """The ids of the people whose consent counts."""
        return find_approvers(
            self.decisions,
            reviewers=self.reviewers,
            excluded=None if self.allow_self_approval else self.requester_id,
        )

    @classmethod
    def from_document(cls, document: object, bundle_hash: str) -> WaveStatement:
        """Parse a predicate about this bundle. Raises ValueError for any deviation from the format."""
        members = Fields(document)
        statement = cls(
            bundle_hash=bundle_hash,
            **{name: members.text(name) for name in _IDS},
            number=members.integer("number"),
            previous=None if members.member("previous") is None else members.digest("previous"),
            wave=members.integer("wave"),
            report=_parse_report(members.fields("report")),
            digest=members.digest("digest"),
            status=members.constant("status", ApprovalStatus.APPROVED, ApprovalStatus.DENIED),
            required_approvals=members.integer("required_approvals"),
            allow_self_approval=members.flag("allow_self_approval"),
            reviewers=members.sorted_texts("reviewers"),
            requester_id=members.optional_text("requester_id"),
            requested_by=members.text("requested_by"),
            decisions=tuple(Decision.from_document(item) for item in members.items("decisions")),
            signed_at=members.time("signed_at"),
        )
        if canonical(statement.document()) != canonical(document):
            raise ValueError("it has an unknown member, or a value that is not in the expected form")
        return statement

    def document(self) -> Json:
        """Return the predicate."""
        return {
            **{name: getattr(self, name) for name in _IDS},
            "number": self.number,
            "previous": self.previous,
            "wave": self.wave,
            "report": self.report.stored(),
            "digest": self.digest,
            "status": self.status,
            "required_approvals": self.required_approvals,
            "allow_self_approval": self.allow_self_approval,
            "reviewers": list(self.reviewers),
            "requester_id": self.requester_id,
            "requested_by": self.requested_by,
            "decisions": [decision.document() for decision in self.decisions],
            "signed_at": format_time(self.signed_at),
        }


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a statement among those of its deployment. The next statement names its ``payload_hash``."""

    number: int
    payload_hash: str
    signed_at: datetime


def _parse_report(members: Fields) -> WaveReport:
    progress = members.fields("progress")
    return WaveReport(
        deployment_id=members.text("deployment_id"),
        bundle_hash=members.digest("bundle_hash"),
        wave=members.integer("wave"),
        progress={AgentProgress(word): progress.integer(word) for word in progress.names()},
        failures=tuple(
            FailureCount(each.text("reason"), each.any_text("detail"), each.integer("count"))
            for each in map(Fields, members.items("failures"))
        ),
    )


def sign(statement: WaveStatement, private_key: bytes) -> Json:
    """Return a signed envelope around a statement."""
    return dsse.sign_claim(PREDICATE_TYPE, statement.bundle_hash, statement.document(), private_key)


def find_place(envelope: Json) -> Place:
    """Return the place of a statement that the caller trusts. Does not verify the signature."""
    payload = from_base64(Fields(envelope).text("payload"))
    predicate = Fields(parse_object(payload)).fields("predicate")
    return Place(predicate.integer("number"), sha256(payload), predicate.time("signed_at"))


def verify(envelope: object, keyset: KeySet) -> Verified[WaveStatement]:
    """Return the statement if a trusted key signed it. Otherwise raises Refused with a code ``wave_approval.…``.

    A key that was retired after it signed the statement is trusted.
    """
    return configuration_statement.verify_once("wave_approval", PREDICATE_TYPE, envelope, keyset, _parse)


def _parse(subject: Mapping[str, str], predicate: object) -> WaveStatement:
    if subject.keys() != {dsse.SUBJECT_NAME}:
        raise ValueError(f"the subject must be exactly one {dsse.SUBJECT_NAME}")
    return WaveStatement.from_document(predicate, subject[dsse.SUBJECT_NAME])


def check(statement: WaveStatement) -> None:
    """Check that the report is that of the wave, and that the decisions have the stated result. Raises Refused."""
    report, name = statement.report, f"wave {statement.wave + 1}"
    if (report.deployment_id, report.bundle_hash) != (statement.deployment_id, statement.bundle_hash):
        raise Refused(StatementCode.WAVE_REPORT, f"{name}: the report is about another deployment or bundle")
    if report.wave != statement.wave:
        raise Refused(StatementCode.WAVE_REPORT, f"{name}: the report was made for wave {report.wave + 1}")
    if report.digest != statement.digest:
        decided = f"the decisions are about a report with the digest {statement.digest}"
        raise Refused(StatementCode.WAVE_DIGEST, f"{name}: the report has the digest {report.digest}, but {decided}")
    people = [decision.user_id for decision in statement.decisions]
    if len(set(people)) != len(people):
        raise Refused(StatementCode.WAVE_DECISIONS, f"{name}: a person decided twice")
    if late := [each.decided_by for each in statement.decisions if each.decided_at > statement.signed_at]:
        raise Refused(StatementCode.WAVE_TIME, f"{name}: {late[0]} decided after the statement had been signed")
    denials = [decision for decision in statement.decisions if decision.decision != APPROVE]
    if statement.status == ApprovalStatus.DENIED:
        _check_denial(statement, denials, name)
    else:
        _check_approval(statement, denials, name)


def _check_denial(statement: WaveStatement, denials: Sequence[Decision], name: str) -> None:
    if not denials:
        raise Refused(StatementCode.WAVE_DECISIONS, f"{name}: its status is denied, but nobody denied it")
    for denial in denials:
        if statement.reviewers and denial.user_id not in statement.reviewers:
            raise Refused(StatementCode.WAVE_REVIEWER, f"{name}: {denial.decided_by} denied it, but is not a reviewer")


def _check_approval(statement: WaveStatement, denials: Sequence[Decision], name: str) -> None:
    if denials:
        raise Refused(
            StatementCode.WAVE_DECISIONS, f"{name}: its status is approved, but {denials[0].decided_by} denied it"
        )
    if not statement.allow_self_approval:
        if statement.requester_id is None:
            raise Refused(
                StatementCode.WAVE_REQUESTER,
                f"{name}: the requester is unknown and may be one of the people who approved",
            )
        if any(decision.user_id == statement.requester_id for decision in statement.decisions):
            raise Refused(StatementCode.WAVE_REQUESTER, f"{name}: the requester approved their own request")
    required, approvers = max(statement.required_approvals, 1), statement.approvers
    if len(approvers) < required:
        strangers = [each.decided_by for each in statement.decisions if each.user_id not in approvers]
        ignored = f"; not counted, because they are not reviewers: {', '.join(strangers)}" if strangers else ""
        code = StatementCode.WAVE_REVIEWER if strangers else StatementCode.WAVE_TOO_FEW
        people_noun = "person" if required == 1 else "people"
        raise Refused(code, f"{name}: {len(approvers)} of {required} required {people_noun} approved{ignored}")


def check_order(statements: Sequence[Verified[WaveStatement]]) -> None:
    """Check that these are the first statements of a deployment, in order and without gaps. Raises Refused.

    Later statements of the deployment may be missing.
    """
    previous: Verified[WaveStatement] | None = None
    approvals: set[str] = set()
    for number, each in enumerate(statements, 1):
        content, name = each.content, f"statement {number} (about wave {each.content.wave + 1})"
        if content.approval_id in approvals:
            raise Refused(
                StatementCode.WAVE_ORDER, f"{name} is a second statement of the approval {content.approval_id}"
            )
        expected = None if previous is None else previous.payload_hash
        if (content.number, content.previous) != (number, expected):
            detail = f"{name} was signed as number {content.number}, after {content.previous or 'no statement'}"
            raise Refused(StatementCode.WAVE_ORDER, f"{detail}: a statement is missing, or the order is wrong")
        if previous is not None and content.signed_at < previous.content.signed_at:
            raise Refused(StatementCode.WAVE_TIME, f"{name} is older than the statement before it")
        approvals.add(content.approval_id)
        previous = each

"""The signed record of a deployment's approval, which is part of the evidence that the server exports.

The approval credential does not name the approved configuration and target. The record names both, and contains the
decisions. It is a DSSE envelope around an in-toto statement about the deploy bundle.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Self

from byteor.engine.canonical import Fields, Json, format_time

from . import dsse
from .keys import KeySet
from .refusals import DeliveryCode, Refused

PREDICATE_TYPE = "urn:byteor:approval:v1"
APPROVE = "approve"

_IDS = ("org_id", "project_id", "environment_id", "deployment_id", "approval_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One person's decision on an approval."""

    user_id: str
    decided_by: str
    decision: str
    comment: str
    decided_at: datetime

    @classmethod
    def from_document(cls, document: object) -> Self:
        """Parse a decision's JSON object. Raises ValueError."""
        members = Fields(document)
        members.only("user_id", "decided_by", "decision", "comment", "decided_at")
        return cls(
            user_id=members.text("user_id"),
            decided_by=members.text("decided_by"),
            decision=members.constant("decision", APPROVE, "deny"),
            comment=members.any_text("comment"),
            decided_at=members.time("decided_at"),
        )

    def document(self) -> Json:
        """Return the decision's JSON object."""
        return {
            "user_id": self.user_id,
            "decided_by": self.decided_by,
            "decision": self.decision,
            "comment": self.comment,
            "decided_at": format_time(self.decided_at),
        }


def find_approvers(
    decisions: Iterable[Decision], *, reviewers: Collection[str], excluded: str | None
) -> frozenset[str]:
    """Return the ids of the people whose consent counts. ``excluded`` never counts.

    If there are reviewers, only their consents count.
    """
    people = {decision.user_id for decision in decisions if decision.decision == APPROVE} - {excluded}
    return frozenset(people & set(reviewers) if reviewers else people)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRecord:
    """An approval, in any status, and the deployment that it is for.

    ``bound`` is everything that the approval covers: ``spec_hash``, ``config_hash``, ``strategy``, ``reviewers``, and
    further values for readers. ``shown`` has values that the approval does not cover, such as the agents that approvers
    saw for the target.
    """

    org_id: str
    project_id: str
    environment_id: str
    deployment_id: str
    approval_id: str
    status: str
    bound: Json
    shown: Json
    break_glass: bool
    requester_id: str | None
    requested_by: str
    required_approvals: int
    allow_self_approval: bool
    approved_at: datetime | None
    expires_at: datetime
    decisions: tuple[Decision, ...]

    @property
    def spec_hash(self) -> str:
        """The hash of the spec that the approval covers."""
        return Fields(self.bound).digest("spec_hash")

    @property
    def config_hash(self) -> str:
        """The hash of the configuration that the approval covers."""
        return Fields(self.bound).digest("config_hash")

    @property
    def approvers(self) -> frozenset[str]:
        """The ids of the people whose consent counts."""
        return find_approvers(
            self.decisions,
            reviewers=self.reviewers,
            excluded=None if self.allow_self_approval else self.requester_id,
        )

    @property
    def reviewers(self) -> tuple[str, ...]:
        """The ids of the people who may decide, sorted. Empty if the approval names none, as in older records."""
        return Fields(self.bound).sorted_texts("reviewers") if "reviewers" in self.bound else ()

    @classmethod
    def from_document(cls, document: object) -> Self:
        """Parse a record's JSON object. Raises ValueError if it is malformed."""
        members = Fields(document)
        members.only(*(field.name for field in fields(cls)))
        record = cls(
            **{name: members.text(name) for name in _IDS},
            status=members.text("status"),
            bound=members.object("bound"),
            shown=members.object("shown"),
            break_glass=members.flag("break_glass"),
            requester_id=members.optional_text("requester_id"),
            requested_by=members.text("requested_by"),
            required_approvals=members.integer("required_approvals"),
            allow_self_approval=members.flag("allow_self_approval"),
            approved_at=members.optional_time("approved_at"),
            expires_at=members.time("expires_at"),
            decisions=tuple(Decision.from_document(item) for item in members.items("decisions")),
        )
        _ = record.spec_hash, record.config_hash, record.reviewers  # raises ValueError if one is malformed
        return record

    def document(self) -> Json:
        """Return the record's JSON object."""
        return {
            **{name: getattr(self, name) for name in _IDS},
            "status": self.status,
            "bound": self.bound,
            "shown": self.shown,
            "break_glass": self.break_glass,
            "requester_id": self.requester_id,
            "requested_by": self.requested_by,
            "required_approvals": self.required_approvals,
            "allow_self_approval": self.allow_self_approval,
            "approved_at": None if self.approved_at is None else format_time(self.approved_at),
            "expires_at": format_time(self.expires_at),
            "decisions": [decision.document() for decision in self.decisions],
        }


def sign_record(record: ApprovalRecord, bundle_hash: str, private_key: bytes) -> Json:
    """Return a signed envelope around an approval record. Its subject is the deploy bundle with this hash."""
    return dsse.sign_claim(PREDICATE_TYPE, bundle_hash, record.document(), private_key)


def verify_record(envelope: object, keyset: KeySet, bundle_hash: str) -> tuple[ApprovalRecord, str]:
    """Return the record and the id of its key if a trusted key signed it for this bundle. Raises Refused otherwise."""
    claim = dsse.verify_claim(PREDICATE_TYPE, envelope, keyset)
    if claim.bundle_hash != bundle_hash:
        raise Refused(DeliveryCode.ENVELOPE_SUBJECT, "it was signed for another bundle")
    try:
        return ApprovalRecord.from_document(claim.predicate), claim.kid
    except ValueError as error:
        raise Refused(DeliveryCode.ENVELOPE_MALFORMED, f"statement: {error}") from error

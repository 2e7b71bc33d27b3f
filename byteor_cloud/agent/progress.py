"""What an agent remembers of offers: which it works on, runs and failed, and what it must still report."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from byteor_cloud.engine.delivery.encoding import Fields, Json, format_time
from byteor_cloud.engine.machines import OfferAction


class Status(StrEnum):
    """How far an offer has come, in the order in which it is reported."""

    DOWNLOADING = "downloading"
    ACTIVATING = "activating"
    ACTIVE = "active"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"

    @property
    def rank(self) -> int:
        """Where it is on the way; the last three are ends."""
        return {Status.DOWNLOADING: 0, Status.ACTIVATING: 1}.get(self, 2)


@dataclass(frozen=True, slots=True)
class Offer:
    """What the control plane wants this agent to run.

    ``offered_at`` is opaque: a new one makes the same bundle of the same deployment a new offer (a retry).
    """

    deployment_id: str
    action: OfferAction
    bundle_hash: str
    offered_at: str | None = None

    @classmethod
    def read(cls, members: Fields) -> Offer:
        """Read an offer from an answer or from the state folder."""
        return cls(
            members.text("deployment_id"),
            OfferAction(members.text("action")),
            members.digest("bundle_hash"),
            members.optional_text("offered_at"),
        )

    def document(self) -> Json:
        """Return what ``read`` reads."""
        return {
            "deployment_id": self.deployment_id,
            "action": self.action.value,
            "bundle_hash": self.bundle_hash,
            "offered_at": self.offered_at,
        }


@dataclass(frozen=True, slots=True)
class Attempt:
    """The offer last worked on and the furthest that was reported of it."""

    offer: Offer
    since: datetime
    status: Status | None = None


@dataclass(frozen=True, slots=True)
class Running:
    """What runs; ``deployment_id`` is of the manifest, which a rollback's offer does not name."""

    offer: Offer
    since: datetime
    deployment_id: str
    spec_hash: str


@dataclass(frozen=True, slots=True)
class Failure:
    """The last offer that failed, and why; it is not tried again."""

    offer: Offer
    since: datetime
    detail: str


@dataclass(frozen=True, slots=True)
class Report:
    """A report that the control plane has not acknowledged yet."""

    offer: Offer
    status: Status
    detail: str | None = None
    tuning: Json | None = None

    def body(self) -> Json:
        """Return the request body: what is not known is left out."""
        members: Json = {
            "deployment_id": self.offer.deployment_id,
            "status": self.status.value,
            "bundle_hash": self.offer.bundle_hash,
            "detail": self.detail,
            "tuning": self.tuning,
        }
        return {name: value for name, value in members.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Progress:
    """All of it, stored as one so that a crash leaves one consistent step."""

    attempted: Attempt | None = None
    running: Running | None = None
    last_failed: Failure | None = None
    pending: tuple[Report, ...] = field(default=())

    @classmethod
    def from_document(cls, document: Json) -> Progress:
        """Read what ``document`` wrote."""
        members = Fields(document)
        return cls(
            members.optional("attempted", _attempt),
            members.optional("running", _running),
            members.optional("last_failed", _failure),
            tuple(_report(Fields(item)) for item in members.items("pending")),
        )

    def document(self) -> Json:
        """Return the stored and shown form."""
        attempted, running, failed = self.attempted, self.running, self.last_failed
        return {
            "attempted": attempted and {**_since(attempted), "status": attempted.status and attempted.status.value},
            "running": running
            and {
                **_since(running),
                "running_deployment_id": running.deployment_id,
                "spec_hash": running.spec_hash,
            },
            "last_failed": failed and {**_since(failed), "detail": failed.detail},
            "pending": [
                {
                    **report.offer.document(),
                    "status": report.status.value,
                    "detail": report.detail,
                    "tuning": report.tuning,
                }
                for report in self.pending
            ],
        }


def _since(step: Attempt | Running | Failure) -> Json:
    return {**step.offer.document(), "since": format_time(step.since)}


def _attempt(members: Fields) -> Attempt:
    status = members.optional_text("status")
    return Attempt(Offer.read(members), members.time("since"), Status(status) if status else None)


def _running(members: Fields) -> Running:
    return Running(
        Offer.read(members),
        members.time("since"),
        members.text("running_deployment_id"),
        members.digest("spec_hash"),
    )


def _failure(members: Fields) -> Failure:
    return Failure(Offer.read(members), members.time("since"), members.text("detail"))


def _report(members: Fields) -> Report:
    return Report(
        Offer.read(members),
        Status(members.text("status")),
        members.optional_text("detail"),
        None if members.member("tuning") is None else members.object("tuning"),
    )

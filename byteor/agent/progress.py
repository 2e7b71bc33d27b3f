"""An agent's stored progress: its last attempt, running bundle, last failure and pending reports."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from byteor.engine.canonical import Fields, Json, format_time
from byteor.engine.machines import OfferAction


class OfferStatus(StrEnum):
    """The statuses of an offer, in the order in which they are reported. The last three are final."""

    DOWNLOADING = "downloading"
    ACTIVATING = "activating"
    ACTIVE = "active"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"

    @property
    def rank(self) -> int:
        """The position in the order of the reports. The three final statuses share the last position."""
        return {OfferStatus.DOWNLOADING: 0, OfferStatus.ACTIVATING: 1}.get(self, 2)


@dataclass(frozen=True, slots=True)
class ReceivedOffer:
    """The control plane's request to run a bundle.

    The same bundle with another ``offered_at`` is a new offer, for example after a retry of the deployment.
    """

    deployment_id: str
    action: OfferAction
    bundle_hash: str
    offered_at: str | None = None

    @classmethod
    def read(cls, members: Fields) -> ReceivedOffer:
        """Parse an offer from a response or from the state folder."""
        return cls(
            members.text("deployment_id"),
            OfferAction(members.text("action")),
            members.digest("bundle_hash"),
            members.optional_text("offered_at"),
        )

    def document(self) -> Json:
        """Return the stored form, which ``read`` parses."""
        return {
            "deployment_id": self.deployment_id,
            "action": self.action.value,
            "bundle_hash": self.bundle_hash,
            "offered_at": self.offered_at,
        }


@dataclass(frozen=True, slots=True)
class OfferAttempt:
    """The last handled offer, when its handling started, and the status of the last report about it, if any.

    The report may still be pending.
    """

    offer: ReceivedOffer
    since: datetime
    status: OfferStatus | None = None


@dataclass(frozen=True, slots=True)
class RunningBundle:
    """The running bundle. After a rollback, ``deployment_id`` (from the manifest) differs from the offer's."""

    offer: ReceivedOffer
    since: datetime
    deployment_id: str
    spec_hash: str


@dataclass(frozen=True, slots=True)
class FailedOffer:
    """The last offer that failed, with the time and the reason. It is not retried."""

    offer: ReceivedOffer
    since: datetime
    detail: str


@dataclass(frozen=True, slots=True)
class OfferReport:
    """A report about an offer. It stays pending until the control plane accepts or rejects it."""

    offer: ReceivedOffer
    status: OfferStatus
    detail: str | None = None
    tuning: Json | None = None

    def body(self) -> Json:
        """Return the members of the request body that describe the report, without those that are None."""
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
    """The whole progress, stored in one file so that it is consistent after a crash."""

    attempted: OfferAttempt | None = None
    running: RunningBundle | None = None
    last_failed: FailedOffer | None = None
    pending: tuple[OfferReport, ...] = field(default=())

    @classmethod
    def from_document(cls, document: Json) -> Progress:
        """Parse the stored form."""
        members = Fields(document)
        return cls(
            members.optional("attempted", _attempt),
            members.optional("running", _running),
            members.optional("last_failed", _failure),
            tuple(_report(Fields(item)) for item in members.items("pending")),
        )

    def document(self) -> Json:
        """Return the stored form, which ``byteor-agent status`` also prints."""
        attempted, running, failed = self.attempted, self.running, self.last_failed
        return {
            "attempted": attempted
            and {**_offer_members(attempted), "status": attempted.status and attempted.status.value},
            "running": running
            and {
                **_offer_members(running),
                "running_deployment_id": running.deployment_id,
                "spec_hash": running.spec_hash,
            },
            "last_failed": failed and {**_offer_members(failed), "detail": failed.detail},
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


def _offer_members(entry: OfferAttempt | RunningBundle | FailedOffer) -> Json:
    return {**entry.offer.document(), "since": format_time(entry.since)}


def _attempt(members: Fields) -> OfferAttempt:
    status = members.optional_text("status")
    return OfferAttempt(ReceivedOffer.read(members), members.time("since"), OfferStatus(status) if status else None)


def _running(members: Fields) -> RunningBundle:
    return RunningBundle(
        ReceivedOffer.read(members),
        members.time("since"),
        members.text("running_deployment_id"),
        members.digest("spec_hash"),
    )


def _failure(members: Fields) -> FailedOffer:
    return FailedOffer(ReceivedOffer.read(members), members.time("since"), members.text("detail"))


def _report(members: Fields) -> OfferReport:
    return OfferReport(
        ReceivedOffer.read(members),
        OfferStatus(members.text("status")),
        members.optional_text("detail"),
        None if members.member("tuning") is None else members.object("tuning"),
    )

"""The handling of offers: download, verify, start and report a bundle, and resume it after a restart."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

from byteor.engine.canonical import Json
from byteor.engine.machines import OfferAction
from byteor.engine.signing.bundle import MAX_BUNDLE_BYTES, open_bundle
from byteor.engine.signing.refusals import DeliveryCode, Refused
from byteor.engine.signing.verify import VerifiedBundle, verify_delivery

from .api import ControlPlane, CredentialRejected, OfferedBundle, RequestRejected
from .configuration import ActivationError
from .keyring import Keyring
from .pipeline import BundleRunner, StartedPipeline
from .progress import FailedOffer, OfferAttempt, OfferReport, OfferStatus, ReceivedOffer, RunningBundle
from .state_folder import StateFolder

_log = logging.getLogger("byteor.agent")
_MAX_DETAIL = 2_000
_CONFLICT = 409


class OfferWithdrawn(Exception):
    """The control plane no longer makes this offer, or rejected a report about it. Fetch the current offer."""


class OfferHandler:
    """Handles the offers of one agent. The running bundle keeps running until another one has started."""

    def __init__(
        self,
        *,
        state: StateFolder,
        plane: ControlPlane,
        keyring: Keyring,
        pipeline: BundleRunner,
        environment_id: str,
        now: Callable[[], datetime],
    ) -> None:
        self._state = state
        self._plane = plane
        self._keyring = keyring
        self._pipeline = pipeline
        self._environment_id = environment_id
        self._now = now
        self._withdrawn: ReceivedOffer | None = None
        self.progress = state.progress()
        self.active: StartedPipeline | None = None

    def resume(self) -> None:
        """Start the bundle that ran before the restart.

        If the bundle cannot start, its offer is handled again when the control plane repeats the offer.
        """
        running = self.progress.running
        if running is None:
            return
        tar = self._state.bundle(running.offer.bundle_hash)
        try:
            if tar is None:
                raise ActivationError("the bundle is missing or damaged")
            bundle = open_bundle(tar)
            self.active = self._start(bundle.bundle_hash, bundle.spec_kv, bundle.runtime_config)
        except (ActivationError, Refused) as error:
            _log.error("cannot resume bundle %s: %s", running.offer.bundle_hash, error)
            self._save(running=None)

    @property
    def health(self) -> str:
        """The status in heartbeats: ``healthy``, unless the last handled offer has failed.

        After such a failure, the status is ``degraded`` if a bundle is running, and ``failed`` otherwise. Until a
        heartbeat is accepted, the heartbeats have the status ``starting`` instead.
        """
        attempted, failed = self.progress.attempted, self.progress.last_failed
        if not (attempted and failed and attempted.offer == failed.offer):
            return "healthy"
        return "degraded" if self.active else "failed"

    def send_pending_reports(self) -> None:
        """Send the pending reports in order. A report stays pending until the control plane accepts or rejects it.

        Raises OfferWithdrawn when a report is rejected.
        """
        while self.progress.pending:
            report, *later = self.progress.pending
            try:
                self._plane.send_report(report)
            except CredentialRejected:
                raise
            except RequestRejected as error:
                # 409: the offer is not current, or the status cannot follow the agent's progress, for example because
                # the agent did not finish in time. All rejected reports would be rejected again.
                _log.warning(
                    "report %s for deployment %s rejected: %s", report.status, report.offer.deployment_id, error
                )
                self._withdrawn = report.offer
                self._save(pending=tuple(later))
                raise OfferWithdrawn from error
            self._save(pending=tuple(later))

    def needs_handling(self, desired: ReceivedOffer) -> bool:
        """Return whether the offer must be handled.

        False for the offer of the running bundle, the last failed offer, and the last withdrawn offer.
        """
        running, failed = self.progress.running, self.progress.last_failed
        settled = {self._withdrawn, running and running.offer, failed and failed.offer}
        return desired not in settled

    def handle(self, desired: ReceivedOffer) -> None:
        """Download, verify and start the offered bundle, and report each step. A failure leaves the old bundle running.

        Raises OfferWithdrawn when the control plane no longer makes the offer or rejects a report about it. Failed
        requests can raise other errors.
        """
        delivery = self._plane.fetch_offer()
        if delivery is None or not self.needs_handling(delivery.offer):
            self._withdrawn = desired
            raise OfferWithdrawn
        offer = delivery.offer
        if self.progress.attempted is None or self.progress.attempted.offer != offer:
            self._save(attempted=OfferAttempt(offer, self._now()))
        try:
            self._report(OfferReport(offer, OfferStatus.DOWNLOADING))
            bundle = self._fetch_verified_bundle(delivery)
            self._report(OfferReport(offer, OfferStatus.ACTIVATING))
            active = self._start(bundle.bundle_hash, bundle.spec_kv, bundle.runtime_config)
        except (Refused, ActivationError) as error:
            self._record_failure(offer, printable(error))
        else:
            self._record_start(offer, bundle, active)

    def _fetch_verified_bundle(self, delivery: OfferedBundle) -> VerifiedBundle:
        tar = self._state.bundle(delivery.offer.bundle_hash) or self._download(delivery)
        keyset = self._keyring.current()
        try:
            bundle = verify_delivery(tar, delivery.envelope, keyset, self._environment_id)
        except Refused as refused:
            if not refused.code.endswith(".unknown_key"):
                raise
            # If the signing key was rotated, the key set or the signature is too old. Fetch both again, the keys last,
            # so that they include the key of the new signature.
            delivery = self._fetch_same_offer(delivery)
            bundle = verify_delivery(tar, delivery.envelope, self._keyring.refresh(), self._environment_id)
        offer = delivery.offer
        # The action (activate or roll back) is not signed. Without this check, an older bundle could be activated as a
        # new deployment.
        if offer.action is OfferAction.ACTIVATE and bundle.manifest.deployment_id != offer.deployment_id:
            raise ActivationError("the bundle does not belong to the offered deployment")
        return bundle

    def _fetch_same_offer(self, delivery: OfferedBundle) -> OfferedBundle:
        """Fetch the same offer with a new signature. Raises OfferWithdrawn if the offer is no longer current."""
        signed_again = self._plane.fetch_offer()
        if signed_again is None or signed_again.offer != delivery.offer:
            self._withdrawn = delivery.offer
            raise OfferWithdrawn
        return signed_again

    def _download(self, delivery: OfferedBundle) -> bytes:
        bundle_hash, size = delivery.offer.bundle_hash, delivery.bundle_size
        if size > MAX_BUNDLE_BYTES:
            raise Refused(
                DeliveryCode.BUNDLE_TOO_LARGE,
                f"the offered bundle has {size} bytes: at most {MAX_BUNDLE_BYTES} are allowed",
            )
        try:
            chunks = self._plane.download_bundle(delivery.bundle_url, size)
            self._state.save_bundle(bundle_hash, _check_hash(chunks, bundle_hash))
        except CredentialRejected:
            raise
        except RequestRejected as error:
            if error.status == _CONFLICT:
                self._withdrawn = delivery.offer
                raise OfferWithdrawn from error
            raise ActivationError(f"the bundle cannot be downloaded: {error}") from error
        tar = self._state.bundle(bundle_hash)
        if tar is None:
            raise ActivationError("the downloaded bundle was damaged on this host's disk")
        return tar

    def _start(self, bundle_hash: str, spec_kv: bytes, runtime_config: Json) -> StartedPipeline:
        try:
            return self._pipeline.start(bundle_hash, spec_kv, runtime_config)
        except ActivationError:
            raise
        except OSError as error:
            raise ActivationError(f"this host cannot run the pipeline: {error}") from error
        except Exception as error:
            # A stage from an installed package may raise any exception; the agent must survive and report it.
            _log.exception("activation of bundle %s failed", bundle_hash)
            raise ActivationError(f"{type(error).__name__}: {error}") from error

    def _record_start(self, offer: ReceivedOffer, bundle: VerifiedBundle, active: StartedPipeline) -> None:
        replaced = self.progress.running
        self.active = active
        status = OfferStatus.ROLLED_BACK if offer.action is OfferAction.ROLLBACK else OfferStatus.ACTIVE
        running = RunningBundle(offer, self._now(), bundle.manifest.deployment_id, active.spec_hash)
        _log.info("started bundle %s of deployment %s", offer.bundle_hash, running.deployment_id)
        self._state.remove_other_bundles({each.offer.bundle_hash for each in (running, replaced) if each})
        self._report(OfferReport(offer, status, tuning=active.tuning), running=running)

    def _record_failure(self, offer: ReceivedOffer, detail: str) -> None:
        _log.error("the offer of deployment %s failed on this host: %s", offer.deployment_id, detail)
        failure = FailedOffer(offer, self._now(), detail)
        self._report(OfferReport(offer, OfferStatus.FAILED, detail=detail), last_failed=failure)

    def _report(self, report: OfferReport, **changes: Any) -> None:
        """Save the changes together with the report, then send all pending reports.

        The report is skipped unless its status comes after the last reported one.
        """
        attempted = self.progress.attempted
        if attempted is None or attempted.status is None or attempted.status.rank < report.status.rank:
            since = attempted.since if attempted else self._now()
            changes["attempted"] = OfferAttempt(report.offer, since, report.status)
            changes["pending"] = (*self.progress.pending, report)
        self._save(**changes)
        self.send_pending_reports()

    def _save(self, **changes: Any) -> None:
        self.progress = replace(self.progress, **changes)
        self._state.save_progress(self.progress)


def printable(error: Exception) -> str:
    """Return the error's text, shortened, with ``?`` for unprintable characters.

    The text may quote a record, which may contain characters that a database rejects.
    """
    text = str(error)[:_MAX_DETAIL]
    return "".join(character if character.isprintable() else "?" for character in text)


def _check_hash(chunks: Iterator[bytes], bundle_hash: str) -> Iterator[bytes]:
    """Yield the chunks of a download. Raises Refused at the end if their hash is not ``bundle_hash``."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
        yield chunk
    if f"sha256:{digest.hexdigest()}" != bundle_hash:
        raise Refused(DeliveryCode.BUNDLE_HASH, "the downloaded bytes do not have the hash of the offered bundle")

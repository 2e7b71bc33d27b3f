"""Brings an offer from its download to its end, and takes it up again wherever a crash left it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

from byteor_cloud.engine.delivery.bundle import MAX_BUNDLE_BYTES, open_bundle
from byteor_cloud.engine.delivery.encoding import Json
from byteor_cloud.engine.delivery.refusals import DeliveryCode, Refused
from byteor_cloud.engine.delivery.verify import VerifiedBundle, verify_delivery
from byteor_cloud.engine.machines import OfferAction

from .api import ControlPlane, Delivery, Rejected, Unauthorized
from .configuration import ActivationFailed
from .keyring import Keyring
from .pipeline import Active, Pipeline
from .progress import Attempt, Failure, Offer, Report, Running, Status
from .state import State

_log = logging.getLogger("byteor.agent")
_MAX_DETAIL = 2_000
_CONFLICT = 409


class Withdrawn(Exception):
    """The offer is no longer wanted: ask again what is."""


class Rollout:
    """The offers of one agent. What ran before keeps running until another bundle has really started."""

    def __init__(
        self,
        *,
        state: State,
        plane: ControlPlane,
        keyring: Keyring,
        pipeline: Pipeline,
        environment_id: str,
        now: Callable[[], datetime],
    ) -> None:
        self._state = state
        self._plane = plane
        self._keyring = keyring
        self._pipeline = pipeline
        self._environment_id = environment_id
        self._now = now
        self._withdrawn: Offer | None = None
        self.progress = state.progress()
        self.active: Active | None = None

    def resume(self) -> None:
        """Start what ran before the restart; where that fails nothing runs, and the offer is open again."""
        running = self.progress.running
        if running is None:
            return
        tar = self._state.bundle(running.offer.bundle_hash)
        try:
            if tar is None:
                raise ActivationFailed("its bundle is gone or damaged")
            bundle = open_bundle(tar)
            self.active = self._start(bundle.bundle_hash, bundle.spec_kv, bundle.runtime_config)
        except (ActivationFailed, Refused) as error:
            _log.error("can't resume %s: %s", running.offer.bundle_hash, error)
            self._save(running=None)

    @property
    def health(self) -> str:
        """The status that a heartbeat names: a failed attempt shows even while an older bundle runs."""
        attempted, failed = self.progress.attempted, self.progress.last_failed
        if not (attempted and failed and attempted.offer == failed.offer):
            return "healthy"
        return "degraded" if self.active else "failed"

    def flush(self) -> None:
        """Send what is still to be reported; each is repeated until the control plane has answered it."""
        while self.progress.pending:
            report, *later = self.progress.pending
            try:
                self._plane.report(report)
            except Unauthorized:
                raise
            except Rejected as error:
                # 409: the offer is history. Any other refusal would only repeat itself.
                _log.warning("report %s of %s: %s", report.status, report.offer.deployment_id, error)
                self._withdrawn = report.offer
                self._save(pending=tuple(later))
                raise Withdrawn from error
            self._save(pending=tuple(later))

    def is_open(self, desired: Offer) -> bool:
        """Whether there is something to do about what is wanted."""
        running, failed = self.progress.running, self.progress.last_failed
        settled = {self._withdrawn, running and running.offer, failed and failed.offer}
        return desired not in settled

    def act(self, desired: Offer) -> None:
        """Fetch, verify and start an offer, reporting each step; on failure what ran before keeps running."""
        delivery = self._plane.delivery()
        if delivery is None or not self.is_open(delivery.offer):
            self._withdrawn = desired
            raise Withdrawn
        offer = delivery.offer
        if self.progress.attempted is None or self.progress.attempted.offer != offer:
            self._save(attempted=Attempt(offer, self._now()))
        try:
            self._report(Report(offer, Status.DOWNLOADING))
            bundle = self._verified(delivery)
            self._report(Report(offer, Status.ACTIVATING))
            active = self._start(bundle.bundle_hash, bundle.spec_kv, bundle.runtime_config)
        except (Refused, ActivationFailed) as error:
            self._failed(offer, _shown(error))
        else:
            self._started(offer, bundle, active)

    def _verified(self, delivery: Delivery) -> VerifiedBundle:
        tar = self._state.bundle(delivery.offer.bundle_hash) or self._downloaded(delivery)
        keyset = self._keyring.current()
        try:
            bundle = verify_delivery(tar, delivery.envelope, keyset, self._environment_id)
        except Refused as refused:
            if not refused.code.endswith(".unknown_key"):
                raise
            # The keys were rotated meanwhile: the set is too old, or the signature is. Both are fetched again, the keys
            # last; what is unknown even then is nobody's.
            delivery = self._again(delivery)
            bundle = verify_delivery(tar, delivery.envelope, self._keyring.refresh(), self._environment_id)
        offer = delivery.offer
        # The action itself is not signed: an older bundle may come back only as a rollback.
        if offer.action is OfferAction.ACTIVATE and bundle.manifest.deployment_id != offer.deployment_id:
            raise ActivationFailed("the bundle belongs to another deployment than the one that offers it")
        return bundle

    def _again(self, delivery: Delivery) -> Delivery:
        """The same offer, signed anew."""
        again = self._plane.delivery()
        if again is None or again.offer != delivery.offer:
            self._withdrawn = delivery.offer
            raise Withdrawn
        return again

    def _downloaded(self, delivery: Delivery) -> bytes:
        wanted, size = delivery.offer.bundle_hash, delivery.bundle_size
        if size > MAX_BUNDLE_BYTES:
            raise Refused(DeliveryCode.BUNDLE_TOO_LARGE, f"{size} bytes are offered")
        try:
            chunks = self._plane.download(delivery.bundle_url, size)
            self._state.save_bundle(wanted, _checked(chunks, wanted))
        except Unauthorized:
            raise
        except Rejected as error:
            if error.status == _CONFLICT:
                self._withdrawn = delivery.offer
                raise Withdrawn from error
            raise ActivationFailed(f"the bundle can't be downloaded: {error}") from error
        tar = self._state.bundle(wanted)
        if tar is None:
            raise ActivationFailed("the downloaded bundle was damaged on this node's disk")
        return tar

    def _start(self, bundle_hash: str, spec_kv: bytes, runtime_config: Json) -> Active:
        try:
            return self._pipeline.start(bundle_hash, spec_kv, runtime_config)
        except ActivationFailed:
            raise
        except OSError as error:
            raise ActivationFailed(f"this node can't hold the pipeline: {error}") from error
        except Exception as error:
            # A stage of an installed package may raise anything; the agent must live to report it.
            _log.exception("activation of %s", bundle_hash)
            raise ActivationFailed(f"{type(error).__name__}: {error}") from error

    def _started(self, offer: Offer, bundle: VerifiedBundle, active: Active) -> None:
        before = self.progress.running
        self.active = active
        status = Status.ROLLED_BACK if offer.action is OfferAction.ROLLBACK else Status.ACTIVE
        running = Running(offer, self._now(), bundle.manifest.deployment_id, active.spec_hash)
        _log.info("runs %s of deployment %s", offer.bundle_hash, running.deployment_id)
        self._state.prune({step.offer.bundle_hash for step in (running, before) if step})
        self._report(Report(offer, status, tuning=active.tuning), running=running)

    def _failed(self, offer: Offer, detail: str) -> None:
        _log.error("deployment %s failed here: %s", offer.deployment_id, detail)
        failure = Failure(offer, self._now(), detail)
        self._report(Report(offer, Status.FAILED, detail=detail), last_failed=failure)

    def _report(self, report: Report, **changes: Any) -> None:
        """Save a step together with its report, then send it; what was reported already is not said again."""
        attempted = self.progress.attempted
        if attempted is None or attempted.status is None or attempted.status.rank < report.status.rank:
            since = attempted.since if attempted else self._now()
            changes["attempted"] = Attempt(report.offer, since, report.status)
            changes["pending"] = (*self.progress.pending, report)
        self._save(**changes)
        self.flush()

    def _save(self, **changes: Any) -> None:
        self.progress = replace(self.progress, **changes)
        self._state.save_progress(self.progress)


def _shown(error: Exception) -> str:
    """Return a text that any store takes: a stage's error may quote whatever was in a record."""
    text = str(error)[:_MAX_DETAIL]
    return "".join(character if character.isprintable() else "?" for character in text)


def _checked(chunks: Iterator[bytes], wanted: str) -> Iterator[bytes]:
    """Pass a download on; ``Refused`` at its end unless it has the wanted hash."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
        yield chunk
    if f"sha256:{digest.hexdigest()}" != wanted:
        raise Refused(DeliveryCode.BUNDLE_HASH, "the download is not the bundle that was offered")

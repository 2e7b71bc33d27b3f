"""The agent's main loop: send a heartbeat, do what the response requests, wait."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable

from byteor import __version__
from byteor.engine.canonical import Json

from .api import ControlPlane, ControlPlaneUnavailable, CredentialRejected, RequestRejected
from .key_rotation import KeyRotation
from .keyring import Keyring
from .offer_handler import OfferHandler, OfferWithdrawn
from .requested_captures import RequestedCaptures
from .resource_meter import ResourceMeter
from .retry import Backoff

_log = logging.getLogger("byteor.agent")
_SHORTEST_S = 1.0
_ROTATE_KEY, _CAPTURE = "rotate_key", "capture"
_LONGEST_FIRST_WAIT_S = 5.0


class AgentLoop:
    """The main loop of one agent. ``wait`` returns True to end ``run``."""

    def __init__(
        self,
        *,
        plane: ControlPlane,
        keyring: Keyring,
        rotation: KeyRotation,
        offer_handler: OfferHandler,
        captures: RequestedCaptures,
        usage: ResourceMeter,
        wait: Callable[[float], bool],
        backoff: Backoff,
        interval_s: float | None = None,
    ) -> None:
        self._plane = plane
        self._keyring = keyring
        self._rotation = rotation
        self._offers = offer_handler
        self._captures = captures
        self._usage = usage
        self._wait = wait
        self._backoff = backoff
        self._interval_s = interval_s
        self._is_starting = True

    def run(self) -> None:
        """Resume the last running bundle, then send heartbeats and do what the responses request.

        A failed request does not end the loop: after a delay, it sends another heartbeat. Raises CredentialRejected if
        the control plane rejects the agent's key.
        """
        self._offers.resume()
        # After a power cut all agents of a fleet start together; a random wait spreads their heartbeats.
        if self._wait(self._backoff.spread_s(min(_LONGEST_FIRST_WAIT_S, self._interval_s or _LONGEST_FIRST_WAIT_S))):
            return
        while not self._wait(self._step()):
            pass

    def run_until_idle(self) -> None:
        """Resume the last running bundle, then handle offers until none is left. Failed requests are not retried.

        If a capture is requested, also try once to upload it.
        """
        self._offers.resume()
        while self._exchange_heartbeat() == 0:
            pass
        self._captures.finish()

    def _step(self) -> float:
        try:
            delay = self._exchange_heartbeat()
        except CredentialRejected:
            raise
        except (ControlPlaneUnavailable, RequestRejected, OSError) as error:  # OSError: the disk may be full
            delay = self._backoff.delay_s(error)
            _log.warning("%s; trying again in %.1f s", error, delay)
        else:
            self._backoff.reset()
        return delay

    def _exchange_heartbeat(self) -> float:
        """Send a heartbeat and the pending reports, and do what the response requests.

        Returns the seconds until the next heartbeat: 0 if an offer was handled or withdrawn, or a report was rejected.
        """
        self._rotation.settle()
        reply = self._plane.send_heartbeat(self._heartbeat_body())
        self._is_starting = False
        try:
            self._offers.send_pending_reports()
            self._keyring.refresh_if_changed(reply.signing_key_etag)
            if reply.desired is not None and self._offers.needs_handling(reply.desired):
                self._offers.handle(reply.desired)
                return 0
        except OfferWithdrawn:
            return 0
        if _ROTATE_KEY in reply.commands:
            self._rotate_key()
        if _CAPTURE in reply.commands:
            self._captures.start()
        return max(reply.next_heartbeat_s, _SHORTEST_S) if self._interval_s is None else self._interval_s

    def _rotate_key(self) -> None:
        try:
            self._rotation.rotate()
        except CredentialRejected:
            raise
        except (ControlPlaneUnavailable, RequestRejected, OSError) as error:
            # A new key that was stored is tried before the next heartbeat. Otherwise, a later response may repeat the
            # command.
            _log.warning("the rotation of the key was not completed: %s", error)

    def _heartbeat_body(self) -> Json:
        body: Json = {
            "status": "starting" if self._is_starting else self._offers.health,
            "agent_version": __version__,
            "runtime_version": f"python-{platform.python_version()}",
            "uptime_s": self._usage.uptime_s,
            "boot_id": self._plane.boot_id,
            "active": None,
            "resources": self._usage.read(),
        }
        running, active = self._offers.progress.running, self._offers.active
        if running and active:
            body["active"] = {
                "deployment_id": running.deployment_id,
                "bundle_hash": running.offer.bundle_hash,
                "spec_hash": active.spec_hash,
            }
            body["tuning"] = active.tuning
            body["pipeline"] = active.counts
        return body

"""The agent's loop: a heartbeat, what it asks for, and a wait."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable

from byteor_cloud import __version__
from byteor_cloud.engine.delivery.encoding import Json

from .api import ControlPlane, Rejected, Unauthorized, Unavailable
from .keyring import Keyring
from .resources import Usage
from .retry import Backoff
from .rollout import Rollout, Withdrawn

_log = logging.getLogger("byteor.agent")
_SHORTEST_S = 1.0
_FIRST_BEAT_WITHIN_S = 5.0


class Agent:
    """Runs until its key is refused, or until ``wait`` says that it is to stop."""

    def __init__(
        self,
        *,
        plane: ControlPlane,
        keyring: Keyring,
        rollout: Rollout,
        usage: Usage,
        wait: Callable[[float], bool],
        backoff: Backoff,
        interval_s: float | None = None,
    ) -> None:
        self._plane = plane
        self._keyring = keyring
        self._rollout = rollout
        self._usage = usage
        self._wait = wait
        self._backoff = backoff
        self._interval_s = interval_s
        self._is_starting = True

    def run(self) -> None:
        """Resume what ran, then beat for ever; whatever the network does, it tries again."""
        self._rollout.resume()
        # A fleet that got its power back together does not beat together.
        if self._wait(self._backoff.spread_s(min(_FIRST_BEAT_WITHIN_S, self._interval_s or _FIRST_BEAT_WITHIN_S))):
            return
        while not self._wait(self._step()):
            pass

    def settle(self) -> None:
        """Resume, then beat until there is nothing left to do; errors are the caller's."""
        self._rollout.resume()
        while self._beat() == 0:
            pass

    def _step(self) -> float:
        try:
            delay = self._beat()
        except Unauthorized:
            raise
        except (Unavailable, Rejected, OSError) as error:  # OSError: a full disk may be emptied
            delay = self._backoff.delay_s(error)
            _log.warning("%s; trying again in %.1f s", error, delay)
        else:
            self._backoff.reset()
        return delay

    def _beat(self) -> float:
        """Send a heartbeat and do what it asks for; return the seconds to the next, 0 after any change."""
        beat = self._plane.heartbeat(self._body())
        self._is_starting = False
        try:
            self._rollout.flush()
            self._keyring.notice(beat.signing_key_etag)
            if beat.desired is not None and self._rollout.is_open(beat.desired):
                self._rollout.act(beat.desired)
                return 0
        except Withdrawn:
            return 0
        return max(beat.next_heartbeat_s, _SHORTEST_S) if self._interval_s is None else self._interval_s

    def _body(self) -> Json:
        body: Json = {
            "status": "starting" if self._is_starting else self._rollout.health,
            "agent_version": __version__,
            "runtime_version": f"python-{platform.python_version()}",
            "uptime_s": self._usage.uptime_s,
            "active": None,
            "resources": self._usage.read(),
        }
        running, active = self._rollout.progress.running, self._rollout.active
        if running and active:
            body["active"] = {
                "deployment_id": running.deployment_id,
                "bundle_hash": running.offer.bundle_hash,
                "spec_hash": active.spec_hash,
            }
            body["tuning"] = active.tuning
            body["pipeline"] = active.counts
        return body

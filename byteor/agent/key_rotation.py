"""The rotation of the agent's key.

The agent stores the new key next to the old one before it uses the new key, because the first use revokes the old key.
When the control plane has accepted the new key, the agent replaces the old one. After a crash in between, the agent
tries the new key first, and returns to the old one if the control plane rejects the new one.

The control plane limits how often an agent may fetch a new key. When the limit is reached, the agent keeps its key and
tries again later.

While a clone of the agent is suspected, the control plane refuses every attempt. Only a person can clear the suspicion,
so the agent keeps its key and stops trying.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

from .api import ControlPlane, ControlPlaneUnavailable, CredentialRejected, RequestRejected
from .state_folder import StateFolder

_log = logging.getLogger("byteor.agent")
# The longest pause after a Retry-After. A longer one is cut, because a new request to rotate the key lifts the limit.
_LONGEST_PAUSE_S = 600.0


class KeyRotation:
    """Fetches and stores new keys. ``stores_key`` is False if an environment variable sets the key."""

    def __init__(
        self,
        state: StateFolder,
        plane: ControlPlane,
        *,
        stores_key: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state = state
        self._plane = plane
        self._stores_key = stores_key
        self._clock = clock
        self._not_before = float("-inf")
        self._next = state.next_api_key() if stores_key else None

    def settle(self) -> None:
        """Complete an unfinished rotation: switch to the new key, or discard it if the control plane rejects it.

        Any other failure is raised. Call this again in that case, before any other request.
        """
        if self._next is None:
            return
        self._plane.use_key(self._next)
        try:
            self._plane.fetch_identity()
        except CredentialRejected:
            _log.warning("the control plane does not accept the new key; continuing with the old one")
            old = self._state.credentials()
            if old is not None:
                self._plane.use_key(old.api_key)
            self._state.drop_next_api_key()
        else:
            self._state.promote_next_api_key()
            _log.info("the agent has a new key")
        self._next = None

    def rotate(self) -> None:
        """Fetch a new key and switch to it.

        Does nothing if an environment variable sets the key, or during a requested pause. After a conflict (409), later
        calls do nothing. Raises ControlPlaneUnavailable or RequestRejected if a request fails, and OSError if the key
        cannot be stored.
        """
        if self._clock() < self._not_before:
            return
        if not self._stores_key:
            _log.warning(
                "cannot rotate the key, because it is set by the variable BYTEOR_AGENT_API_KEY: replace the key there"
            )
            return
        self._state.check_writable()  # before a key is created that cannot be stored
        try:
            fetched = self._plane.fetch_new_key()
        except ControlPlaneUnavailable as error:
            self._not_before = self._clock() + min(error.retry_after or 0.0, _LONGEST_PAUSE_S)
            raise
        except RequestRejected as error:
            if error.status == 409:
                self._not_before = math.inf
            raise
        self._state.save_next_api_key(fetched)
        self._next = fetched
        self.settle()

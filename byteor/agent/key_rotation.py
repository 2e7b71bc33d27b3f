"""The rotation of the agent's key. At every moment the state folder holds a key that the control plane accepts.

The new key is stored beside the old one before it is used for the first time, because that use ends the old key. It
replaces the old one once the control plane has accepted it. After a crash in between, the agent tries the new key first
and goes back to the old one if the control plane does not know the new one.

The control plane limits how often an agent may fetch a new key. The agent then keeps its key and asks again later.
While a clone of the agent is suspected, the control plane refuses. Only a person can then replace the key, so the agent
keeps its key and does not ask again.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

from .api import ControlPlane, ControlPlaneUnavailable, CredentialRejected, RequestRejected
from .state_folder import StateFolder

_log = logging.getLogger("byteor.agent")
# The longest pause after a refusal. A person may have requested the rotation again in the meantime, which permits it.
_LONGEST_PAUSE_S = 600.0


class KeyRotation:
    """Fetches and stores new keys. An agent whose key comes from its environment (``stores_key``) cannot do that."""

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
        """Find out whether the control plane accepts a new key that has not replaced the old one yet, if there is one.

        Raises ControlPlaneUnavailable if it does not answer. Call this again then, before any other request.
        """
        if self._next is None:
            return
        self._plane.use_key(self._next)
        try:
            self._plane.fetch_identity()
        except CredentialRejected:
            _log.warning("the control plane does not accept the new key; going on with the old one")
            old = self._state.credentials()
            if old is not None:
                self._plane.use_key(old.api_key)
            self._state.drop_next_api_key()
        else:
            self._state.promote_next_api_key()
            _log.info("the agent has a new key")
        self._next = None

    def rotate(self) -> None:
        """Fetch a new key, and use it from now on. Does nothing during the pause that the control plane asked for.

        Raises RequestRejected if the control plane refuses. After a conflict, later calls do nothing.
        """
        if self._clock() < self._not_before:
            return
        if not self._stores_key:
            _log.warning("cannot rotate the key, because it is set in the environment: replace it there")
            return
        self._state.check_writable()  # before the control plane makes a key that could not be stored
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

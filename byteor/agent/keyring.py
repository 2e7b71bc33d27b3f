"""The agent's copy of the organization's published signing keys."""

from __future__ import annotations

from byteor.engine.signing.keys import KeySet

from .api import ControlPlane
from .state_folder import StateFolder


class Keyring:
    """The stored key set. It is fetched if it is missing, if the control plane reports a change, or by ``refresh``."""

    def __init__(self, state: StateFolder, plane: ControlPlane) -> None:
        self._state = state
        self._plane = plane
        self._stored = state.keys()

    def current(self) -> KeySet:
        """Return the stored key set; fetch it if there is none."""
        return self._stored.keyset if self._stored else self.refresh()

    def refresh_if_changed(self, etag: str | None) -> None:
        """Fetch the key set if ``etag``, from a heartbeat's response, is not None and differs from the stored ETag."""
        if etag is not None and (self._stored is None or self._stored.etag != etag):
            self.refresh()

    def refresh(self) -> KeySet:
        """Fetch, store and return the published key set."""
        fetched = self._plane.fetch_signing_keys(self._stored)
        if fetched != self._stored:
            self._state.save_keys(fetched)
            self._stored = fetched
        return fetched.keyset

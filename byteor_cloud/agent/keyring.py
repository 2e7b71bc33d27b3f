"""The organization's published keys, kept current."""

from __future__ import annotations

from byteor_cloud.engine.delivery.keys import KeySet

from .api import ControlPlane
from .state import State


class Keyring:
    """The stored key set; fetched when there is none, or when the control plane says that it has changed."""

    def __init__(self, state: State, plane: ControlPlane) -> None:
        self._state = state
        self._plane = plane
        self._stored = state.keys()

    def current(self) -> KeySet:
        """Return the key set that is known."""
        return self._stored.keyset if self._stored else self.refresh()

    def notice(self, etag: str | None) -> None:
        """Take note of the ETag that a heartbeat named."""
        if etag is not None and (self._stored is None or self._stored.etag != etag):
            self.refresh()

    def refresh(self) -> KeySet:
        """Return the key set that is published now."""
        fetched = self._plane.signing_keys(self._stored)
        if fetched != self._stored:
            self._state.save_keys(fetched)
            self._stored = fetched
        return fetched.keyset

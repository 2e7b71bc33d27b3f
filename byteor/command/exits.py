"""Exit codes of ``byteor``, and the exception for a failed command."""

from __future__ import annotations

from typing import Final

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
ROLLOUT_FAILED: Final = 3  # the rollout failed, was aborted or rolled back
SIGNED_OUT: Final = 4
PENDING: Final = 8  # waiting for approval, or the timeout expired


class Refusal(Exception):
    """A command failed. The text says why and, where possible, what to do."""

    def __init__(self, text: str, code: int = FAILED) -> None:
        super().__init__(text)
        self.code = code

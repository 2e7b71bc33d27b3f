"""Private keys that the fake control plane does not use initially."""

from __future__ import annotations

OTHER_KEY = bytes(range(1, 33))
THIRD_KEY = bytes(range(2, 34))

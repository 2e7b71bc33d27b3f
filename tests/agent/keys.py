"""Private keys other than the one that the fake control plane signs with at first."""

from __future__ import annotations

OTHER_KEY = bytes(range(1, 33))


THIRD_KEY = bytes(range(2, 34))

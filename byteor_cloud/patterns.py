"""Patterns of strings that the API accepts, in the syntax of JSON Schema."""

from __future__ import annotations

import re
from collections.abc import Callable

SHA256 = r"^sha256:[0-9a-f]{64}$"
# One line of text: no control characters and no line separators. ``.`` would match most of them.
LINE = r"^[^\u0000-\u001f\u007f-\u009f\u2028\u2029]+$"


def matcher(pattern: str) -> Callable[[str], bool]:
    """Compile a JSON Schema pattern to a predicate. Unlike in Python, ``$`` matches only the very end of the string."""
    search = re.compile(re.sub(r"\$$", r"\\Z", pattern)).search
    return lambda text: search(text) is not None

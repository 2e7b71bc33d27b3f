"""JSON that is passed on as text, because parsing a plan of several MiB delays every other request of the process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class JsonText:
    """A JSON text from the database or from a computation. It is valid and has no duplicate names."""

    text: str

    @cached_property
    def value(self) -> Any:
        """The parsed value."""
        return json.loads(self.text)

    def __reduce__(self) -> tuple[type[JsonText], tuple[str]]:
        return JsonText, (self.text,)  # without the parsed value


def parsed(value: Any) -> Any:
    """Return the parsed value of a JsonText, and any other value unchanged."""
    return value.value if isinstance(value, JsonText) else value

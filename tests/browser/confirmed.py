"""The console's messages after a confirmed act."""

from __future__ import annotations

from typing import Any

YES = {"_confirm": "yes"}


def shown_messages(response: Any) -> list[tuple[str, str]]:
    """Return the messages that the page shows."""
    return [(message.level_tag, message.message) for message in response.context["messages"]]

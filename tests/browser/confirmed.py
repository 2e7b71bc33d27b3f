"""What the console answers to an act that was confirmed."""

from __future__ import annotations

from typing import Any

YES = {"_confirm": "yes"}


def said(response: Any) -> list[tuple[str, str]]:
    """The messages that the page shows."""
    return [(message.level_tag, message.message) for message in response.context["messages"]]

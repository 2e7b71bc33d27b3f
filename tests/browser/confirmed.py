"""Helpers for confirming an act and reading the console's messages."""

from __future__ import annotations

from typing import Any

YES = {"_confirm": "yes"}


def shown_messages(response: Any) -> list[tuple[str, str]]:
    """Return the level and text of each message on the page, without the link to the next step."""
    return [
        (message.level_tag, message.message.partition(' <a class="next-step"')[0])
        for message in response.context["messages"]
    ]

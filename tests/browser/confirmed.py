"""Helpers for confirming an act and reading the console's messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from apps.console.frame.forms import new_form_id


class _Confirmed(Mapping[str, str]):
    """The form values that confirm an act. Each use has a new form id, as if the page had been opened again."""

    def __getitem__(self, name: str) -> str:
        return {"_confirm": "yes", "_form": new_form_id()}[name]

    def __iter__(self) -> Iterator[str]:
        return iter(("_confirm", "_form"))

    def __len__(self) -> int:
        return 2


YES = _Confirmed()


def shown_messages(response: Any) -> list[tuple[str, str]]:
    """Return the level and text of each message on the page, without the link to the next step."""
    return [
        (message.level_tag, message.message.partition(' <a class="next-step"')[0])
        for message in response.context["messages"]
    ]

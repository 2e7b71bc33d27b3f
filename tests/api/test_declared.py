"""Tests of API operations that are declared next to the code that handles them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from apps.tenancy.api.base import ApiViewSet
from byteor_cloud.api.commands import command
from byteor_cloud.api.operations import Operation, Tag
from byteor_cloud.api.routing import route

LIST = Operation("listThings", None, "List things", "Returns them.")


@command()
@Operation("pokeThing", None)
def poke(row: Any, *, actor: Any) -> None:
    """Poke a thing.

    It moves
    quickly.

    Poke it again to stop it.
    """


class Things(ApiViewSet):
    tag = Tag.HEALTH
    operations = {"list": LIST}
    commands = (poke,)

    def list(self, request: Any) -> None: ...

    def undeclared(self, request: Any) -> None: ...


def test_docstring_becomes_summary_and_description_of_operation() -> None:
    declared = poke.operation

    assert (declared.summary, declared.description) == (
        "Poke a thing",
        "It moves quickly.\n\nPoke it again to stop it.",
    )


def test_operations_of_view_are_collected_from_declarations_methods_and_commands() -> None:
    class Thing(Things):
        @Operation("drawThing", None)
        def draw(self, request: Any) -> None:
            """Draw a thing."""

    assert {name: each.id for name, each in Thing.operations.items()} == {
        "list": "listThings", "poke": "pokeThing", "draw": "drawThing",
    }  # fmt: skip
    assert Things.operations.keys() == {"list", "poke"}


def test_declared_view_actions_can_be_routed() -> None:
    assert route("things", Things, get="list", post="poke").name == "Things-list-poke"


def test_undeclared_view_action_cannot_be_routed() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"Things\.undeclared needs an Operation"):
        route("things", Things, get="undeclared")


def test_operation_without_description_cannot_be_routed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Things, "operations", {"list": replace(LIST, description="")})

    with pytest.raises(ImproperlyConfigured, match=r"Things\.list needs an Operation with a summary and a description"):
        route("things", Things, get="list")

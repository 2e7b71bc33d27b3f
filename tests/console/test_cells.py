"""The cells of lists, compared with the theme's cells."""

from __future__ import annotations

import re
from typing import Any

import pytest
from unfold.templatetags.unfold_list import items_for_result

from apps.console.frame.cells import render_rows
from tests.browser.filled import MODELS, fill, signed_in, superuser, table
from tests.worlds import World

pytestmark = pytest.mark.django_db


def without_times(text: str) -> str:
    """Return the text without the ages, which change while a test runs."""
    return re.sub(r"(<time[^>]*>)[^<]*|now|\d+ s(econds)?( ago)?", r"\1", text)


def test_rendered_cells_equal_those_of_theme(world: World) -> None:
    fill(world)
    client, compared = signed_in(superuser()), 0

    for model in MODELS.values():
        changelist: Any = client.get(table(model)).context["cl"]
        expected = ["".join(items_for_result(changelist, row, None)) for row in changelist.result_list]
        assert list(map(without_times, render_rows(changelist))) == list(map(without_times, expected)), model
        compared += len(expected)

    assert compared > 50

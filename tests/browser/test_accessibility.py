"""axe-core on every page of the console: in light, in dark and in a window as narrow as a telephone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page

from apps.tenancy.console import site
from tests.browser.conftest import sign_in
from tests.browser.filled import MODELS, act, fill, row_page, superuser, table
from tests.browser.test_tables import fill_operation, newest
from tests.worlds import World

pytestmark = pytest.mark.browser

# Only what depends on the colours is looked for again in dark, and everything else in a narrow window.
LIGHT: dict[str, Any] = {"resultTypes": ["violations"]}
DARK: dict[str, Any] = {**LIGHT, "runOnly": ["color-contrast"]}
NARROW: dict[str, Any] = {**LIGHT, "rules": {"color-contrast": {"enabled": False}}}
FIND = """options => axe.run(options).then(found => found.violations
  .filter(each => ["serious", "critical"].includes(each.impact))
  .flatMap(each => each.nodes.map(node => `${each.id}: ${node.target} ${node.html.slice(0, 200)}`)))"""
# What axe has no rule for.
FRAME = """() => [
  ...document.querySelectorAll("h1").length === 1 ? [] : ["not one h1"],
  ...document.querySelectorAll("main").length === 1 ? [] : ["not one main"],
  ...[...document.querySelectorAll(".material-symbols-outlined")].filter(each => !each.closest("[aria-hidden=true]"))
    .map(each => `an icon that is read aloud: ${each.outerHTML}`),
  ...[...document.querySelectorAll("[x-on\\\\:click]")]
    .filter(each => !each.matches("button, a[href], #changelist-filter-close"))
    .map(each => `a button that is none: ${each.outerHTML.slice(0, 200)}`),
]"""
OVERFLOW = """() => document.documentElement.scrollWidth <= innerWidth ? [] : [
  `wider than the window: ${[...document.querySelectorAll("main *")]
    .filter(each => each.getBoundingClientRect().right > innerWidth).map(each => each.className).slice(0, 3)}`]"""


def examine(page: Page, path: str, *, is_ours: bool = True) -> list[str]:
    """Return what is wrong with the page in light, in dark and in a narrow window."""
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto(path)
    page.evaluate(AXE_SCRIPT)
    wrong = [*page.evaluate(FIND, LIGHT), *page.evaluate(FRAME)]
    page.evaluate("document.documentElement.classList.add('dark')")
    wrong += [f"in dark, {each}" for each in page.evaluate(FIND, DARK)]
    page.set_viewport_size({"width": 390, "height": 844})
    wrong += [f"narrow, {each}" for each in [*page.evaluate(FIND, NARROW), *page.evaluate(OVERFLOW)]]
    return [f"{path} {each}" for each in wrong]


def pages(app: str) -> Iterator[str]:
    """Return the paths of the lists, of a row of each, and of the acts on it."""
    for label, model in MODELS.items():
        if label.startswith(f"{app}."):
            row = newest(model)
            yield table(model)
            yield row_page(row)
            for each in site._registry[model].all_acts:
                yield act(row, each.name)


@pytest.mark.parametrize("app", sorted({label.partition(".")[0] for label in MODELS}))
def test_console(world: World, page: Page, app: str) -> None:
    fill(world)
    fill_operation(world)
    sign_in(page, superuser())

    wrong = [each for path in pages(app) for each in examine(page, path)]

    assert not wrong, "\n".join(wrong)

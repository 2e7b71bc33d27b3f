"""What axe-core finds on a page of the console: in light, in dark and in a window as narrow as a telephone."""

from __future__ import annotations

from typing import Any

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page

# Only what depends on the colours is looked for again in dark, and only what depends on the width in a narrow window.
LIGHT: dict[str, Any] = {"resultTypes": ["violations"]}
DARK: dict[str, Any] = {**LIGHT, "runOnly": ["color-contrast"]}
NARROW: dict[str, Any] = {
    **LIGHT,
    "runOnly": ["scrollable-region-focusable", "target-size", "button-name", "link-name"],
}
FIND = """([left_out, options]) => axe.run({ exclude: [left_out] }, options).then(found => found.violations
  .filter(each => ["serious", "critical"].includes(each.impact))
  .flatMap(each => each.nodes.map(node => `${each.id}: ${node.target} ${node.html.slice(0, 200)}`)))"""
# What axe has no rule for, or calls moderate.
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
# Scripts hear of another width while the next frame is made.
LAID_OUT = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
MENU = "#nav-sidebar"  # the same on every page: it is examined once


def examine(page: Page, path: str, *, left_out: str = MENU) -> list[str]:
    """Open a page, and return what is wrong with it in light, in dark and in a narrow window."""
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto(path)
    return examine_open(page, path, left_out=left_out)


def examine_open(page: Page, path: str, *, left_out: str = MENU) -> list[str]:
    """Return what is wrong with the page that is open, as ``examine`` does."""
    page.evaluate(AXE_SCRIPT)
    wrong = [*page.evaluate(FIND, [left_out, LIGHT]), *page.evaluate(FRAME)]
    if "/act/" not in path:  # forms have the colours of the other pages
        page.evaluate("document.documentElement.classList.add('dark')")
        wrong += [f"in dark, {each}" for each in page.evaluate(FIND, [left_out, DARK])]
    page.set_viewport_size({"width": 390, "height": 844})
    page.evaluate(LAID_OUT)
    wrong += [f"narrow, {each}" for each in [*page.evaluate(FIND, [left_out, NARROW]), *page.evaluate(OVERFLOW)]]
    return [f"{path} {each}" for each in wrong]

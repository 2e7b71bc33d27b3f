"""axe-core on every page of the console: in light, in dark and in a window as narrow as a telephone."""

from __future__ import annotations

import json
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
SERIOUS = {"serious", "critical"}
# Elements that reach beyond a window's right edge without a box of their own that scrolls.
OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


def findings(page: Page, *, only: str | None = None) -> list[str]:
    """Return what axe finds on the page as it is: the rule, and where it is broken."""
    options: dict[str, Any] = {"resultTypes": ["violations"]}
    if only is not None:
        options["runOnly"] = [only]
    violations = page.evaluate(f"axe.run({json.dumps(options)}).then(found => found.violations)")
    return [
        f"{each['id']}: {node['target']} {node['html'][:160]}" + (str(node["any"][:1])[:200] if only else "")
        for each in violations
        if each["impact"] in SERIOUS
        for node in each["nodes"]
    ]


def examine(page: Page, path: str) -> list[str]:
    """Return what is wrong with the page in light, in dark and in a narrow window."""
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto(path, wait_until="load")
    page.evaluate(AXE_SCRIPT)
    wrong = [f"light {each}" for each in findings(page)]
    page.evaluate("document.documentElement.classList.add('dark')")
    wrong += [f"dark {each}" for each in findings(page, only="color-contrast")]
    page.set_viewport_size({"width": 390, "height": 844})
    wrong += [f"narrow {each}" for each in findings(page)]
    over = page.evaluate(OVERFLOW)
    if over > 0:
        wrong.append(f"narrow: {over} pixels beyond the edge")
    return [f"{path} {each}" for each in wrong]


APPS = sorted({label.partition(".")[0] for label in MODELS})


def pages(app: str) -> Iterator[str]:
    for label, model in MODELS.items():
        if not label.startswith(f"{app}."):
            continue
        row, admin = newest(model), site._registry[model]
        yield table(model)
        yield row_page(row)
        for each in admin.all_acts:
            yield act(row, each.name)


@pytest.mark.parametrize("app", APPS)
def test_console(world: World, page: Page, app: str) -> None:
    import time

    fill(world)
    fill_operation(world)
    sign_in(page, superuser())
    out = []
    n = 0
    t = time.time()
    for path in pages(app):
        out += examine(page, path)
        n += 1
    print(app, n, time.time() - t)
    from pathlib import Path

    Path(f"/tmp/axe-search-{app}.txt").write_text("\n".join(out))

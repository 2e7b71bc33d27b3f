"""The API documentation at /api/docs is accessible after it has rendered, with an open operation or dialog."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page

from tests.browser.axe import prepare

RULES = """async part => (await axe.run(part, {
  resultTypes: ["violations"], rules: { "label-content-name-mismatch": { enabled: true } },
})).violations.filter(found => ["serious", "critical"].includes(found.impact))
  .flatMap(found => found.nodes.map(node => `${found.id}: ${node.target} ${node.html.slice(0, 100)}`))"""
OPERATIONS = {
    "get": "Projects/getProject",
    "post": "Pipeline%20drafts%20and%20versions/createDraft",
    "put": "Projects/updateProject",
    "delete": "Projects/deleteProject",
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_documentation_is_accessible_after_rendering(open_page: Callable[..., Page], scheme: str) -> None:
    page = prepare(open_page(color_scheme=scheme))
    # Tall, because the page contains only the operations that are near the visible part.
    page.set_viewport_size({"width": 1440, "height": 4000})
    found = []
    for method, operation in OPERATIONS.items():
        page.goto("about:blank")
        page.goto(f"/api/docs#/{operation}")
        page.locator(f".opblock-{method}.is-open .responses-wrapper").wait_for()
        found += page.evaluate(RULES, ".opblock.is-open")
    page.set_viewport_size({"width": 390, "height": 844})
    found += page.evaluate(RULES, "html")
    page.locator(".btn.authorize").first.click()
    page.locator(".modal-ux .close-modal").wait_for()
    found += page.evaluate(RULES, ".modal-ux")

    assert found == [], "\n".join(found)

"""Deploying in waves, approving, starting a wave, retrying and rolling back with the keyboard alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, expect

from apps.releases.models import Deployment
from tests.browser.conftest import open_overview
from tests.worlds import World, plan, report, run_jobs

MAX_TABS = 150
# Returns the name of the focused element, without its icon.
FOCUSED = """() => {
    const found = document.activeElement;
    const shown = found.cloneNode(true);
    for (const icon of shown.querySelectorAll('[aria-hidden=true], .material-symbols-outlined')) icon.remove();
    const label = found.labels?.length ? found.labels[0].innerText : found.getAttribute('aria-label');
    return (label || shown.textContent).replace(/\\s+/g, ' ').trim();
}"""


class Keys:
    """A person who uses a page only with the keyboard."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def tab_to(self, name: str) -> None:
        """Press Tab until the focused element's name is ``name``, or starts with ``name`` and a space."""
        seen = []
        for _ in range(MAX_TABS):
            self.page.keyboard.press("Tab")
            seen.append(self.page.evaluate(FOCUSED))
            if seen[-1] == name or seen[-1].startswith(f"{name} "):
                return
        raise AssertionError(f"{name!r} is not reached by Tab, only {seen}")

    def follow(self, name: str) -> None:
        """Activate the link or button with this name, and wait for the next page."""
        self.tab_to(name)
        with self.page.expect_navigation():
            self.page.keyboard.press("Enter")

    def type(self, label: str, text: str) -> None:
        """Type the text into the field with this label. In a list, select the option that starts with the text."""
        self.tab_to(label)
        self.page.keyboard.type(text)


def test_deployment_can_be_steered_from_request_to_rollback_by_keyboard(
    world: World, open_page: Callable[..., Page]
) -> None:
    agents = [world.agent(world.prod, f"edge-{number}") for number in (1, 2)]

    def settle(**reported: str) -> None:
        run_jobs()
        for agent, api in agents:
            if status := reported.get(agent.name.replace("-", "_")):
                assert report(api, agent, status).status_code == 200
        run_jobs()

    def bundle(name: str, *stages: str) -> Any:
        made = world.version(world.prod, plan(stages=[{"id": stage, "op": "identity"} for stage in stages]))
        return world.bundle(world.prod, name, version=made)

    first = world.deployment(bundle("calm", "copy"))
    decision = {"deployment_id": str(first.pk), "decision": "approve"}
    assert world.reviewer.api.post(world.path(world.prod, "/approvals"), decision).status_code == 201
    settle(edge_1="active", edge_2="active")
    bundle("brisk", "copy-2")
    operator, reviewer = (Keys(open_overview(open_page(), person.user)) for person in (world.operator, world.reviewer))
    headline = operator.page.locator("#headline [role=status]")

    operator.follow("Config bundles")
    operator.follow("brisk")
    operator.follow("Deploy")
    operator.type("Strategy", "Custom")
    operator.type("Percent of agents", "50")
    operator.type("Percent of agents", "100")
    operator.type("Start", "Waits until")
    operator.tab_to("Remove wave")
    operator.tab_to("Percent of agents")
    operator.tab_to("Remove wave")
    operator.page.keyboard.press("Enter")
    operator.type("Failure threshold, in percent of a wave", "100")
    operator.type("Note", "faster")
    expect(operator.page.locator("#outlook:not(.stale)")).to_contain_text("2 agents: edge-1")
    operator.follow("Request deployment")
    expect(headline).to_contain_text("Waiting for approval")

    reviewer.follow("Overview")
    reviewer.follow("Review")
    reviewer.type("Comment", "looks right")
    reviewer.follow("Approve")
    expect(reviewer.page.locator(".states .pill").first).to_have_text("approved")
    settle(edge_1="failed")

    expect(operator.page.locator("#hold")).to_be_visible()
    operator.follow("Start wave 2")
    operator.follow("Start next wave")
    settle(edge_2="active")
    expect(headline).to_contain_text("Active: 1 of 2 agents active")

    operator.follow("Retry failed agents")
    operator.follow("Retry")
    settle(edge_1="active")
    expect(headline).to_contain_text("Active: 2 of 2 agents active")

    operator.follow("Roll back")
    operator.type("Reason", "latency")
    operator.follow("Roll back")
    expect(headline).to_contain_text("Rolling back: latency.")
    settle(edge_1="rolled_back", edge_2="rolled_back")
    expect(headline).to_have_text("Rolled back: latency.")
    rolled_back = Deployment.objects.get(config_bundle__name="brisk")
    assert (rolled_back.status, rolled_back.note, rolled_back.rollback_reason) == ("rolled_back", "faster", "latency")

"""An incident becomes a fixture in a real browser. Regressions show what a draft and its corrected plan change."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from apps.artifacts.models import Artifact, Fixture
from apps.artifacts.services import fixture_batches, regression_runs, replays
from apps.pipelines.services import drafts
from apps.releases.models import ConfigBundle, Regression
from tests.artifacts.incidents import frames, incident, ingested, journal
from tests.browser.axe import examine, prepare
from tests.browser.conftest import sign_in
from tests.browser.filled import row_page, signed_in, table
from tests.patience import PATIENCE_S
from tests.releases.stories import send_heartbeat_running
from tests.worlds import World, plan, report, run_jobs

WIDTHS = (1440, 1000, 390)
PARAMETERS: dict[str, Any] = {
    "check": {"schema": {"type": "object", "properties": {"trade": {"required": ["id"]}}}},
    "tidy": {"rules": ["trade.id:drop"]},
    "mask": {"rules": ["card:mask=2:2:*"]},
}
OPS = {"check": "dataguard_check", "tidy": "dataguard_redact", "mask": "dataguard_redact", "copy": "identity"}
# Quotes with cards, and a trade after every four quotes. The replay diverges from the capture at record 12.
RECORDS = [
    b'{"trade":{"id":%d,"venue":"XETR"}}' % number
    if number % 5 == 0
    else b'{"id":%d,"card":"%010d"}' % (number, number)
    for number in range(1, 21)
]
CAPTURED = b'{"card":"captured","id":12}'


def pipeline(*stages: str) -> dict[str, Any]:
    """Return a plan of these stages, one after the other."""
    before: list[str | None] = [None, *stages[:-1]]
    return plan(
        stages=[
            {"id": id, "op": OPS[id], **({"depends_on": [after]} if after else {})}
            for id, after in zip(stages, before, strict=True)
        ]
    )


def masked(number: int) -> bytes:
    """Return the recorded output for the record with this number."""
    if number % 5 == 0:
        return b'{"trade":{"venue":"XETR"}}'
    return CAPTURED if number == 12 else b'{"card":"00******%02d","id":%d}' % (number, number)


def running(world: World) -> ConfigBundle:
    """Create a config bundle, and an agent that runs it."""
    now = world.bundle(
        name="now", version=world.version(content=pipeline("check", "tidy", "mask")), stage_config=PARAMETERS
    )
    agent, api = world.agent(name="edge-1")
    world.deployment(now)
    run_jobs()
    assert report(api, agent, "active").status_code == 200
    send_heartbeat_running(agent, api)
    run_jobs()
    return now


class HeldBatches:
    """Makes a regression wait after it has listed its verdicts, until the test sets ``may_run``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.may_run = threading.Event()
        monkeypatch.setattr(regression_runs, "batches", self._batches)

    def _batches(self, items: Any) -> Any:
        assert self.may_run.wait(PATIENCE_S)
        return fixture_batches.batches(items)


def start_worker() -> threading.Thread:
    worker = threading.Thread(target=run_jobs)
    worker.start()
    return worker


def press(page: Page, label: str) -> None:
    """Open the form of an act, and send it."""
    page.get_by_role("link", name=label, exact=True).click()
    page.get_by_role("button", name=label, exact=True).click()


def test_incident_becomes_fixture_that_shows_what_draft_changes(
    world: World, page: Page, shot: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = running(world)
    expected = frames(*((number, masked(number)) for number in range(1, len(RECORDS) + 1)))
    content = incident(now.version.spec_kv, stage_config=PARAMETERS, expected=expected, quotes_in=journal(RECORDS))
    artifact = ingested(world, content)
    replay = replays.request(artifact, environment=world.dev, actor=world.operator.actor)
    run_jobs()
    draft = drafts.create_draft(
        environment=world.dev, name="faster", plan=pipeline("tidy", "check"), actor=world.operator.actor
    )
    sign_in(page, world.operator.user)
    headline, alert = page.locator("#headline [role=status]"), page.get_by_role("alert")

    # Nothing is tested yet. The lists say how to begin, and the draft's page says that there are no fixtures.
    for model in (Fixture, Regression):
        page.goto(table(model))
        expect(page.locator(".frame-empty")).to_contain_text("To create one, open")
        shot(page, f"fixture-none-{model.__name__.lower()}", widths=WIDTHS)
    page.goto(row_page(draft))
    expect(page.get_by_text("The pipeline quotes has 0 fixtures that have not expired.")).to_be_visible()

    # The person keeps the records around the divergence. A refusal is shown at its field.
    page.goto(row_page(replay))
    expect(headline).to_contain_text("Diverged at quotes_out, record 12")
    page.get_by_role("link", name="Keep as fixture").click()
    page.get_by_label("Name").fill("masked cards")
    page.get_by_label("Only the 11 records around the divergence: positions 6 to 16 of quotes_in").check()
    page.get_by_label("The result of this replay").check()
    page.get_by_role("button", name="Keep as fixture").click()
    expect(alert).to_contain_text("Not possible with `records`")
    shot(page, "fixture-keep", widths=WIDTHS, full_page=True)
    page.get_by_label("The same result as the baseline").check()
    page.get_by_role("button", name="Keep as fixture").click()
    expect(page.get_by_text("Fixture masked cards of quotes created.")).to_be_visible()
    kept = Fixture.objects.get()
    assert (kept.artifact.origin, kept.owner) == (
        {"artifact_id": str(artifact.pk), "records": [6, 16]}, world.operator.user,
    )  # fmt: skip
    expect(page.locator(".facts").first).to_contain_text("positions 6 to 16")
    shot(page, "fixture-new", widths=WIDTHS, full_page=True)

    # The page of the draft's regression shows the progress without a reload, and then two groups with their examples.
    held = HeldBatches(monkeypatch)
    page.goto(row_page(draft))
    page.get_by_role("link", name="Test against fixtures").click()
    expect(page.get_by_label("quotes v1, now, run by 1 agent")).to_be_visible()
    shot(page, "regression-form", widths=WIDTHS, full_page=True)
    page.get_by_role("button", name="Test against fixtures").click()
    expect(page.get_by_text("Regression of draft faster requested.")).to_be_visible()
    expect(headline).to_have_text("Waiting for a worker.")
    page.evaluate("document.body.dataset.loaded = 'once'")
    worker = start_worker()
    expect(headline).to_have_text("0 of 1 verdict is known.")
    expect(page.get_by_role("img", name="0 of 1 verdict")).to_be_visible()
    expect(page.get_by_role("link", name="Cancel")).to_be_visible()
    shot(page, "regression-running", widths=WIDTHS, full_page=True)
    held.may_run.set()
    expect(headline).to_have_text("2 groups of differences on 1 of 1 fixture.")
    worker.join(PATIENCE_S)
    expect(page.locator(".live")).to_have_attribute("data-moving", "no")
    assert page.evaluate("document.body.dataset.loaded") == "once"
    expect(page.locator("#compared")).to_contain_text("quotes v1, now")
    expect(page.locator("#compared")).to_contain_text("100.0%")
    groups = page.locator("#groups .difference")
    changed, missing = groups.nth(0), groups.nth(1)
    expect(changed.get_by_role("heading")).to_have_text("Changes /card in quotes_out 9 differences")
    expect(changed).to_contain_text("record 7 of quotes_in")
    expect(changed.locator(".facts")).to_contain_text("mask")
    expect(changed.locator(".members tbody tr").last).to_contain_text('"00******07"')
    expect(changed.locator(".members tbody tr").last).to_contain_text('"0000000007"')
    expect(missing.get_by_role("heading")).to_have_text(
        "No longer outputs records to quotes_out (schema) 2 differences"
    )
    expect(missing.locator(".members tbody")).to_contain_text('{"trade": {"venue": "XETR"}}')
    expect(page.locator("#results tbody tr")).to_contain_text("different")
    expect(page.get_by_label("Markdown that fits")).to_have_value(Regression.objects.get().summary)
    shot(page, "regression-differs", widths=WIDTHS, full_page=True)
    prepare(page)
    regression, tested = row_page(Regression.objects.get()), row_page(kept)
    assert [problem for path in (regression, tested, row_page(draft)) for problem in examine(page, path)] == []

    # Viewers see the groups without records.
    seen = signed_in(world.viewer.user).get(regression).text
    assert "Records are shown only to people who may operate the environment." in seen
    assert not [text for text in ("00******07", "0000000007", "XETR") if text in seen]

    # The group links to its fixture, whose page shows the result.
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto(regression)
    changed.get_by_role("link", name="masked cards").click()
    results = page.locator(".panel", has=page.get_by_role("heading", name="Newest results"))
    expect(results.locator("tbody tr")).to_contain_text("draft faster")
    shot(page, "fixture-tested", widths=WIDTHS, full_page=True)

    # The corrected draft passes. In the next regression, only the verdict of a new fixture is computed.
    drafts.update_draft(draft, {"plan": pipeline("check", "tidy", "mask", "copy")}, actor=world.operator.actor)
    page.goto(row_page(draft))
    press(page, "Test against fixtures")
    start_worker().join(PATIENCE_S)
    expect(headline).to_have_text("No differences on 1 fixture.")
    expect(page.locator("#facts")).to_contain_text("0 reused, 1 computed")
    page.goto(row_page(artifact))
    page.get_by_role("link", name="Keep as fixture").click()
    page.get_by_label("Name").fill("all cards")
    page.get_by_role("button", name="Keep as fixture").click()
    expect(page.get_by_text("Fixture all cards of quotes created.")).to_be_visible()
    page.goto(row_page(draft))
    press(page, "Test against fixtures")
    start_worker().join(PATIENCE_S)
    expect(headline).to_have_text("No differences on 2 fixtures.")
    expect(page.locator("#facts")).to_contain_text("1 reused, 1 computed")
    shot(page, "regression-passed", widths=WIDTHS, full_page=True)
    assert Artifact.objects.count() == 2

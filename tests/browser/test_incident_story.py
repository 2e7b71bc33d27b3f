"""An incident in a real browser: it is captured, replayed, examined, and traced to the version with the fault."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from apps.artifacts.models import Artifact, Bisect, Replay
from apps.artifacts.services import children
from apps.pipelines.models import Version
from tests.artifacts.incidents import archive, files_of, frames, journal, upload
from tests.browser.axe import examine, prepare
from tests.browser.conftest import sign_in
from tests.browser.filled import row_page
from tests.patience import PATIENCE_S
from tests.worlds import World, plan, run_jobs

WIDTHS = (1440, 1000, 390)
RECORDS = [b'{"id": 1, "card": "1234"}', b'{"no": "id"}', b'{"id": 3, "card": "5678"}']
CONFIG = {"check": {"schema": {"required": ["id"]}}, "limit": {"schema": {"properties": {"id": {"maximum": 2}}}}}


class HeldReplays:
    """Makes each replay report some progress and then wait until the test sets ``may_run``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.may_run = threading.Event()
        self._real = children.run_in_child
        monkeypatch.setattr(children, "run_in_child", self._run)

    def _run(self, request: Any, **options: Any) -> Any:
        if request["kind"] == "replay":
            assert options["on_tick"](children.Progress(1_000, 4_000))
            assert self.may_run.wait(PATIENCE_S)
        return self._real(request, **options)


def start_worker() -> threading.Thread:
    worker = threading.Thread(target=run_jobs)
    worker.start()
    return worker


def history(world: World) -> None:
    """Create eight versions. From the sixth on, an additional stage drops records that the earlier versions keep."""
    for number in range(1, 9):
        copy = {"id": f"copy-{number}", "op": "identity"}
        stages = [copy, {"id": "check", "op": "dataguard_check", "depends_on": [copy["id"]]}]
        if number > 5:
            stages.append({"id": "limit", "op": "dataguard_check", "depends_on": ["check"]})
        world.version(content=plan(stages=stages))


def test_incident_can_be_replayed_traced_and_bisected(
    world: World, page: Page, shot: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    history(world)
    files = files_of(
        Version.objects.get(number=8).spec_kv,
        **{
            "runtime_config.json": json.dumps({"stage_config": CONFIG}).encode(),
            "outcome.json": json.dumps({"stopped": {"stage": "limit", "sequence": 3, "error": "no"}}).encode(),
            "journal/quotes_in.bin": journal(RECORDS),
            "expected/quotes_out.bin": frames((1, RECORDS[0]), (3, RECORDS[2])),
        },
    )
    captured = archive(files)
    agent, api = world.agent(name="edge-1")
    assert upload(api, agent, captured, kind="incident_bundle").status_code == 201
    run_jobs()
    held = HeldReplays(monkeypatch)
    sign_in(page, world.operator.user)

    # The person opens the incident and replays it.
    page.goto("/admin/artifacts/artifact/")
    page.get_by_role("link", name="Incident bundle").first.click()
    headline = page.locator("#headline [role=status]")
    expect(headline).to_contain_text("Stage limit stopped at record 3 on edge-1")
    found = page.locator("#journal")
    expect(found).to_contain_text("1 to 3 of 3 records")
    shot(page, "incident-artifact", widths=WIDTHS, full_page=True)
    found.get_by_label("Sequence").fill("2")
    found.get_by_role("button", name="Go").click()
    expect(found.locator("tbody tr[aria-current]")).to_contain_text('{"no": "id"}')
    found.get_by_role("link", name="Hex").click()
    expect(found.locator("tbody tr").first).to_contain_text("7b 22 6e 6f 22 3a 20 22")
    shot(page, "incident-hex", widths=WIDTHS, full_page=True)
    page.get_by_role("link", name="Replay", exact=True).click()
    page.get_by_role("button", name="Replay").click()

    # The page of the replay opens, and shows the status and progress without a reload.
    expect(headline).to_have_text("Waiting for a worker.")
    page.evaluate("document.body.dataset.loaded = 'once'")
    worker = start_worker()
    expect(headline).to_have_text("1,000 of 4,000 records replayed.")
    expect(page.get_by_role("img", name="1,000 of 4,000 records")).to_be_visible()
    expect(page.get_by_role("link", name="Cancel")).to_be_visible()
    shot(page, "incident-running", widths=WIDTHS, full_page=True)
    held.may_run.set()
    expect(headline).to_have_text("Diverged at quotes_out, record 3: stage limit dropped the record (schema).")
    worker.join(PATIENCE_S)
    assert page.evaluate("document.body.dataset.loaded") == "once"
    expect(page.locator(".live")).to_have_attribute("data-moving", "no")

    # The divergence and the record are readable.
    panel = page.locator("#divergence")
    expect(panel).to_contain_text("missing in the replay")
    expect(panel.get_by_label("Captured record as JSON")).to_contain_text('"card": "5678"')
    expect(panel.get_by_label("Captured record as hex")).to_contain_text("7b 22 69 64 22 3a 20 33")
    expect(panel.locator("tbody tr[aria-current]")).to_contain_text("different")
    stages = page.locator(".stages li")
    assert [" ".join(text.split()) for text in stages.all_inner_texts()][2] == (
        "limit dataguard_check 2 in 1 out 1 dropped 0 errors"
    )
    shot(page, "incident-diverged", widths=WIDTHS, full_page=True)
    panel.get_by_role("link", name="Trace record 3").click()
    steps = page.locator("#found tbody tr")
    expect(steps).to_have_count(4)
    assert [[cell.strip() for cell in row.split("\t")] for row in steps.all_inner_texts()] == [
        ["ingress quotes_in", '{"id": 3, "card": "5678"}', "-"],
        ["stage copy-8", '{"id": 3, "card": "5678"}', "-"],
        ["stage check", '{"id": 3, "card": "5678"}', "-"],
        ["stage limit", "dropped: schema", "-"],
    ]
    shot(page, "incident-traced", widths=WIDTHS, full_page=True)

    # The person replays the incident through another version and compares the two replays.
    page.get_by_role("link", name="Other version").click()
    page.get_by_label("Version").select_option("quotes v7 with the parameters of the capture")
    page.get_by_role("button", name="Other version").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("through quotes v7")
    start_worker().join(PATIENCE_S)
    expect(headline).to_contain_text("Diverged at quotes_out")
    page.get_by_role("link", name="Compare").first.click()
    expect(page.locator("#found")).to_contain_text("Compared with the replay through quotes v8")
    shot(page, "incident-compared", widths=WIDTHS, full_page=True)

    # A bisect finds the first bad version and shows its changes.
    page.get_by_role("link", name="Bisect", exact=True).click()
    page.get_by_role("button", name="Bisect").click()
    held.may_run.clear()
    worker = start_worker()
    expect(page.locator(".panel", has_text="Replayed versions")).to_contain_text("v8")
    expect(headline).to_have_text("0 of 8 versions have a verdict.")
    page.evaluate("document.body.dataset.loaded = 'once'")
    shot(page, "incident-bisecting", widths=WIDTHS, full_page=True)
    held.may_run.set()
    expect(headline).to_have_text("quotes v6 is the first bad version.")
    worker.join(PATIENCE_S)
    assert page.evaluate("document.body.dataset.loaded") == "once"
    expect(page.locator(".live")).to_have_attribute("data-moving", "no")
    bad = page.locator(".panel", has_text="Replayed versions").get_by_role("row", name="v6")
    expect(bad).to_contain_text("bad")
    expect(page.locator("#diff")).to_contain_text("Changes from quotes v5 to quotes v6")
    expect(page.locator("#diff tr.added", has_text="limit").first).to_contain_text("dataguard_check")
    shot(page, "incident-bisected", widths=WIDTHS, full_page=True)
    strip = page.locator(".verdicts")
    expect(strip.get_by_role("listitem").filter(has_text="v6")).to_contain_text("bad")
    assert Replay.objects.filter(bisect__isnull=False).count() <= 5

    # These pages are accessible.
    prepare(page)
    replayed, bisected, artifact = (row_page(each.objects.earliest("id")) for each in (Replay, Bisect, Artifact))
    for path in (f"{replayed}?trace=3", bisected, f"{artifact}?as=hex"):
        assert examine(page, path) == []

    # The page of a finished row sends no more requests for updates.
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.clock.install()
    for path in (bisected, replayed, artifact):
        page.goto(path)
        page.clock.fast_forward(60_000)
    assert not [url for url in requests if "/live/" in url]

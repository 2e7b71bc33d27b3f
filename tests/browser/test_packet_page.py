"""The packet on the page of an approval, and the form that accepts its differences and approves in one step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from apps.artifacts.services import packets
from apps.releases.models import Acceptance, Approval, ConfigBundle, Deployment, Regression
from apps.releases.services import acceptances
from tests.artifacts.fixture_steps import STRICT, bundle, capture, kept
from tests.artifacts.gate_steps import ask, asked, members, release, require
from tests.artifacts.kept import OTHER_MASK, cards, keep
from tests.artifacts.many_groups import store_regression
from tests.browser.axe import examine, prepare
from tests.browser.confirmed import shown_messages
from tests.browser.conftest import sign_in
from tests.browser.filled import row_page, signed_in
from tests.browser.test_people import sent
from tests.worlds import World, run_jobs

WIDTHS = (1440, 1000, 390)


def waiting(world: World, candidate: ConfigBundle, **body: Any) -> tuple[Deployment, Approval]:
    deployment = asked(world, candidate, **body)
    return deployment, Approval.objects.get(deployment=deployment)


@pytest.mark.django_db
def test_form_offers_unaccepted_groups_and_names_other_blockers(world: World) -> None:
    agents = members(world)
    now, changed = bundle(world, "now"), bundle(world, "changed", STRICT, OTHER_MASK)
    kept(world, capture(world, now))
    release(world, now, agents)
    require(world)
    deployment, approval = waiting(world, changed)
    reviewer = signed_in(world.reviewer.user)

    def decision(row: Any = approval) -> dict[str, Any]:
        found: dict[str, Any] = reviewer.get(row_page(row)).context["summary"]["decide"]
        return found

    groups = dict(decision()["groups"])
    assert len(groups) == 2
    assert decision(deployment)["groups"] == decision()["groups"]
    # Both groups must be accepted, and with a reason.
    first, second = groups
    values = {"accept_groups": [first, second]}
    missing = sent(reviewer, approval, "accept", values)
    assert dict(missing.context["form"].errors) == {"comment": ["Say why the differences are wanted."]}
    left = sent(reviewer, approval, "accept", {"accept_groups": [first], "comment": "wanted"})
    assert "1 group of differences is not accepted" in left.text
    unknown = sent(reviewer, approval, "accept", {"accept_groups": ["0" * 64], "comment": "wanted"})
    assert list(unknown.context["form"].errors) == ["accept_groups"]
    assert not Acceptance.objects.exists()

    regression = Regression.objects.filter(deployments=deployment)
    for change, reason in (
        ({"more": 2}, "2 further differences are in no group and cannot be accepted."),
        ({"more": 0, "outcomes": {"failed": 1, "different": 1}}, '1 verdict is "failed" or "unstable".'),
        ({"status": "running", "progress_done": 1, "progress_total": 4}, "1 of 4 results are known."),
    ):
        regression.update(**change)
        shown = decision()
        assert set(shown) == {"explain", "blocked", "deny"}
        assert reason in " ".join(shown["blocked"])
    page = reviewer.get(row_page(approval))
    assert page.context["summary"]["bar"]["text"] == "1 of 4 verdicts"
    assert "disabled" in page.text
    # The requester and viewers may not accept. Viewers see no records.
    assert "groups" not in signed_in(world.operator.user).get(row_page(approval)).context["summary"]["decide"]
    regression.update(status="differs", outcomes={"different": 1})
    assert signed_in(world.viewer.user).get(row_page(approval)).context["summary"]["decide"] is None
    assert "1234567890" not in signed_in(world.viewer.user).get(row_page(approval)).text

    done = sent(reviewer, approval, "accept", {**values, "comment": "wanted"}, follow=True)
    assert [level for level, _ in shown_messages(done)] == ["success"]
    assert Acceptance.objects.get().differences.count() == 2
    deployment.refresh_from_db()
    assert deployment.status != "pending_approval"


@pytest.mark.django_db
def test_page_shows_at_most_50_groups_and_offers_at_most_200_for_acceptance(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, changed = bundle(world, "now"), bundle(world, "next", STRICT)
    fixtures = keep(world, now, *(cards(number) for number in range(3)))
    members(world)
    require(world)
    text = "The venue renamed it."
    deployment, approval = waiting(world, changed, explain=[{"group": "0" * 64, "text": text}])
    row = store_regression(changed, [now], fixtures, groups=220)
    Regression.objects.filter(pk=row.pk).update(outcomes={"different": 3})
    Deployment.objects.filter(pk=deployment.pk).update(regression=row)
    # Whether other fixtures showed an accepted difference is unknown if the regression is too large to compare.
    acceptances.accept(row, groups=[row.groups[0]["id"]], reason="wanted", actor=world.reviewer.actor)
    Acceptance.objects.update(regression=None)
    monkeypatch.setattr(packets, "MAX_SHOWN", 0)

    page = signed_in(world.reviewer.user).get(row_page(approval))

    output, decide = page.context["still"]["output"], page.context["summary"]["decide"]
    assert (len(output["groups"]), output["more"]) == (50, ["170 further groups are shown on the regression's page."])
    assert len(decide["groups"]) == 200
    assert decide["rest"].startswith("19 further groups cannot be chosen here.")
    unseen = dict(output["groups"][0]["facts"])["Fixtures not seen when accepted"]
    assert "unknown" in unseen
    assert "too many results to compare" in unseen
    assert page.context["still"]["panels"][-1]["rows"][-1][1] == text


def test_reviewer_watches_regression_then_accepts_differences_and_approves(
    world: World, page: Page, shot: Callable[..., None]
) -> None:
    agents = members(world, 3)
    old = bundle(world, "old", {"schema": {"type": "object", "title": "old"}})
    now, changed = bundle(world, "now", redact=OTHER_MASK), bundle(world, "changed", STRICT, OTHER_MASK)
    kept(world, capture(world, old), "cards of Monday")
    gone = kept(world, capture(world, old, cards(3)), "cards of Tuesday")
    release(world, old, agents)
    release(world, now, agents[:2], target={"agents": [str(agent.pk) for agent, _ in agents[:2]]})
    assert world.admin.api.delete(world.path(rest=f"/fixtures/{gone.pk}")).status_code == 204
    require(world)
    explain = [{"group": "f" * 64, "text": "The venue renamed the field in its new release."}]
    deployment = Deployment.objects.get(pk=ask(world, changed, explain=explain).json()["id"])
    approval = Approval.objects.get(deployment=deployment)
    sign_in(page, world.reviewer.user)

    page.goto(row_page(approval))
    page.evaluate("document.body.dataset.loaded = 'once'")
    tested = page.locator("#tested")
    expect(tested).to_contain_text("Nothing was tested yet: the regression is waiting for a worker.")
    expect(page.get_by_role("button", name="Approve")).to_be_disabled()
    shot(page, "packet-waiting", widths=WIDTHS, full_page=True)
    Regression.objects.update(status="running", progress_done=1, progress_total=2)
    expect(page.get_by_role("img", name="1 of 2 verdicts")).to_be_visible()
    shot(page, "packet-running", widths=WIDTHS, full_page=True)
    Regression.objects.update(status="queued", progress_done=0, progress_total=0)
    run_jobs()

    # The result appears without a reload.
    expect(tested).to_contain_text("2 groups of differences on 1 of 1 fixture.")
    groups = page.locator("#groups .difference")
    expect(groups).to_have_count(2)
    assert page.evaluate("document.body.dataset.loaded") == "once"
    expect(page.locator("#agents")).to_contain_text("33.3%")
    expect(page.locator("#captures")).to_contain_text("cards of Monday")
    expect(page.locator("#removed")).to_contain_text(world.admin.user.email)
    expect(page.locator("#explanations")).to_contain_text("The venue renamed the field")
    shot(page, "packet-differs", widths=WIDTHS, full_page=True)
    prepare(page)
    assert examine(page, row_page(approval)) == []

    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto(row_page(approval))
    for box in page.locator("#differences input").all():
        box.check()
    page.get_by_label("Comment").fill("The venue wants these masks.")
    page.get_by_role("button", name="Accept and approve").click()
    expect(page.locator("#headline")).to_contain_text("Approved by")
    expect(page.locator("#groups")).to_contain_text("The venue wants these masks.")
    assert Acceptance.objects.get().differences.count() == 3
    shot(page, "packet-approved", widths=WIDTHS, full_page=True)
    deployment.refresh_from_db()
    assert deployment.status == "approved"

"""The replay gate in the console: the blockers of a deployment, accepted differences, and the forms about the gate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.html import strip_tags
from playwright.sync_api import Page, expect

from apps.console.pages.deployments.deploying import MAX_EXPLAINED
from apps.releases.models import Acceptance, Deployment, Regression
from apps.releases.services import acceptances, builds, regressions
from tests.artifacts.fixture_steps import STRICT, bundle, capture, kept
from tests.artifacts.gate_steps import ask, members, release, require, run_everywhere
from tests.artifacts.kept import OTHER_MASK, cards, keep
from tests.artifacts.many_groups import store_regression
from tests.browser.axe import examine, prepare
from tests.browser.confirmed import shown_messages
from tests.browser.conftest import sign_in
from tests.browser.filled import act, row_page, signed_in, table
from tests.browser.test_deploying import deploy_page
from tests.browser.test_deploying import filled_in as deploy_form
from tests.browser.test_environment_settings import filled_in as settings_form
from tests.browser.test_environment_settings import stored
from tests.browser.test_fixture_story import HeldBatches, start_worker
from tests.browser.test_people import sent
from tests.browser.waiting import live
from tests.patience import PATIENCE_S
from tests.worlds import World

pytestmark = pytest.mark.django_db
WIDTHS = (1440, 1000, 390)
REASON = "The new mask is wanted."


def waiting(world: World, groups: int, *, name: str = "next", **options: Any) -> Deployment:
    """Request a deployment whose regression has this many groups of differences. The first group is explained."""
    row = store_regression(
        bundle(world, name, STRICT), [bundle(world, f"{name} now"), bundle(world, f"{name} old", redact=OTHER_MASK)],
        keep(world, bundle(world, f"{name} kept"), cards(1)), groups=groups, **options,
    )  # fmt: skip
    assert row.config_bundle is not None
    response = ask(world, row.config_bundle, explain=[{"group": row.groups[0]["id"], "text": "It is on purpose."}])
    Deployment.objects.filter(pk=response.json()["id"]).update(regression=row)
    return Deployment.objects.get(pk=response.json()["id"])


def gate(client: Any, deployment: Deployment) -> Any:
    """Return the gate's panel on the deployment page, or None if the gate was off when the deployment was requested."""
    return client.get(row_page(deployment)).context["summary"]["gate"]


def texts(rows: Any) -> list[list[str]]:
    """Return the cells of rows without HTML."""
    return [[strip_tags(str(cell)) for cell in row] for row in rows]


def test_accepted_differences_are_shown_with_reason_on_regression_and_deployment_pages(world: World) -> None:
    members(world)
    require(world)
    made = waiting(world, 3)
    regression = made.regression
    assert regression is not None
    first, second, third = (each["id"] for each in regression.groups)
    requester, reviewer = signed_in(world.operator.user), signed_in(world.reviewer.user)

    # The requester and viewers cannot accept the differences. The requester's page says why.
    page = requester.get(row_page(made))
    assert page.context["summary"]["gate"]["note"] == acceptances.SELF_ACCEPTANCE
    assert act(regression, "accept") not in page.text
    assert page.context["summary"]["headline"] == "Waiting for approval. 3 groups of differences are not accepted."
    values = {"groups": [first, second], "reason": REASON}
    assert sent(requester, regression, "accept", values).context["form"].non_field_errors() == [
        acceptances.SELF_ACCEPTANCE
    ]
    assert sent(signed_in(world.viewer.user), regression, "accept", values).status_code == 403
    for wrong, field in (({"reason": REASON}, "groups"), ({"groups": [first]}, "reason"),
                         ({"groups": ["0" * 64], "reason": REASON}, "groups")):  # fmt: skip
        assert list(sent(reviewer, regression, "accept", wrong).context["form"].errors) == [field]
    assert not Acceptance.objects.exists()

    assert act(regression, "accept") in reviewer.get(row_page(made)).text
    done = sent(reviewer, regression, "accept", values, follow=True)

    assert shown_messages(done) == [("success", "Differences accepted in regression of quotes v1, next.")]
    assert done.redirect_chain[-1][0] == row_page(regression)
    shown = done.context["still"]["groups"]["groups"]
    assert ["accepted" in each for each in shown] == [True, True, False]
    assert (world.reviewer.user.email in shown[0]["acceptances"], REASON in shown[0]["acceptances"]) == (True, True)
    panel = gate(reviewer, made)
    rows = texts(panel["rows"])
    assert rows[0][0].startswith("Changes /member_")
    assert (rows[0][4], rows[1][4]) == ("It is on purpose.", "-")
    assert "12 agents, 40.0%" in rows[0][3]
    assert [each[1].startswith("accepted") for each in rows] == [True, True, False]
    assert REASON in rows[0][1]
    assert strip_tags(reviewer.get(row_page(made)).text).count(f"2 groups of differences: {REASON}") == 1

    # The form offers only the last group. The requester's own acceptance does not count for the deployment.
    assert [value for value, _ in reviewer.get(act(regression, "accept")).context["form"]["groups"].field.choices] == [
        third
    ]
    Acceptance.objects.update(user=world.operator.user)
    assert "The acceptances so far are not sufficient for this deployment." in texts(gate(reviewer, made)["rows"])[0][1]
    sent(reviewer, regression, "accept", {"every": "on", "reason": REASON})
    assert [each[1].startswith("accepted") for each in texts(gate(reviewer, made)["rows"])] == [True] * 3
    again = sent(reviewer, regression, "accept", {"every": "on", "reason": REASON})
    assert again.context["form"].non_field_errors() == ["No group of differences still needs an acceptance."]


def test_only_reviewers_are_offered_acceptance_if_deployment_has_reviewers(world: World) -> None:
    members(world)
    require(world)
    made = waiting(world, 1)
    accept = act(made.regression, "accept")
    assert gate(signed_in(world.project_admin.user), made)["accept"] == accept
    Deployment.objects.filter(pk=made.pk).update(reviewers=[str(world.reviewer.user.pk)])

    assert gate(signed_in(world.reviewer.user), made)["accept"] == accept
    assert gate(signed_in(world.project_admin.user), made)["accept"] is None


def test_deployment_page_explains_replay_gate_in_different_states(world: World) -> None:
    members(world)
    require(world, replay_gate_min_fixtures=3, max_work_increase_percent=5)
    client, now = signed_in(world.reviewer.user), timezone.now()
    made = waiting(world, 1, outcomes={})

    def change(deployment: Deployment = made, **columns: Any) -> Any:
        Regression.objects.filter(deployments=deployment).update(**columns)
        page = client.get(row_page(deployment))
        return page.context["summary"], {label: strip_tags(str(value)) for label, value in facts(page)}

    def facts(page: Any) -> Any:
        return page.context["summary"]["gate"]["facts"]

    def waits_for(summary: Any) -> list[list[str]]:
        return texts(next((each["rows"] for each in summary["panels"] if each["title"] == "Waiting for"), []))

    # Finished: each blocker is named, and the panel says when the request expires.
    summary, shown = change()
    assert [each[:2] for each in waits_for(summary)] == [
        [
            "replay gate: failed",
            "The candidate needs 10.0% more work than the baselines. At most 5% more is permitted.",
        ],
        ["replay gate: differs", "1 group of differences is not accepted."],
        [
            "replay gate: too few fixtures",
            'The regression has 2 verdicts other than "not tested", and at least 3 are required.',
        ],
    ]  # fmt: skip
    assert shown["Work"] == "candidate 1,100,000 units, baselines 1,000,000 units (+10%)"
    assert (shown["Verdicts"], shown["Permitted work"]) == (
        "2, at least 3 required",
        "at most 5% more than the baselines",
    )
    assert shown["If nothing happens"].startswith("the request expires in ")
    # Without required approvals, the build waits only for the gate, and the page says when the deployment fails.
    require(world, approvals_required=False)
    approved = waiting(world, 1, name="approved")
    # No agent runs a configuration here, so no baselines are needed. If the regression had some, the build would
    # request another regression.
    Regression.objects.filter(deployments=approved).update(baselines=[])
    builds.build(str(approved.pk))
    summary, shown = change(approved)
    assert shown["If nothing happens"].startswith("the deployment fails in ")
    [(blocker, _, until, _)] = waits_for(summary)
    assert (blocker, until[:34]) == ("replay gate: differs", "otherwise the deployment fails in ")
    assert '<span class="pill warn">replay gate</span>' in client.get(table(Deployment)).text
    timeline = strip_tags(client.get(row_page(approved)).text)
    assert "The replay gate blocks the deployment: 1 group of differences is not accepted." in timeline
    builds.build(str(approved.pk))
    assert approved.timeline.filter(event="gate_blocked").count() == 1
    # Running: the panel shows the progress, and the page updates itself.
    summary, shown = change(status="running", progress_done=3, progress_total=12, finished_at=None)
    assert (summary["gate"]["bar"]["text"], summary["moving"]) == ("3 of 12 verdicts", True)
    assert shown["If nothing happens"] == "deadlines are paused until the regression has finished"
    assert "rows" not in summary["gate"]
    assert 'aria-label="3 of 12 verdicts"' in client.get(live(made)).text
    # A regression that tested nothing, and a deleted regression.
    summary, _ = change(status="passed", groups=[], outcomes={}, vacuous=True, fixtures=0, finished_at=now)
    assert summary["gate"]["headline"] == "Nothing was tested: the pipeline quotes had no fixtures to test."
    assert "The regression says nothing about the configuration." in client.get(row_page(made)).text
    Regression.objects.all().delete()
    assert gate(client, made)["headline"] == "The regression was deleted."
    # A gate that is overridden, one that only warns, and one that is off.
    Deployment.objects.filter(pk=made.pk).update(replay_gate_override="The exchange changes today.")
    summary, shown = change()
    assert ("warn", "Replay gate overridden", ["“The exchange changes today.”"]) in summary["marks"]
    assert shown["Override"] == "“The exchange changes today.”"
    assert "If nothing happens" not in shown
    assert "gate overridden" in client.get(table(Deployment)).text
    require(world, replay_gate="warn", max_in_flight_deployments=9)
    warned = waiting(world, 1, name="warned")
    summary, shown = change(warned)
    assert (shown["Gate"], waits_for(summary)) == ("warns: the result does not block the deployment", [])
    require(world, max_in_flight_deployments=9, replay_gate="off")
    assert gate(client, waiting(world, 1, name="off")) is None


def test_query_counts_of_page_and_list_do_not_grow_with_groups_and_deployments(world: World) -> None:
    members(world)
    require(world)
    one, many = waiting(world, 1), waiting(world, 60, name="many")
    client = signed_in(world.reviewer.user)

    def count(url: str) -> int:
        client.get(url)
        with CaptureQueriesContext(connection) as queries:
            client.get(url)
        return len(queries)

    assert count(row_page(many)) == count(row_page(one)) <= 15
    panel = gate(client, many)
    assert (len(panel["rows"]), panel["rest"]) == (20, "40 more groups of differences.")
    listed = count(table(Deployment))
    Deployment.objects.update(status="approved", gated_at=timezone.now())
    waiting(world, 2, name="further")
    assert count(table(Deployment)) == listed
    form = client.get(act(many.regression, "accept")).context["form"]
    assert len(form["groups"].field.choices) == 50
    assert form["every"].label == "Accept all 60 groups that still need an acceptance"


def test_differences_can_be_accepted_only_in_finished_regression_of_config_bundle(world: World) -> None:
    row = bundle(world, "next")
    client = signed_in(world.reviewer.user)
    tested = regressions.request(environment=world.dev, version=row.version, actor=world.operator.actor)
    queued = regressions.request(environment=world.dev, config_bundle=row, actor=world.operator.actor)
    Regression.objects.filter(pk=tested.pk).update(status="differs", finished_at=timezone.now())

    group = {
        "id": "1" * 64, "egress": "out", "kind": "extra", "pointers": [], "code": None, "count": 1,
        "verdict_id": str(tested.pk), "fixture_count": 0, "fixtures": [],
        "baselines": [{"config_hash": None, "count": 1}],
    }  # fmt: skip
    for each, why in (
        (tested, "The regression tests a version or a draft. Only differences of a config bundle can be accepted."),
        (queued, "The regression is queued and has no result."),
    ):
        Regression.objects.filter(pk=each.pk).update(groups=[group])
        assert act(each, "accept") not in client.get(live(each)).text
        refused = sent(client, each, "accept", {"groups": ["1" * 64], "reason": REASON})
        assert refused.context["form"].non_field_errors() == [why]
    assert not Acceptance.objects.exists()


def test_deploy_form_has_fields_for_explanations_and_gate_override(world: World) -> None:
    members(world)
    row = store_regression(
        bundle(world, "next", STRICT), [bundle(world, "now")], keep(world, bundle(world, "kept"), cards(1)), groups=30
    )
    assert row.config_bundle is not None
    url, untested = deploy_page(row.config_bundle), deploy_page(bundle(world, "untested", redact=OTHER_MASK))
    operator, admin = signed_in(world.operator.user), signed_in(world.admin.user)
    named = [f"explain-{each['id']}" for each in row.groups[:MAX_EXPLAINED]]

    def offered(client: Any, page: str = url) -> list[str]:
        fields = client.get(page).context["form"].fields
        return [name for name in fields if name == "override_replay_gate" or name.startswith("explain-")]

    def outlook(client: Any, **values: str) -> str:
        return str(client.post(url, deploy_form(_preview="", **values)).context["outlook"].gate)

    first = (
        "1 fixture of the pipeline quotes is tested. "
        "Results are compared with golden results or with what most of the target's agents run."
    )
    assert (offered(admin), outlook(admin)) == ([], "")
    require(world, replay_gate="warn")
    assert offered(admin) == named
    assert outlook(admin) == f"{first} The result is shown, and does not block the deployment."
    require(world, replay_gate_min_fixtures=2, max_work_increase_percent=7)
    assert offered(operator) == named
    assert (offered(admin), offered(admin, untested)) == (["override_replay_gate", *named], ["override_replay_gate"])
    assert outlook(operator, override_replay_gate="please") == (
        f"{first} The deployment can start only if every difference is accepted, there are at least 2 verdicts other "
        "than “not tested” and the work increases by at most 7%."
    )
    why = {"override_replay_gate": "It is urgent.", named[1]: "It is on purpose."}
    assert outlook(admin, **why) == f"{first} You override the replay gate: the result does not block the deployment."
    too_long = admin.post(url, deploy_form(_create="", **{named[1]: "x" * 2001}))
    assert list(too_long.context["form"].errors) == [named[1]]
    assert not Deployment.objects.exists()

    operator.post(url, deploy_form(_create="", **why))
    admin.post(url, deploy_form(_create="", **why))

    explained = [{"group": row.groups[1]["id"], "text": "It is on purpose."}]
    assert list(Deployment.objects.order_by("pk").values_list("replay_gate_override", "explain")) == [
        ("", explained), ("It is urgent.", explained),
    ]  # fmt: skip


def test_gate_settings_are_edited_and_only_organization_admin_loosens_them(world: World) -> None:
    project_admin, admin = signed_in(world.project_admin.user), signed_in(world.admin.user)
    strict = {"replay_gate": "require", "replay_gate_min_fixtures": 3, "max_work_increase_percent": 10}

    form = project_admin.get(act(world.prod, "settings")).context["form"]
    assert [text for text, _ in form.fields["replay_gate"].choices] == ["off", "warn", "require"]
    sent(project_admin, world.prod, "settings", settings_form(world.prod, **strict))
    assert stored(world.prod) == strict
    assert "the replay gate tests each deployment and can block it" in project_admin.get(row_page(world.prod)).text
    refused: list[dict[str, Any]] = [
        {"replay_gate": "warn"}, {"replay_gate_min_fixtures": 2}, {"max_work_increase_percent": 11},
        {"max_work_increase_percent": None},
    ]  # fmt: skip
    for loose in refused:
        page = sent(project_admin, world.prod, "settings", settings_form(world.prod, **loose))
        assert next(iter(loose)) in page.context["form"].non_field_errors()[0]
        assert stored(world.prod) == strict
    wrong = settings_form(world.prod, replay_policy="disabled")
    assert list(sent(admin, world.prod, "settings", wrong).context["form"].errors) == ["replay_gate"]
    loose = {"replay_gate": "warn", "max_work_increase_percent": None}
    sent(admin, world.prod, "settings", settings_form(world.prod, **loose))
    assert stored(world.prod) == {**strict, **loose}
    assert "the replay gate tests each deployment" in admin.get(row_page(world.prod)).text


def test_deployment_with_difference_starts_after_reviewer_accepts_difference_and_approves(
    world: World, page: Page, shot: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    agents = members(world)
    now, changed = bundle(world, "now"), bundle(world, "changed", redact=OTHER_MASK)
    kept(world, capture(world, now))
    release(world, now, agents)
    require(world)
    held = HeldBatches(monkeypatch)
    made = Deployment.objects.get(pk=ask(world, changed).json()["id"])
    sign_in(page, world.reviewer.user)

    # The page of the deployment shows the progress, and then the difference, without a reload.
    page.goto(row_page(made))
    panel = page.locator("#gate")
    expect(panel).to_contain_text("Waiting for a worker.")
    page.evaluate("document.body.dataset.loaded = 'once'")
    worker = start_worker()
    expect(panel.get_by_role("img", name="0 of 1 verdict")).to_be_visible()
    shot(page, "gate-running", widths=WIDTHS, full_page=True)
    held.may_run.set()
    expect(panel).to_contain_text("1 group of differences on 1 of 1 fixture.")
    worker.join(PATIENCE_S)
    expect(panel.locator("tbody tr")).to_contain_text("Changes /card in quotes_out")
    expect(panel.locator("tbody tr")).to_contain_text("not accepted")
    assert page.evaluate("document.body.dataset.loaded") == "once"
    shot(page, "gate-one", widths=WIDTHS, full_page=True)

    # A box that scrolls and has no links is focusable, and stays focused when the page updates itself.
    page.set_viewport_size({"width": 390, "height": 844})
    panel.locator(".scroll a").evaluate_all("links => links.forEach(link => link.removeAttribute('href'))")
    page.evaluate("dispatchEvent(new Event('resize'))")
    box = panel.locator(".scroll[tabindex='0']")
    box.focus(timeout=5000)
    with page.expect_response(lambda response: "/live/" in response.url):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(panel.locator(".scroll a[href]").first).to_be_attached()
    expect(box).to_be_focused(timeout=5000)
    found = examine(prepare(page), row_page(made))

    # The reviewer accepts the difference with a reason, and approves the deployment.
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto(row_page(made))
    panel.get_by_role("link", name="Accept differences").click()
    shot(page, "gate-accept", widths=WIDTHS, full_page=True)
    found += examine(page, page.url)
    page.set_viewport_size({"width": 1440, "height": 900})
    expect(page.get_by_role("checkbox", name="Changes /card in quotes_out")).to_be_checked()
    page.get_by_label("Reason").fill(REASON)
    page.get_by_role("button", name="Accept differences").click()
    expect(page.locator("#groups .difference")).to_contain_text(f"“{REASON}”")
    shot(page, "gate-regression-accepted", widths=WIDTHS, full_page=True)
    found += examine(page, page.url)
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto(row_page(made))
    expect(panel.locator("tbody tr")).to_contain_text(f"“{REASON}”")
    page.get_by_role("button", name="Approve").click()
    run_everywhere(agents, made)
    page.goto(row_page(made))
    expect(page.locator("#headline")).to_contain_text("Active: 1 of 1 agent active.")
    expect(panel.locator("tbody tr")).to_contain_text(f"“{REASON}”")
    shot(page, "gate-active", widths=WIDTHS, full_page=True)
    assert found == []

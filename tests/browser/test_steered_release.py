"""Holds before waves, reviewers and start times in the console, with the same rules as in the API."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from django.utils.html import strip_tags
from playwright.sync_api import Page, expect

from apps.releases.models import Approval, ApprovalDecision, Deployment
from apps.releases.services.wave_reports import read_report
from apps.tenancy.models import AuditEvent
from apps.tenancy.permissions import Role
from byteor.engine.rollout import Hold
from tests.browser import axe
from tests.browser.confirmed import YES, shown_messages
from tests.browser.conftest import sign_in
from tests.browser.filled import act, row_page, signed_in, table
from tests.browser.test_deploying import deploy_page, filled_in
from tests.browser.test_deploying import waves as own_waves
from tests.browser.test_environment_settings import filled_in as settings_of
from tests.browser.test_environment_settings import stored
from tests.browser.test_people import sent
from tests.browser.waiting import buttons, listed, live, waiting
from tests.releases import stories
from tests.releases.stories import Run, report_from_all, waves
from tests.worlds import World, report

pytestmark = pytest.mark.django_db
# The form hides the hold of the first wave, and ignores it.
HELD = {"strategy": "own", **own_waves(25, 50, 100, holds=["manual", "manual", "approval"])}


def asked(**values: Any) -> dict[str, Any]:
    """Return the form values of a deployment, by default in three waves with two holds."""
    return filled_in(**{**HELD, "auto_rollback": "on", **values})


def held(world: World, run_jobs: Run, *, threshold: int = 100) -> tuple[stories.Fleet, Deployment, Approval]:
    """Return agents, a deployment whose second wave waits for approval by the viewer, and this approval.

    The agent of the first wave has failed.
    """
    agents, (_, second), _ = stories.running(world, 4)
    strategy = {**waves(25, 100, threshold=threshold), "holds": [None, "approval"]}
    deployment = stories.offered(world, second, strategy=strategy, reviewer_ids=[world.viewer.user.pk])
    report(agents[0][1], agents[0][0], "failed", detail="cannot open port 9000")
    run_jobs()
    return agents, deployment, Approval.objects.get(rollout=deployment)


def test_passed_deadline_of_wave_is_shown_as_paused_while_deployment_is_paused(world: World, run_jobs: Run) -> None:
    _, deployment, approval = held(world, run_jobs)
    Approval.objects.filter(pk=approval.pk).update(expires_at=timezone.now() - timedelta(minutes=1))
    client = signed_in(world.operator.user)

    def shown() -> tuple[str, dict[str, Any]]:
        summary = client.get(live(approval)).context["summary"]
        return summary["request"], dict(summary["facts"])

    request, facts = shown()
    assert "to decide" not in request
    assert "ago" in facts["Expires"]

    Deployment.objects.filter(pk=deployment.pk).update(paused_at=timezone.now())

    request, facts = shown()
    assert request.endswith("The time to decide is paused until the deployment is resumed.")
    assert facts["Expires"] == "paused until the deployment is resumed"
    needs = signed_in(world.viewer.user).get("/admin/").context["needs"].lines
    [reason] = [need.reason for need in needs if need.key == f"approval-{approval.pk}"]
    assert reason == f"Requested by {approval.requested_by}."


def decide_form(client: Any, approval: Approval) -> dict[str, Any]:
    """Return the values that the decision form on the page of the approval sends."""
    form = client.get(row_page(approval)).context["summary"]["decide"]
    return {**YES, "digest": form["digest"], "comment": ""}


def test_deployment_with_holds_start_time_and_reviewers_is_requested(world: World) -> None:
    stories.fleet(world, 4)
    (bundle,) = stories.bundles(world, 1)
    url, client = deploy_page(bundle), signed_in(world.operator.user)
    start = (timezone.now() + timedelta(hours=2)).replace(second=0, microsecond=0)
    viewer = str(world.viewer.user.pk)
    values = asked(start_at=f"{start:%Y-%m-%dT%H:%M}", reviewers=[viewer])

    form = client.get(url).context["form"]
    assert f"{world.viewer.user.email} (viewer)" in dict(form["reviewers"].field.choices)[viewer]
    assert form["reviewers"].value() == []
    seen = client.post(url, {**values, "_preview": ""}).context["outlook"]
    assert "Wave 2 waits until somebody starts it. Wave 3 waits for approval." in seen.strategy
    assert seen.start == f"{start:%Y-%m-%d %H:%M} UTC at the earliest"
    assert seen.consent == (
        f"The waves that wait for approval need the approval of 1 of these people: {world.viewer.user.email}."
    )
    client.post(url, {**values, "_create": ""})

    deployment = Deployment.objects.get()
    assert deployment.strategy.holds == (None, Hold.MANUAL, Hold.APPROVAL)
    assert (deployment.start_at, deployment.reviewers) == (start, [viewer])
    page = client.get(row_page(deployment))
    summary = page.context["summary"]
    assert summary["headline"] == f"Waiting. The start time ({start:%Y-%m-%d %H:%M:%S} UTC) has not been reached."
    assert ">starts <" in re.sub(r"<time[^>]*>", "<", page.text)
    facts = dict(summary["facts"])
    assert facts["Start time"] == f"{start:%Y-%m-%d %H:%M:%S} UTC"
    assert facts["Reviewers"] == world.viewer.user.email
    assert [each["hold"] for each in summary["waves"]] == ["", "needs a manual start", "needs approval"]
    # Without an approval, the chosen reviewers are ignored, because they would have nothing to decide.
    client.post(url, {**asked(**own_waves(25, 50, 100), reviewers=[viewer]), "_create": ""})
    assert Deployment.objects.order_by("-pk")[0].reviewers == []


@pytest.mark.parametrize(
    ("values", "field", "error"),
    [
        ({"waves.hold": ["", "maybe", "", ""]}, "waves", 'Wave 2, start: "maybe" is not a valid choice.'),
        ({"waves.percent": ["50", "x", "100", ""]}, "waves", "Wave 2, percent of agents: Must be a whole number."),
        ({"start_at": "soon"}, "start_at", "Enter a valid date/time."),
        ({"start_at": "2020-01-01T00:00"}, "start_at", "The start time must be in the future."),
        ({"start_at": "2999-01-01T00:00"}, "start_at", "The start time must be at most 30 days ahead."),
        ({"reviewers": ["somebody"]}, "reviewers", "not one of the available choices"),
    ],
)
def test_error_of_waves_start_time_or_reviewers_is_shown_at_its_field(
    world: World, values: dict[str, Any], field: str, error: str
) -> None:
    world.agent()
    bundle = world.bundle()

    for button in ("_preview", "_create"):
        page = signed_in(world.operator.user).post(deploy_page(bundle), {**asked(**values), button: ""})
        assert error in " ".join(page.context["form"].errors[field])
    assert not Deployment.objects.exists()


def test_form_offers_only_reviewers_of_environment_except_requester(world: World) -> None:
    people = [world.viewer.user, world.operator.user, world.admin.user]
    ids = sorted(str(each.pk) for each in people)
    world.agent(world.prod)
    bundle = world.bundle(world.prod)
    world.prod.settings = {"reviewers": ids, "required_approvals": 2}
    world.prod.save()
    client, url = signed_in(world.operator.user), deploy_page(bundle)

    field = client.get(url).context["form"]["reviewers"]
    offered = [value for value, _ in field.field.choices]
    assert sorted(offered) == sorted(field.value()) == sorted(str(each.pk) for each in (people[0], people[2]))
    one = client.post(url, {**filled_in(reviewers=offered[:1]), "_create": ""})
    assert "only 1 of the reviewers can approve or already did" in one.context["form"].errors["reviewers"][0]
    none = client.post(url, {**filled_in(), "_create": ""})
    assert "Name at least one of them." in none.context["form"].errors["reviewers"][0]
    client.post(url, {**filled_in(reviewers=offered), "_create": ""})

    deployment = Deployment.objects.get()
    assert deployment.reviewers == sorted(offered)
    next_step = client.get(row_page(deployment)).context["summary"]["panels"][0]["lead"]
    assert f"2 of these people: {world.admin.user.email}, {world.viewer.user.email}." in next_step


def test_manual_hold_is_shown_and_ended_on_deployment_page(world: World, run_jobs: Run) -> None:
    agents, (_, second), _ = stories.running(world, 4)
    deployment = stories.offered(world, second, strategy={**waves(25, 100), "holds": [None, "manual"]})
    client = signed_in(world.operator.user)
    assert client.get(row_page(deployment)).context["summary"]["hold"] is None
    report_from_all(agents[:1], "active", run_jobs)

    page = client.get(row_page(deployment))
    summary = page.context["summary"]
    assert summary["headline"] == "Wave 1 of 2 done, and wave 2 is held: 1 of 4 agents active."
    assert summary["hold"]["text"].startswith("Wave 2 of 2 has been waiting since ")
    assert (summary["hold"]["label"], summary["hold"]["url"]) == ("Start wave 2", act(deployment, "next_wave"))
    assert [(each["state"], each["hold"]) for each in summary["waves"]] == [
        ("done", ""), ("held", "waits until somebody starts it"),
    ]  # fmt: skip
    assert "Start next wave" not in re.sub(r"<title>.*?</title>", "", page.text)
    assert signed_in(world.viewer.user).get(live(deployment)).context["summary"]["hold"].keys() == {"text"}

    assert signed_in(world.viewer.user).post(act(deployment, "next_wave"), YES).status_code == 403
    will = "Wave 2 starts now: 3 more agents are offered quotes v1."
    assert summary["hold"]["description"] == will
    assert will in client.get(act(deployment, "next_wave")).text
    done = client.post(act(deployment, "next_wave"), {**YES, "comment": "It ran for an hour."}, follow=True)
    assert [level for level, _ in shown_messages(done)] == ["success"]
    assert AuditEvent.objects.get(action="deployment.next_wave").actor_display == world.operator.user.email
    again = client.post(act(deployment, "next_wave"), YES, follow=True)
    assert [level for level, _ in shown_messages(again)] == ["error"]
    page = client.get(row_page(deployment))
    assert page.context["summary"]["waves"][1]["hold"] == f"started by {world.operator.user.email}"
    assert f"Wave 2 was started by {world.operator.user.email}: It ran for an hour." in page.text
    assert "Wave 2 began: 3 agents are offered quotes v1." in page.text
    assert "Wave 2 waits until somebody starts it." in page.text


def test_only_reviewers_decide_on_wave_regardless_of_role(world: World, run_jobs: Run) -> None:
    _, deployment, approval = held(world, run_jobs)
    viewer, operator = signed_in(world.viewer.user), signed_in(world.reviewer.user)

    page = viewer.get(row_page(approval))
    summary, facts = page.context["summary"], dict(page.context["summary"]["facts"])
    assert page.context["title"] == "Approval of wave 2 of quotes/bundle-1"
    assert facts["Wave"] == 2
    assert summary["panels"][0]["rows"] == [(world.viewer.user.email, "not decided yet")]
    bar, causes = page.context["still"]["report"]["bar"], page.context["still"]["report"]["causes"]
    assert (bar["parts"], bar["key"], summary["report"]["tone"]) == ([("bad", 1)], [("bad", "1", "failed")], "warn")
    assert summary["report"]["text"] == (
        "Wave 1: 1 agent (1 failed). 1 agent failed (reported): cannot open port <number>."
    )
    assert "cannot open port &lt;number&gt;" in page.text
    assert [count for _, count in causes["rows"]] == [1]
    assert summary["decide"].keys() == {"explain", "approve", "deny", "digest"}
    assert buttons(page) == ["Approve wave", "Deny wave"]
    # What the earlier waves did comes first, then what the deployment changes.
    order = [page.text.index(text) for text in ("What the earlier waves did", "Why agents failed", "Pipeline: changes")]
    assert order == sorted(order)
    # The list and the overview show the wave to the reviewer, who is only a viewer.
    assert listed(viewer, **{"for": "me"}) == [approval.pk]
    assert "Wave 2 of quotes/bundle-1" in viewer.get(table(Approval)).text
    assert "Wave 2 of quotes/bundle-1" in viewer.get("/admin/").text
    # Others see why they cannot decide, and cannot send a decision.
    assert listed(operator, **{"for": "me"}) == []
    assert operator.get(live(approval)).context["summary"]["decide"] == {
        "why": "Only the reviewers of this approval can decide."
    }
    for name in ("approve", "deny", "approve_wave", "deny_wave"):
        assert operator.post(act(approval, name), {**YES, "comment": "x"}).status_code == 403
    packet = world.viewer.api.get(world.path(rest=f"/approvals/{approval.pk}/packet"))
    assert (packet.status_code, packet.json()["type"]) == (409, "urn:byteor:problem:approval.no_packet")
    # The acts for whole deployments refuse a wave, because they do not show what the decision covers.
    ((level, text),) = shown_messages(viewer.post(act(approval, "approve"), YES, follow=True))
    assert (level, "This request is for a wave." in text) == ("error", True)
    assert not approval.decisions.exists()

    hold = signed_in(world.operator.user).get(row_page(deployment)).context["summary"]["hold"]
    assert (hold["url"], hold["label"]) == (row_page(approval), "Open the approval of wave 2")
    done = viewer.post(act(approval, "approve_wave"), decide_form(viewer, approval), follow=True)
    assert shown_messages(done) == [("success", "Approval of wave 2 of quotes/bundle-1 given.")]
    run_jobs()
    assert stories.progress(deployment) == ["failed", "offered", "offered", "offered"]
    page = viewer.get(row_page(deployment))
    assert page.context["summary"]["waves"][1]["hold"] == f"approved by {world.viewer.user.email}"
    former = ApprovalDecision.objects.create(
        approval=approval, user=world.reviewer.user, decided_by="former@acme.example", decision="approve"
    )
    assert approval.reviewers == [str(world.viewer.user.pk)] != [str(former.user_id)]
    page = viewer.get(row_page(deployment))
    assert page.context["summary"]["waves"][1]["hold"] == f"approved by {world.viewer.user.email}"
    assert f"Wave 2 was approved. {world.viewer.user.email} completed the approval." in page.text
    assert "Wave 2 waits for approval. Wave 1: 1 agent (1 failed)." in strip_tags(page.text)


def test_decision_on_outdated_report_is_refused_with_new_report(world: World, run_jobs: Run) -> None:
    agents, deployment, approval = held(world, run_jobs)
    viewer = signed_in(world.viewer.user)
    form = decide_form(viewer, approval)
    assert "A denial needs a comment." in viewer.post(act(approval, "deny_wave"), form).text

    # As if the agent had reported, but no rollout step had run since.
    deployment.progress_counts.filter(wave=0).update(progress="active")
    refused = viewer.post(act(approval, "approve_wave"), {**form, **YES})

    assert "The report that you read is not the current one." in refused.text
    assert read_report(deployment, 1).summary.startswith("Wave 1: 1 agent (1 active).")
    assert "Wave 1: 1 agent (1 active)." in refused.text
    assert row_page(deployment) in refused.text
    assert not approval.decisions.exists()
    # A retry withdraws the request. The page of the withdrawn request links to the new request.
    deployment.progress_counts.filter(wave=0).update(progress="failed")
    world.operator.api.post(world.path(rest=f"/deployments/{deployment.pk}/retry"), {})
    report_from_all(agents[:1], "active", run_jobs)
    newer = Approval.objects.get(rollout=deployment, status="pending")
    old = viewer.get(row_page(approval))
    assert (old.context["summary"]["headline"], row_page(newer) in old.text) == ("Revoked.", True)
    viewer.post(act(newer, "deny_wave"), {**decide_form(viewer, newer), "comment": "The latency rose."})
    run_jobs()
    assert f"{world.viewer.user.email} denied wave 2." in viewer.get(row_page(deployment)).text


def test_organization_admin_changes_reviewers_of_deployment(world: World) -> None:
    (deployment,) = waiting(world)
    admin, left = signed_in(world.admin.user), world.person(Role.VIEWER, "left")
    name, ids = "change_reviewers", [str(world.reviewer.user.pk), str(left.user.pk)]
    form = {"reviewers": ids, "reason": "They know it."}

    assert sent(signed_in(world.operator.user), deployment, name, form).status_code == 403
    assert "Change reviewers" not in buttons(signed_in(world.operator.user).get(row_page(deployment)))
    assert "Change reviewers" in buttons(admin.get(row_page(deployment)))
    choices = dict(admin.get(act(deployment, name)).context["form"]["reviewers"].field.choices)
    assert str(world.operator.user.pk) not in choices  # the requester cannot decide
    sent(admin, deployment, name, form)
    left.user.memberships.all().delete()

    deployment.refresh_from_db()
    assert deployment.reviewers == sorted(ids)
    page = admin.get(row_page(deployment))
    assert "changed who may decide, from everybody to 2 people: They know it." in page.text
    assert dict(admin.get(act(deployment, name)).context["form"]["reviewers"].field.choices)[ids[1]].endswith(
        "(no longer a member)"
    )
    assert shown_messages(sent(admin, deployment, name, form, follow=True)) == [("info", "Nothing changed.")]
    wrong = sent(admin, deployment, name, {**form, "reviewers": ids[1:]})
    assert "no role in the organization or the project" in wrong.context["form"].errors["reviewers"][0]


def test_project_admin_cannot_loosen_list_of_reviewers(world: World) -> None:
    ids = sorted(str(each.user.pk) for each in (world.reviewer, world.admin))
    project_admin, admin = signed_in(world.project_admin.user), signed_in(world.admin.user)

    sent(project_admin, world.prod, "settings", settings_of(world.prod, reviewers=ids))
    assert stored(world.prod) == {"reviewers": ids}
    for looser in (ids[:1], [*ids, str(world.viewer.user.pk)]):
        refused = sent(project_admin, world.prod, "settings", settings_of(world.prod, reviewers=looser))
        assert "Only an org_admin may loosen reviewers in a prod environment." in refused.text
    assert stored(world.prod) == {"reviewers": ids}
    too_few = sent(admin, world.prod, "settings", settings_of(world.prod, required_approvals=3))
    assert "Name at least 3 reviewers" in too_few.context["form"].errors["reviewers"][0]
    sent(admin, world.prod, "settings", settings_of(world.prod, reviewers=ids[:1]))
    assert stored(world.prod) == {"reviewers": ids[:1]}
    listed_people = (world.reviewer, world.admin)
    (name,) = [each.user.name or each.user.email for each in listed_people if str(each.user.pk) == ids[0]]
    assert name in admin.get(row_page(world.prod)).text


def test_release_is_steered_in_browser(
    world: World, open_page: Callable[..., Page], run_jobs: Run, shot: Callable[..., None]
) -> None:
    agents, (_, second), _ = stories.running(world, 4)
    page = axe.prepare(sign_in(open_page(), world.operator.user))
    page.goto(deploy_page(second))
    reviewers = page.get_by_role("group", name="Reviewers")
    page.get_by_label("Strategy").select_option(label="Custom waves and holds")
    rows = page.get_by_role("group", name="Waves").get_by_role("group")
    page.get_by_role("button", name="Remove wave").nth(1).press("Enter")
    page.get_by_role("button", name="Add wave").press("Enter")
    for number, percent in enumerate(["25", "50", "100"]):
        rows.nth(number).get_by_label("Percent of agents").fill(percent)
    rows.nth(1).get_by_label("Start").select_option(label="Waits until somebody starts it")
    expect(reviewers).to_be_hidden()
    rows.nth(2).get_by_label("Start").select_option(label="Waits for approval")
    reviewers.get_by_label(f"{world.viewer.user.email} (viewer)", exact=True).check()
    expect(page.locator("#outlook")).to_contain_text("Wave 3 waits for approval.")
    expect(page.locator("#outlook")).to_contain_text(f"these people: {world.viewer.user.email}.")
    shot(page, "steered-form", widths=(1440, 390), full_page=True)
    page.get_by_role("button", name="Request deployment").click()
    expect(page.get_by_role("heading", name="Waves")).to_be_visible()
    run_jobs()
    report_from_all(agents[:1], "active", run_jobs)

    expect(page.locator("#hold")).to_contain_text("for an operator or admin to start it")
    shot(page, "steered-manual", widths=(1440, 390), full_page=True)
    page.get_by_role("link", name="Start wave 2").click()
    page.get_by_label("Reason").fill("It ran for an hour.")
    page.get_by_role("button", name="Start next wave").click()
    expect(page.locator("#wave-2")).to_contain_text(f"started by {world.operator.user.email}")
    report_from_all(agents[1:2], "active", run_jobs)
    expect(page.get_by_role("link", name="Open the approval of wave 3")).to_be_visible()
    shot(page, "steered-approval", widths=(1440, 390), full_page=True)

    deployment = Deployment.objects.latest("pk")
    approval = Approval.objects.get(rollout=deployment)
    other = axe.prepare(sign_in(open_page(), world.viewer.user))
    assert axe.examine(other, row_page(deployment)) == []
    assert axe.examine(other, row_page(approval)) == []
    other.goto("/admin/")
    shot(other, "steered-overview")
    other.get_by_role("link", name="Wave 3 of quotes/bundle-1").click()
    expect(other.locator("#report")).to_contain_text("Waves 1 to 2: 2 agents (2 active).")
    shot(other, "steered-wave", widths=(1440, 390), full_page=True)
    other.get_by_label("Comment").fill("Looks good.")
    other.get_by_role("button", name="Approve").click()
    expect(other.locator("#headline")).to_contain_text(f"Approved by {world.viewer.user.email}.")
    run_jobs()

    assert stories.progress(deployment) == ["active", "active", "offered", "offered"]

"""Console pages that create config bundles and request deployments, with the same rules as the API."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from django.urls import reverse
from playwright.sync_api import Page, Route, expect

from apps.console.frame.forms import new_form_id
from apps.console.pages.bundles.new_bundle import JsonInput
from apps.console.pages.deployments.deploying import describe_consent
from apps.pipelines.models import Version
from apps.releases.models import ConfigBundle, Deployment
from apps.releases.services import bundles
from apps.tenancy.models import AuditEvent, Environment
from tests.browser.conftest import sign_in
from tests.browser.filled import row_page, signed_in
from tests.releases import stories
from tests.releases.test_requests import NOW
from tests.worlds import World

pytestmark = pytest.mark.django_db
PRICE = '{"schema": {"properties": {"price": {"type": "number"}}}}'


def new_page(version: Version) -> str:
    return reverse("admin:releases_configbundle_new", args=[version.pk])


def deploy_page(bundle: ConfigBundle) -> str:
    return reverse("admin:releases_configbundle_deploy", args=[bundle.pk])


def filled_in(**values: Any) -> dict[str, Any]:
    """Return the form values that a browser sends for a deployment."""
    first = {
        "_form": new_form_id(),
        "target": "all",
        "strategy": "all_at_once",
        "note": "",
        "agents": "",
        **waves(5, 25, 100),
    }
    return {**first, **values}


def waves(*percents: object, holds: Sequence[str] = ()) -> dict[str, Any]:
    """Return the form values that a browser sends for custom waves, with the blank row at the end."""
    return {"waves.percent": [*percents, ""], "waves.hold": [*(holds or [""] * len(percents)), ""]}


def new_bundle(**values: str) -> dict[str, str]:
    """Return the form values that a browser sends for a config bundle."""
    return {"_form": new_form_id(), "name": "second", "tuning_profile": "default", **values}


def test_config_bundle_form_starts_from_current_bundle_and_shows_changes(world: World) -> None:
    version = world.version()
    first = world.bundle(world.dev, "first", version=version, env={"ZONE": "a"}, stage_config={"check": {"schema": {}}})
    stories.active(world, first, stories.fleet(world, 1))
    client = signed_in(world.operator.user)

    form = client.get(new_page(version)).context["form"]
    checked = client.post(new_page(version), new_bundle(env='{"ZONE": "b"}', **{"stage-1": PRICE}, _check=""))
    assert ConfigBundle.objects.count() == 1
    asked = new_bundle(env='{"ZONE": "b"}', **{"stage-1": PRICE}, _create="")
    created, again = (client.post(new_page(version), asked) for _ in range(2))  # a double click

    assert (form["env"].value(), form["stage-1"].value()) == ('{\n  "ZONE": "a"\n}', '{\n  "schema": {}\n}')
    changes = [(each.change, each.what, each.name) for each in checked.context["changes"].config]
    assert ("changed", "env", "ZONE") in changes
    assert ("added", "stage_config", "check/schema/properties/price/type") in changes
    made = ConfigBundle.objects.get(name="second")
    assert created["Location"] == again["Location"] == row_page(made)
    assert (made.env, made.stage_config) == (
        {"ZONE": "b"}, {"check": {"schema": {"properties": {"price": {"type": "number"}}}}}
    )  # fmt: skip
    assert AuditEvent.objects.get(action="config_bundle.create", resource_id=str(made.pk)).actor_id == str(
        world.operator.user.pk
    )


@pytest.mark.parametrize(("enabled", "expected"), [(True, 60), (False, None)])
def test_config_bundle_form_starts_with_snapshot_interval_only_if_snapshots_are_enabled(
    world: World, enabled: bool, expected: int | None
) -> None:
    version = world.version()
    snapshot = {"enabled": enabled, "interval_s": 60}
    first = world.bundle(world.dev, "first", version=version, snapshot=snapshot)
    stories.active(world, first, stories.fleet(world, 1))

    form = signed_in(world.operator.user).get(new_page(version)).context["form"]

    assert form["snapshot_s"].value() == expected


@pytest.mark.parametrize(
    ("values", "field", "error"),
    [
        ({"name": ""}, "name", "required"),
        ({"name": "first"}, "__all__", "already taken"),
        ({"stage-1": "{"}, "stage-1", "line 1"),
        ({"stage-1": '{"schema": {"type": "nonsense"}}'}, "stage-1", "schema"),
        ({"stage-0": "[]"}, "stage-0", "object"),
        ({"env": '{"lower": "x"}'}, "env", "upper-case"),
        ({"env": '{"KEY": "-----BEGIN PRIVATE KEY-----"}'}, "env", "secret"),
        ({"ingress": '{"kind": "carrier pigeon"}'}, "ingress", "One of"),
        ({"snapshot_s": "0"}, "snapshot_s", "1"),
        ({"tuning_profile": "ludicrous"}, "tuning_profile", "valid choice"),
    ],
)
def test_error_of_invalid_config_bundle_is_shown_at_field_or_above_form(
    world: World, values: dict[str, str], field: str, error: str
) -> None:
    version = world.version()
    world.bundle(world.dev, "first", version=version)

    page = signed_in(world.operator.user).post(new_page(version), new_bundle(**values, _create=""))

    assert error.lower() in " ".join(page.context["form"].errors[field]).lower()
    assert ConfigBundle.objects.count() == 1


def test_config_bundle_form_describes_ops_and_locates_errors_in_json(world: World) -> None:
    version = world.version()

    page = signed_in(world.operator.user).post(
        new_page(version), new_bundle(**{"stage-1": '{"schema": {"type": "nonsense"}, "a/b": 1}'}, _create="")
    )

    form = page.context["form"]
    inputs = {each.field.name: each for _, fields in form.groups() for each in fields if isinstance(each, JsonInput)}
    assert {each.pointer for each in inputs["stage-1"].errors} == {"/schema/type", "/a~1b"}
    assert all(each.detail and each.detail in each.text for each in inputs["stage-1"].errors)
    assert inputs["stage-0"].errors == []
    assert form.schemas["op:identity"]["properties"] == {}
    assert form.schemas["op:dataguard_check"]["required"] == ("schema",)
    assert 'data-schema="op:dataguard_check"' in page.text
    assert 'data-pointer="/schema/type"' in page.text


def test_deployment_is_previewed_and_then_requested(world: World) -> None:
    for number in range(20):
        world.agent(world.prod, f"edge-{number:02}", zone="a" if number < 15 else "b")
    bundle = world.bundle(world.prod)
    client = signed_in(world.operator.user)
    asked = filled_in(target="selector", labels=["zone=a"], strategy="waves", auto_rollback="on", note="the close")

    seen = client.post(deploy_page(bundle), {**asked, "_preview": ""}).context["outlook"]
    assert not Deployment.objects.exists()
    made, again = (client.post(deploy_page(bundle), {**asked, "_create": ""}) for _ in range(2))  # a double click

    assert seen.agents == f"15 agents: {', '.join(f'edge-{n:02}' for n in range(10))} and 5 more"
    assert seen.waves == [(1, 5, "1 agent"), (2, 25, "3 agents"), (3, 100, "11 agents")]
    assert seen.consent.startswith("The deployment needs the approval of 1 of these people: admin@")
    assert "operator@" not in seen.consent
    assert seen.obstacles == []
    deployment = Deployment.objects.get()
    assert made["Location"] == again["Location"] == row_page(deployment)
    assert (deployment.status, deployment.target_count, deployment.note) == ("pending_approval", 15, "the close")
    assert deployment.strategy.auto_rollback


def test_less_common_labels_are_entered_as_rows(world: World) -> None:
    for number in range(60):
        world.agent(None, f"edge-{number:02}", host=f"web-{number}", zone="a" if number < 2 else "b")
    client, url = signed_in(world.operator.user), deploy_page(world.bundle())

    def seen(**values: Any) -> Any:
        return client.post(url, filled_in(target="selector", _preview="", **values)).context

    page = client.get(url).text
    one = seen(labels=["zone=a"], **{"other_labels.key": ["host", ""], "other_labels.value": ["web-1", ""]})
    twice = seen(labels=["zone=a"], **{"other_labels.key": ["zone"], "other_labels.value": ["b"]})

    assert '<option value="web-10">host</option>' in page
    assert one["outlook"].agents == "1 agent: edge-01"
    assert twice["form"].errors["labels"] == ["Choose only one value for each key."]


def test_stage_without_parameters_is_named_on_pages_from_config_bundle_to_approval(world: World) -> None:
    version = world.version(world.prod)  # its stage ``check`` has the op dataguard_check, which needs parameters
    world.agent(world.prod)
    client, said = signed_in(world.operator.user), "The stage check (dataguard_check) has no parameters."

    checked = client.post(new_page(version), new_bundle(_check=""))
    complete = client.post(new_page(version), new_bundle(**{"stage-1": PRICE}, _check=""))
    client.post(new_page(version), new_bundle(_create=""))
    bundle = ConfigBundle.objects.get()
    deployment = world.deployment(bundle)

    assert said in checked.text
    assert said not in complete.text
    pages = [row_page(bundle), deploy_page(bundle), row_page(deployment), row_page(deployment.approval)]
    assert [page for page in pages if said not in client.get(page).text] == []


def test_preview_updates_while_form_is_filled_in(world: World) -> None:
    for number in range(3):
        world.agent(world.dev, f"edge-{number}", zone="a" if number else "b")
    client, url = signed_in(world.operator.user), deploy_page(world.bundle())

    begin = client.get(url)
    changed = client.post(url, filled_in(target="selector", labels=["zone=a"], _live=""))
    incomplete = client.post(url, filled_in(target="selector", _live=""))

    assert begin.context["outlook"].agents == "3 agents: edge-0, edge-1, edge-2"
    assert "2 agents: edge-1, edge-2" in changed.text
    assert ("<html" in changed.text, "Request deployment" in changed.text) == (False, True)
    assert ("Choose at least one label." in incomplete.text, "Request" in incomplete.text) == (True, False)
    assert not Deployment.objects.exists()


def test_preview_shows_obstacles_that_prevent_operator_from_deploying(world: World) -> None:
    Environment.objects.filter(pk=world.dev.pk).update(settings={"freeze_windows": [NOW]})
    world.agent()
    bundle = world.bundle()
    bundles.mark_known_bad(world.dev, bundle.config_hash, reason="it failed", actor=world.admin.actor)
    client = signed_in(world.operator.user)

    seen = client.post(deploy_page(bundle), filled_in(_preview="")).context["outlook"]
    refused = client.post(deploy_page(bundle), filled_in(_create="", override_freeze="please"))

    assert [each.partition(" ")[0] for each in seen.obstacles] == ["This", "A"]
    assert "until" in seen.obstacles[1]
    assert refused.context["form"].non_field_errors()
    assert not Deployment.objects.exists()


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"target": "agents"}, "agents"),
        ({"target": "agents", "agents": "nobody"}, "agents"),
        ({"target": "selector"}, "labels"),
        ({"target": "selector", "labels": ["zone=a", "zone=b"]}, "labels"),
        ({"target": "selector", "labels": ["zone=c"]}, "labels"),
        ({"strategy": "own", **waves(50, "x")}, "waves"),
        ({"strategy": "own", **waves(50, 20, 100)}, "waves"),
        ({"strategy": "own", **waves("9" * 5_000)}, "waves"),
        ({"strategy": "own", **waves()}, "waves"),
        ({"strategy": "own", **waves(10, 100), "pause_s": "-1"}, "pause_s"),
        ({"failure_threshold_percent": "101"}, "failure_threshold_percent"),
        ({"strategy": "nonsense"}, "strategy"),
    ],
)
def test_error_of_invalid_deployment_is_shown_at_its_field(world: World, values: dict[str, Any], field: str) -> None:
    world.agent(None, "one", zone="a")
    world.agent(None, "two", zone="b")
    bundle = world.bundle()

    page = signed_in(world.operator.user).post(deploy_page(bundle), filled_in(**values, _create=""))

    assert page.context["form"].errors[field]
    assert not Deployment.objects.exists()


def test_break_glass_is_separate_step_for_organization_admins(world: World) -> None:
    world.agent(world.prod)
    bundle = world.bundle(world.prod)
    admin, operator = signed_in(world.admin.user), signed_in(world.operator.user)
    held = waves(50, 100, holds=["", "manual"])

    step = admin.post(deploy_page(bundle), filled_in(_break_glass=""))
    assert "The deployment starts without waiting for an approval." in step.text
    assert not Deployment.objects.exists()
    assert "break-glass" not in operator.post(deploy_page(bundle), filled_in(_break_glass="")).text
    refused = operator.post(deploy_page(bundle), filled_in(_break_glass="", break_glass_reason="now"))
    assert "org_admin" in refused.text
    assert not Deployment.objects.exists()
    admin.post(deploy_page(bundle), filled_in(_break_glass="", break_glass_reason="the market opens"))

    deployment = Deployment.objects.get()
    assert deployment.break_glass is not None
    hidden = '<input name="waves.hold" type="hidden" value="manual">'
    assert hidden in admin.post(deploy_page(bundle), filled_in(_break_glass="", strategy="own", **held)).text
    assert (deployment.status, deployment.break_glass.reason) == ("approved", "the market opens")


def test_bundle_and_deployment_forms_require_permission_in_same_organization(world: World, other: World) -> None:
    bundle = world.bundle()
    pages = [new_page(bundle.version), deploy_page(bundle)]

    for url in pages:
        assert signed_in(world.viewer.user).get(url).status_code == 403
        assert signed_in(world.viewer.user).post(url, {**new_bundle(), **filled_in(), "_create": ""}).status_code == 403
        assert signed_in(other.admin.user).get(url).status_code == 404
        assert signed_in(world.operator.user).get(url).status_code == 200
    for row in (bundle, bundle.version):
        assert not set(pages) & set(signed_in(world.viewer.user).get(row_page(row)).text.split('"'))
        assert set(pages) & set(signed_in(world.operator.user).get(row_page(row)).text.split('"'))
    assert not Deployment.objects.exists()


def test_preview_says_if_too_few_people_can_approve_deployment(world: World) -> None:
    world.prod.settings = {"required_approvals": 5}

    said = describe_consent(world.prod, world.operator.user.email)

    assert "5 people" in said
    assert said.endswith("Invite more people.")


def test_field_that_was_changed_before_script_ran_updates_preview(world: World, page: Page) -> None:
    world.agent(world.prod, "edge-1", zone="a")
    bundle, held = world.bundle(world.prod), list[Route]()
    sign_in(page, world.operator.user)

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/outlook*.js", hold)
    page.goto(deploy_page(bundle), wait_until="commit")
    page.get_by_label("Target").select_option(label="Agents with labels")
    while not held:
        page.wait_for_timeout(50)
    held[0].continue_()

    expect(page.locator("#outlook")).to_contain_text("Choose at least one label.")


def test_unchanged_form_requests_no_preview(world: World, page: Page) -> None:
    bundle, sent = world.bundle(world.prod), list[str]()
    sign_in(page, world.operator.user)
    page.on("request", lambda request: sent.append(request.method))

    page.goto(deploy_page(bundle))
    page.wait_for_timeout(1_000)  # three times the delay before a preview is requested

    assert "POST" not in sent


def test_person_can_click_from_version_to_deployment(world: World, page: Page, shot: Callable[..., None]) -> None:
    version = world.version(world.prod)
    for number in range(3):
        world.agent(world.prod, f"edge-{number}", zone="a" if number else "b")
    sign_in(page, world.operator.user)

    page.goto(row_page(version))
    page.get_by_role("link", name="Create a config bundle").click()
    page.get_by_label("Name").fill("calm")
    shot(page, "new-config-bundle-empty", widths=(1440, 1000, 390), full_page=True)
    parameters = page.get_by_role("group", name="Parameters of stage check")
    parameters.get_by_role("button", name="Add field", exact=True).press("Enter")
    page.keyboard.type("price")  # the new row has the focus
    parameters.get_by_label("Type").select_option("number")
    parameters.get_by_label("Minimum").fill("-1.5")
    parameters.get_by_role("button", name="Add field", exact=True).press("Enter")
    parameters.get_by_role("button", name="Remove field 2").press("Enter")
    page.get_by_role("button", name="Edit as JSON: Parameters of stage check").click()
    text = page.get_by_role("textbox", name="Parameters of stage check")
    assert json.loads(text.input_value()) == {"schema": {"properties": {"price": {"type": "number", "minimum": -1.5}}}}
    text.fill('{"schema": {"properties": {"price": {"type": "nonsense"}}, "title": "9007199254740993.5"}}')
    page.get_by_role("button", name="Edit as fields: Parameters of stage check").click()
    expect(parameters.get_by_text("Also set, and editable only as JSON: title.")).to_be_visible()
    page.get_by_role("button", name="Show the changes").click()
    wrong = parameters.get_by_label("Type (JSON)")  # fields cannot express this type
    expect(wrong).to_have_attribute("aria-invalid", "true")
    shot(page, "new-config-bundle-error", widths=(1440, 1000, 390), full_page=True)
    wrong.fill('"number", "a": 2')
    assert wrong.evaluate("field => field.validationMessage") == "Enter only one JSON value."
    wrong.fill('"number"')
    page.get_by_role("button", name="Show the changes").click()
    expect(page.locator("#changes")).to_contain_text("check/schema/properties/price/type")
    expect(parameters.get_by_label("Type")).to_have_value("1")
    shot(page, "new-config-bundle", widths=(1440, 390), full_page=True)
    page.get_by_role("button", name="Create", exact=True).click()
    page.get_by_role("link", name="Deploy", exact=True).click()
    expect(page.locator("#outlook")).to_contain_text("3 agents: edge-0, edge-1, edge-2")
    page.get_by_label("Target").select_option(label="Agents with labels")
    expect(page.locator("#outlook")).to_contain_text("Choose at least one label.")
    page.get_by_label("zone=a (2 agents)").check()
    expect(page.get_by_role("status").filter(has_text="2 agents: edge-1, edge-2")).to_have_count(1)
    expect(page.locator("#outlook")).to_contain_text("agents with zone=a")
    shot(page, "deploy", widths=(1440, 390), full_page=True)
    page.get_by_role("button", name="Request deployment").click()
    expect(page.get_by_role("heading", name="Waves")).to_be_visible()

    assert Deployment.objects.get().status == "pending_approval"

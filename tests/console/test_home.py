"""The overview: what needs each person, in which order, and what runs where. Also how many queries it takes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.artifacts.services import incidents
from apps.artifacts.services.incidents import Incident
from apps.console.pages.home.needs import SHOWN
from apps.console.pages.home.needs_query import MOST_OF_KIND
from apps.fleet.models import EnrollmentToken, Heartbeat
from apps.notifications.models import ChatWebhook
from apps.releases.jobs import StepRollout
from apps.releases.models import Approval, ConfigBundle, Deployment
from apps.releases.services import bundle_copies
from apps.tenancy.message_types import MessageType
from apps.tenancy.models import MessageEvent, OrganizationKey, Quota, User, UserToken, Webhook
from apps.tenancy.permissions import Role
from apps.tenancy.services import organizations, quotas
from byteor.engine.rollout import Hold
from byteor.engine.wave_hold import WaveHold
from byteor_cloud.ids import uuid7
from tests.browser.access import project_member
from tests.browser.filled import Filled, act, fill, row_page, signed_in, superuser
from tests.browser.waiting import approval_of
from tests.releases.stories import active, fleet, running, send_heartbeat_running
from tests.resources import chat_webhooks, jobs, webhooks
from tests.worlds import World, plan

pytestmark = pytest.mark.django_db
_DAY: Final = timedelta(days=1)


def needs(user: User, scope: Any = None) -> list[Any]:
    """Return the lines of the list that the person sees in the scope."""
    page = signed_in(user).get("/admin/", {"in": "all" if scope is None else str(scope.pk)})
    assert page.status_code == 200
    found = page.context["needs"]
    return list(found.lines) if found is not None else []


def buttons(user: User, key: str, scope: Any = None) -> list[str]:
    """Return the buttons of the lines whose keys start with ``key``."""
    return [need.button for need in needs(user, scope) if need.key.startswith(key)]


def request(made: Filled) -> Approval:
    """Request a deployment of another pipeline, and return the approval for which it waits."""
    world, name = made.world, f"p{uuid4().hex[:8]}"
    bundle = world.bundle(made.environment, name, version=world.version(made.environment, plan(name)))
    return approval_of(world.deployment(bundle, take_over=True))


def rollout(made: Filled, **values: Any) -> str:
    """Insert a deployment of another pipeline with these values. Return the key of its line."""
    row = Deployment.objects.get(pk=made.deployment.pk)
    shared = {"pipeline": f"p{uuid4().hex[:8]}", "is_current": False, "approval": None}
    for name, value in {**shared, "pk": uuid7(), "created_at": timezone.now(), **values}.items():
        setattr(row, name, value)
    row.save(force_insert=True)
    return f"deployment-{row.pk}"


def expire(row: Any) -> None:
    """Let a credential that is valid for a month expire in three days."""
    now = timezone.now()
    type(row).objects.filter(pk=row.pk).update(created_at=now - 27 * _DAY, expires_at=now + 3 * _DAY)


def wait_for_approval(made: Filled) -> str:
    return f"approval-{request(made).pk}"


def break_glass(made: Filled) -> str:
    row = request(made)
    Approval.objects.filter(pk=row.pk).update(break_glass=True)
    return f"approval-{row.pk}"


def hold_wave(made: Filled) -> str:
    now = timezone.now()
    hold = WaveHold(1, Hold.MANUAL, now)
    return rollout(made, status="deploying", wave_hold=hold, wave_done_at=now)


def fail(made: Filled) -> str:
    return rollout(made, status="failed", reason="threshold", detail="<b>no core")


def roll_back(made: Filled) -> str:
    return rollout(made, status="rolled_back", reason="threshold")


def pause(made: Filled) -> str:
    return rollout(made, status="deploying", paused_at=timezone.now())


def capture(made: Filled) -> str:
    incidents.record(made.artifact, Incident("quotes", "parse"))
    return f"incident-{made.environment.pk}-quotes-parse-stop"


def fail_fixture(made: Filled) -> str:
    return "regression-"  # ``fill`` has made a regression that fails


def fail_agent(made: Filled) -> str:
    Heartbeat.objects.filter(agent=made.agent).update(status="failed")
    return f"agents-{made.environment.pk}"


def clone(made: Filled) -> str:
    Heartbeat.objects.filter(agent=made.agent).update(clone_suspected_at=timezone.now())
    return f"clones-{made.environment.pk}"


def fail_webhook(made: Filled) -> str:
    row = made.get(webhooks.webhook)
    Webhook.objects.filter(pk=row.pk).update(failing_since=timezone.now() - timedelta(hours=2))
    return f"webhook-{row.pk}"


def disable_chat_webhook(made: Filled) -> str:
    row = made.get(chat_webhooks.chat_webhook)
    ChatWebhook.objects.filter(pk=row.pk).update(enabled=False, disabled_reason="404 for three days")
    return f"chatwebhook-{row.pk}"


def fail_job(made: Filled) -> str:
    return f"jobs-{made.job.task_name}"


def let_token_age(made: Filled) -> str:
    row = UserToken.objects.filter(user=made.world.viewer.user).latest("pk")
    expire(row)
    return f"usertoken-{row.pk}"


def let_key_age(made: Filled) -> str:
    row = OrganizationKey.objects.create(
        organization=made.world.organization, digest="d", prefix="bok_1", name="ci", role=Role.VIEWER
    )
    expire(row)
    return f"organizationkey-{row.pk}"


def let_enrollment_token_age(made: Filled) -> str:
    row, _ = made.world.enrollment(made.environment)
    EnrollmentToken.objects.filter(pk=row.pk).update(uses=0)
    expire(row)
    return f"enrollmenttoken-{row.pk}"


def use_quota(made: Filled) -> str:
    quotas.set_quotas(made.world.organization, {Quota.AGENTS: 1}, actor=made.world.admin.actor)
    return "quota-agents-"


OPERATORS: Final = ("admin", "project_admin", "operator", "reviewer")
# What causes a need, who sees it with which button, and whether it belongs to the environment.
KINDS: Final[dict[Callable[[Filled], str], tuple[str, tuple[str, ...], bool]]] = {
    wait_for_approval: ("Review", ("admin", "project_admin", "reviewer"), True),
    hold_wave: ("Start wave 2", OPERATORS, True),
    fail: ("Open deployment", OPERATORS, True),
    roll_back: ("Open deployment", OPERATORS, True),
    pause: ("Resume", OPERATORS, True),
    capture: ("Open capture", OPERATORS, True),
    fail_fixture: ("See results", OPERATORS, True),
    fail_agent: ("See agents", OPERATORS, True),
    clone: ("See agents", OPERATORS, True),
    fail_webhook: ("Open webhook", ("admin",), False),
    disable_chat_webhook: ("Open webhook", ("admin", "project_admin"), True),
    fail_job: ("Retry", OPERATORS, True),
    let_token_age: ("Create a new one", ("viewer",), False),
    let_key_age: ("Create a new one", ("admin",), False),
    let_enrollment_token_age: ("Create a new one", ("admin", "project_admin"), True),
    use_quota: ("See usage", ("admin",), False),
}


def test_held_wave_is_named_if_waves_before_it_have_no_agents(world: World) -> None:
    made, now = fill(world), timezone.now()
    key = rollout(made, status="deploying", wave=1, wave_hold=WaveHold(4, Hold.MANUAL, now), wave_done_at=now)

    [need] = [each for each in needs(world.operator.user) if each.key == key]

    assert (need.button, need.reason) == ("Start wave 5", "Wave 2 has finished.")
    assert need.title.startswith("Wave 5 of <a ")


def test_each_need_is_shown_only_to_people_who_may_act_on_it(world: World, other: World) -> None:
    made, hidden = fill(world), needs(other.admin.user)
    keys = {kind: kind(made) for kind in KINDS}
    people = (*OPERATORS, "viewer")
    everywhere = {name: needs(getattr(world, name).user) for name in people}
    inside = {name: needs(getattr(world, name).user, made.environment) for name in people}
    beside = {name: needs(getattr(world, name).user, world.dev) for name in people}

    def shown(lines: dict[str, list[Any]], key: str) -> dict[str, list[str]]:
        return {name: [need.button for need in lines[name] if need.key.startswith(key)] for name in people}

    for kind, (button, who, of_environment) in KINDS.items():
        expected = {name: [button] if name in who else [] for name in people}
        assert (kind, shown(everywhere, keys[kind])) == (kind, expected)
        assert (kind, shown(inside, keys[kind])) == (kind, expected)
        assert (kind, shown(beside, keys[kind])) == (
            kind,
            {name: [] for name in people} if of_environment else expected,
        )
    assert needs(other.admin.user) == hidden == []
    operator = {need.key for need in needs(superuser())}
    assert [kind for kind, key in keys.items() if not any(each.startswith(key) for each in operator)] == [let_token_age]
    assert signed_in(world.admin.user).get("/admin/").text.count("&lt;b&gt;no core") == 1
    for name in ("admin", "viewer"):
        client = signed_in(getattr(world, name).user)
        urls = {url for need in everywhere[name] for url in (need.url, need.all_url)}
        assert [url for url in urls if client.get(url).status_code != 200] == []


def test_break_glass_deployment_is_shown_to_people_who_operate_environment(world: World) -> None:
    key = break_glass(fill(world))

    assert buttons(world.reviewer.user, key) == ["Review"]
    assert buttons(world.operator.user, key) == ["Open"]  # the requester, who cannot approve it
    assert buttons(world.viewer.user, key) == []
    assert "does not wait for its approval." in next(n for n in needs(world.operator.user) if n.key == key).title


def test_person_with_role_only_in_other_project_sees_no_needs(world: World) -> None:
    made = fill(world)
    side = organizations.create_project(organization=world.organization, name="side", actor=world.admin.actor)
    person = project_member(world, side, Role.PROJECT_ADMIN)
    for kind in (wait_for_approval, capture, fail_agent, fail_job):
        kind(made)

    assert needs(person) == []


def test_number_of_dead_letters_above_query_limit_is_shown_as_minimum(world: World) -> None:
    made = fill(world)
    for _ in range(MOST_OF_KIND + 5):
        jobs.dead_letter(StepRollout(deployment_id=str(made.deployment.pk)))

    (line,) = (need for need in needs(superuser()) if need.key.startswith("jobs-"))

    assert f"{MOST_OF_KIND + 1} or more jobs “Continue a rollout or rollback”" in line.title
    assert line.button == "See jobs"


def test_failed_rollout_is_not_shown_after_newer_deployment_or_if_person_ended_it(world: World) -> None:
    made = fill(world)
    operator = world.operator.user
    first = rollout(made, status="failed", reason="threshold", pipeline="other")
    assert buttons(operator, first) == ["Open deployment"]

    rollout(made, status="failed", reason="aborted", pipeline="other")

    assert buttons(operator, "deployment-") == []
    rollout(made, status="rolled_back", reason="", pipeline="other")  # a person rolled it back
    assert buttons(operator, "deployment-") == []


def test_incidents_are_grouped_and_counted_by_stage(world: World) -> None:
    made = fill(world)
    MessageEvent.objects.filter(type=MessageType.INCIDENT_NEW).delete()
    for stage in ("parse", "parse", "check", ""):
        incidents.record(made.artifact, Incident("quotes", stage))

    lines = [need for need in needs(world.operator.user) if "incident" in need.key]

    assert {need.title.partition(">")[2].partition("<")[0]: need.reason for need in lines} == {
        "Stage parse of quotes stopped": "2 captures in the last 24 hours.",
        "Stage check of quotes stopped": "1 capture in the last 24 hours.",
        "quotes had an incident": "1 capture in the last 24 hours.",
    }


def test_agents_are_counted_in_one_line_per_environment(world: World) -> None:
    agents, _, _ = running(world, 4)
    now = timezone.now()
    for agent, api in agents:
        send_heartbeat_running(agent, api)
    assert needs(world.operator.user) == []
    beats = [Heartbeat.objects.filter(agent=agent) for agent, _ in agents]
    beats[0].update(last_seen_at=now - timedelta(hours=3))
    beats[1].update(status="failed")
    beats[2].update(running_bundle_hash="sha256:1")

    (need,) = needs(world.operator.user)

    words = [part.partition("<")[0] for part in need.title.split(">")[1::2]]
    assert [word for word in words if word] == ["1 agent failed", "1 agent offline", "1 agent drifted"]
    assert (need.where, need.reason, need.tone) == ("trading / dev", "The environment has 4 agents.", "bad")
    Deployment.objects.update(is_current=False, status="deploying")  # drift is no need during a rollout
    beats[0].update(last_seen_at=now)
    beats[1].update(status="healthy")
    assert needs(world.operator.user) == []


def test_most_urgent_needs_are_first(world: World) -> None:
    made = fill(world)
    soon, later = (request(made).pk for _ in range(2))
    Approval.objects.filter(pk=soon).update(expires_at=timezone.now() + timedelta(minutes=5))
    glass = break_glass(made)
    agents = fail_agent(made)
    incident = capture(made)
    job = fail_job(made)
    failed = fail(made)

    keys = [need.key for need in needs(world.reviewer.user)]

    assert keys[:5] == [glass, failed, agents, f"approval-{soon}", f"approval-{later}"]
    assert {incident, job} <= set(keys[5:])
    ages = [need.at for need in needs(world.reviewer.user)[5:] if need.at is not None]
    assert ages == sorted(ages, reverse=True)


def test_list_of_needs_is_shortened_and_links_to_all_approvals(world: World) -> None:
    fleet(world, 1, world.prod)
    bundle = world.bundle(world.prod)
    world.deployment(bundle)
    first = Approval.objects.get()
    for _ in range(SHOWN + 2):
        first.pk = uuid4()
        first.save(force_insert=True)

    page = signed_in(world.reviewer.user).get("/admin/")

    found = page.context["needs"]
    assert (len(found.lines), found.more) == (SHOWN, "and 3 more:")
    assert [text for text, _ in found.links] == ["3 approvals"]
    assert signed_in(world.reviewer.user).get(found.links[0][1]).context["cl"].result_count == SHOWN + 3


def test_overview_says_that_nothing_is_needed_if_there_are_no_needs(world: World) -> None:
    agents, _, _ = running(world, 1)
    send_heartbeat_running(*agents[0])

    assert "Nothing here needs you right now." in signed_in(world.operator.user).get("/admin/").text


# -- what runs where ----------------------------------------------------------------------------------------------


def matrices(user: User, scope: Any) -> list[Any]:
    panels = signed_in(user).get("/admin/", {"in": str(scope.pk)}).context["panels"]
    return [panel for panel in panels if panel.get("id", "").startswith("matrix")]


def test_matrix_offers_to_copy_and_to_deploy_what_previous_environment_runs(world: World) -> None:
    bundle = world.bundle(world.dev)
    agents = fleet(world, 2)
    row = active(world, bundle, agents)
    send_heartbeat_running(*agents[0])
    operator = world.operator.user

    [[name, dev, staging, prod]] = matrices(operator, world.project)[0]["rows"]

    assert (name, row_page(row) in dev, "1 of 2 agents" in dev) == ("quotes", True, True)
    assert (act(bundle, "copy") in dev, ">Copy to staging<" in dev) == (True, True)
    assert (staging.startswith("nothing"), ">Deploy<" in staging, "Copy" in prod) == (True, True, False)
    form = signed_in(operator).get(act(bundle, "copy")).context["form"]
    assert form["environment"].initial == str(world.staging.pk)
    copy, _ = bundle_copies.copy_config_bundle(
        environment=world.staging, from_config_bundle_id=bundle.pk, actor=world.operator.actor
    )
    [[_, dev, staging, _]] = matrices(operator, world.organization)[0]["rows"]
    assert ("Copy to" in dev, ">Deploy v1 of dev<" in staging) == (False, True)
    assert f"{row_page(ConfigBundle(pk=copy.pk)).removesuffix('change/')}deploy/" in staging
    # People who may not deploy do not see the links Copy and Deploy.
    [[_, *cells]] = matrices(world.viewer.user, world.project)[0]["rows"]
    assert [cell for cell in cells if "Deploy" in cell or "Copy" in cell] == []


def test_matrix_of_environment_has_only_its_column(world: World) -> None:
    row = active(world, world.bundle(world.dev), fleet(world, 1))

    [panel] = matrices(world.operator.user, world.dev)

    assert [row_page(world.dev) in str(each) for each in panel["columns"]] == [False, True]
    assert (len(panel["rows"]), row_page(row) in panel["rows"][0][1]) == (1, True)


def test_overview_of_organization_has_matrices_of_first_five_projects(world: World) -> None:
    active(world, world.bundle(world.dev), fleet(world, 1))
    for number in range(6):
        project = organizations.create_project(
            organization=world.organization, name=f"project {number}", actor=world.admin.actor
        )
        organizations.create_environment(
            project=project, name="dev", posture="dev", may_loosen=True, actor=world.admin.actor
        )

    panels = matrices(world.admin.user, world.organization)

    assert [panel["title"] for panel in panels] == [f"Pipelines of project {number}" for number in range(5)]
    assert panels[-1]["more"]["text"] == "2 more projects"
    assert len(matrices(world.admin.user, world.project)) == 1


# -- cost ---------------------------------------------------------------------------------------------------------


def test_overview_takes_at_most_15_queries_in_every_scope_and_for_any_number_of_rows(world: World) -> None:
    made = fill(world)
    admin, root = signed_in(world.admin.user), signed_in(superuser())
    scopes = ["all", *(str(each.pk) for each in (world.organization, world.project, made.environment))]

    def costs() -> list[int]:
        found = []
        for client in (admin, root):
            for scope in scopes:
                client.get("/admin/", {"in": scope})  # updates the agents' facts, and stores the scope
                with CaptureQueriesContext(connection) as queries:
                    assert client.get("/admin/", {"in": scope}).status_code == 200
                found.append(len(queries))
        return found

    few = costs()
    for number in range(20):
        world.agent(made.environment, f"more-{number}")
    for kind in KINDS:
        kind(made)
    for name in ("initech", "hooli"):
        fill(World(name))

    assert costs() == few
    assert max(few) <= 15

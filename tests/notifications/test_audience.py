"""Who is notified about approvals and rollouts, who gets an e-mail by default and when, and the text of the message.

The table in this module is written by hand from the intended behavior, not read from the code under test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from apps.notifications.models import Notification
from apps.notifications.services.wording import describe
from apps.pipelines.models import Version
from apps.releases.models import Deployment
from apps.releases.services import approvals
from apps.tenancy.models import MessageEvent
from tests.notifications.people import gather
from tests.notifications.stories import handle
from tests.releases.stories import Fleet, Run, fleet, report_from_all, roll_back, run_sweep, waves
from tests.worlds import Person, World, report

pytestmark = pytest.mark.django_db


@dataclass
class Stage:
    """A world with an agent fleet in ``prod``, and the people in it.

    The operator requests all deployments except break-glass deployments.
    """

    world: World
    people: dict[str, Person]
    agents: Fleet
    run_jobs: Run

    def decide(self, deployment: Deployment, decision: str) -> None:
        """Let the reviewer decide on the deployment's approval."""
        assert deployment.approval is not None
        approvals.decide(
            deployment.approval, user=self.world.reviewer.user, decision=decision, comment="checked",
            actor=self.world.reviewer.actor,
        )  # fmt: skip

    def request(self, name: str = "bundle", **options: Any) -> Deployment:
        world = self.world
        version = Version.objects.filter(environment=world.prod).first() or world.version(world.prod)
        return world.deployment(world.bundle(world.prod, name, version=version, env={"NAME": name}), **options)

    def approved(self, name: str = "bundle", **options: Any) -> Deployment:
        deployment = self.request(name, **options)
        self.decide(deployment, "approve")
        self.run_jobs()
        deployment.refresh_from_db()
        return deployment

    def running(self, name: str = "bundle") -> Deployment:
        deployment = self.approved(name)
        report_from_all(self.agents, "active", self.run_jobs)
        deployment.refresh_from_db()
        assert deployment.status == "active"
        return deployment


@pytest.fixture
def stage(world: World, other: World, run_jobs: Run) -> Stage:
    return Stage(world, gather(world, other), fleet(world, 4, world.prod), run_jobs)


def ask_for_approval(stage: Stage) -> None:
    stage.request()


def ask_viewer_for_approval(stage: Stage) -> None:
    stage.request(reviewer_ids=[stage.world.viewer.user.pk], is_org_admin=True)


def start_with_break_glass(stage: Stage) -> None:
    world = stage.world
    body = {
        "config_bundle_id": str(world.bundle(world.prod).pk), "target": {"all": True},
        "break_glass": {"reason": "the market is open"},
    }  # fmt: skip
    assert world.admin.api.post(world.path(world.prod, "/deployments"), body).status_code == 201


def hold_wave(kind: str) -> Callable[[Stage], None]:
    def hold(stage: Stage) -> None:
        stage.approved(strategy={**waves(25, 100), "holds": [None, kind]})
        report_from_all(stage.agents[:1], "active", stage.run_jobs)
        run_sweep(stage.run_jobs)

    return hold


def deny(stage: Stage) -> None:
    stage.decide(stage.request(), "deny")


def fail(stage: Stage) -> None:
    stage.approved()
    agent, api = stage.agents[0]
    assert report(api, agent, "failed", detail="secret payload").status_code == 200
    stage.run_jobs()


def abort(stage: Stage) -> None:
    deployment = stage.approved()
    path = stage.world.path(stage.world.prod, f"/deployments/{deployment.pk}/abort")
    assert stage.world.operator.api.post(path, {}).status_code == 200


def finish(stage: Stage) -> None:
    stage.running()


def restore(stage: Stage) -> None:
    stage.running("old")
    MessageEvent.objects.all().delete()
    assert roll_back(stage.world, stage.running("new")).status_code == 200
    stage.run_jobs()
    report_from_all(stage.agents, "rolled_back", stage.run_jobs)


@dataclass(frozen=True)
class Case:
    """A cause, its event, the message's text and some of its lines, and when each notified person gets an e-mail."""

    event: str
    cause: Callable[[Stage], None]
    text: str
    notified: dict[str, str]
    lines: tuple[str, ...] = ()


DECIDERS = {"admin": "now", "project_admin": "now", "reviewer": "now"}
ALL_BUT_OPERATOR = dict.fromkeys(["admin", "project_admin", "reviewer", "viewer", "guest"], "off")
ASKER = "operator@acme.example"
CASES = [
    Case(
        "approval.needed", ask_for_approval,
        f"{ASKER} asks you to approve the deployment of quotes v1 to 4 agents in prod.", DECIDERS,
    ),
    Case(
        "approval.needed", ask_viewer_for_approval,
        f"{ASKER} asks you to approve the deployment of quotes v1 to 4 agents in prod.", {"viewer": "now"},
    ),
    Case(
        "break_glass.needed", start_with_break_glass,
        "admin@acme.example started the deployment of quotes v1 to 4 agents in prod without approval (break-glass). "
        "Approve or deny it now.",
        {"project_admin": "now", "operator": "now", "reviewer": "now"},
    ),
    Case(
        "wave.held", hold_wave("manual"), "Wave 2 of quotes v1 in prod is waiting to be started.",
        {**DECIDERS, "operator": "now"},
    ),
    Case(
        "wave.held", hold_wave("approval"), "Wave 2 of quotes v1 in prod is waiting for approval.", {"operator": "now"},
    ),
    Case(
        "approval.needed", hold_wave("approval"), "Wave 2 of quotes v1 in prod is waiting for your approval.", DECIDERS,
        ("Agents of the earlier waves: 1 active",),
    ),
    Case(
        "rollout.stopped", deny, "The deployment of quotes v1 to prod stopped: its approval was denied.",
        # The reviewer, who denied the approval, is not notified.
        {"admin": "off", "project_admin": "off", "viewer": "off", "guest": "off", "operator": "now"},
    ),
    Case(
        "rollout.stopped", fail, "The deployment of quotes v1 to prod stopped: too many agents failed.",
        {**ALL_BUT_OPERATOR, "operator": "now"}, ("1 agent reported a failure",),
    ),
    Case(
        "rollout.stopped", abort, "The deployment of quotes v1 to prod stopped: it was aborted.", ALL_BUT_OPERATOR,
    ),
    Case(
        "rollout.finished", finish, "The rollout of quotes v1 in prod has finished.",
        {**ALL_BUT_OPERATOR, "operator": "off"},
    ),
    Case(
        "rollout.rolled_back", restore,
        "The deployment of quotes v1 to prod was rolled back. The rollback restored quotes v1.",
        {**ALL_BUT_OPERATOR, "operator": "now"},
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.event}-{case.cause.__name__}")
def test_event_notifies_exactly_expected_people(stage: Stage, case: Case) -> None:
    case.cause(stage)
    event = MessageEvent.objects.filter(type=case.event).latest("pk")
    handle(stage.world)

    event.refresh_from_db()
    assert event.text == case.text
    created = Notification.objects.filter(event=event)
    names = {person.user.pk: name for name, person in stage.people.items()}
    assert {names[user_id]: mail for user_id, mail in created.values_list("user_id", "mail")} == case.notified
    content = describe(event)
    assert content is not None
    assert content.sentence == case.text
    for line in case.lines:
        assert line in content.lines
    shown = " ".join([content.sentence, *content.lines])
    for hidden in ("secret payload", "bor_", "sha256:"):
        assert hidden not in shown

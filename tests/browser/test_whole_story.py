"""The whole story in a real browser: from an empty installation to a rollback and a second environment.

After signing in, people reach each page by links and buttons. Only the agents use the API.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Locator, Page, expect

from apps.fleet.models import Agent, Assignment
from apps.pipelines.models import Version
from apps.releases.models import ConfigBundle, Deployment
from apps.tenancy.actors import system_actor
from apps.tenancy.models import Environment, User
from apps.tenancy.services import accounts
from byteor.engine.compiler import write_plan
from byteor.engine.rollout import Hold
from tests.artifacts.incidents import archive, files_of, journal, upload
from tests.releases.stories import send_heartbeat_running
from tests.worlds import Api, plan, report, run_jobs

MAX_CLICKS = 45
SECRET = re.compile(r"bor_enr_[0-9A-Za-z]{49}")
RECORDS = [b'{"id": 1, "card": "1234"}', b'{"no": "id"}', b'{"id": 3, "card": "5678"}']
LIMIT = {"schema": {"properties": {"id": {"maximum": 2}}}}
FIRST = plan(stages=[{"id": "copy", "op": "identity"}])
SECOND = plan(
    stages=[
        {"id": "copy", "op": "identity"},
        {"id": "limit", "op": "dataguard_check", "depends_on": ["copy"]},
    ]
)


class Hand:
    """A person at a browser. ``clicks`` counts the clicks of all people together.

    Choosing an option counts as a click, but typing into a field does not.
    """

    clicks = 0

    def __init__(self, page: Page) -> None:
        self.page = page

    def click(self, found: Locator) -> None:
        """Count and click an element."""
        Hand.clicks += 1
        found.click()

    def link(self, name: str | re.Pattern[str], *, within: Locator | None = None) -> None:
        """Click the first link with this name. The name of an icon may precede it."""
        text = name if isinstance(name, re.Pattern) else re.compile(rf"^(?:\w+ )?{re.escape(name)}$")
        self.click((within or self.page).get_by_role("link", name=text).first)

    def button(self, name: str) -> None:
        """Click the button with this name."""
        self.click(self.page.get_by_role("button", name=re.compile(rf"^(?:\w+ )?{re.escape(name)}$")))

    def menu(self, name: str) -> None:
        """Click the menu entry with this name."""
        self.link(name, within=self.page.locator("#nav-sidebar-inner"))

    def fill(self, label: str, text: str) -> None:
        """Type ``text`` into the first field whose label contains ``label``."""
        self.page.get_by_label(label).first.fill(text)

    def check(self, label: str) -> None:
        """Click the check box or radio button whose label contains this text."""
        self.click(self.page.get_by_label(label))

    def choose(self, label: str, option: str) -> None:
        """Choose an option of the field with this label. A choice counts as one click."""
        Hand.clicks += 1
        self.page.get_by_label(label, exact=True).select_option(option)

    def choose_in_row(self, row: str, column: str, option: str) -> None:
        """Choose an option in a row of a field that has rows. A choice counts as one click."""
        Hand.clicks += 1
        self.page.get_by_role("group", name=row, exact=True).get_by_label(column).select_option(option)

    @property
    def status(self) -> Locator:
        """The element with the status of the row on the page."""
        return self.page.locator("#headline [role=status]")

    def see_step(self, title: str) -> None:
        """Expect that the bar of the setup names this step."""
        expect(self.page.locator(".setup-bar")).to_contain_text(title)


def open_console(page: Page, email: str) -> Hand:
    """Sign in with a one-time link, like the links that an installation operator creates with ``manage.py``."""
    user = accounts.get_or_create_account(email)
    hand = Hand(page)
    page.goto(f"/auth/link/{accounts.create_sign_in_link(user=user, actor=system_actor('manage.py'))}")
    hand.button("Sign in")
    return hand


def enroll(token: str, name: str) -> tuple[Agent, Api]:
    """Enroll an agent through the API, as its program does, and send its first heartbeat."""
    environment = Environment.objects.get()
    path = f"/api/v1/orgs/{environment.project.organization_id}/projects/{environment.project_id}"
    made = Api(token).post(f"{path}/environments/{environment.pk}/agents", {"name": name}).json()
    agent, api = Agent.objects.get(name=name), Api(made["api_key"])
    heartbeat = {"status": "healthy", "agent_version": "0.1.0", "active": None}
    assert api.post(f"/api/v1/agents/{agent.pk}/heartbeat", heartbeat).status_code == 200
    return agent, api


def write_and_promote(hand: Hand, content: dict[str, Any]) -> None:
    """Write the plan in the editor, promote the draft, and open the form for a config bundle."""
    hand.page.get_by_label("Plan", exact=True).fill(write_plan(content))
    expect(hand.page.locator(".verdict")).to_have_text("compiles")
    hand.button("Save and promote")


def create_bundle(hand: Hand, name: str, **parameters: Any) -> None:
    """Create a config bundle, and open the form that deploys it."""
    hand.fill("Name", name)
    for stage, value in parameters.items():
        hand.button(f"Edit as JSON: Parameters of stage {stage}")
        hand.page.get_by_role("textbox", name=f"Parameters of stage {stage}").fill(json.dumps(value))
    hand.button("Create and deploy")


def test_people_can_click_from_empty_installation_to_rollback_and_second_environment(
    transactional_db: None, open_page: Callable[..., Page], shot: Callable[..., None]
) -> None:
    Hand.clicks = 0
    # Each step of the setup leads to the next one. After the invitation, the page shows a sign-in link for Grace.
    ada = open_console(open_page(), "ada@acme.example")
    ada.link("Create an organization")
    ada.fill("Name", "Acme")
    ada.button("Create organization")
    ada.see_step("Step 2 of 10 Create a project")
    ada.fill("Name", "Trading")
    ada.button("Create project")
    ada.see_step("Step 3 of 10 Create an environment")
    shot(ada.page, "setup-environment", widths=(1440, 1000, 390))
    ada.fill("Name", "live")
    ada.button("Create environment")
    ada.see_step("Step 4 of 10 Invite people")
    ada.fill("E-mail address", "grace@acme.example")
    ada.button("Invite to organization")
    invitation = ada.page.get_by_label("Link", exact=True).inner_text().strip()
    ada.link("I have copied the link")

    # The page of a new enrollment token shows the command that enrolls agents, and waits for them.
    ada.see_step("Step 5 of 10 Enroll an agent")
    ada.fill("Number of agents", "2")
    ada.button("Create enrollment token")
    secret = ada.page.get_by_label("Token", exact=True)
    expect(secret).to_have_text(SECRET)
    command = ada.page.get_by_label("Command").inner_text()
    token = secret.inner_text().strip()
    assert token not in command
    waiting = ada.page.locator(".enrolled")
    expect(waiting).to_have_text(re.compile("Waiting for your agent"))
    shot(ada.page, "enrollment-waiting", widths=(1440, 1000, 390), full_page=True)
    for name in ("command", "token"):
        ada.button(f"Copy {name}")
        expect(ada.page.get_by_text("Copied", exact=True)).to_have_count(1 if name == "command" else 2)
    agents = [enroll(token, "edge-1")]
    run_jobs()
    expect(waiting).to_contain_text("edge-1 connected")
    expect(waiting).to_contain_text("1 of 2 agents has enrolled. Waiting for more …")
    expect(secret).to_have_text(token)
    agents.append(enroll(token, "edge-2"))
    run_jobs()
    expect(waiting).to_contain_text("edge-2 connected")
    expect(waiting).not_to_contain_text("Waiting")
    shot(ada.page, "enrollment-connected", widths=(1440, 1000, 390), full_page=True)
    ada.link("Continue")

    # Write a pipeline, promote it, configure it and deploy it.
    ada.see_step("Step 6 of 10 Write a draft")
    ada.fill("Name", "quotes")
    ada.button("Create draft")
    ada.see_step("Step 7 of 10 Promote the draft")
    write_and_promote(ada, FIRST)
    ada.see_step("Step 8 of 10 Create a config bundle")
    create_bundle(ada, "first")
    ada.see_step("Step 9 of 10 Deploy the config bundle")
    expect(ada.page.locator("#outlook")).to_contain_text("2 agents")
    ada.button("Request deployment")
    run_jobs()
    for agent, api in agents:
        assert report(api, agent, "active").status_code == 200
        send_heartbeat_running(agent, api)
        run_jobs()
    expect(ada.status).to_contain_text("Active")
    expect(ada.page.locator(".setup-bar")).to_have_count(0)

    # An agent captures an incident. Keep it as a fixture, with which the environment tests each deployment.
    first = Deployment.objects.get()
    content = files_of(
        Version.objects.get().spec_kv,
        **{
            "runtime_config.json": json.dumps({"stage_config": {}}).encode(),
            "journal/quotes_in.bin": journal(RECORDS),
        },
    )
    uploaded = upload(agents[0][1], agents[0][0], archive(content), kind="incident_bundle", deployment_id=str(first.pk))
    assert uploaded.status_code == 201, uploaded.json()
    run_jobs()
    ada.menu("Overview")
    ada.link("Open capture")
    ada.link("Keep as fixture")
    ada.fill("Name", "cards")
    ada.button("Keep as fixture")
    expect(ada.page.get_by_text("Fixture cards of quotes created.")).to_be_visible()
    ada.link("Set up the replay gate")
    ada.check("Approvals required")
    ada.choose("Replay gate", "require")
    ada.button("Edit settings")

    # Deploy a second version in waves. The last wave has a hold, and only Grace may approve the deployment.
    ada.link("Edit plan of quotes")
    write_and_promote(ada, SECOND)
    create_bundle(ada, "second", limit=LIMIT)
    ada.choose("Strategy", "own")
    ada.fill("Failure threshold, in percent of a wave", "100")
    ada.choose_in_row("Wave 3", "Start", "manual")
    ada.check("grace@acme.example")
    ada.button("Request deployment")
    run_jobs()
    expect(ada.status).to_contain_text("Waiting for approval")

    # Grace, who was invited, accepts what the new version does with the fixture, and approves.
    grace = Hand(open_page())
    grace.page.goto(invitation)
    grace.button("Sign in")
    grace.link("quotes v2 to live", within=grace.page.locator(".panel", has_text="Needs you"))
    grace.check("No longer outputs records")
    grace.fill("Comment", "The venue wants only ids up to 2.")
    grace.button("Accept and approve")
    expect(grace.page.locator(".states .pill").first).to_have_text("approved")
    run_jobs()

    # An agent of the first wave fails and is retried. Then the last wave waits until Ada starts it.
    deployment = Deployment.objects.latest("id")
    assert deployment.reviewers == [str(User.objects.get(email="grace@acme.example").pk)]
    assert deployment.strategy.holds == (None, None, Hold.MANUAL)
    (first_wave,) = [each for each in agents if Assignment.objects.get(agent=each[0]).deployment_id == deployment.pk]
    (last_wave,) = [each for each in agents if each is not first_wave]
    assert report(first_wave[1], first_wave[0], "failed", detail="cannot open port 9000").status_code == 200
    run_jobs()
    ada.link(f"Retry {first_wave[0].name}")
    ada.button("Retry")
    run_jobs()
    assert report(first_wave[1], first_wave[0], "active").status_code == 200
    run_jobs()
    ada.link("Start wave 3")
    ada.button("Start next wave")
    run_jobs()
    assert report(last_wave[1], last_wave[0], "active").status_code == 200
    run_jobs()
    expect(ada.status).to_contain_text("Active")

    # Roll the deployment back.
    ada.link("Roll back")
    ada.fill("Reason", "v2 drops records")
    ada.button("Roll back")
    run_jobs()
    expect(ada.status).to_contain_text("Rolling back: v2 drops records.")
    for agent, api in agents:
        assert report(api, agent, "rolled_back").status_code == 200
    run_jobs()
    expect(ada.status).to_have_text("Rolled back: v2 drops records.")
    deployment.refresh_from_db()
    assert deployment.status == "rolled_back"

    # The first config bundle runs again. Copy it to a second environment.
    ada.menu("Environment")
    ada.link("Copy to a new environment: quotes v1")
    ada.fill("Name", "backup")
    ada.button("Create environment")
    ada.button("Copy to environment")
    expect(ada.page.get_by_text("Config bundle first of quotes v1 is available in the environment.")).to_be_visible()
    assert ConfigBundle.objects.get(environment__name="backup").version.name == "quotes"
    print(f"{Hand.clicks} clicks")
    assert Hand.clicks <= MAX_CLICKS

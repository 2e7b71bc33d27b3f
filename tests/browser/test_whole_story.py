"""The whole story in a real browser: from an empty installation to a deployment that is rolled back after an incident.

After signing in, people reach each page by links and buttons. Only the agent uses the API.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Locator, Page, expect

from apps.fleet.models import Agent
from apps.pipelines.models import Version
from apps.releases.models import Deployment
from apps.tenancy.actors import system_actor
from apps.tenancy.models import Environment
from apps.tenancy.services import accounts
from byteor.engine.compiler import write_plan
from tests.artifacts.incidents import archive, files_of, frames, journal, upload
from tests.worlds import Api, plan, report, run_jobs

MAX_CLICKS = 60
SECRET = re.compile(r"bor_enr_[0-9A-Za-z]{49}")
RECORDS = [b'{"id": 1, "card": "1234"}', b'{"no": "id"}', b'{"id": 3, "card": "5678"}']
CHECK = {"schema": {"required": ["id"]}}
LIMIT = {"schema": {"properties": {"id": {"maximum": 2}}}}
GOOD = plan(stages=[{"id": "check", "op": "dataguard_check"}])
BAD = plan(
    stages=[
        {"id": "check", "op": "dataguard_check"},
        {"id": "limit", "op": "dataguard_check", "depends_on": ["check"]},
    ]
)


class Hand:
    """A person at a browser. This class counts the clicks of all people on links and buttons."""

    clicks = 0

    def __init__(self, page: Page) -> None:
        self.page = page

    def click(self, found: Locator) -> None:
        """Count and click an element."""
        Hand.clicks += 1
        found.click()

    def link(self, name: str | re.Pattern[str], *, within: Locator | None = None) -> None:
        """Click the link with this name, which may be preceded by the name of an icon."""
        text = name if isinstance(name, re.Pattern) else re.compile(rf"^(?:\w+ )?{re.escape(name)}$")
        self.click((within or self.page).get_by_role("link", name=text).first)

    def button(self, name: str) -> None:
        """Click the button with this name."""
        self.click(self.page.get_by_role("button", name=re.compile(rf"^(?:\w+ )?{re.escape(name)}$")))

    def menu(self, name: str) -> None:
        """Click the menu entry with this name."""
        self.link(name, within=self.page.locator("#nav-sidebar-inner"))

    def fill(self, label: str, text: str) -> None:
        """Type the text into the field with this label."""
        self.page.get_by_label(label).fill(text)


def open_console(page: Page, email: str) -> Hand:
    """Sign in with a one-time link, like the links that an installation operator creates with ``manage.py``."""
    user = accounts.get_or_create_account(email)
    hand = Hand(page)
    page.goto(f"/auth/link/{accounts.create_sign_in_link(user=user, actor=system_actor('manage.py'))}")
    hand.button("Sign in")
    return hand


def enroll(token: str) -> tuple[Agent, Api]:
    """Enroll an agent through the API, as its program does, and send its first heartbeat."""
    environment = Environment.objects.get()
    path = f"/api/v1/orgs/{environment.project.organization_id}/projects/{environment.project_id}"
    made = Api(token).post(f"{path}/environments/{environment.pk}/agents", {"name": "edge-1"}).json()
    agent, api = Agent.objects.get(), Api(made["api_key"])
    heartbeat = {"status": "healthy", "agent_version": "0.1.0", "active": None}
    assert api.post(f"/api/v1/agents/{agent.pk}/heartbeat", heartbeat).status_code == 200
    return agent, api


def write_and_promote(hand: Hand, content: dict[str, Any]) -> None:
    """Write the plan in the editor, save it, promote the draft, and open the form for a config bundle."""
    hand.page.get_by_label("Plan", exact=True).fill(write_plan(content))
    expect(hand.page.locator(".verdict")).to_have_text("compiles")
    hand.button("Save")
    expect(hand.page.get_by_text("Saved, revision 2").or_(hand.page.get_by_text("Saved, revision 3"))).to_be_visible()
    hand.button("Promote")
    expect(hand.page.get_by_role("alert")).to_contain_text("Create a version")
    hand.click(hand.page.get_by_role("alert").get_by_role("button").first)
    hand.link("Create a config bundle", within=hand.page.get_by_role("alert"))


def configure_and_deploy(hand: Hand, name: str, **parameters: Any) -> None:
    """Create a config bundle and request its deployment to all agents."""
    hand.fill("Name", name)
    for stage, value in parameters.items():
        hand.button(f"Edit as JSON: Parameters of stage {stage}")
        hand.page.get_by_role("textbox", name=f"Parameters of stage {stage}").fill(json.dumps(value))
    hand.button("Create")
    hand.link("Deploy")
    expect(hand.page.locator("#outlook")).to_contain_text("1 agent: edge-1")
    hand.button("Request deployment")
    expect(status(hand)).to_contain_text("Waiting for approval")


def status(hand: Hand) -> Locator:
    """Return the element with the status of the row on the page."""
    return hand.page.locator("#headline [role=status]")


def approve(hand: Hand, subject: str) -> None:
    """Find the request on the overview and approve it."""
    hand.link(subject, within=hand.page.locator(".panel", has_text="Needs you"))
    hand.button("Approve")
    expect(hand.page.locator(".states .pill").first).to_have_text("approved")


def test_person_can_click_from_empty_installation_to_rollback(
    transactional_db: None, open_page: Callable[..., Page]
) -> None:
    Hand.clicks = 0
    # Create an organization with a project and a production environment, and invite a second person.
    ada = open_console(open_page(), "ada@acme.example")
    ada.link("Create an organization")
    ada.fill("Name", "Acme")
    ada.button("Create organization")
    ada.link("Create project")
    ada.fill("Name", "Trading")
    ada.button("Create project")
    ada.link("Create environment")
    ada.fill("Name", "prod")
    ada.page.get_by_label("prod:", exact=False).check()
    ada.button("Create environment")
    ada.link("Create enrollment token")
    ada.button("Create enrollment token")
    secret = ada.page.get_by_label("Secret")
    expect(secret).to_have_text(SECRET)
    agent, api = enroll(secret.inner_text().strip())
    run_jobs()
    ada.link("I have copied the secret")
    ada.menu("People and keys")
    ada.link("Invite to organization")
    ada.fill("E-mail address", "grace@acme.example")
    ada.page.get_by_label("Operator:", exact=False).check()
    ada.button("Invite to organization")
    grace = open_console(open_page(), "grace@acme.example")

    # Write a pipeline, promote it, configure it and request its deployment. The second person approves.
    ada.menu("Pipelines")
    ada.link(re.compile("Write a draft|New draft"))
    ada.page.get_by_role("combobox", name="Environment").select_option(index=1)
    ada.fill("Name", "quotes")
    ada.button("Create draft")
    write_and_promote(ada, GOOD)
    configure_and_deploy(ada, "first", check=CHECK)
    grace.menu("Overview")
    approve(grace, "quotes v1 to prod")
    run_jobs()
    assert report(api, agent, "active").status_code == 200
    run_jobs()
    expect(status(ada)).to_contain_text("Active")

    # Deploy a second version, in which a stage drops records that the first version kept.
    ada.menu("Pipelines")
    ada.link("Drafts")
    ada.link("quotes")
    ada.link("Edit")
    write_and_promote(ada, BAD)
    configure_and_deploy(ada, "second", check=CHECK, limit=LIMIT)
    grace.menu("Overview")
    approve(grace, "quotes v2 to prod")
    run_jobs()
    assert report(api, agent, "active").status_code == 200
    run_jobs()
    expect(status(ada)).to_contain_text("Active")

    # The agent uploads an incident. Replay it and find the version that caused it.
    files = files_of(
        Version.objects.get(number=2).spec_kv,
        **{
            "runtime_config.json": json.dumps({"stage_config": {"check": CHECK, "limit": LIMIT}}).encode(),
            "journal/quotes_in.bin": journal(RECORDS),
            "expected/quotes_out.bin": frames((1, RECORDS[0]), (3, RECORDS[2])),
        },
    )
    deployment = Deployment.objects.latest("id")
    uploaded = upload(api, agent, archive(files), kind="incident_bundle", deployment_id=str(deployment.pk))
    assert uploaded.status_code == 201, uploaded.json()
    run_jobs()
    ada.menu("Artifacts")
    ada.link(re.compile("incident", re.IGNORECASE), within=ada.page.locator("#result_list"))
    ada.link("Replay")
    ada.button("Replay")
    run_jobs()
    expect(status(ada)).to_have_text("Diverged at quotes_out, record 3: stage limit dropped it (schema).")
    ada.link("Bisect")
    ada.button("Bisect")
    run_jobs()
    expect(status(ada)).to_have_text("quotes v2 is the first bad version.")

    # Roll the deployment back.
    ada.menu("Deployments")
    ada.link("quotes", within=ada.page.locator("#result_list"))
    ada.link("Roll back")
    ada.fill("Reason", "v2 drops records")
    ada.button("Roll back")
    expect(status(ada)).to_contain_text("Rolling back: v2 drops records.")
    assert report(api, agent, "rolled_back").status_code == 200
    run_jobs()
    expect(status(ada)).to_have_text("Rolled back: v2 drops records.")
    deployment.refresh_from_db()
    assert deployment.status == "rolled_back"
    print(f"{Hand.clicks} clicks")
    assert Hand.clicks <= MAX_CLICKS

"""Tests of ``byteor approvals``, ``byteor approve`` and ``byteor deny``."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from apps.releases.models import Approval, ApprovalDecision, Deployment
from apps.tenancy.models import Environment
from tests.artifacts import execute_steps
from tests.command.conftest import Terminal
from tests.releases import stories
from tests.releases.stories import Run, report_from_all, state, waves
from tests.worlds import Person, World, plan

pytestmark = pytest.mark.django_db


def sit_down(terminal: Terminal, world: World, person: Person, environment: Environment) -> None:
    """Let the terminal run its next commands as the person, in this environment."""
    terminal.use(
        person.api.token or "", organization="acme", project=world.project.name, environment=environment.name
    )  # fmt: skip


def pending(world: World, environment: Environment, name: str = "quotes", **options: Any) -> Deployment:
    """Create a deployment that the operator requested and that waits for approval."""
    world.agent(environment, f"agent-{name}")
    version = world.version(environment, plan(name))
    return world.deployment(world.bundle(environment, f"{name}-eu", version=version, env={"REGION": "eu"}), **options)


def test_reviewer_sees_request_and_approves_without_id(terminal: Terminal, world: World) -> None:
    deployment = pending(world, world.prod, note="for the fair")
    sit_down(terminal, world, world.reviewer, world.prod)

    shown = terminal("approvals", "show")
    assert shown.code == 0, shown.err
    facts = dict(line.split(":", 1) for line in shown.out.splitlines() if ":" in line and line[0] != " ")
    assert facts["For"].strip() == "deployment of quotes:1 to prod"
    assert facts["Approvals"].strip() == "0 of 1"
    assert facts["Agents"].strip() == "1 agent; now 1 runs something else or nothing"
    assert facts["Note"].strip() == "for the fair"
    assert facts["Replaces"].strip() == "nothing"
    assert facts["Config hash"].strip() == deployment.config_hash
    assert '  + env REGION: "eu"' in shown.out.splitlines()
    assert world.operator.user.email in facts["Requested"]

    # Without --yes, the request is printed to stderr, and nothing is decided.
    unasked = terminal("approve")
    assert (unasked.code, unasked.out) == (2, "")
    *lines, refusal = unasked.err.splitlines()
    assert refusal == "byteor: Cannot prompt for confirmation without a terminal. Use --yes to confirm."
    assert [line.split(":")[0] for line in lines] == [line.split(":")[0] for line in shown.out.splitlines()]
    assert not ApprovalDecision.objects.exists()

    approved = terminal("approve", "--yes", "--comment", "Looks right")
    done = "Approved the deployment of quotes:1 to prod: 1 of 1 approval. No more are needed.\n"
    assert approved == (0, done, "")
    assert state(deployment)[0] == "approved"
    assert ApprovalDecision.objects.get().comment == "Looks right"
    assert terminal("approve", "--yes").err == "byteor: No approval is pending.\n"
    assert "Approved" not in terminal("approvals", "list").out
    assert terminal("approvals", "list", "--status", "all").out.splitlines()[1].startswith("quotes  approved  1 of 1")


def test_two_people_must_approve_and_requester_is_refused(terminal: Terminal, world: World) -> None:
    four_eyes = world.environment("prod", "four-eyes", required_approvals=2)
    deployment = pending(world, four_eyes)

    sit_down(terminal, world, world.operator, four_eyes)
    nothing = terminal("approve", "--yes")
    assert (nothing.code, nothing.out) == (1, "")
    waiting = f"quotes ({deployment.approval_id})"
    assert nothing.err == f"byteor: No approval is waiting for you. Waiting for others: {waiting}.\n"
    assert "requested this. Another person must approve it." in terminal("approve", "quotes", "--yes").err
    sit_down(terminal, world, world.viewer, four_eyes)
    assert terminal("approve", "quotes", "--yes").code == 1
    assert not ApprovalDecision.objects.exists()

    sit_down(terminal, world, world.reviewer, four_eyes)
    first = terminal("approve", str(deployment.pk), "--yes")
    assert first.out == "Approved the deployment of quotes:1 to four-eyes: 1 of 2 approvals. 1 more is needed.\n"
    assert terminal("approvals", "list", "--mine", "--json").json == []
    assert "You have already decided" in terminal("approve", str(deployment.pk), "--yes").err
    sit_down(terminal, world, world.admin, four_eyes)
    second = terminal("approve", str(deployment.approval_id)[-8:], "--yes", "--json", "status,required_approvals")
    assert second.json == {"status": "approved", "required_approvals": 2}


def test_ambiguous_requests_are_listed_and_denial_needs_reason(terminal: Terminal, world: World) -> None:
    quotes, trades = (pending(world, world.prod, name) for name in ("quotes", "trades"))
    sit_down(terminal, world, world.reviewer, world.prod)

    ambiguous = terminal("deny", "--yes", "--reason", "no")
    assert (ambiguous.code, ambiguous.out) == (2, "")
    assert all(str(each.approval_id) in ambiguous.err for each in (quotes, trades))
    unknown = terminal("approve", "prices", "--yes")
    assert (unknown.code, unknown.err.startswith("byteor: No approval matches prices. Pending: ")) == (
        1,
        True,
    )
    assert terminal("deny", "quotes", "--yes").code == 2
    assert not ApprovalDecision.objects.exists()

    denied = terminal("deny", "quotes", "--yes", "--reason", "Wrong region")
    assert denied == (0, "Denied the deployment of quotes:1 to prod\n", "")
    assert (state(quotes)[0], state(trades)[0]) == ("denied", "pending_approval")
    again = terminal("approve", str(quotes.pk), "--yes")
    assert (again.code, again.out) == (1, "")
    assert again.err == (
        "byteor: The approval of the deployment of quotes:1 to prod is denied. Only pending approvals can be decided.\n"
    )


def test_wave_approval_with_digest_of_another_report_is_refused(
    terminal: Terminal, world: World, run_jobs: Run
) -> None:
    agents, (_, second), _ = stories.running(world, 4)
    strategy = {**waves(25, 100, threshold=100), "holds": [None, "approval"]}
    deployment = stories.offered(world, second, strategy=strategy)
    report_from_all(agents[:1], "active", run_jobs)
    sit_down(terminal, world, world.reviewer, world.dev)
    before = terminal("approvals", "show").out
    (digest,) = [line.split()[1] for line in before.splitlines() if line.startswith("Digest:")]

    outdated = terminal("approve", "--yes", "--digest", "sha256:" + "0" * 64)
    assert (outdated.code, outdated.out) == (1, "")
    assert "The report that you read is not the current one." in outdated.err

    approved = terminal("approve", str(deployment.pk), "--yes", "--digest", digest)
    assert approved.out == "Approved wave 2 of quotes:1 to dev: 1 of 1 approval. No more are needed.\n", approved.err
    run_jobs()
    assert stories.progress(deployment) == ["active", "offered", "offered", "offered"]


def test_execute_replay_is_shown_and_approved_by_its_id(terminal: Terminal, world: World) -> None:
    environment = execute_steps.create_environment(world)
    receiver: Any = SimpleNamespace(origin="http://127.0.0.1:9")
    replay = execute_steps.request_replay(world, execute_steps.capture_incident(world, receiver, environment))
    sit_down(terminal, world, world.reviewer, environment)

    shown = terminal("approvals", "show", str(replay.pk)[-8:]).out
    assert "http_post:http://127.0.0.1:9/hook" in shown
    approved = terminal("approve", str(replay.pk), "--yes")

    assert approved.out.startswith(f"Approved the execute replay of quotes:1 in {environment.name}: 1 of 1 approval.")
    assert Approval.objects.get().status == "approved"

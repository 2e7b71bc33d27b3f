"""Tests of ``byteor deploy`` and ``byteor deployments``."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import msgspec
import pytest

from apps.releases.models import Deployment
from apps.tenancy.models import Environment
from apps.tenancy.services import tokens
from byteor.client import UnexpectedResponse
from byteor.client import models as m
from byteor.command import deploying, release_plan
from byteor.command.output import size_text
from byteor.command.rollout_news import outcome, waves_of
from tests.command.conftest import Terminal
from tests.worlds import World, plan, report, run_jobs

pytestmark = pytest.mark.django_db
type Step = Callable[[], object]


class Fleet:
    """Agents of an environment. Their reports are steps, which can run while a command waits."""

    def __init__(self, world: World, environment: Environment, count: int) -> None:
        self.agents = [world.agent(environment, name=f"edge-{number}") for number in range(1, count + 1)]

    def report(self, status: str, *numbers: int, **extra: Any) -> Step:
        """Return a step in which agents report a status, and the rollout continues."""

        def step() -> None:
            for number in numbers:
                agent, api = self.agents[number - 1]
                assert report(api, agent, status, **extra).status_code == 200
            run_jobs()

        return step


@pytest.fixture
def during(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that takes steps. Whenever the command waits, the next step is called."""

    def play(*steps: Step) -> None:
        script = iter(steps)

        def sleep(seconds: float) -> None:
            step = next(script, None)
            assert step is not None, "The command still waits after the last step."
            step()

        monkeypatch.setattr(deploying, "sleep", sleep)

    return play


def only_deployment() -> Deployment:
    return Deployment.objects.get()


def test_successful_rollout_prints_each_change_once(terminal: Terminal, world: World, during: Any) -> None:
    fleet = Fleet(world, world.dev, 4)
    world.bundle(name="quotes-1")
    during(run_jobs, run_jobs, fleet.report("active", 1), run_jobs, fleet.report("active", 2, 3, 4))

    found = terminal("deploy", "quotes-1", "--waves", "25,100", "--yes", "--note", "first")

    assert (found.code, found.err) == (0, "")
    asked, _, rollout = found.out.partition("Requested deployment ")
    assert "Deploy quotes:1 (config bundle quotes-1) to dev\n" in asked
    assert "no current deployment of quotes" in asked
    assert "4 agents in the environment" in asked
    assert "Waves up to 25%, 100%." in asked
    deployment = only_deployment()
    assert rollout == (
        f"{deployment.pk}.\nWaiting for the build to start.\nStarted wave 1 of 2, up to 25% of the agents.\n"
        "Started wave 2 of 2, up to 100% of the agents; 1 of 4 active.\nDeployed quotes: 4 of 4 agents are active.\n"
    )
    assert deployment.note == "first"


def test_changes_from_running_version_and_configuration_are_shown(terminal: Terminal, world: World) -> None:
    fleet = Fleet(world, world.dev, 1)
    world.deployment(world.bundle(name="quotes-1", env={"REGION": "eu"}))
    run_jobs()
    fleet.report("active", 1)()
    stages = [
        {"id": "decode", "op": "dataguard_redact"},
        {"id": "check", "op": "dataguard_check", "depends_on": ["decode"]},
    ]
    changed = world.version(content=plan(stages=stages))
    world.bundle(name="quotes-2", version=changed, env={"REGION": "us"})

    found = terminal("deploy", "quotes-2")

    assert (found.code, found.err) == (
        2,
        "byteor: Cannot prompt for confirmation without a terminal. Use --yes to confirm.\n",
    )
    assert "quotes:1 (config bundle quotes-1)" in found.out
    assert "identity → dataguard_redact" in found.out
    assert '~ env REGION: "eu" → "us"' in found.out
    assert Deployment.objects.count() == 1


def test_failed_rollout_exits_3_with_reasons(terminal: Terminal, world: World, during: Any) -> None:
    fleet = Fleet(world, world.dev, 3)
    world.bundle(name="quotes-1")
    during(run_jobs, fleet.report("failed", 1, 2, detail="stage check crashed"))

    found = terminal("deploy", "quotes-1", "--yes")

    assert (found.code, found.err) == (3, "")
    *_, why, cause = found.out.splitlines()
    assert why == "The rollout of quotes failed, because too many agents failed: 2 of 3 agents of wave 1 failed."
    assert cause.startswith("  2 agents reported a failure: stage check crashed (edge-")


def test_failures_are_printed_during_rollout_and_rollback_exits_3(
    terminal: Terminal, world: World, during: Any
) -> None:
    fleet = Fleet(world, world.dev, 4)
    world.deployment(world.bundle(name="quotes-1"))
    run_jobs()
    fleet.report("active", 1, 2, 3, 4)()
    world.bundle(name="quotes-2", env={"REGION": "us"}, version=Deployment.objects.get().config_bundle.version)
    during(
        run_jobs,
        fleet.report("failed", 1, detail="port 80 is in use"),
        fleet.report("failed", 2, detail="port 81 is in use"),
        fleet.report("failed", 3, detail="port 80 is in use"),
        fleet.report("rolled_back", 1, 2, 3, 4),
    )

    options = ("--failure-threshold", "50", "--auto-rollback", "--yes")
    found = terminal("deploy", "quotes-2", *options, "--json", "status,pipeline")

    assert found.code == 3
    assert found.json == {"status": "rolled_back", "pipeline": "quotes"}
    lines = found.err.splitlines()
    assert len([line for line in lines if line.startswith("1 agent reported a failure: port")]) == 1
    assert "Rolling back: 3 of 4 agents of wave 1 failed." in lines
    assert "The rollout of quotes was rolled back: 3 of 4 agents of wave 1 failed." in lines


def test_timeout_while_waiting_for_approval_exits_8_and_names_who_can_approve(terminal: Terminal, world: World) -> None:
    terminal.use(world.operator.api.token, organization="acme", project="trading", environment="prod")
    world.agent(world.prod)
    world.bundle(world.prod, name="quotes-1")

    found = terminal("deploy", "quotes-1", "--reviewer", world.reviewer.user.email, "--yes", "--timeout", "0")

    deployment = only_deployment()
    who = f"{world.reviewer.user.email} can approve, but not the requester, {world.operator.user.email}."
    assert found.code == 8
    assert f"1 person must approve. {world.reviewer.user.email} can approve, but not you.\n" in found.out
    assert f"Waiting for approval. {who}\n  byteor approve {deployment.approval_id}\n" in found.out
    assert f"byteor deployments watch {deployment.pk}\n" in found.err
    assert f"byteor abort {deployment.pk}\n" in found.err


def test_detached_deployment_exits_8_only_if_approval_is_needed(terminal: Terminal, world: World) -> None:
    for environment, code, status in ((world.dev, 0, "approved"), (world.prod, 8, "pending_approval")):
        name = environment.name
        terminal.use(world.operator.api.token, organization="acme", project="trading", environment=name)
        world.agent(environment)
        world.bundle(environment, name="quotes-1")

        found = terminal("deploy", "quotes-1", "--yes", "--detach", "--json", "status")

        assert (found.code, found.json) == (code, {"status": status})


@pytest.mark.parametrize("how", ["deny", "abort", "revoke"])
def test_denial_and_revocation_exit_1_and_abort_exits_3(
    terminal: Terminal, world: World, during: Any, how: str
) -> None:
    terminal.use(world.operator.api.token, organization="acme", project="trading", environment="prod")
    world.agent(world.prod)
    world.bundle(world.prod, name="quotes-1")

    def act() -> None:
        deployment = only_deployment()
        if how == "deny":
            body = {"deployment_id": str(deployment.pk), "decision": "deny", "comment": "not on a Friday"}
            response = world.reviewer.api.post(world.path(world.prod, "/approvals"), body)
        elif how == "abort":
            response = world.operator.api.post(world.path(world.prod, f"/deployments/{deployment.pk}/abort"), {})
        else:
            path = world.path(world.prod, f"/approvals/{deployment.approval_id}/revoke")
            response = world.reviewer.api.post(path, {})
        assert response.status_code in {200, 201}, response.content

    during(act)

    found = terminal("deploy", "quotes-1", "--yes")

    assert found.code == (3 if how == "abort" else 1)
    assert {
        "deny": f"was denied by {world.reviewer.user.email}: not on a Friday. No agent was changed.",
        "abort": "The rollout of quotes failed, because it was aborted",
        "revoke": "The deployment of quotes did not start, because its approval was revoked",
    }[how] in found.out


def test_command_that_starts_held_wave_is_printed_once(terminal: Terminal, world: World, during: Any) -> None:
    fleet = Fleet(world, world.dev, 2)
    world.bundle(name="quotes-1")

    def start() -> None:
        path = world.path(rest=f"/deployments/{only_deployment().pk}/next-wave")
        assert world.operator.api.post(path, {}).status_code == 200
        run_jobs()

    during(run_jobs, fleet.report("active", 1), start, fleet.report("active", 2))

    found = terminal("deploy", "quotes-1", "--canary", "--yes")

    assert found.code == 0
    assert (
        found.out.count(
            f"Wave 2 waits until somebody starts it. To start it:\n  byteor next-wave {only_deployment().pk}\n"
        )
        == 1
    )


def interrupt() -> None:
    raise KeyboardInterrupt


def test_interrupted_command_does_not_stop_rollout_and_prints_command_to_continue(
    terminal: Terminal, world: World, during: Any
) -> None:
    fleet = Fleet(world, world.dev, 1)
    world.bundle(name="quotes-1")
    during(run_jobs, interrupt)

    found = terminal("deploy", "quotes-1", "--yes")

    deployment = only_deployment()
    assert (found.code, deployment.status) == (130, "deploying")
    assert "Interrupted. The work continues on the server.\n" in found.err
    assert f"byteor deployments watch {deployment.pk}\n" in found.err
    during(fleet.report("active", 1))
    assert terminal("deployments", "watch").code == 0


def test_command_with_revoked_token_exits_4_and_says_that_work_continues(
    terminal: Terminal, world: World, during: Any
) -> None:
    world.agent()
    world.bundle(name="quotes-1")
    token, text = tokens.create_user_token(user=world.operator.user, name="laptop", actor=world.operator.actor)
    terminal.use(text, organization="acme", project="trading", environment="dev")
    path = f"/api/v1/tokens/{token.pk}"

    def revoke() -> None:
        assert world.operator.api.delete(path).status_code == 204

    during(run_jobs, revoke)

    found = terminal("deploy", "quotes-1", "--yes")

    assert (found.code, only_deployment().status) == (4, "deploying")
    assert "The work continues on the server.\n" in found.err
    assert found.err.splitlines()[-1].startswith("byteor: ")


@pytest.fixture
def lost_response(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Return a function that makes the next POST request raise the given exception after the server has responded."""

    def lose(failure: BaseException) -> None:
        send, failures = httpx2.Client.send, iter([failure])

        def send_and_lose(self: httpx2.Client, request: httpx2.Request, **options: Any) -> httpx2.Response:
            response = send(self, request, **options)
            if request.method == "POST" and (lost := next(failures, None)) is not None:
                raise lost
            return response

        monkeypatch.setattr(httpx2.Client, "send", send_and_lose)

    return lose


def test_creation_with_lost_response_creates_one_deployment(
    terminal: Terminal, world: World, lost_response: Callable[[BaseException], None]
) -> None:
    world.agent()
    world.bundle(name="quotes-1")
    lost_response(httpx2.ReadError("cut off"))

    found = terminal("deploy", "quotes-1", "--yes", "--detach", "--json", "id")

    assert found.code == 0
    assert found.json == {"id": str(only_deployment().pk)}


def test_interrupted_creation_can_be_repeated_with_same_idempotency_key(
    terminal: Terminal, world: World, lost_response: Callable[[BaseException], None]
) -> None:
    world.agent()
    world.bundle(name="quotes-1")
    lost_response(KeyboardInterrupt())

    interrupted = terminal("deploy", "quotes-1", "--yes", "--detach")

    assert interrupted.code == 130
    key = interrupted.err.partition("--idempotency-key ")[2].split()[0].rstrip(".")
    again = terminal("deploy", "quotes-1", "--yes", "--detach", "--idempotency-key", key, "--json", "id")
    assert again.json == {"id": str(only_deployment().pk)}


def test_unexpected_response_to_creation_prints_idempotency_key_to_continue(
    terminal: Terminal, world: World, lost_response: Callable[[BaseException], None]
) -> None:
    world.agent()
    world.bundle(name="quotes-1")
    lost_response(UnexpectedResponse("The response is a web page."))

    refused = terminal("deploy", "quotes-1", "--yes", "--detach")

    assert refused.code == 1
    key = refused.err.partition("--idempotency-key ")[2].split()[0].rstrip(".")
    again = terminal("deploy", "quotes-1", "--yes", "--detach", "--idempotency-key", key, "--json", "id")
    assert again.json == {"id": str(only_deployment().pk)}


@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        (["--canary", "--waves", "5,100"], 2, "Use only one of --all-at-once, --canary and --waves."),
        (["--hold", "manual"], 2, "--hold and --pause require --canary or --waves."),
        (["--waves", "50,25,100"], 2, "The percentages must increase"),
        (["--waves", "50"], 2, "The percentages must increase"),
        (["--waves", "5,100", "--hold", "1=manual"], 2, "--hold must be KIND or WAVE=KIND"),
        (["--waves", "100", "--hold", "2=manual"], 2, "--hold requires at least two waves."),
        (["--waves", "5,100", "--hold", "soon"], 2, "--hold must be KIND or WAVE=KIND"),
        (["--all", "--labels", "zone=eu"], 2, "Use only one of --all, --labels and --agents."),
        (["--labels", "zone"], 2, "is not KEY=VALUE"),
        (["--agents", "edge-9"], 1, "No agent matches edge-9. Available: edge-1"),
        (["--start-at", "2026-12-01T08:00"], 2, "needs Z for UTC"),
        (["--start-at", "tomorrow"], 2, "is not a time"),
        (["--reviewer", "nobody@acme.example"], 1, "No member has the e-mail address nobody@acme.example."),
        (["--explain", "abc"], 2, "--explain must be GROUP=TEXT"),
        (["--approval", "no-such-file"], 2, "no-such-file cannot be read"),
        (["--override-freeze", "urgent"], 1, "(request "),
    ],
)  # fmt: skip
def test_invalid_and_forbidden_options_are_refused(
    terminal: Terminal, world: World, options: Sequence[str], code: int, reason: str
) -> None:
    world.agent(name="edge-1")
    world.bundle(name="quotes-1")

    found = terminal("deploy", "quotes-1", "--yes", *options)

    assert found.code == code
    assert reason in found.err
    assert found.err.count("\n") == 1
    assert not Deployment.objects.exists()


def test_options_become_fields_of_request(terminal: Terminal, world: World) -> None:
    world.agent(name="edge-1", zone="eu")
    world.bundle(name="quotes-1")
    terminal.use(world.admin.api.token, organization="acme", project="trading", environment="dev")

    found = terminal(
        "deploy", "quotes-1", "--labels", "zone=eu", "--waves", "10,50,100", "--hold", "manual", "--hold", "3=approval",
        "--pause", "60", "--failure-threshold", "20", "--no-auto-rollback", "--start-at", "2036-01-01T00:00Z",
        "--yes", "--detach",
    )  # fmt: skip
    assert found.code == 1
    assert "start_at" in found.err
    found = terminal(
        "deploy", "quotes-1", "--labels", "zone=eu", "--waves", "10,50,100", "--hold", "manual", "--hold", "3=approval",
        "--pause", "60", "--failure-threshold", "20", "--no-auto-rollback", "--override-gate", "urgent",
        "--take-over", "--yes", "--detach", "--json",
    )  # fmt: skip

    assert found.code == 0
    assert found.json["target"] == {"selector": {"zone": "eu"}}
    assert found.json["strategy"] == {
        "kind": "waves", "percents": [10, 50, 100], "holds": [None, "manual", "approval"], "pause_s": 60,
        "failure_threshold_percent": 20, "auto_rollback": False,
    }  # fmt: skip
    assert found.json["take_over"] is True
    assert found.json["replay_gate_override"] == "urgent"


def test_deployment_in_freeze_window_is_refused_and_window_is_shown(terminal: Terminal, world: World) -> None:
    window = {"start": "2020-01-01T00:00:00Z", "end": "2099-01-01T00:00:00Z", "time_zone": "UTC", "reason": "holidays"}
    frozen = world.environment("dev", "frozen", freeze_windows=[window])
    world.agent(frozen)
    world.bundle(frozen, name="quotes-1")
    terminal.use(world.operator.api.token, organization="acme", project="trading", environment="frozen")

    found = terminal("deploy", "quotes-1", "--yes")

    assert found.code == 1
    assert "A freeze window lasts until 2099-01-01 00:00 UTC: holidays." in found.out
    assert not Deployment.objects.exists()


def test_deployment_is_found_by_id_by_pipeline_or_without_argument(terminal: Terminal, world: World) -> None:
    assert terminal("deployments", "show") == (1, "", "byteor: There are no deployments in this environment.\n")
    fleet = Fleet(world, world.dev, 1)
    first = world.deployment(world.bundle(name="quotes-1"))
    run_jobs()
    fleet.report("active", 1)()
    version = first.config_bundle.version
    second = world.deployment(world.bundle(name="quotes-2", version=version, env={"REGION": "us"}))

    shown = terminal("deployments", "show")
    assert str(second.pk) in shown.out
    assert "waiting to start" in shown.out
    for text in (str(first.pk), str(first.pk)[-12:]):
        assert terminal("deployments", "show", text, "--json", "id").json == {"id": str(first.pk)}
    assert terminal("deployments", "show", "quotes", "--json", "id").json == {"id": str(second.pk)}
    unknown = terminal("deployments", "show", "other")
    assert unknown.code == 1
    assert unknown.err.startswith("byteor: No deployment matches other.")


def test_ambiguous_deployment_is_refused_with_list_of_deployments(terminal: Terminal, world: World) -> None:
    for name in ("quotes", "trades"):
        bundle = world.bundle(world.staging, name=name, version=world.version(world.staging, plan(name)))
        agent, _ = world.agent(world.staging, name=name)
        Environment.objects.filter(pk=world.staging.pk).update(settings={"max_in_flight_deployments": 5})
        world.deployment(bundle, target={"agents": [str(agent.pk)]})
    terminal.use(world.operator.api.token, organization="acme", project="trading", environment="staging")

    found = terminal("deployments", "watch")

    assert found.code == 2
    assert all(str(each.pk) in found.err for each in Deployment.objects.all())


def test_agents_and_timeline_are_listed_and_evidence_is_saved(terminal: Terminal, world: World, tmp_path: Path) -> None:
    fleet = Fleet(world, world.dev, 2)
    world.deployment(world.bundle(name="quotes-1"), strategy={"kind": "all_at_once", "failure_threshold_percent": 50})
    run_jobs()
    fleet.report("active", 1)()
    fleet.report("failed", 2, detail="disk full")()

    assert [row["agent_name"] for row in terminal("deployments", "agents", "--failed", "--json").json] == ["edge-2"]
    assert "disk full" in terminal("deployments", "agents", "--progress", "failed").out
    assert terminal("deployments", "agents", "--wave", "2", "--json").json == []
    timeline = terminal("deployments", "timeline", "quotes").out
    assert "Requested" in timeline.splitlines()[-1]
    assert "became active" in timeline.splitlines()[1]
    shown = terminal("deployments", "show").out
    assert "Deployed quotes: 1 of 2 agents is active, and 1 failed." in shown
    assert "1 agent reported a failure: disk full (edge-2)" in shown
    evidence = tmp_path / "evidence.tar"
    saved = terminal("deployments", "evidence", "quotes", "-o", str(evidence))
    assert saved.out.startswith(f"Saved {evidence} ({size_text(evidence.stat().st_size)})\n")
    assert terminal("deployments", "evidence", "quotes", "-o", str(tmp_path / "no" / "such")).code == 1
    assert json.loads(terminal("deployments", "list", "--status", "active", "--json", "pipeline").out) == [
        {"pipeline": "quotes"}
    ]


# A rollout in three waves of 1, 4 and 15 agents, as the API returns it.
ROLLOUT: dict[str, Any] = {
    **dict.fromkeys(
        ("bundle_hash", "bundle_size", "regression_id", "wave_hold", "superseded_by", "restores", "paused_at",
         "approval_id", "approved_at", "activated_at")
    ),
    **dict.fromkeys(
        ("environment_id", "config_bundle_id", "version_id", "spec_hash", "config_hash", "freeze_override",
         "replay_gate_override", "rollback_reason", "requested_by", "reason", "detail"), ""
    ),
    "id": "01a225d9-8770-76b8-a199-eb68ac6a2e3a", "status": "deploying", "pipeline": "quotes", "target": {"all": True},
    "target_count": 20, "wave": 0, "failures": [], "explain": [], "reviewers": [], "note": "", "start_at": None,
    "break_glass": None, "is_current": False, "blockers": [], "take_over": False,
    "created_at": "2026-11-29T12:00:00Z", "strategy": {
        "kind": "waves", "percents": [5, 25, 100], "failure_threshold_percent": 0, "auto_rollback": False,
    },
}  # fmt: skip
PROGRESS = ("total", "pending", "offered", "downloading", "activating", "active", "failed", "rolled_back")
HOLD = {"wave": 2, "kind": "manual", "since": "2026-11-29T12:00:00Z", "approval_id": None}


@pytest.mark.parametrize(
    ("fields", "progress", "waves"),
    [
        ({"status": "building"}, {"total": 0}, []),
        (
            {}, {"offered": 1, "pending": 19},
            [("Wave 1", 0, 1, "in progress"), ("Wave 2", 0, 4, "waiting"), ("Wave 3", 0, 15, "waiting")],
        ),
        (
            {"wave": 1}, {"active": 2, "failed": 1, "offered": 2, "pending": 15},
            [("Wave 1", 1, 1, "done"), ("Wave 2", 2, 4, "in progress"), ("Wave 3", 0, 15, "waiting")],
        ),
        (
            {"wave": 1, "paused_at": "2026-11-29T12:00:00Z"}, {"active": 1, "pending": 19},
            [("Wave 1", 1, 1, "done"), ("Wave 2", 0, 4, "paused"), ("Wave 3", 0, 15, "waiting")],
        ),
        (
            {"wave": 1, "wave_hold": HOLD}, {"active": 5, "pending": 15},
            [("Wave 1", 1, 1, "done"), ("Wave 2", 4, 4, "done"), ("Wave 3", 0, 15, "on hold")],
        ),
        (
            {"wave": 1, "status": "failed"}, {"active": 1, "failed": 4, "pending": 15},
            [("Wave 1", 1, 1, "done"), ("Wave 2", 4, 4, "stopped"), ("Wave 3", 0, 15, "not started")],
        ),
        (
            {"status": "rolling_back"}, {"rolled_back": 2, "offered": 3, "pending": 15},
            [("Rollback", 2, 5, "in progress")],
        ),
        (
            {"wave": 2, "status": "active"}, {"active": 19, "failed": 1},
            [("Wave 1", 1, 1, "done"), ("Wave 2", 4, 4, "done"), ("Wave 3", 15, 15, "done")],
        ),
    ],
)  # fmt: skip
def test_waves_are_computed_from_deployment_state(
    fields: dict[str, Any], progress: dict[str, int], waves: list[tuple[str, int, int, str]]
) -> None:
    counts = {**dict.fromkeys(PROGRESS, 0), "total": 20, **progress}

    assert waves_of(msgspec.convert({**ROLLOUT, **fields, "progress": counts}, m.Deployment)) == waves


@pytest.mark.parametrize(
    ("total", "outcome_of_refusal"),
    [
        (0, (1, "The deployment of quotes did not start, because its approval expired.")),
        (20, (3, "The rollout of quotes failed, because its approval expired.")),  # a break-glass deployment
    ],
)
def test_expired_approval_is_reported_as_failed_rollout_only_if_deployment_has_agents(
    total: int, outcome_of_refusal: tuple[int, str]
) -> None:
    counts = {**dict.fromkeys(PROGRESS, 0), "total": total}
    fields = {"status": "failed", "reason": "approval_expired", "progress": counts}

    assert outcome(msgspec.convert({**ROLLOUT, **fields}, m.Deployment)) == outcome_of_refusal


def test_failure_detail_of_agent_cannot_control_terminal(terminal: Terminal, world: World, during: Any) -> None:
    fleet = Fleet(world, world.dev, 1)
    world.bundle(name="quotes-1")
    during(run_jobs, fleet.report("failed", 1, detail="\x1b[2Jgone\r"))

    found = terminal("deploy", "quotes-1", "--yes")

    assert found.code == 3
    assert "gone" in found.out
    assert not {"\x1b", "\r"} & set(found.out)


@pytest.mark.parametrize(
    ("started", "expected"), [(False, "Last regression: queued, "), (True, "running, 3 fixtures, ")]
)
def test_plan_shows_number_of_fixtures_only_after_regression_has_started(started: bool, expected: str) -> None:
    now = datetime.now(UTC)
    last = SimpleNamespace(
        status="running" if started else "queued", vacuous=False, fixtures=3 if started else 0, created_at=now,
        started_at=now if started else None,
    )  # fmt: skip
    session: Any = SimpleNamespace(environment=SimpleNamespace(list_regressions=lambda **_: [last]))
    bundle: Any = SimpleNamespace(id="b")
    settings: Any = SimpleNamespace(replay_gate="warn")
    request: Any = SimpleNamespace(override_replay_gate=None)

    assert expected in release_plan._gate(session, bundle, settings, request)

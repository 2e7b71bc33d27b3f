"""Tests of ``byteor agents``."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.artifacts.models import RequestedCapture
from apps.artifacts.tasks import expire_captures
from apps.fleet.models import Agent, EnrollmentToken
from byteor.client.models import Series, SeriesPoint
from byteor.client.runtime import Connection
from byteor.command import agent_charts
from byteor_cloud.ids import uuid7
from tests.artifacts.incidents import upload
from tests.command.conftest import Terminal
from tests.worlds import Api, World, run_jobs

pytestmark = pytest.mark.django_db
HASH, SPEC = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"


def beat(agent: Agent, api: Api, *, deployment: Any = None, **body: Any) -> Any:
    """Send a heartbeat and return the response. If ``deployment`` is given, the agent reports that it runs this one."""
    if deployment is not None:
        body["active"] = {"deployment_id": str(deployment.pk), "bundle_hash": HASH, "spec_hash": SPEC}
    sent = {"status": "healthy", "agent_version": "1", **body}
    response = api.post(f"/api/v1/agents/{agent.pk}/heartbeat", sent)
    assert response.status_code == 200
    return response.json()


def administer(terminal: Terminal, world: World) -> None:
    terminal.use(world.admin.api.token or "", organization="acme", project=world.project.name, environment="dev")


def names(terminal: Terminal, *options: str) -> list[str]:
    return [each["name"] for each in terminal("agents", "list", *options, "--json", "name").json]


def labels(agent: Agent) -> dict[str, str]:
    agent.refresh_from_db()
    return dict(agent.labels)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Record and return the last part of the path, and the query, of each request that the client sends."""
    requests: list[tuple[str, dict[str, Any]]] = []
    send = Connection.send

    def record(connection: Connection, request: Any, **options: Any) -> Any:
        query = {name: value for name, value in request.query.items() if isinstance(value, (str, int))}
        requests.append((request.path.rpartition("/")[2], query))
        return send(connection, request, **options)

    monkeypatch.setattr(Connection, "send", record)
    return requests


def test_list_shows_states_and_versions_and_can_be_filtered(terminal: Terminal, world: World) -> None:
    first, first_api = world.agent(name="edge-1", zone="eu-1")
    running = world.deployment(world.bundle())
    second, second_api = world.agent(name="edge-2", zone="eu-2")
    world.agent(name="edge-3")
    beat(first, first_api, deployment=running)
    beat(second, second_api, status="failed")
    assert terminal("agents", "drain", "edge-2").out == "Drained agent edge-2\n"

    head, third, second_row, first_row = terminal("agents", "list").out.splitlines()
    assert head.split("  ")[0] == "NAME"
    assert re.split(" {2,}", first_row)[:4] == ["edge-1", "online, healthy", "quotes:1", "zone=eu-1"]
    assert re.split(" {2,}", second_row)[:4] == ["edge-2", "online, failed, drained", "nothing", "zone=eu-2"]
    assert third.startswith("edge-3  online ")

    assert names(terminal, "--status", "failed") == ["edge-2"]
    assert names(terminal, "--drained") == ["edge-2"]
    assert names(terminal, "--no-drained", "--label", "zone") == ["edge-1"]
    assert names(terminal, "--label", "!zone") == ["edge-3"]
    assert names(terminal, "-q", "status:healthy zone=eu-1") == ["edge-1"]
    assert names(terminal, "--liveness", "offline", "--drifted") == []
    assert terminal("agents", "list", "--liveness", "gone").code == 2


def test_texts_of_agents_cannot_control_terminal(terminal: Terminal, world: World) -> None:
    agent, api = world.agent(name="edge", zone="[bold]eu")
    beat(agent, api)
    Agent.objects.filter(pk=agent.pk).update(name="[red]e\x1b[31mdge\u202e", drain_reason="\x1b]0;owned\x07")

    shown = [
        terminal("agents", command, *arguments).out
        for command, *arguments in [
            ("list",), ("summary",), ("show", str(agent.pk)), ("explain", str(agent.pk)), ("drain", str(agent.pk)),
        ]
    ]  # fmt: skip

    assert "[red]e\N{REPLACEMENT CHARACTER}[31mdge\N{REPLACEMENT CHARACTER}" in shown[0]
    assert "[bold]eu" in shown[0]
    for text in shown:
        assert text
        assert all(each.isprintable() for each in text.replace("\n", ""))


def test_agent_is_found_by_name_without_reading_all_agents(
    terminal: Terminal, world: World, sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("byteor.command.agents.PAGE", 2)
    for name in ("lane-1", "edge-1", "edge-11", "edge-10", "other-1", "other-2"):
        world.agent(name=name)

    assert terminal("agents", "explain", "edge-10").code == 0
    assert [query for path, query in sent if path == "agents"] == [{"name": "edge-10", "limit": 2}]

    sent.clear()
    assert terminal("agents", "explain", "edge-1").code == 0
    assert [query["name"] for path, query in sent if path == "agents"] == ["edge-1", "edge-1"]
    assert not [path for path, _ in sent if path == str(Agent.objects.get(name="edge-10").pk)]


def test_ambiguous_or_unknown_agent_is_refused_with_list_of_agents(terminal: Terminal, world: World) -> None:
    ids = [str(world.agent(name=f"edge-{number}")[0].pk) for number in range(2)]

    ambiguous = terminal("agents", "explain", ids[0][:6])
    assert ambiguous.code == 2
    assert all(each in ambiguous.err for each in ids)
    assert terminal("agents", "show", ids[0][-12:], "--json", "id").json == {"id": ids[0]}
    unknown = terminal("agents", "history", "lane-1")
    assert (unknown.code, unknown.out) == (1, "")
    assert "No agent matches lane-1. Available: edge-1 (" in unknown.err


def test_explanation_names_commands_that_unblock_agent(terminal: Terminal, world: World) -> None:
    world.agent(world.prod, name="edge-1")
    waiting = world.deployment(world.bundle(world.prod))
    waiting.refresh_from_db()

    found = terminal("agents", "explain", "edge-1", "--env", "prod")

    assert found.code == 0
    assert "\n\nWhy:\n- " in found.out
    assert "waits for approval: nobody has approved it yet." in found.out
    assert found.out.endswith(f"\n\nTo unblock:\n  byteor approve {waiting.approval_id}\n")

    world.agent(name="edge-2")
    terminal("agents", "drain", "edge-2")
    assert "byteor agents undrain " in terminal("agents", "explain", "edge-2").out
    assert "To unblock" not in terminal("agents", "explain", str(world.agent(name="edge-3")[0].pk)).out


def test_history_shows_versions_and_can_be_limited_by_time(terminal: Terminal, world: World) -> None:
    agent, api = world.agent(name="edge-1")
    beat(agent, api, active={"deployment_id": str(uuid7()), "bundle_hash": HASH, "spec_hash": SPEC})
    assert "  bundle aaaaaaaaaaaa  " in terminal("agents", "list").out
    beat(agent, api, deployment=world.deployment(world.bundle()))

    _, new, old = terminal("agents", "history", "edge-1").out.splitlines()
    assert re.split(" {2,}", new)[1:4:2] == ["now", "quotes:1"]
    assert re.split(" {2,}", old)[3] == "bundle aaaaaaaaaaaa"
    assert len(terminal("agents", "history", "edge-1", "--since", "1h", "--json").json) == 2
    assert terminal("agents", "history", "edge-1", "--until", "2026-01-01", "--json").json == []
    assert terminal("agents", "history", "edge-1", "--since", "yesterday").code == 2


def test_series_is_table_in_pipe_and_chart_on_terminal(
    terminal: Terminal, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, api = world.agent(name="edge-1")
    beat(agent, api, pipeline={"records_in": 1200})
    run_jobs()

    lines = terminal("agents", "series", "edge-1", "--since", "1h").out.splitlines()
    assert lines[0].split() == [
        "AT", "RECORDS_IN", "RECORDS_OUT", "DROPS", "ERRORS", "CPU_PERCENT", "MEMORY_BYTES", "RESTARTS",
    ]  # fmt: skip
    assert lines[-1].split()[1:] == ["1200", "-", "-", "-", "-", "-", "0"]

    monkeypatch.setattr(agent_charts, "is_terminal", lambda: True)
    chart = terminal("agents", "series", "edge-1").out
    assert re.search(r"^Records in +█  1,200, total 1,200$", chart, re.MULTILINE)
    assert "Drops" not in chart

    world.agent(name="silent")
    assert terminal("agents", "series", "silent").err.startswith("No stored heartbeats in this period.")


@pytest.mark.parametrize("width", [40, 80, 160])
def test_chart_fits_terminal_of_at_least_80_columns(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(agent_charts, "is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    start = datetime(2026, 11, 28, tzinfo=UTC)
    points = [
        SeriesPoint(
            at=start + timedelta(minutes=15 * at), records_in=None if at < 48 else at * 1000, records_out=None, drops=0,
            errors=None, cpu_percent=at / 10, memory_bytes=None, restarts=0, online=1,
        )
        for at in range(96)
    ]  # fmt: skip

    agent_charts.show_series(Series(step_s=900, points=points))

    head, records, drops, cpu, _ = capsys.readouterr().out.splitlines()
    assert head.startswith("2026-11-28 00:00 to 2026-11-29 00:00 UTC, ")
    if width > 40:
        assert max(map(len, (head, records, drops, cpu))) <= width
    else:
        assert len(records) < width * 2
    blocks = records[13:].rpartition("█")[0]
    assert blocks.count(" ") in {len(blocks) // 2, len(blocks) // 2 + 1}  # no records were reported in the first half
    assert records.endswith(f" total {sum(range(48, 96)) * 1000:,}")
    assert cpu.endswith("9.5%")
    assert set(drops[13:].split("  ")[0]) == {"▁"}


def test_summary_counts_agents_by_liveness_and_label(terminal: Terminal, world: World) -> None:
    agent, api = world.agent(name="edge-1", Zone="eu-1")
    beat(agent, api, deployment=world.deployment(world.bundle()))
    world.agent(name="edge-2", Zone="eu-1")
    world.agent(name="edge-3", Zone="")

    lines = terminal("agents", "summary").out.splitlines()

    assert re.split(": +", lines[0]) == ["Agents", "3"]
    assert re.split(": +", lines[1]) == ["Liveness", "online (3)"]
    assert lines[-1] == "Label Zone: eu-1 (2), empty (1)"


def test_labels_of_named_agents_are_set_and_removed(terminal: Terminal, world: World) -> None:
    one, _ = world.agent(name="edge-1", zone="eu-1", trial="yes")
    two, _ = world.agent(name="edge-2", zone="eu-2")

    planned = terminal("agents", "label", "edge-1", "edge-2", "zone=eu-2", "trial-", "--dry-run")
    assert planned == (0, "Would change the labels of 1 of 2 agents\n", "")
    assert labels(one) == {"zone": "eu-1", "trial": "yes"}

    changed = terminal("agents", "label", "edge-1", "edge-2", "zone=eu-2", "trial-")
    assert changed == (0, "Changed the labels of 1 of 2 agents\n", "")
    assert (labels(one), labels(two)) == ({"zone": "eu-2"}, {"zone": "eu-2"})
    assert terminal("agents", "label", "edge-1", "a=", "b=x=y", "--json").json["changed"] == 1
    assert labels(one) == {"zone": "eu-2", "a": "", "b": "x=y"}


def test_labels_of_selected_agents_are_changed_together(terminal: Terminal, world: World) -> None:
    chosen = [world.agent(name=f"edge-{number}", zone="eu-1", ring="a")[0] for number in range(3)]
    other, _ = world.agent(name="other", zone="eu-1")
    words = ("agents", "label", "--selector", "zone=eu-1,ring=a", "tier=gold", "ring-")

    assert terminal(*words, "--dry-run").out == "Would change the labels of 3 of 3 agents\n"
    unasked = terminal(*words)
    assert (unasked.code, unasked.out) == (2, "")
    assert labels(chosen[0]) == {"zone": "eu-1", "ring": "a"}
    assert terminal(*words, "--yes", "--json").json == {"matched": 3, "changed": 3, "deployments_offered": 0}
    assert [labels(each) for each in chosen] == [{"zone": "eu-1", "tier": "gold"}] * 3
    assert labels(other) == {"zone": "eu-1"}
    assert terminal(*words).out == "Changed the labels of 0 of 0 agents\n"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["edge-1"], "Name an agent and then the changes"),
        (["zone=eu-1"], "Name an agent and then the changes"),
        (["edge-1", "zone=a", "zone-"], "The label zone is both set and removed."),
        (["edge-1", "zone=a", "edge-2"], "A change must be KEY=VALUE or KEY-: edge-2"),
        (["edge-1", "=a"], "A label must be KEY=VALUE: =a"),
        (["--selector", "zone", "a=b"], "A label must be KEY=VALUE: zone"),
        (["edge-1", "no-such-agent", "zone=a"], "No agent matches no-such-agent."),
    ],
)
def test_invalid_label_changes_are_refused(terminal: Terminal, world: World, words: list[str], reason: str) -> None:
    agent, _ = world.agent(name="edge-1", zone="eu-1")

    found = terminal("agents", "label", *words)

    assert found.code in {1, 2}
    assert reason in found.err
    assert labels(agent) == {"zone": "eu-1"}


def test_drained_agent_shows_reason_and_can_be_undrained(terminal: Terminal, world: World) -> None:
    agent, _ = world.agent(name="edge-1")

    assert terminal("agents", "drain", "edge-1", "--reason", "The disk is replaced.").code == 0
    assert re.search(r"^Drained: .*: The disk is replaced\.$", terminal("agents", "show", "edge-1").out, re.MULTILINE)
    again = terminal("agents", "drain", "edge-1")
    assert (again.code, again.out) == (1, "")
    assert "The agent is already drained. (request " in again.err
    assert terminal("agents", "undrain", "edge-1") == (0, "Undrained agent edge-1\n", "")
    agent.refresh_from_db()
    assert agent.drained_at is None


def test_enrollment_token_is_printed_with_enroll_command_and_can_be_revoked(terminal: Terminal, world: World) -> None:
    administer(terminal, world)
    options = ("--max-uses", "2", "--label", "zone=eu-1", "--expires-in", "2d", "--replace")

    printed = terminal("agents", "enroll-token", *options)
    made = terminal("agents", "enroll-token", *options, "--json").json

    package, digest = re.findall(rf"({terminal.url}/agent/\S+\.whl)#sha256=([0-9a-f]{{64}})", made["command"])[0]
    content = world.admin.api.get(package.removeprefix(terminal.url)).content
    assert hashlib.sha256(content).hexdigest() == digest
    place = f"{world.organization.pk}/{world.project.pk}/{world.dev.pk}"
    assert (
        f"byteor-agent enroll --state byteor-agent/state --url {terminal.url} \\\n  --environment {place} "
        in (made["command"])
    )
    assert made["token"] not in made["command"]
    assert printed.out.endswith(f"\n\n{made['command']}\n")
    assert "Created an enrollment token for 2 agents. It expires 20" in printed.out

    enrolled = Api(made["token"]).post(world.path(rest="/agents"), {"name": "edge-1"})
    assert enrolled.status_code == 201
    agent = Agent.objects.get(name="edge-1")
    assert agent.labels == {"zone": "eu-1"}
    listed = terminal("agents", "enroll-tokens").out.splitlines()
    assert re.split(" {2,}", listed[1])[:4] == [f"{made['prefix']}…", "active", "1 of 2", "zone=eu-1"]

    assert terminal("agents", "revoke-token", made["prefix"]).code == 2
    revoked = json.loads(terminal("agents", "revoke-token", made["prefix"], "--yes", "--json").out)
    assert revoked["revoked_at"] is not None
    assert re.split(" {2,}", terminal("agents", "enroll-tokens").out.splitlines()[1])[1] == "revoked"
    assert Api(made["token"]).post(world.path(rest="/agents"), {"name": "edge-2"}).status_code == 401


def test_refused_enroll_token_commands_create_no_token(
    terminal: Terminal, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert terminal("agents", "enroll-token").code == 1  # operators may not create enrollment tokens
    administer(terminal, world)
    assert terminal("agents", "enroll-token", "--expires-in", "31d").code == 1
    assert terminal("agents", "enroll-token", "--expires-in", "soon").code == 2
    assert terminal("agents", "enroll-token", "--label", "zone").code == 2
    monkeypatch.setattr("byteor.__version__", "99.0")
    other_release = terminal("agents", "enroll-token")
    assert other_release.code == 1
    assert "The server does not have the same release as this byteor (99.0)." in other_release.err
    assert not EnrollmentToken.objects.exists()


@pytest.mark.parametrize(
    ("kind", "code", "text"),
    [("incident_bundle", 0, "uploaded as artifact "), ("diagnostic", 1, "the agent uploaded no capture (")],
)
def test_capture_command_with_wait_option_waits_for_upload(
    terminal: Terminal, world: World, monkeypatch: pytest.MonkeyPatch, kind: str, code: int, text: str
) -> None:
    agent, api = world.agent(name="edge-1")
    command = ("agents", "capture", "edge-1", "--reason", "Prices are late.", "--last-n", "10")
    requested = terminal(*command)
    assert requested.code == 0
    row = RequestedCapture.objects.get()
    assert (row.reason, row.last_n) == ("Prices are late.", 10)
    pending = terminal(*command, "--wait", "--timeout", "0s", "--json", "status")
    assert (pending.code, pending.json) == (8, {"status": "requested"})
    assert RequestedCapture.objects.count() == 1

    def upload_meanwhile(_: float) -> None:
        assert upload(api, agent, kind=kind, capture_id=str(row.pk)).status_code in {201, 202}

    monkeypatch.setattr("byteor.command.agents.sleep", upload_meanwhile)
    found = terminal(*command, "--wait")

    assert found.code == code, found.err
    row.refresh_from_db()
    assert text in found.out
    assert str(row.artifact_id) in found.out
    assert terminal("agents", "captures", "edge-1", "--json", "artifact_id").json == [
        {"artifact_id": str(row.artifact_id)}
    ]


def test_waiting_for_expired_capture_fails(terminal: Terminal, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.agent(name="edge-1")

    def expire(_: float) -> None:
        RequestedCapture.objects.update(expires_at=timezone.now())
        expire_captures()

    monkeypatch.setattr("byteor.command.agents.sleep", expire)
    found = terminal("agents", "capture", "edge-1", "--wait")

    assert found.code == 1
    assert "expired, because the agent did not upload a capture within an hour" in found.out


def test_agent_is_told_to_rotate_key_or_key_is_rotated_immediately(terminal: Terminal, world: World) -> None:
    agent, api = world.agent(name="edge-1")

    assert terminal("agents", "rotate-key", "edge-1").code == 0
    assert beat(agent, api)["commands"] == ["rotate_key"]
    assert terminal("agents", "rotate-key", "edge-1", "--now").code == 2
    beat(agent, api)
    token = terminal("agents", "rotate-key", "edge-1", "--now", "--yes", "--json", "token").json["token"]
    beat(agent, Api(token))
    assert api.post(f"/api/v1/agents/{agent.pk}/heartbeat", {"status": "healthy"}).status_code == 401


def test_decommissioned_agent_is_still_explained_by_id(terminal: Terminal, world: World) -> None:
    agent, _ = world.agent(name="edge-1")

    assert terminal("agents", "decommission", "edge-1").code == 2
    agent.refresh_from_db()
    assert agent.decommissioned_at is None
    assert terminal("agents", "decommission", "edge-1", "--yes") == (0, "Decommissioned agent edge-1\n", "")
    assert terminal("agents", "show", "edge-1").code == 1
    assert "decommissioned" in terminal("agents", "explain", str(agent.pk)).out


@pytest.mark.parametrize(
    "words",
    [
        ["label", "edge-1", "zone=eu-2"], ["drain", "edge-1"], ["capture", "edge-1"], ["rotate-key", "edge-1"],
        ["decommission", "edge-1", "--yes"], ["enroll-token"], ["enroll-tokens"],
    ],
)  # fmt: skip
def test_commands_forbidden_to_viewer_print_one_line_error(terminal: Terminal, world: World, words: list[str]) -> None:
    agent, _ = world.agent(name="edge-1", zone="eu-1")
    terminal.use(world.viewer.api.token or "", organization="acme", project=world.project.name, environment="dev")

    found = terminal("agents", *words)

    assert (found.code, found.out) == (1, "")
    assert found.err.count("\n") == 1
    assert "(request " in found.err
    agent.refresh_from_db()
    assert (agent.labels, agent.drained_at, agent.decommissioned_at) == ({"zone": "eu-1"}, None, None)

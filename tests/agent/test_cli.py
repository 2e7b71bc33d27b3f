from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from byteor.agent import cli, commands
from byteor.engine.canonical import sha256
from byteor.engine.replay import OutcomeStatus, ReplayMode, extract_incident, replay, validate_incident
from tests.patience import PATIENCE_S, wait_until

TOKEN = "bor_enroll_spent-once"
IDS = "0192-org/0192-project/0192-environment"
PATH = "/api/v1/orgs/0192-org/projects/0192-project/environments/0192-environment"


@pytest.fixture(autouse=True)
def handlers(monkeypatch: pytest.MonkeyPatch) -> dict[int, Any]:
    """Unset the agent's environment variables, skip waits, and collect signal handlers instead of installing them."""
    for name in [name for name in os.environ if name.startswith("BYTEOR_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(commands, "_wait", lambda _seconds: False)
    handlers: dict[int, Any] = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    return handlers


class Cli:
    """Runs commands with a state folder, and asserts that neither the token nor the first key is printed or logged."""

    def __init__(self, folder: Path, plane: Any, capsys: Any, caplog: Any) -> None:
        self.folder, self.plane, self._capsys, self._caplog = folder, plane, capsys, caplog
        self.stdout = self.stderr = ""

    def __call__(self, *arguments: str) -> int:
        code = cli.main([*arguments, "--state", str(self.folder)])
        self.stdout, self.stderr = self._capsys.readouterr()
        for text in (self.stdout, self.stderr, self._caplog.text):
            assert "nobody-may-ever-see-this" not in text
            assert TOKEN not in text
        return code

    def enroll(self, *arguments: str) -> int:
        return self("enroll", "--url", self.plane.url, "--environment", IDS, "--token", TOKEN, *arguments)


@pytest.fixture
def agent(tmp_path: Path, plane: Any, capsys: Any, caplog: Any) -> Cli:
    caplog.set_level("DEBUG")
    return Cli(tmp_path / "state", plane, capsys, caplog)


def test_replay_of_captured_incident_has_no_divergence(agent: Cli, plane: Any, tmp_path: Path) -> None:
    sample = tmp_path / "sample.jsonl"
    sample.write_text('{"price":1}\n{}\n{"price":2}\n')
    built = plane.offer("d1")

    assert agent.enroll("--name", "node-1", "--labels", "zone=a", "tier=gold=1") == 0
    assert agent.stdout == "enrolled node-1 as agent 0192-agent\n"
    assert plane.requests[0].json["name"] == "node-1"
    assert plane.requests[0].json["labels"] == {"zone": "a", "tier": "gold=1"}
    assert agent("run", "--once", "--sample", str(sample)) == 0
    assert plane.reports[-1] == ("d1", "active")
    assert agent("upload", "--kind", "incident_bundle", "--capture") == 0

    form = plane.sent("POST", "/artifacts")[0].form
    assert form["kind"] == b"incident_bundle"
    assert form["captured_at"].endswith(b"Z")
    assert form["spec_hash"].decode() == built.manifest.spec_hash
    assert form["deployment_id"] == b"d1"
    assert json.loads(agent.stdout) == {
        "id": "0192-artifact",
        "kind": "incident_bundle",
        "status": "received",
        "content_hash": sha256(form["file"]),
    }
    (tmp_path / "incident").mkdir()
    extract_incident(io.BytesIO(form["file"]), tmp_path / "incident")
    incident = validate_incident(tmp_path / "incident")
    assert incident.spec_hash == built.manifest.spec_hash
    outcome = replay(
        incident,
        created_unix_ms=0,
        bundle_dir="incident",
        policy_env="prod",
        stage_config=incident.stage_config,
        mode=ReplayMode.DRY_RUN,
    )
    assert outcome.status is OutcomeStatus.SUCCEEDED
    assert outcome.result["egress"]["quotes_out"]["records"] == 2
    check = outcome.result["stages"]["check"]
    assert (check["in"], check["out"], check["dropped"], check["errors"]) == (3, 2, 1, 0)
    assert outcome.result["divergence"] is None


def test_incident_contains_no_host_secrets(
    agent: Cli, plane: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DB_PASSWORD", "swordfish")
    config = plane.config | {"env": {"PASSWORD": {"secret_ref": "DB_PASSWORD"}, "REGION": "eu"}}
    plane.offer("d1", built=plane.build("d1", config=config))
    agent.enroll()
    agent("run", "--once")

    assert agent("upload", "--kind", "incident_bundle", "--capture") == 0

    (tmp_path / "incident").mkdir()
    extract_incident(io.BytesIO(plane.sent("POST", "/artifacts")[0].form["file"]), tmp_path / "incident")
    contents = b"".join(path.read_bytes() for path in (tmp_path / "incident").rglob("*") if path.is_file())
    assert b"swordfish" not in contents
    assert b"nobody-may-ever-see-this" not in contents
    environment = json.loads((tmp_path / "incident" / "environment.json").read_text())
    assert environment["env"] == [["PASSWORD", "secret_ref:DB_PASSWORD"], ["REGION", "eu"]]


def test_incident_is_captured_without_proc_file_system(agent: Cli, plane: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plane.offer("d1")
    agent.enroll()
    agent("run", "--once")
    read_text = Path.read_text

    def read_outside_proc(path: Path, *args: Any, **kwargs: Any) -> str:
        if path.parts[:2] == ("/", "proc"):
            raise FileNotFoundError
        return read_text(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", read_outside_proc)

    assert agent("upload", "--kind", "incident_bundle", "--capture") == 0


def test_credentials_in_environment_variables_are_used_and_key_is_not_stored(
    agent: Cli, plane: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane.offer("d1")
    monkeypatch.setenv("BYTEOR_API_BASE_URL", plane.url)
    monkeypatch.setenv("BYTEOR_AGENT_ID", "0192-agent")
    monkeypatch.setenv("BYTEOR_AGENT_API_KEY", "bor_agent_nobody-may-ever-see-this")
    plane.fail("GET", "/agents/0192-agent", plane.reply(503))

    assert agent("run", "--once") == 0

    assert plane.reports[-1] == ("d1", "active")
    assert not (agent.folder / "api_key").exists()
    assert agent("status") == 0
    assert json.loads(agent.stdout)["agent"]["environment_id"] == "0192-environment"
    monkeypatch.setenv("BYTEOR_AGENT_ID", "0192-other")
    assert agent("run", "--once") == 2
    assert "belongs to agent 0192-agent, not 0192-other" in agent.stderr


def test_status_prints_identity_and_progress(agent: Cli, plane: Any) -> None:
    assert agent("status") == 0
    assert json.loads(agent.stdout) == {
        "agent": None,
        "attempted": None,
        "running": None,
        "last_failed": None,
        "pending": [],
    }
    plane.offer("d1", key=bytes(range(1, 33)))
    agent.enroll()
    agent("run", "--once")

    assert agent("status") == 0

    status = json.loads(agent.stdout)
    assert status["agent"]["id"] == "0192-agent"
    assert status["last_failed"]["detail"].startswith("envelope.unknown_key")
    assert status["running"] is None


@pytest.mark.parametrize(
    "environment",
    [IDS, "{url}" + PATH, "{url}" + PATH + "/agents", PATH + "/", PATH.removeprefix("/api/v1/")],
)
def test_enroll_accepts_environment_as_ids_path_or_url(agent: Cli, plane: Any, environment: str) -> None:
    url = environment.format(url=plane.url)

    assert agent("enroll", "--url", plane.url, "--environment", url, "--token", TOKEN) == 0

    assert plane.requests[-1].path == PATH + "/agents"
    assert "name" not in plane.requests[-1].json


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ("http://elsewhere.example" + PATH, "not on the control plane's origin"),
        ("0192-org/0192-project", "must be given as its API URL, or"),
        ("../../x/y/z", "must be given as its API URL, or"),
    ],
)
def test_enroll_with_invalid_environment_argument_exits_2(
    agent: Cli, plane: Any, environment: str, message: str
) -> None:
    assert agent("enroll", "--url", plane.url, "--environment", environment, "--token", TOKEN) == 2
    assert message in agent.stderr
    assert plane.requests == []


def test_enrollment_token_is_read_from_stdin_or_environment_variable(
    agent: Cli, plane: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("enroll", "--url", plane.url, "--environment", IDS)

    assert agent(*arguments) == 2
    assert "no enrollment token" in agent.stderr
    monkeypatch.setattr("sys.stdin", io.StringIO(TOKEN + "\n"))
    assert agent(*arguments, "--token", "-") == 0
    agent.folder = agent.folder / "other"
    monkeypatch.setenv("BYTEOR_ENROLLMENT_TOKEN", TOKEN)
    assert agent(*arguments) == 0


def test_enroll_prompts_for_missing_token_on_terminal(agent: Cli, plane: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    asked: list[str] = []

    def answer(prompt: str) -> str:
        asked.append(prompt)
        return f"{TOKEN} "

    monkeypatch.setattr("byteor.agent.commands.getpass", answer)

    assert agent("enroll", "--url", plane.url, "--environment", IDS) == 0
    assert asked == ["Enrollment token: "]


def test_enrollment_retries_share_one_idempotency_key(agent: Cli, plane: Any) -> None:
    still_running = plane.reply(409, headers={"Retry-After": "1"})
    plane.fail("POST", "/agents", plane.reply(503), plane.reply(200, b"cut", cut=1), still_running)

    assert agent.enroll() == 0

    assert len({request.headers["Idempotency-Key"] for request in plane.requests}) == 1
    assert len(plane.requests) == 4


def test_enrollment_is_attempted_at_most_five_times(agent: Cli, plane: Any) -> None:
    plane.fail("POST", "/agents", *[plane.reply(503, {"detail": "down"})] * 5)

    assert agent.enroll() == 1
    assert agent.stderr.endswith("byteor-agent: 503: down\n")


def test_enrollment_with_spent_token_exits_3(agent: Cli, plane: Any) -> None:
    plane.fail("POST", "/agents", plane.reply(401, {"detail": "spent"}))

    assert agent.enroll() == 3
    assert agent.stderr.endswith("byteor-agent: the control plane does not accept this credential: spent\n")
    assert not (agent.folder / "agent.json").exists()


def test_second_enrollment_in_same_folder_exits_2(agent: Cli, plane: Any) -> None:
    agent.enroll()

    assert agent.enroll() == 2
    assert "already belongs to agent 0192-agent" in agent.stderr
    assert len(plane.requests) == 1


def test_unreadable_enrollment_response_exits_2(agent: Cli, plane: Any) -> None:
    plane.fail("POST", "/agents", plane.reply(201, {"agent_id": "a"}))

    assert agent.enroll() == 2
    assert "the control plane's response is unreadable" in agent.stderr


def test_decommissioned_agent_exits_3(agent: Cli, plane: Any) -> None:
    agent.enroll()
    plane.fail("POST", "/heartbeat", plane.reply(401, {"detail": "This agent is decommissioned."}))

    assert agent("run") == 3
    assert "does not accept this credential: This agent is decommissioned." in agent.stderr


def test_key_revoked_while_offer_is_handled_stops_agent(agent: Cli, plane: Any) -> None:
    agent.enroll()
    plane.offer("d1")

    for method, tail in (("POST", "/deployment"), ("GET", "/deployment/bundle")):
        plane.fail(method, tail, plane.reply(401, {"detail": "revoked"}))
        assert agent("run") == 3


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("run", "--once"), 2, "enroll first, or set BYTEOR_API_BASE_URL, BYTEOR_AGENT_ID, BYTEOR_AGENT_API_KEY"),
        (("run", "--sample", "/nonexistent"), 2, "cannot be read"),
        (("upload", "--kind", "incident_bundle", "--capture"), 2, "no pipeline is running"),
        (("upload", "--kind", "snapshot", "--capture"), 2, "use --kind incident_bundle"),
        (("upload", "--kind", "snapshot", "--file", "/nonexistent"), 1, "No such file"),
        (("enroll", "--url", "x", "--environment", IDS, "--token", TOKEN), 2, "must look like"),
        (
            ("enroll", "--url", "http://h", "--environment", IDS, "--labels", "x"),
            2,
            "a label must have the form NAME=VALUE",
        ),
    ],
)
def test_failed_command_prints_reason_and_sets_exit_code(
    agent: Cli, arguments: tuple[str, ...], code: int, message: str
) -> None:
    assert agent(*arguments) == code
    assert message in agent.stderr


@pytest.mark.parametrize("seconds", ["0", "-1", "x", "nan"])
def test_heartbeat_interval_override_must_be_positive(agent: Cli, seconds: str) -> None:
    with pytest.raises(SystemExit):
        agent("run", "--interval-override", seconds)


def test_file_upload_is_retried_after_503_and_size_is_limited(
    agent: Cli, plane: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent.enroll()
    file = tmp_path / "trace.bin"
    file.write_bytes(b"\r\n--trace\x00")
    plane.fail("POST", "/artifacts", plane.reply(503))

    assert agent("upload", "--kind", "telemetry", "--file", str(file)) == 0

    first, second = plane.sent("POST", "/artifacts")
    assert first.form["file"] == second.form["file"] == b"\r\n--trace\x00"
    assert second.form.keys() == {"kind", "captured_at", "file"}
    monkeypatch.setattr(commands, "MAX_UPLOAD", 3)
    assert agent("upload", "--kind", "telemetry", "--file", str(file)) == 2
    assert "at most 3 bytes" in agent.stderr


def test_capture_fails_when_running_bundle_was_removed(agent: Cli, plane: Any) -> None:
    plane.offer("d1")
    agent.enroll()
    agent("run", "--once")
    for path in (agent.folder / "bundles").iterdir():
        path.unlink()

    assert agent("upload", "--kind", "incident_bundle", "--capture") == 2
    assert "restart the agent first" in agent.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_signal_interrupts_wait_between_heartbeats(
    agent: Cli, plane: Any, handlers: dict[int, Any], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    agent.enroll()
    monkeypatch.setattr(commands, "_wait", lambda _seconds: bool(plane.beats) and handlers[number](number, None))

    assert agent("run", "--interval-override", "5") == 0

    assert len(plane.beats) == 1


def test_sigterm_stops_agent_process_with_exit_code_0(plane: Any, tmp_path: Path) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "BYTEOR_API_BASE_URL": plane.url,
        "BYTEOR_AGENT_ID": "0192-agent",
        "BYTEOR_AGENT_API_KEY": "bor_agent_nobody-may-ever-see-this",
    }
    command = [sys.executable, "-c", "from byteor.agent.cli import main; raise SystemExit(main())"]
    command += ["run", "--state", str(tmp_path / "state")]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: plane.beats or process.poll() is not None)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=PATIENCE_S)

    assert process.returncode == 0
    assert "nobody-may-ever-see-this" not in stderr
    assert "Traceback" not in stderr

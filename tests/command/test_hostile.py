"""Tests of unusual input, files and texts, of servers that misbehave, and of waiting for a replay and its exit code."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from apps.releases.models import Deployment
from byteor.client.errors import ApiError, ByteOrError, ConnectionFailed, Forbidden, UnexpectedResponse
from byteor.command import replaying, waiting
from byteor.command.exits import PENDING, Refusal
from byteor.command.retries import is_temporary
from tests.client.faulty import Answer, faulty
from tests.command.conftest import Terminal
from tests.worlds import World


def failed(status: int) -> ApiError:
    return ApiError(status, {"detail": "no"})


@pytest.mark.django_db
@pytest.mark.parametrize(
    "arguments",
    [
        ["deploy", "quotes-1", "--env", "", "--yes", "--detach"],
        ["deploy", "quotes-1", "--context", "", "--yes", "--detach"],
        ["deploy", "", "--yes", "--detach"],
        ["rollback", "--reason", "slow", "--artifact", "", "--yes"],
        ["deployments", "show", ""],
        ["versions", "show", ":1"],
        ["audit", "list", "--actor", ""],
        ["bundles", "copy", "quotes-1", "--to", " "],
        ["agents", "explain", "edge\x1b[2J"],
        ["agents", "explain", "edge\udcff"],
    ],
)
def test_empty_or_unprintable_names_are_refused_and_change_nothing(
    terminal: Terminal, world: World, arguments: list[str]
) -> None:
    world.agent()
    bundle = world.bundle(name="quotes-1")
    if arguments[0] == "rollback":
        world.deployment(bundle)
    before = list(Deployment.objects.values())

    found = terminal(*arguments)

    assert (found.code, found.out) == (2, ""), found.err
    assert found.err.startswith("byteor: ")
    assert list(Deployment.objects.values()) == before


@pytest.mark.django_db
@pytest.mark.parametrize("command", [["deployments", "evidence", "quotes"], ["audit", "export"]])
def test_downloads_do_not_replace_pipes_and_folders(
    terminal: Terminal, world: World, tmp_path: Path, command: list[str]
) -> None:
    world.agent()
    world.deployment(world.bundle())
    device = tmp_path / "device"
    os.mkfifo(device)

    for path in (str(device), ""):
        found = terminal(*command, "-o", path)
        assert (found.code, found.out) == (1, ""), found.err
        assert "It is not a regular file." in found.err

    assert device.is_fifo()
    assert [each.name for each in tmp_path.iterdir() if each.name != "config"] == ["device"]


@pytest.mark.django_db
def test_query_in_path_of_raw_request_is_combined_with_options(terminal: Terminal, world: World) -> None:
    world.agent(name="edge-1", zone="a")
    world.agent(name="edge-2", zone="a")
    world.agent(name="edge-3")
    path = "/api/v1/orgs/{org}/projects/{project}/environments/{env}/agents?label=zone=a"

    found = terminal("api", "GET", path, "-q", "limit=1")

    assert [each["name"] for each in found.json["results"]] == ["edge-2"]


@pytest.mark.django_db
@pytest.mark.parametrize("body", ['{"name": NaN}', '{"name": "\\ud800"}', '{"name": "a", "name": "b"}', "[1]", ""])
def test_body_that_is_not_strict_json_object_is_refused(terminal: Terminal, body: str) -> None:
    found = terminal("api", "POST", "/api/v1/orgs/{org}/projects", "-d", "-", stdin=body)

    assert (found.code, found.out) == (2, "")
    assert found.err.startswith("byteor: The body is invalid: line 1: ")


@pytest.mark.django_db
def test_texts_of_failing_server_cannot_control_terminal(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("byteor.client.runtime.time.sleep", lambda _: None)
    with faulty(Answer(503, {"detail": "\x1b[2Jgone", "type": "urn:x"})) as server:
        monkeypatch.setenv("BYTEOR_URL", server.url)
        monkeypatch.setenv("BYTEOR_TOKEN", "bor_usr_secret")
        found = terminal("usage")

    assert found.code == 1
    assert found.err.count("gone; next attempt in ") == 4
    assert "\x1b" not in found.err


@pytest.mark.django_db
def test_line_breaks_at_end_of_token_and_url_are_ignored(terminal: Terminal, world: World, monkeypatch: Any) -> None:
    monkeypatch.setenv("BYTEOR_URL", f"{terminal.url}/\n")
    monkeypatch.setenv("BYTEOR_TOKEN", f"{world.viewer.api.token}\n")

    assert terminal("api", "GET", "/api/v1/me").json["user"]["email"] == world.viewer.user.email


def test_malformed_token_is_not_printed(terminal: Terminal, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYTEOR_TOKEN", "bor_usr_\nsecret")

    found = terminal("usage")

    assert found.code == 2
    assert "The token contains spaces, line breaks" in found.err
    assert "secret" not in found.err


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionFailed("cut off"), True),
        (UnexpectedResponse("a web page"), True),
        (failed(500), True),
        (failed(429), True),
        (failed(404), False),
        (Forbidden(403, {}), False),
    ],
)
def test_temporary_failures_are_recognized(error: ByteOrError, expected: bool) -> None:
    assert is_temporary(error) is expected


def test_waiting_continues_after_unexpected_response_and_status_500(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(waiting, "sleep", lambda _: None)
    done = SimpleNamespace(finished_at="now", status="succeeded")
    reads: list[Any] = [UnexpectedResponse("a web page"), failed(500), done]

    def read() -> Any:
        found = reads.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    assert waiting.wait_for(read, "Replay 1", lambda _: (0, 0), None, "byteor x") is done
    assert capsys.readouterr().err == "A request failed: a web page. Retrying.\n"


@pytest.mark.parametrize(("error", "code"), [(ConnectionFailed("cut off"), PENDING), (failed(404), None)])
def test_failed_wait_names_command_that_shows_result(
    error: ByteOrError, code: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    def read() -> Any:
        raise error

    with pytest.raises((Refusal, ApiError)) as refused:
        waiting.wait_for(read, "Replay 1", lambda _: (0, 0), 0, "byteor artifacts show-replay 1")

    assert getattr(refused.value, "code", None) == code or code is None
    said = capsys.readouterr().err + str(refused.value)
    assert "Replay 1 continues on the server. To see the result, run `byteor artifacts show-replay 1`." in said


@pytest.mark.parametrize(("status", "code"), [("succeeded", 0), ("diverged", 1), ("canceled", 1), ("unknown", 1)])
def test_only_succeeded_replay_exits_0(status: str, code: int) -> None:
    row: Any = SimpleNamespace(status=status)
    assert replaying._code(row) == code

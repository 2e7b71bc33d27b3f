"""Tests of the agent's boot id and key rotation. After a failed rotation, the agent still has an accepted key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from byteor.agent.api import CredentialRejected
from byteor.agent.enrollment import connect
from byteor.agent.state_folder import StateFolder
from tests.agent.control_plane import API_KEY

NEW_KEY = "bor_agent_new-1"


def stored(node: Any) -> tuple[str, str | None]:
    """Return the stored key, and the stored next key or None."""
    upcoming = node.state.next_api_key()
    return node.state.credentials().api_key.reveal(), upcoming and upcoming.reveal()


def accepted(plane: Any) -> list[str]:
    return [key for key, is_accepted in plane.keys.items() if is_accepted]


@pytest.fixture
def rotating(plane: Any) -> Any:
    """Return the control plane, whose heartbeat responses request a key rotation until the agent uses a new key."""
    plane.commands = ["rotate_key"]
    return plane


def test_key_is_rotated_on_request(node: Any, rotating: Any, caplog: pytest.LogCaptureFixture) -> None:
    node.agent(beats=2).run()

    assert stored(node) == (NEW_KEY, None)
    assert accepted(rotating) == [NEW_KEY]
    assert [r.headers["Authorization"] for r in rotating.sent("POST", "/heartbeat")] == [
        f"Bearer {API_KEY}", f"Bearer {NEW_KEY}",
    ]  # fmt: skip
    assert len(rotating.sent("POST", "/rotate-key")) == 1
    assert NEW_KEY not in caplog.text


def test_rotation_with_lost_response_is_retried_with_old_key(node: Any, rotating: Any) -> None:
    rotating.fail("POST", "/rotate-key", rotating.reply(201, {"agent_id": "x", "token": "bor_agent_lost"}, cut=5))

    node.agent(beats=3).run()

    assert accepted(rotating) == [stored(node)[0]] != [API_KEY]


def test_rate_limited_rotation_is_retried_after_requested_delay(node: Any, rotating: Any) -> None:
    rotating.fail(
        "POST", "/rotate-key", rotating.reply(429, {"detail": "three in an hour"}, headers={"Retry-After": "500"})
    )
    agent = node.agent(beats=4)

    agent.run()

    assert (stored(node), accepted(rotating)) == ((API_KEY, None), [API_KEY])
    assert (len(rotating.beats), len(rotating.sent("POST", "/rotate-key"))) == (4, 1)
    node.clock[0] += 500
    node.waits.clear()
    agent.run()
    assert (stored(node), accepted(rotating)) == ((NEW_KEY, None), [NEW_KEY])


def test_rate_limited_rotation_is_retried_after_ten_minutes_despite_longer_requested_delay(
    node: Any, rotating: Any
) -> None:
    rotating.fail(
        "POST", "/rotate-key", rotating.reply(429, {"detail": "three in an hour"}, headers={"Retry-After": "3600"})
    )
    agent = node.agent(beats=2)
    agent.run()
    node.clock[0] += 600

    node.waits.clear()
    agent.run()

    assert stored(node) == (NEW_KEY, None)


def test_suspected_clone_keeps_key_and_logs_refusal_once(
    node: Any, rotating: Any, caplog: pytest.LogCaptureFixture
) -> None:
    rotating.fail("POST", "/rotate-key", rotating.reply(409, {"detail": "a clone of this agent is suspected"}))
    agent = node.agent(beats=5)

    agent.run()
    node.clock[0] += 86_400
    node.waits.clear()
    agent.run()

    assert (stored(node), accepted(rotating)) == ((API_KEY, None), [API_KEY])
    assert len(rotating.beats) > 5
    assert len(rotating.sent("POST", "/rotate-key")) == 1
    assert caplog.text.count("the rotation of the key was not completed: 409: a clone of this agent is suspected") == 1


class Crash(BaseException):
    """Simulates the death of the process."""


def crash(*args: object) -> None:
    raise Crash


STEPS = ["save_next_api_key", "promote_next_api_key"]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_rotation_completes_after_crash_while_storing_keys(
    node: Any, rotating: Any, monkeypatch: pytest.MonkeyPatch, step: str, when: str
) -> None:
    real = getattr(StateFolder, step)

    def dies(state: StateFolder, *args: Any) -> None:
        if when == "after":
            real(state, *args)
        raise Crash

    monkeypatch.setattr(StateFolder, step, dies)
    with pytest.raises(Crash):
        node.agent(beats=2).run()
    monkeypatch.undo()

    node.agent(beats=3).run()

    key, upcoming = stored(node)
    assert (accepted(rotating), upcoming) == ([key], None)
    assert key != API_KEY
    assert rotating.commands == []


def test_first_use_of_new_key_is_retried_while_control_plane_is_unavailable(node: Any, rotating: Any) -> None:
    rotating.fail("GET", "0192-agent", *[rotating.reply(503)] * 2)

    node.agent(beats=5).run()

    assert (stored(node), accepted(rotating)) == ((NEW_KEY, None), [NEW_KEY])


def test_old_key_is_used_when_new_key_is_rejected(node: Any, rotating: Any) -> None:
    rotating.fail("GET", "0192-agent", rotating.reply(401, {"detail": "another call got a newer key"}))

    node.agent(beats=1).run()

    assert stored(node) == (API_KEY, None)
    node.agent(beats=3).run()
    assert accepted(rotating) == [stored(node)[0]] != [API_KEY]


def test_agent_requests_no_new_key_when_disk_is_full(node: Any, rotating: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(StateFolder, "check_writable", full)

    node.agent(beats=2).run()

    assert rotating.sent("POST", "/rotate-key") == []
    assert node.waits == [29.5, 29.5]
    assert stored(node) == (API_KEY, None)


def test_key_from_environment_variable_is_not_rotated(node: Any, rotating: Any) -> None:
    node.agent(beats=2, stores_key=False).run()

    assert rotating.sent("POST", "/rotate-key") == []


def test_revoked_key_stops_agent(node: Any, rotating: Any) -> None:
    rotating.keys[API_KEY] = False

    with pytest.raises(CredentialRejected):
        node.agent(beats=2).run()


def test_agent_completes_interrupted_key_rotation_when_it_connects(
    node: Any, rotating: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StateFolder, "promote_next_api_key", crash)
    with pytest.raises(Crash):
        node.agent(beats=1).run()
    monkeypatch.undo()
    assert stored(node) == (API_KEY, NEW_KEY)

    connect(node.state, {}, lambda seconds: None, 1)

    assert stored(node) == (NEW_KEY, None)


def test_promoting_missing_next_key_keeps_current_key(tmp_path: Path, node: Any) -> None:
    node.state.promote_next_api_key()

    assert stored(node) == (API_KEY, None)


def test_boot_id_changes_when_agent_restarts(node: Any, plane: Any) -> None:
    plane.offer("d1")
    node.settle()
    node.agent(beats=2).run()

    first, *_, last = (beat["boot_id"] for beat in plane.beats)
    assert first != last
    assert len({beat["boot_id"] for beat in plane.beats}) == 2
    assert {r.json["boot_id"] for r in plane.sent("POST", "/deployment")} == {first}

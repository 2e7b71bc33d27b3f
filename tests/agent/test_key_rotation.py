"""Tests of the rotation of the agent's key: whatever fails, the agent keeps a key that the control plane accepts."""

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
    """Return the stored key, and the new key beside it."""
    upcoming = node.state.next_api_key()
    return node.state.credentials().api_key.reveal(), upcoming and upcoming.reveal()


def accepted(plane: Any) -> list[str]:
    return [key for key, is_accepted in plane.keys.items() if is_accepted]


@pytest.fixture
def told(plane: Any) -> Any:
    """Return the control plane, which tells the agent to rotate its key."""
    plane.commands = ["rotate_key"]
    return plane


def test_agent_rotates_its_key_when_it_is_told_to(node: Any, told: Any, caplog: pytest.LogCaptureFixture) -> None:
    node.agent(beats=2).run()

    assert stored(node) == (NEW_KEY, None)
    assert accepted(told) == [NEW_KEY]
    assert [r.headers["Authorization"] for r in told.sent("POST", "/heartbeat")] == [
        f"Bearer {API_KEY}", f"Bearer {NEW_KEY}",
    ]  # fmt: skip
    assert len(told.sent("POST", "/rotate-key")) == 1
    assert NEW_KEY not in caplog.text


def test_lost_answer_to_the_rotation_is_repeated_with_the_old_key(node: Any, told: Any) -> None:
    told.fail("POST", "/rotate-key", told.reply(201, {"agent_id": "x", "token": "bor_agent_lost"}, cut=5))

    node.agent(beats=3).run()

    assert accepted(told) == [stored(node)[0]] != [API_KEY]


def test_refused_rotation_keeps_the_key_and_is_tried_again_after_the_pause(node: Any, told: Any) -> None:
    told.fail("POST", "/rotate-key", told.reply(429, {"detail": "three in an hour"}, headers={"Retry-After": "500"}))
    agent = node.agent(beats=4)

    agent.run()

    assert (stored(node), accepted(told)) == ((API_KEY, None), [API_KEY])
    assert (len(told.beats), len(told.sent("POST", "/rotate-key"))) == (4, 1)
    node.clock[0] += 500
    node.waits.clear()
    agent.run()
    assert (stored(node), accepted(told)) == ((NEW_KEY, None), [NEW_KEY])


def test_agent_asks_again_after_ten_minutes_at_the_latest(node: Any, told: Any) -> None:
    told.fail("POST", "/rotate-key", told.reply(429, {"detail": "three in an hour"}, headers={"Retry-After": "3600"}))
    agent = node.agent(beats=2)
    agent.run()
    node.clock[0] += 600

    node.waits.clear()
    agent.run()

    assert stored(node) == (NEW_KEY, None)


def test_agent_keeps_its_key_and_says_so_once_when_a_clone_is_suspected(
    node: Any, told: Any, caplog: pytest.LogCaptureFixture
) -> None:
    told.fail("POST", "/rotate-key", told.reply(409, {"detail": "a clone of this agent is suspected"}))
    agent = node.agent(beats=5)

    agent.run()
    node.clock[0] += 86_400
    node.waits.clear()
    agent.run()

    assert (stored(node), accepted(told)) == ((API_KEY, None), [API_KEY])
    assert len(told.beats) > 5
    assert len(told.sent("POST", "/rotate-key")) == 1
    assert caplog.text.count("the key was not rotated: 409: a clone of this agent is suspected") == 1


class Crash(BaseException):
    """The process dies here."""


def crash(*args: object) -> None:
    raise Crash


STEPS = ["save_next_api_key", "promote_next_api_key"]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_crash_leaves_an_accepted_key(
    node: Any, told: Any, monkeypatch: pytest.MonkeyPatch, step: str, when: str
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
    assert (accepted(told), upcoming) == ([key], None)
    assert key != API_KEY
    assert told.commands == []


def test_new_key_is_tried_again_while_the_control_plane_does_not_answer(node: Any, told: Any) -> None:
    told.fail("GET", "0192-agent", *[told.reply(503)] * 2)

    node.agent(beats=5).run()

    assert (stored(node), accepted(told)) == ((NEW_KEY, None), [NEW_KEY])


def test_agent_goes_on_with_the_old_key_if_the_new_one_is_not_accepted(node: Any, told: Any) -> None:
    told.fail("GET", "0192-agent", told.reply(401, {"detail": "another call got a newer key"}))

    node.agent(beats=1).run()

    assert stored(node) == (API_KEY, None)
    node.agent(beats=3).run()
    assert accepted(told) == [stored(node)[0]] != [API_KEY]


def test_full_disk_asks_for_no_key(node: Any, told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(StateFolder, "check_writable", full)

    node.agent(beats=2).run()

    assert told.sent("POST", "/rotate-key") == []
    assert node.waits == [29.5, 29.5]
    assert stored(node) == (API_KEY, None)


def test_key_in_the_environment_is_not_rotated(node: Any, told: Any) -> None:
    node.agent(beats=2, stores_key=False).run()

    assert told.sent("POST", "/rotate-key") == []


def test_ended_key_stops_the_agent(node: Any, told: Any) -> None:
    told.keys[API_KEY] = False

    with pytest.raises(CredentialRejected):
        node.agent(beats=2).run()


def test_connecting_ends_an_interrupted_rotation(node: Any, told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StateFolder, "promote_next_api_key", crash)
    with pytest.raises(Crash):
        node.agent(beats=1).run()
    monkeypatch.undo()
    assert stored(node) == (API_KEY, NEW_KEY)

    connect(node.state, {}, lambda seconds: None, 1)

    assert stored(node) == (NEW_KEY, None)


def test_promoting_twice_keeps_the_key(tmp_path: Path, node: Any) -> None:
    node.state.promote_next_api_key()

    assert stored(node) == (API_KEY, None)


def test_each_start_has_another_boot_id(node: Any, plane: Any) -> None:
    plane.offer("d1")
    node.settle()
    node.agent(beats=2).run()

    first, *_, last = (beat["boot_id"] for beat in plane.beats)
    assert first != last
    assert len({beat["boot_id"] for beat in plane.beats}) == 2
    assert {r.json["boot_id"] for r in plane.sent("POST", "/deployment")} == {first}

"""Tests of the agent's main loop: intervals, retries, unreadable responses, and unknown commands and members."""

from __future__ import annotations

from typing import Any

import pytest


def test_interval_override_replaces_heartbeat_interval_of_control_plane(node: Any) -> None:
    node.agent(beats=2, interval_s=0.25).run()

    assert (node.first_wait, node.waits) == (0.25, [0.25, 0.25])


def test_failed_heartbeats_are_retried_with_doubled_delays_up_to_60_s(node: Any, plane: Any) -> None:
    plane.fail("POST", "/heartbeat", *[plane.reply(500)] * 8, plane.reply(200, b"no json"), plane.reply(404))

    node.agent(beats=11).run()

    assert node.waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0, 60.0, 29.5]


def test_heartbeat_is_retried_while_control_plane_is_unreachable(node: Any, plane: Any) -> None:
    agent = node.agent(beats=2)
    plane.close()

    agent.run()

    assert node.waits == [1.0, 2.0]


@pytest.mark.parametrize("body", [{}, {"next_heartbeat_s": True}, {"next_heartbeat_s": -1}, {"next_heartbeat_s": 1}])
def test_heartbeat_is_retried_after_unreadable_response(node: Any, plane: Any, body: Any) -> None:
    plane.fail("POST", "/heartbeat", plane.reply(200, body))

    node.agent(beats=2).run()

    assert node.waits == [1.0, 29.5]


def test_unknown_commands_and_response_members_are_ignored(node: Any, plane: Any) -> None:
    plane.commands = [{"kind": "dance"}]
    plane.offer("d1", surprise=1)

    node.settle()

    assert plane.reports[-1] == ("d1", "active")

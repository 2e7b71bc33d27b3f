"""Tests of the agent's reports, which are retried until they are acknowledged or rejected, even after a restart."""

from __future__ import annotations

import json
from typing import Any

import pytest

from byteor.agent.progress import OfferStatus
from byteor.engine.canonical import sha256
from tests.agent.keys import OTHER_KEY


@pytest.mark.parametrize("status", [429, 500, 503])
def test_report_is_retried_after_temporary_failure_and_restart(node: Any, plane: Any, status: int) -> None:
    plane.offer("d1")
    node.agent().run_until_idle()
    plane.offer("d2")
    ok = plane.reply(200)
    plane.fail("POST", "/deployment", ok, ok, plane.reply(status, headers={"Retry-After": "7"}))

    agent = node.agent(beats=1)
    agent.run()
    assert node.waits == [7.0 + 1.75]
    assert [report.status for report in node.state.progress().pending] == [OfferStatus.ACTIVE]

    node.settle()  # creates an agent, as after a restart
    assert plane.reports[-2:] == [("d2", "active"), ("d2", "active")]
    assert node.state.progress().pending == ()


def test_failure_is_reported_after_restart(node: Any, plane: Any) -> None:
    plane.offer("d1", key=OTHER_KEY)
    plane.fail("POST", "/deployment", plane.reply(200), plane.reply(503))
    node.agent().run()

    node.settle()

    assert plane.reports == [("d1", "downloading"), ("d1", "failed"), ("d1", "failed")]
    assert len(plane.sent("GET", "/deployment/bundle")) == 1


@pytest.mark.parametrize("status", [400, 404, 409])
def test_rejected_report_is_dropped_and_next_offer_is_handled(node: Any, plane: Any, status: int) -> None:
    plane.offer("d1")
    plane.fail("POST", "/deployment", plane.reply(status, {"detail": "no longer desired"}))

    node.settle()

    assert plane.reports == [("d1", "downloading")]
    assert node.state.progress().pending == ()
    assert len(plane.beats) == 2
    plane.offer("d2")
    node.settle()
    assert plane.reports[-1] == ("d2", "active")


def test_progress_round_trips_through_json(node: Any, plane: Any) -> None:
    plane.offer("d1")
    node.settle()
    plane.offer("d2", key=OTHER_KEY, offered_at="x")
    plane.fail("POST", "/deployment", plane.reply(200), plane.reply(503))
    node.agent().run()

    progress = node.state.progress()

    assert type(progress).from_document(json.loads(json.dumps(progress.document()))) == progress
    assert progress.running.spec_hash == sha256(plane.spec)
    assert progress.pending[0].detail == progress.last_failed.detail

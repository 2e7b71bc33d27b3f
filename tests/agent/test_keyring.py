"""Tests of the agent's key set: when it is fetched, and which keys are accepted."""

from __future__ import annotations

from typing import Any

from tests.agent.keys import OTHER_KEY, THIRD_KEY


def test_offer_signed_with_unknown_key_refreshes_key_set_once(node: Any, plane: Any) -> None:
    node.settle()
    stale = plane.etag
    plane.rotate(OTHER_KEY)
    plane.offer("d1")
    plane.fail(
        "POST",
        "/heartbeat",
        plane.reply(200, {"next_heartbeat_s": 1, "desired": plane.desired, "signing_key_etag": stale}),
    )

    node.settle()

    assert plane.reports[-1] == ("d1", "active")
    assert len(plane.sent("GET", "/signing-key")) == 2


def test_heartbeat_refreshes_key_set_only_when_etag_changes(node: Any, plane: Any) -> None:
    node.agent(beats=3).run()
    assert len(plane.sent("GET", "/signing-key")) == 1

    plane.rotate(OTHER_KEY)
    node.settle()

    assert len(plane.sent("GET", "/signing-key")) == 2
    assert node.state.keys().keyset == plane.keyset
    assert node.state.keys().etag == plane.etag


def test_key_set_is_requested_with_its_stored_etag(node: Any, plane: Any) -> None:
    node.settle()
    plane.offer("d1", key=OTHER_KEY)

    node.settle()

    assert plane.sent("GET", "/signing-key")[-1].headers["If-None-Match"] == f'"{plane.etag}"'
    assert node.failure.startswith("envelope.unknown_key")


def test_offer_signed_with_retired_key_fails(node: Any, plane: Any) -> None:
    old = plane.private
    plane.rotate(OTHER_KEY, retire=True)
    plane.offer("d1", key=old)

    node.settle()

    assert node.failure.startswith("envelope.unknown_key")


def test_offer_signed_with_next_key_is_accepted_before_key_set_is_refreshed(node: Any, plane: Any) -> None:
    node.settle()
    plane.publish(OTHER_KEY)
    node.settle()
    assert len(plane.sent("GET", "/signing-key")) == 2

    # The next key becomes active, but the heartbeat's response still contains the ETag that the agent has stored.
    stored_etag = plane.etag
    plane.rotate(OTHER_KEY)
    plane.offer("d1")
    plane.fail(
        "POST",
        "/heartbeat",
        plane.reply(200, {"next_heartbeat_s": 1, "desired": plane.desired, "signing_key_etag": stored_etag}),
    )
    node.settle()

    assert plane.reports[-1] == ("d1", "active")
    assert len(plane.sent("GET", "/deployment")) == 1  # the offer was not fetched again


def test_offer_is_fetched_again_when_its_signing_key_was_retired(node: Any, plane: Any) -> None:
    node.settle()
    plane.rotate(OTHER_KEY)
    plane.offer("d1")
    outdated_offer = plane.reply(200, {"desired": plane.delivered})
    unchanged_etag = plane.reply(
        200, {"next_heartbeat_s": 1, "desired": plane.desired, "signing_key_etag": node.state.keys().etag}
    )
    plane.rotate(THIRD_KEY, retire=True)
    plane.sign_again()
    plane.fail("GET", "/deployment", outdated_offer)
    plane.fail("POST", "/heartbeat", unchanged_etag)

    node.settle()

    assert plane.reports == [("d1", "downloading"), ("d1", "activating"), ("d1", "active")]
    assert len(plane.sent("GET", "/deployment")) == 2
    assert len(plane.sent("GET", "/deployment/bundle")) == 1


def test_offer_withdrawn_before_second_fetch_is_dropped(node: Any, plane: Any) -> None:
    plane.offer("d1", key=OTHER_KEY)
    plane.fail("GET", "/deployment", plane.reply(200, {"desired": plane.delivered}))
    plane.delivered = None

    node.settle()

    assert plane.reports == [("d1", "downloading")]
    assert node.state.progress().last_failed is None

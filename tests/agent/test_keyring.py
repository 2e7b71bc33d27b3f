"""The key set that the agent trusts: fetched when it must be, and never a retired key."""

from __future__ import annotations

from typing import Any

from tests.agent.keys import OTHER_KEY, THIRD_KEY


def test_a_key_made_after_the_last_fetch_is_fetched_once(node: Any, plane: Any) -> None:
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


def test_a_changed_etag_refreshes_the_key_set_and_an_unchanged_one_does_not(node: Any, plane: Any) -> None:
    node.agent(beats=3).run()
    assert len(plane.sent("GET", "/signing-key")) == 1

    plane.rotate(OTHER_KEY)
    node.settle()

    assert len(plane.sent("GET", "/signing-key")) == 2
    assert node.state.keys().keyset == plane.keyset
    assert node.state.keys().etag == plane.etag


def test_an_unchanged_key_set_is_not_sent_again(node: Any, plane: Any) -> None:
    node.settle()
    plane.offer("d1", key=OTHER_KEY)

    node.settle()

    assert plane.sent("GET", "/signing-key")[-1].headers["If-None-Match"] == f'"{plane.etag}"'
    assert node.failure.startswith("envelope.unknown_key")


def test_a_retired_key_is_refused(node: Any, plane: Any) -> None:
    old = plane.private
    plane.rotate(OTHER_KEY, retire=True)
    plane.offer("d1", key=old)

    node.settle()

    assert node.failure.startswith("envelope.unknown_key")


def test_a_key_is_known_before_it_signs(node: Any, plane: Any) -> None:
    node.settle()
    plane.publish(OTHER_KEY)
    node.settle()
    assert len(plane.sent("GET", "/signing-key")) == 2

    # It signs now, and this agent has not heard of it yet.
    unheard = plane.etag
    plane.rotate(OTHER_KEY)
    plane.offer("d1")
    plane.fail(
        "POST",
        "/heartbeat",
        plane.reply(200, {"next_heartbeat_s": 1, "desired": plane.desired, "signing_key_etag": unheard}),
    )
    node.settle()

    assert plane.reports[-1] == ("d1", "active")
    assert len(plane.sent("GET", "/deployment")) == 1  # nothing had to be asked for again


def test_a_signature_that_became_too_old_on_its_way_is_asked_for_again(node: Any, plane: Any) -> None:
    node.settle()
    plane.rotate(OTHER_KEY)
    plane.offer("d1")
    late = plane.reply(200, {"desired": plane.delivered})
    known = plane.reply(
        200, {"next_heartbeat_s": 1, "desired": plane.desired, "signing_key_etag": node.state.keys().etag}
    )
    plane.rotate(THIRD_KEY, retire=True)
    plane.sign_again()
    plane.fail("GET", "/deployment", late)
    plane.fail("POST", "/heartbeat", known)

    node.settle()

    assert plane.reports == [("d1", "downloading"), ("d1", "activating"), ("d1", "active")]
    assert len(plane.sent("GET", "/deployment")) == 2
    assert len(plane.sent("GET", "/deployment/bundle")) == 1


def test_an_offer_that_is_gone_when_its_signature_is_asked_for_again_is_dropped(node: Any, plane: Any) -> None:
    plane.offer("d1", key=OTHER_KEY)
    plane.fail("GET", "/deployment", plane.reply(200, {"desired": plane.delivered}))
    plane.delivered = None

    node.settle()

    assert plane.reports == [("d1", "downloading")]
    assert node.state.progress().last_failed is None
